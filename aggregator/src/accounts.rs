//! What became of a reporter's reports: arrived, still on their way, or lost. Pure; the store counts and keeps.
//!
//! A proxy's status marks how far each of its reporters came. What a reporter had given out by one mark is looked
//! at when the next one comes: then it has arrived, or is late (its outbox waits for us), or lost: dropped by the
//! reporter's own count, or gone with it when it died.

use kaeru_protocol::ReporterMark;

/// A gap that was never explained counts as lost after this, ms: ten times the filter's longest back-off, twice
/// what it waits when told to.
const LATE_MAX_MS: u64 = 600_000;

/// What is known of one reporter's sequences. Times are by the store's clock, ms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// The last sequence that it had given out, by the last mark.
    pub marked_seq: u64,
    /// When that mark was stated.
    pub marked_ms: Option<u64>,
    /// By the last status it had fallen silent.
    pub marked_gone: bool,
    /// Up to here every sequence has arrived or is known to be lost.
    pub checked_seq: u64,
    /// Until when that is all that it gave out.
    pub checked_ms: u64,
    /// How many it dropped, by its own count.
    pub dropped: u64,
    /// Sequences that never came.
    pub missing: u64,
}

/// What a mark told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Nothing: it is no newer than the last one, or what is missing may be on its way.
    Nothing,
    /// All until `checked_ms` is accounted for, and so much more of it is lost than was known.
    Lost(u64),
}

impl Account {
    /// Takes a mark that was stated at `at_ms`. `came` counts the reports that have arrived of those above
    /// `checked_seq` and up to `marked_seq`.
    pub fn take(&mut self, mark: &ReporterMark, at_ms: u64, came: u64) -> Told {
        if self.marked_ms.is_some_and(|marked_ms| at_ms <= marked_ms) {
            return Told::Nothing;
        }
        let gap = (self.marked_seq - self.checked_seq).saturating_sub(came);
        let missing = self.missing.saturating_add(gap);
        let dropped = mark.dropped.max(self.dropped);
        let is_dead = self.marked_gone && mark.gone;
        let is_old = at_ms.saturating_sub(self.checked_ms) >= LATE_MAX_MS;
        if missing > dropped && !is_dead && !is_old {
            self.marked_gone = mark.gone;
            return Told::Nothing;
        }
        // What it dropped shows as a gap too: the larger number is what was lost.
        let lost = missing.max(dropped) - self.missing.max(self.dropped);
        *self = Self {
            marked_seq: mark.seq.max(self.marked_seq),
            marked_ms: Some(at_ms),
            marked_gone: mark.gone,
            checked_seq: self.marked_seq,
            checked_ms: self.marked_ms.unwrap_or(self.checked_ms),
            dropped,
            missing,
        };
        Told::Lost(lost)
    }

    /// Takes it that so many reports up to `checked_seq` have come after all. The reporter's own count of what it
    /// dropped may have passed for them: it also counts what was dropped since, and what had arrived unacknowledged.
    pub fn came_late(&mut self, count: u64) {
        self.missing = self.missing.saturating_sub(count);
    }
}

#[cfg(test)]
mod tests {
    use kaeru_protocol::{ReporterId, ReporterMark};

    use super::{Account, LATE_MAX_MS, Told};

    fn mark(seq: u64, dropped: u64, gone: bool) -> ReporterMark {
        ReporterMark {
            id: ReporterId(1),
            seq,
            dropped,
            gone,
        }
    }

    /// Ten reports marked at 100.
    fn marked() -> Account {
        let mut account = Account::default();
        assert_eq!(account.take(&mark(10, 0, false), 100, 0), Told::Lost(0));
        account
    }

    #[test]
    fn what_arrived_is_accounted_for_at_the_next_mark() {
        let mut account = marked();
        assert_eq!(account.take(&mark(25, 0, false), 200, 10), Told::Lost(0));
        assert_eq!((account.checked_seq, account.checked_ms), (10, 100));
        let before = account;
        assert_eq!(account.take(&mark(20, 0, false), 150, 0), Told::Nothing);
        assert_eq!(account, before, "an older mark says nothing new");
    }

    #[test]
    fn what_is_late_is_not_lost() {
        let mut account = marked();
        assert_eq!(account.take(&mark(30, 0, false), 200, 7), Told::Nothing);
        assert_eq!(account.checked_ms, 0);
        assert_eq!(account.take(&mark(40, 0, false), 300, 10), Told::Lost(0));
        assert_eq!((account.checked_seq, account.marked_seq), (10, 40));
        // But not for ever.
        let late = 300 + LATE_MAX_MS;
        assert_eq!(account.take(&mark(41, 0, false), late, 20), Told::Lost(10));
    }

    #[test]
    fn what_was_dropped_is_lost_once() {
        let mut account = marked();
        assert_eq!(account.take(&mark(30, 3, false), 200, 7), Told::Lost(3));
        assert_eq!(account.take(&mark(31, 3, false), 300, 20), Told::Lost(0));
        assert_eq!((account.missing, account.dropped), (3, 3));
    }

    #[test]
    fn what_comes_late_though_it_passed_for_dropped_was_not_missing() {
        let mut account = marked();
        // Two of ten are on their way; three of what came since were dropped.
        assert_eq!(account.take(&mark(15, 3, false), 200, 8), Told::Lost(3));
        account.came_late(2);
        assert_eq!(account.take(&mark(15, 3, false), 300, 2), Told::Lost(0));
        assert_eq!((account.checked_seq, account.missing), (15, 3));
    }

    #[test]
    fn what_a_dead_reporter_held_is_lost() {
        let mut account = marked();
        assert_eq!(account.take(&mark(10, 0, true), 200, 8), Told::Nothing);
        // It was only slow.
        assert_eq!(account.take(&mark(11, 0, false), 300, 8), Told::Nothing);
        assert_eq!(account.take(&mark(11, 0, false), 400, 10), Told::Lost(0));
        // Now it is dead.
        assert_eq!(account.take(&mark(12, 0, true), 500, 0), Told::Nothing);
        assert_eq!(account.take(&mark(12, 0, true), 600, 0), Told::Lost(1));
        assert_eq!((account.checked_seq, account.checked_ms), (11, 400));
        assert_eq!(account.take(&mark(12, 0, true), 700, 0), Told::Lost(1));
        assert_eq!((account.checked_seq, account.checked_ms), (12, 600));
    }
}
