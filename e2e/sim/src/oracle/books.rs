//! The books: receipts, commits, revisions, the feed's order.

use std::collections::BTreeSet;

use kaeru_flow::{Effect, Standing};
use kaeru_protocol::{Batch, Peer, Receipt};

use super::Condition;
use crate::database::transaction::Revision;
use crate::database::{Transaction, key};
use crate::world::World;

impl World {
    /// What was acknowledged is in the store.
    pub(crate) fn check_receipt(&mut self, batch: &[u8], receipt: &[u8]) {
        let (Ok(batch), Ok(receipt)) = (
            serde_json::from_slice::<Batch>(batch),
            serde_json::from_slice::<Receipt>(receipt),
        ) else {
            return self
                .oracle
                .fail(Condition::AcknowledgedLost, "a receipt cannot be read");
        };
        let rejected: BTreeSet<u64> = receipt.rejected.iter().filter_map(|r| r.seq).collect();
        for report in &batch.reports {
            let at_ms = batch.sent_ms.saturating_add_signed(report.at);
            let key = key(batch.reporter.id, report.seq, at_ms);
            if !rejected.contains(&report.seq) && !self.database.keys.contains_key(&key) {
                let words = format!("{}/{}", batch.reporter.id, report.seq);
                return self.oracle.fail(Condition::AcknowledgedLost, words);
            }
        }
    }

    /// Before a commit: what it writes is new, and comes after what is there.
    pub(crate) fn check_commit(&mut self, transaction: &Transaction) {
        if let Some(key) = transaction
            .keys
            .iter()
            .find(|key| self.database.keys.contains_key(key))
        {
            let words = format!("{}/{}", key.1, key.2);
            self.oracle.fail(Condition::StoredTwice, words);
        }
        let own: BTreeSet<_> = transaction.keys.iter().collect();
        if own.len() != transaction.keys.len() {
            self.oracle
                .fail(Condition::StoredTwice, "twice in one transaction");
        }
        if !transaction.tellings.is_empty() && transaction.first_seq <= self.database.feed_seq {
            let words = format!("{} after {}", transaction.first_seq, self.database.feed_seq);
            self.oracle.fail(Condition::FeedOutOfOrder, words);
        }
        for revision in &transaction.revisions {
            self.check_revision(revision);
        }
    }

    /// After it: at most one decision of each event is in force, and a new one is justified.
    pub(crate) fn check_committed(&mut self, transaction: &Transaction) {
        for revision in &transaction.revisions {
            let in_force = self
                .database
                .decisions
                .get(&revision.event)
                .map_or(0, |all| {
                    all.iter()
                        .filter(|stored| stored.last().is_in_force())
                        .count()
                });
            if in_force > 1 {
                let words = revision.event.to_string();
                self.oracle.fail(Condition::TwoInForce, words);
            }
            let decision = &revision.decision;
            self.tell(|| format!("{}: {} {decision}", revision.event, revision.id));
            let standing = match &decision.standing {
                Standing::Live => "live",
                Standing::Contested => "contested",
                Standing::Withdrawn(w) if &*w.by == "kaeru" => "withdrawn by kaeru",
                Standing::Withdrawn(_) => "withdrawn by an operator",
            };
            self.tally.count(&format!("standing {standing}"));
            if decision.revision > 1 {
                self.tally.count("revision");
                continue;
            }
            self.tally
                .count(&format!("rule {}", decision.reason.rule()));
            if decision.policy_version != transaction.policy_version {
                let words = format!("{}: version {}", revision.event, decision.policy_version);
                self.oracle.fail(Condition::WrongPolicy, words);
            }
            self.judge_decision(&revision.event, decision, transaction);
        }
        for (id, row) in &transaction.reporters {
            let offset_ms = self
                .truth
                .reporters
                .get(id)
                .map(|(proxy, _)| self.proxies[*proxy].offset_ms);
            let error_ms = offset_ms
                .zip(row.clock_ms)
                .map_or(0, |(offset, clock)| offset + clock);
            if error_ms.unsigned_abs() > 500 {
                self.truth.clocks_wrong.insert(*id);
            }
        }
        if self.story.is_on() {
            for (event, row) in &transaction.looked {
                let wake_ms = row
                    .wake_ms
                    .map(|at_ms| at_ms.cast_signed() - self.begins_ms.cast_signed());
                self.tell(|| {
                    format!(
                        "{event}: looked at, {} in {}, again at {wake_ms:?}",
                        row.state, transaction.id
                    )
                });
            }
        }
        for loss in &transaction.losses {
            let (since_ms, until_ms) = (loss.since_ms, loss.until_ms);
            let begins_ms = self.begins_ms;
            self.tell(|| {
                let from = since_ms.cast_signed() - begins_ms.cast_signed();
                let to = until_ms.cast_signed() - begins_ms.cast_signed();
                format!(
                    "{} of {} lost, {from} to {to}: {}",
                    loss.lost, loss.service, loss.reporter
                )
            });
        }
        if transaction
            .revisions
            .iter()
            .any(|r| !r.decision.plan.is_complete())
        {
            self.tally.count("plan incomplete");
        }
    }

    fn check_revision(&mut self, revision: &Revision) {
        let decision = &revision.decision;
        let event = &revision.event;
        let known = self.database.decisions.get(event);
        let known = known.and_then(|all| all.iter().find(|stored| stored.id == revision.id));
        let Some(before) = known.map(|stored| stored.last().clone()) else {
            if decision.revision != 1 {
                let words = format!("{event}: the first is {}", decision.revision);
                self.oracle.fail(Condition::RevisionSkipped, words);
            }
            return;
        };
        if decision.revision != before.revision + 1 {
            let words = format!("{event}: {} after {}", decision.revision, before.revision);
            self.oracle.fail(Condition::RevisionSkipped, words);
        }
        let effect_of = |peer: &Peer| {
            let mut entries = decision.plan.entries.iter();
            entries
                .find(|entry| entry.service == *peer)
                .map(|entry| entry.effect)
        };
        for entry in &before.plan.entries {
            match effect_of(&entry.service) {
                None => {
                    let words = format!("{event}: {} is gone", entry.service);
                    self.oracle.fail(Condition::EntryLeft, words);
                }
                Some(Effect::No)
                    if entry.effect == Effect::Yes && !self.was_cleaned(event, &entry.service) =>
                {
                    let words = format!("{event}: {} had an effect, now none", entry.service);
                    self.oracle.fail(Condition::EffectForgotten, words);
                }
                Some(_) => {}
            }
        }
        if !before.plan.missing.is_subset(&decision.plan.missing) {
            let words = format!("{event}: what was incomplete is said to be complete");
            self.oracle.fail(Condition::EntryLeft, words);
        }
    }

    fn was_cleaned(&self, event: &kaeru_protocol::EventId, peer: &Peer) -> bool {
        let by_cleanup = self
            .truth
            .cleanups
            .iter()
            .any(|(of, service, _)| of == event && self.peer(*service) == *peer);
        // A word that came first says less than the request that it was about: a policy may call that harmless.
        let named = |one: &crate::truth::Try| {
            self.peer_of(one) == *peer
                && self
                    .database
                    .policies
                    .iter()
                    .all(|policy| self.is_named(one, policy))
        };
        // A policy that changed may call it harmless now.
        by_cleanup || self.database.policies.len() > 1 || !self.tries(event).any(named)
    }

    /// Whether something of the event was reported by a VM whose clock was set right by something wrong for a while.
    pub(crate) fn has_wrong_clock(&self, event: &kaeru_protocol::EventId) -> bool {
        let facts = self.database.facts.get(event).into_iter().flatten();
        let mut by = facts.map(|fact| fact.key.reporter);
        by.any(|id| self.truth.clocks_wrong.contains(&id))
    }

    /// A service by its name on the wire.
    pub(crate) fn peer(&self, service: usize) -> Peer {
        self.shape.services[service].name.clone().into()
    }
}
