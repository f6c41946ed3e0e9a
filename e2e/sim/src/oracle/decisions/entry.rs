//! The entry: whether it truly failed with no more attempts in time, and whether its id is one event's.

use kaeru_flow::{Policy, set_right};
use kaeru_protocol::{EventId, Outcome};

use super::Ruling;
use crate::oracle::Condition;
use crate::truth::Try;
use crate::world::World;

impl World {
    /// Whether two attempts at its entry were seen by clocks that differ by less than is set right.
    pub(crate) fn has_near_clocks(&self, event: &EventId) -> bool {
        let offsets: std::collections::BTreeSet<i64> = self
            .entries(event)
            .iter()
            .filter_map(|one| Some(self.proxies[one.proxy?].offset_ms))
            .collect();
        offsets.len() > 1 && self.shape.apart_ms > 0
    }

    pub(crate) fn entry_failed(
        &mut self,
        event: &EventId,
        outcome: Outcome,
        policy: &Policy,
    ) -> Ruling {
        let entries = self.entries(event);
        let Some(first) = entries.first() else {
            if self.left_unseen(event) {
                self.tally
                    .count("excused: a call past a dead filter looks like an entry");
                return Ok(());
            }
            return Err((Condition::NoEntry, "it has no entry".into()));
        };
        let entry = self.peer_of(first);
        let wait_ms = policy
            .for_event(self.true_type(event).as_ref(), Some(&entry))
            .entry_retry_wait_ms();
        let mut ruling = self.attempts_failed(&entries, wait_ms, outcome, policy);
        if matches!(ruling, Err((Condition::EntryNotFailed, _))) {
            // An attempt that began in time only after one that could not be heard of.
            let could_be_heard =
                |one: &&Try| self.is_heard(one) || !self.is_excused(one, one.began_ms);
            let known: Vec<&Try> = entries.iter().copied().filter(could_be_heard).collect();
            if !known.is_empty()
                && self
                    .attempts_failed(&known, wait_ms, outcome, policy)
                    .is_ok()
            {
                ruling = Ok(true);
            }
        }
        if matches!(ruling, Ok(true)) {
            self.tally
                .count("excused: an attempt of the entry could not be heard");
        }
        ruling.map(|_| ())
    }

    /// Whether attempts at the entry, in the order of their beginning, failed with no more in time; says whether one that
    /// did not is excused.
    fn attempts_failed(
        &self,
        attempts: &[&Try],
        wait_ms: u64,
        outcome: Outcome,
        policy: &Policy,
    ) -> Result<bool, (Condition, String)> {
        // By the aggregator's clock the time may be off by as much as two of them are apart.
        let slack_ms = 2 * self.shape.aggregators_apart_ms;
        // Attempts that follow each other in time are one chain; any chain that failed to its end is reason enough.
        let mut chains: Vec<Vec<&Try>> = Vec::new();
        for one in attempts {
            let in_time = |last: &Try| {
                let until_ms = |ended_ms: u64| ended_ms + wait_ms.saturating_sub(slack_ms);
                last.ended
                    .is_none_or(|(ended_ms, _)| one.began_ms <= until_ms(ended_ms))
            };
            match chains.last_mut() {
                Some(chain) if chain.last().is_some_and(|last| in_time(last)) => chain.push(one),
                _ => chains.push(vec![one]),
            }
        }
        let mut ruling = Ok(false);
        for chain in chains {
            ruling = self.chain_failed(&chain, outcome, policy);
            if matches!(ruling, Ok(_) | Err((Condition::EntryNotFailed, _))) {
                break;
            }
        }
        ruling
    }

    /// Whether attempts at the entry ended in failure with no more in time; says whether one that did not is excused.
    fn chain_failed(
        &self,
        chain: &[&Try],
        outcome: Outcome,
        policy: &Policy,
    ) -> Result<bool, (Condition, String)> {
        let mut excused = false;
        for one in chain {
            let ended = self.outcome(one, policy);
            if matches!(ended, Outcome::Succeeded | Outcome::Running) {
                if !self.is_excused(one, one.began_ms) {
                    let began_ms = one.began_ms - self.begins_ms;
                    let words = format!("an attempt of its entry {ended:?} (begun at {began_ms})");
                    return Err((Condition::EntryNotFailed, words));
                }
                excused = true;
            }
        }
        let last = chain.last();
        let ending = last.and_then(|last| last.ended).map(|(_, ending)| ending);
        excused |=
            last.is_some_and(|last| !self.is_stored(last) && self.is_excused(last, last.began_ms));
        if !excused && ending.is_some_and(|e| e.client_gone()) && outcome != Outcome::Rejected {
            return Err((Condition::ClientWentAway, "its client went away".into()));
        }
        Ok(excused)
    }

    /// A time as Kaeru sees it: each VM's clock is set right by what is known of it alone, and only where it is a second
    /// or more off.
    fn seen_ms(&self, one: &Try, at_ms: u64) -> u64 {
        let offset_ms = one.proxy.map_or(0, |proxy| self.proxies[proxy].offset_ms);
        let row = one.reporter.and_then(|id| self.database.reporters.get(&id));
        row.and_then(|row| row.clock_ms).map_or(at_ms, |clock_ms| {
            set_right(at_ms.saturating_add_signed(offset_ms), clock_ms)
        })
    }

    /// Whether the id is borrowed and several orders were made under it that are no retries; and by `heard_by_ms` the
    /// store could know, because the ends of two such were stored.
    pub(crate) fn is_shared(&self, event: &EventId, heard_by_ms: Option<u64>) -> bool {
        let mut orders = self
            .clients
            .iter()
            .enumerate()
            .filter(|(_, client)| client.event == *event);
        let Some((first, _)) = orders.next() else {
            return false;
        };
        if self.shape.orders[first].id == crate::shape::Id::Chosen {
            return false;
        }
        let entries = self.entries(event);
        let is_there = |one: &Try| heard_by_ms.is_none_or(|at_ms| self.is_stored_by(one, at_ms));
        let policy = self.database.policy();
        entries.iter().enumerate().any(|(place, one)| {
            entries[place + 1..].iter().any(|later| {
                if one.is_safe()
                    || later.is_safe()
                    || one.order == later.order
                    || !is_there(one)
                    || !is_there(later)
                {
                    return false;
                }
                // A success by word is there once the word is.
                let succeeded = [None, heard_by_ms]
                    .into_iter()
                    .all(|by_ms| self.outcome_by(one, &policy, by_ms) == Outcome::Succeeded);
                let (began_ms, ended_ms) = (
                    self.seen_ms(one, one.began_ms),
                    one.ended.map(|(at_ms, _)| self.seen_ms(one, at_ms)),
                );
                let (later_began_ms, later_ended_ms) = (
                    self.seen_ms(later, later.began_ms),
                    later.ended.map(|(at_ms, _)| self.seen_ms(later, at_ms)),
                );
                let truly = one
                    .ended
                    .is_none_or(|(ended_ms, _)| ended_ms > later.began_ms + 20);
                let overlaps = truly
                    && ended_ms.is_none_or(|ended| ended > later_began_ms + 20)
                    && later_ended_ms.is_none_or(|ended| ended > began_ms + 20);
                succeeded || overlaps
            })
        })
    }
}
