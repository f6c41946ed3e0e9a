//! What every handler and worker can reach.

use std::sync::Arc;

use crate::config::Serve;
use crate::metrics::Metrics;
use crate::store::Store;

/// The parts of a running aggregator; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct App {
    /// The settings it was started with.
    pub(crate) config: Arc<Serve>,
    /// The database.
    pub(crate) store: Store,
    /// What it counts.
    pub(crate) metrics: Arc<Metrics>,
}
