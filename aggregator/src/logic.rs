//! What neither waits nor talks to Postgres, for the simulation (`e2e/sim`): it runs these parts over a store in memory.
//! Nobody else uses them from outside.

pub use crate::accounts::{Account, Told as Accounted};
pub use crate::feed::live::Live;
pub use crate::feed::telling::Occasion;
pub use crate::ingest::Batch;
pub use crate::ingest::batch::read as read_batch;
pub use crate::ingest::commit::is_urgent;
pub use crate::pulse::{BEAT_MS, Pulse};
pub use crate::store::aggregators::{Alive, quiet, unheard};
pub use crate::store::feed::{Head, Told};
pub use crate::store::intake::gather;
pub use crate::store::reporters::Sender;
pub use crate::withdrawal::withdrawn;
