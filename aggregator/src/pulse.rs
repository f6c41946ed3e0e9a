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
    last_away_ms: AtomicU64,
    refused: AtomicBool,
}

/// A beat under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Since when reports had to be refused, ms.
    pub refused_since_ms: Option<u64>,
}

impl Pulse {
    /// Of an aggregator that has not been heard yet.
    pub fn new(id: u64) -> Self {
        Self {
            id: id.cast_signed(),
            last_beat_ms: AtomicU64::new(0),
            last_away_ms: AtomicU64::new(0),
            refused: AtomicBool::new(false),
        }
    }

    /// Reports had to be refused: until the next beat is a time in which they could not be taken.
    pub fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Reports had to be refused because the store did not take them.
    pub fn store_away(&self, now_ms: u64) {
        self.last_away_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Whether the store knows of every time until now in which reports could not be taken.
    pub fn is_fresh(&self, now_ms: u64) -> bool {
        self.is_beating(now_ms) && !self.refused.load(Ordering::Relaxed)
    }

    /// Whether reports can be taken: the store commits what we say (a full disk answers reads all the same), and took
    /// the last reports.
    pub fn is_able(&self, now_ms: u64) -> bool {
        self.is_beating(now_ms) && !is_recent(self.last_away_ms.load(Ordering::Relaxed), now_ms)
    }

    fn is_beating(&self, now_ms: u64) -> bool {
        is_recent(self.last_beat_ms.load(Ordering::Acquire), now_ms)
    }

    /// A beat begins: since when reports had to be refused, if they had, ms.
    pub fn begin_beat(&self) -> Beat {
        let refused = self.refused.swap(false, Ordering::Relaxed);
        let last_ms = self.last_beat_ms.load(Ordering::Acquire);
        Beat {
            refused_since_ms: (refused && last_ms > 0).then_some(last_ms),
        }
    }

    /// The beat that began is committed, or it is not.
    pub fn end_beat(&self, now_ms: u64, is_committed: bool) {
        if is_committed {
            self.last_beat_ms.store(now_ms, Ordering::Release);
        } else {
            // A store that takes no beat takes no reports either.
            self.refuse();
        }
    }

    /// Says that this aggregator is alive, and since when it or others were not.
    pub(crate) async fn beat(&self, store: &Store, now_ms: u64) -> Result<()> {
        let beat = self.begin_beat();
        let refused_since = beat.refused_since_ms.map(timestamp);
        let outcome = self.write(store, now_ms, refused_since).await;
        self.end_beat(now_ms, outcome.is_ok());
        outcome
    }

    /// Says goodbye.
    pub(crate) async fn leave(&self, store: &Store, now_ms: u64) -> Result<()> {
        let mut connection = store.own().acquire().await?;
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

/// Whether that was a moment ago. A time in the future is not: the store's clock was set back since.
fn is_recent(ms: u64, now_ms: u64) -> bool {
    now_ms.abs_diff(ms) < aggregators::SILENCE_MS
}

#[cfg(test)]
mod tests {
    use super::Pulse;

    #[test]
    fn nothing_is_decided_until_our_own_outage_is_written_down() {
        let pulse = Pulse::new(1);
        assert!(!pulse.is_fresh(10_000), "it has not begun");
        assert_eq!(pulse.begin_beat().refused_since_ms, None);
        pulse.end_beat(10_000, true);
        assert!(pulse.is_fresh(11_000) && !pulse.is_fresh(12_000));
        // A batch was refused.
        pulse.refuse();
        assert!(!pulse.is_fresh(10_100));
        assert_eq!(pulse.begin_beat().refused_since_ms, Some(10_000));
        // The store takes no beat, so it took no reports either.
        pulse.end_beat(11_000, false);
        assert!(!pulse.is_fresh(11_001));
        assert_eq!(pulse.begin_beat().refused_since_ms, Some(10_000));
        pulse.end_beat(11_500, true);
        assert!(pulse.is_fresh(11_501));
    }

    #[test]
    fn a_beat_in_the_future_is_no_fresh_one() {
        let pulse = Pulse::new(1);
        pulse.end_beat(3_600_000, true);
        assert!(!pulse.is_fresh(10_000), "the store's clock was set back");
    }

    #[test]
    fn who_could_not_store_reports_a_moment_ago_is_not_able_to() {
        let pulse = Pulse::new(1);
        pulse.end_beat(10_000, true);
        pulse.refuse();
        assert!(pulse.is_able(10_500), "overload is no reason to go away");
        pulse.store_away(10_500);
        pulse.end_beat(11_000, true);
        assert!(!pulse.is_able(11_500));
        pulse.end_beat(13_000, true);
        assert!(pulse.is_able(13_500));
    }
}
