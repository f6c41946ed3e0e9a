//! The verdicts that are in force, by sequence and by event.

use std::collections::{BTreeMap, HashMap};

use kaeru_protocol::{FeedCursor, VerdictEntry, VerdictPage, limits};

use crate::clock::millis;
use crate::store::feed::{Head, Told};

/// Verdicts kept: what a proxy's cache holds too. 100,000 x 400 bytes = 40 MB.
pub(super) const VERDICTS_MAX: usize = 100_000;

/// The feed as far as it was read.
#[derive(Debug, Default)]
pub struct Live {
    epoch: Box<str>,
    seq: i64,
    by_seq: BTreeMap<i64, Told>,
    seq_of: HashMap<String, i64>,
}

impl Live {
    /// How many verdicts it holds.
    pub fn len(&self) -> usize {
        self.by_seq.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.by_seq.is_empty()
    }

    /// How far it was read, and of which history.
    pub(super) fn head(&self) -> Head {
        Head {
            epoch: self.epoch.to_string(),
            seq: self.seq,
        }
    }

    /// How far this history was read; `None` if it is not the one that `head` belongs to.
    pub fn position_in(&self, head: &Head) -> Option<i64> {
        (*self.epoch == *head.epoch && self.seq <= head.seq).then_some(self.seq)
    }

    /// Whether the cursor is of a history that we do not know, or further than we have read.
    pub(super) fn is_behind(&self, cursor: &FeedCursor) -> bool {
        cursor.epoch != self.epoch || i64::try_from(cursor.seq).is_ok_and(|seq| seq > self.seq)
    }

    /// Takes in what was told up to `head`; says how many verdicts had to leave early.
    pub fn take(&mut self, head: &Head, is_new_history: bool, told: Vec<Told>) -> u64 {
        if is_new_history {
            self.by_seq.clear();
            self.seq_of.clear();
        }
        self.epoch = head.epoch.as_str().into();
        self.seq = head.seq;
        for row in told {
            if let Some(earlier) = self.seq_of.insert(row.event.clone(), row.seq) {
                self.by_seq.remove(&earlier);
            }
            self.by_seq.insert(row.seq, row);
        }
        let mut evicted = 0;
        while self.by_seq.len() > VERDICTS_MAX {
            if let Some((_, oldest)) = self.by_seq.pop_first() {
                self.seq_of.remove(&oldest.event);
                evicted += 1;
            }
        }
        evicted
    }

    /// Takes in what came last up to `head`, where that is all that is missing; says how many verdicts had to leave early, or
    /// `None` where others told something before, which must be read first.
    pub fn take_next(&mut self, head: &Head, told: Vec<Told>) -> Option<u64> {
        let count = i64::try_from(told.len()).ok()?;
        let is_next = *self.epoch == *head.epoch && self.seq + count == head.seq;
        is_next.then(|| self.take(head, false, told))
    }

    /// Drops verdicts that ran out.
    pub fn expire(&mut self, now_ms: u64) {
        self.by_seq.retain(|_, told| {
            let keep = millis(told.expires_at) > now_ms;
            if !keep {
                self.seq_of.remove(&told.event);
            }
            keep
        });
    }

    /// What was told after `cursor`; everything, where the cursor is of another history or there is none.
    /// `None` while nothing was read.
    pub fn page(&self, cursor: Option<&FeedCursor>, now_ms: u64) -> Option<VerdictPage> {
        if self.epoch.is_empty() {
            return None;
        }
        let known = cursor
            .filter(|cursor| cursor.epoch == self.epoch)
            .and_then(|cursor| i64::try_from(cursor.seq).ok())
            .filter(|seq| *seq <= self.seq);
        let mut verdicts = Vec::new();
        let mut end = self.seq;
        let mut more = false;
        for (seq, told) in self.by_seq.range(known.unwrap_or(0).saturating_add(1)..) {
            if verdicts.len() == limits::PAGE_VERDICTS_MAX {
                more = true;
                break;
            }
            if let Some(entry) = entry(told, now_ms) {
                verdicts.push(entry);
                end = *seq;
            }
        }
        Some(VerdictPage {
            cursor: FeedCursor {
                epoch: self.epoch.clone(),
                seq: if more { end } else { self.seq }.cast_unsigned(),
            },
            reset: known.is_none(),
            more,
            verdicts,
        })
    }
}

/// The verdict with the time that it has left; `None` when that is over.
fn entry(told: &Told, now_ms: u64) -> Option<VerdictEntry> {
    let ttl_ms = millis(told.expires_at)
        .checked_sub(now_ms)
        .filter(|ttl| *ttl > 0)?;
    Some(VerdictEntry {
        event: told.event.parse().ok()?,
        verdict: told.verdict(),
        decision: told.decision.parse().ok()?,
        failed: told.failed.as_ref().and_then(|peer| peer.parse().ok()),
        mode: told.mode(),
        ttl_ms,
    })
}
