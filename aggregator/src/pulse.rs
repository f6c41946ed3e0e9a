//! Whether this aggregator is able to take reports. What was not heard in a time in which it could not is no
//! evidence, so nothing is decided until that time is written down.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::clock::timestamp;
use crate::store::{Result, Store, aggregators};

/// How often an aggregator says that it is alive, ms.
pub const BEAT_MS: u64 = 1_000;

/// The pulse of this aggregator.
#[derive(Debug)]
pub struct Pulse {
    /// Random, one a process.
    id: i64,
    last_beat_ms: AtomicU64,
    refused: AtomicBool,
}

/// A beat under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    refused: bool,
    /// Since when reports had to be refused, ms.
    pub refused_since_ms: Option<u64>,
}

impl Pulse {
    /// Of an aggregator that has not been heard yet.
    pub fn new(id: u64) -> Self {
        Self {
            id: id.cast_signed(),
            last_beat_ms: AtomicU64::new(0),
            refused: AtomicBool::new(false),
        }
    }

    /// Reports had to be refused: until the next beat is a time in which they could not be taken.
    pub fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Whether the store knows of every time until now in which reports could not be taken.
    pub fn is_fresh(&self, now_ms: u64) -> bool {
        let age_ms = now_ms.saturating_sub(self.last_beat_ms.load(Ordering::Acquire));
        age_ms < aggregators::SILENCE_MS
    }

    /// A beat begins: since when reports had to be refused, if they had, ms.
    pub fn begin_beat(&self) -> Beat {
        let refused = self.refused.swap(false, Ordering::Relaxed);
        let last_ms = self.last_beat_ms.load(Ordering::Acquire);
        Beat {
            refused,
            refused_since_ms: (refused && last_ms > 0).then_some(last_ms),
        }
    }

    /// The beat that began is committed, or it is not.
    pub fn end_beat(&self, beat: Beat, now_ms: u64, is_committed: bool) {
        if is_committed {
            self.last_beat_ms.store(now_ms, Ordering::Release);
        } else if beat.refused {
            self.refuse();
        }
    }

    /// Says that this aggregator is alive, and since when it or others were not.
    pub(crate) async fn beat(&self, store: &Store, now_ms: u64) -> Result<()> {
        let beat = self.begin_beat();
        let refused_since = beat.refused_since_ms.map(timestamp);
        let outcome = self.write(store, now_ms, refused_since).await;
        self.end_beat(beat, now_ms, outcome.is_ok());
        outcome
    }

    /// Says goodbye.
    pub(crate) async fn leave(&self, store: &Store, now_ms: u64) -> Result<()> {
        let mut connection = store.pool().acquire().await?;
        aggregators::leave(&mut connection, self.id, timestamp(now_ms)).await
    }

    async fn write(
        &self,
        store: &Store,
        now_ms: u64,
        refused_since: Option<chrono::DateTime<chrono::Utc>>,
    ) -> Result<()> {
        let mut transaction = store.begin().await?;
        aggregators::beat(&mut transaction, self.id, timestamp(now_ms), refused_since).await?;
        transaction.commit().await?;
        Ok(())
    }
}
