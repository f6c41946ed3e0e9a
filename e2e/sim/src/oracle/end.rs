//! The end, when everything is delivered that is not lost for ever: what must be, is.

use std::collections::BTreeMap;

use kaeru_flow::{Contested, EventState, Now, Rule, Standing, Trace, judge};
use kaeru_protocol::{EventId, Mode, Outcome, Verdict, Word};

use super::Condition;
use crate::truth::{Try, What};
use crate::world::World;

impl World {
    pub(crate) fn judge_the_end(&mut self) {
        self.settle_accounts();
        if !self.oracle.is_content() {
            return;
        }
        let events: Vec<EventId> = self.database.facts.keys().cloned().collect();
        for event in &events {
            self.judge_fold(event);
            self.judge_rest(event);
            self.judge_doom(event);
            let last = self
                .database
                .last_decision(event)
                .map(|stored| stored.last().clone());
            if let Some(decision) = last.filter(kaeru_flow::Decision::is_in_force) {
                self.judge_plan(event, &decision);
                self.judge_order(event, &decision);
                self.judge_contest(event, &decision);
                if !self.has_wrong_clock(event)
                    && !self.has_near_clocks(event)
                    && self.is_shared(event, Some(self.now_ms))
                    && self
                        .tries(event)
                        .all(|one| self.is_stored(one) || one.service.is_none())
                {
                    self.oracle.fail(
                        Condition::SharedKept,
                        format!("{event} is shared and doomed"),
                    );
                }
            }
            if !self.oracle.is_content() {
                return;
            }
        }
        self.judge_caches(&events);
    }

    /// What was given out is stored, dropped by own count, kept, or lost with a dead VM; and what was lost is counted.
    fn settle_accounts(&mut self) {
        let mut living = BTreeMap::new();
        for proxy in &self.proxies {
            living.extend(proxy.seen().into_iter().map(|seen| (seen.id, seen)));
        }
        let ids: Vec<_> = self.truth.reporters.keys().copied().collect();
        for id in ids {
            let row = self.database.reporters.get(&id);
            let stored = row.map_or(0, |row| row.seqs.len() as u64);
            let counted = row.map_or(0, |row| row.account.missing.max(row.account.dropped));
            self.tally.add("reports stored", stored);
            // What was stored though its answer was lost may be dropped too: own counts may be higher, never lower.
            if let Some(seen) = living.get(&id) {
                self.tally.add("reports dropped by own count", seen.dropped);
                let gone = seen.seq.saturating_sub(stored + seen.kept as u64);
                if stored > seen.seq || gone > seen.dropped {
                    let words = format!(
                        "{id}: {} given out, {stored} stored, {} dropped, {} kept",
                        seen.seq, seen.dropped, seen.kept
                    );
                    return self.oracle.fail(Condition::Unaccounted, words);
                }
                // Nobody may wait for what will never come: all that is missing was dropped, once nothing is kept.
                let missing = row.map_or(0, |row| {
                    let account = row.account;
                    account.missing + (account.marked_seq - account.checked_seq) - row.came()
                });
                if seen.kept == 0 && missing > seen.dropped {
                    let words = format!("{id}: {missing} missing, {} dropped", seen.dropped);
                    return self.oracle.fail(Condition::LossOvercounted, words);
                }
                // The last of it is counted two statuses later.
                if counted == 0
                    && gone > 0
                    && !self.database.losses.iter().any(|loss| loss.reporter == id)
                {
                    let words = format!("{id}: {gone} lost, {counted} counted");
                    return self.oracle.fail(Condition::LossNotCounted, words);
                }
            } else if let Some(dead) = self.truth.dead.get(&id).copied() {
                if stored > dead.seq {
                    let words = format!("{id}: {stored} stored, {} given out", dead.seq);
                    return self.oracle.fail(Condition::Unaccounted, words);
                }
                let lost = dead.seq - stored;
                self.tally.add("reports lost with a dead VM", lost);
                let is_known = self.database.losses.iter().any(|loss| loss.reporter == id);
                if lost > counted && !is_known {
                    // Of a VM that no report of was stored, and whose proxy died too, nobody can know.
                    if row.is_none() {
                        self.tally.count("lost: a VM that was never heard of");
                    } else {
                        let words = format!("{id}: {lost} lost, {counted} counted");
                        return self.oracle.fail(Condition::LossNotCounted, words);
                    }
                }
            }
        }
        // What is stored is what was said.
        for facts in self.database.facts.values() {
            for fact in facts {
                let said = self.oracle.reports.get(&(fact.key.reporter, fact.key.seq));
                let same = said.is_none_or(|report| match &report.body {
                    kaeru_protocol::Body::Event(event) => {
                        **event == fact.report && report.at_ms == fact.at_ms
                    }
                    kaeru_protocol::Body::Proxy(_) => false,
                });
                if !same {
                    let words = format!("{}", fact.key);
                    return self.oracle.fail(Condition::ReportChanged, words);
                }
            }
        }
    }

    /// The same facts in another order, some of them twice, are the same trace.
    fn judge_fold(&mut self, event: &EventId) {
        let policy = self.database.policy();
        let facts = self.database.facts_of(event);
        let one = Trace::fold(event.clone(), facts.clone(), &policy);
        let mut other = facts;
        let twice = self.chance.below(other.len());
        other.push(other[twice].clone());
        self.chance.shuffle(&mut other);
        let two = Trace::fold(event.clone(), other, &policy);
        if one != two {
            self.oracle.fail(Condition::OrderMatters, event.to_string());
        }
    }

    /// Looking once more changes nothing, and what has nothing open has settled.
    fn judge_rest(&mut self, event: &EventId) {
        let policy = self.database.policy();
        let trace = Trace::fold(event.clone(), self.database.facts_of(event), &policy);
        let before = self
            .database
            .last_decision(event)
            .map(|stored| stored.last().clone());
        let now_ms = self.now_ms;
        let outages = self.database.outages();
        let losses = self
            .database
            .losses_since(trace.may_have_begun_ms(), now_ms, &[]);
        let heard: BTreeMap<_, _> = trace
            .open_reporters()
            .into_iter()
            .filter_map(|id| Some((id, self.database.heard(id)?)))
            .collect();
        // A flow that learned more since names more services that may be missing: that alone is no news.
        let now = Now {
            at_ms: now_ms,
            heard: &heard,
            outages: &outages,
            losses: &losses,
        };
        let judgement = judge(&trace, before.as_ref(), None, &policy, &now);
        let state = self.database.events.get(event).map(|row| row.state);
        if let Some(state) = state {
            self.tally.count(&format!("state {state}"));
        }
        let policy_changed = self.database.policies.len() > 1;
        if policy_changed || self.has_wrong_clock(event) {
            return;
        }
        if self.age_ms() > crate::world::QUIET_MAX_MS {
            return;
        }
        if let Some(decision) = judgement.decision {
            let condition = if before.is_some_and(|b| b.is_in_force()) {
                Condition::PlanIsStale
            } else {
                Condition::UndecidedAtRest
            };
            return self.oracle.fail(condition, format!("{event}: {decision}"));
        }
        let undecided = before.is_none_or(|b| !b.is_in_force());
        if undecided && !trace.is_open() && state == Some(EventState::Running) {
            self.oracle
                .fail(Condition::NeverSettles, format!("{event}: {judgement:?}"));
        }
    }

    /// An event that a rule dooms by all that was truly done and was heard has (or had) a decision.
    fn judge_doom(&mut self, event: &EventId) {
        let has_decision = self.database.decisions.contains_key(event);
        let is_shared = self.is_shared(event, None)
            || self
                .database
                .events
                .get(event)
                .is_some_and(|row| row.shared);
        let all_heard = self
            .truth
            .tries
            .iter()
            .filter(|one| one.event == *event)
            .all(|one| one.service.is_none() || self.is_stored(one));
        if has_decision || is_shared {
            return;
        }
        let state = self.database.events.get(event).map(|row| row.state);
        if state == Some(EventState::Succeeded) {
            self.tally.count("spared: succeeded");
        }
        if !all_heard || !self.has_something_to_undo(event) {
            return;
        }
        if self.has_wrong_clock(event) || self.left_unseen(event) {
            return;
        }
        if let Some((rule, words)) = self.dooming(event) {
            self.oracle
                .fail(Condition::NotDoomed, format!("{event}: by {rule}: {words}"));
        }
    }

    fn has_something_to_undo(&self, event: &EventId) -> bool {
        let cleaned = self.truth.cleanups.iter().any(|(of, ..)| of == event);
        !cleaned
            && self.tries(event).any(|one| {
                one.service.is_some()
                    && self
                        .database
                        .policies
                        .iter()
                        .all(|policy| self.is_named(one, policy))
            })
    }

    /// A rule that dooms the event under every policy that there was.
    fn dooming(&self, event: &EventId) -> Option<(Rule, String)> {
        let event_type = self.true_type(event);
        let policies = &self.database.policies;
        let is_on = |rule: Rule| {
            policies
                .iter()
                .all(|p| p.for_event(event_type.as_ref(), None).is_on(rule))
        };
        if is_on(Rule::Operator) && self.truth.demands.iter().any(|d| d.event == *event) {
            let stored = self.database.facts[event]
                .iter()
                .any(|f| f.report.kind == kaeru_protocol::Kind::Operator);
            if stored {
                return Some((Rule::Operator, "it was demanded".into()));
            }
        }
        if is_on(Rule::Word) {
            for service in 0..self.shape.services.len() {
                let peer = self.peer(service);
                let takes_part = self
                    .tries(event)
                    .any(|one| one.service == Some(service) || one.from == Some(service));
                let concerns = policies
                    .iter()
                    .all(|p| self.concerns(event, &peer, p, u64::MAX).is_ok());
                let words = self.words_of(event, service);
                let only_in_answers = !self
                    .truth
                    .words
                    .iter()
                    .any(|s| s.event == *event && s.service == service);
                let failed =
                    !words.is_empty() && words.iter().all(|(_, word)| *word == Word::Failed);
                if takes_part && concerns && failed && only_in_answers {
                    return Some((Rule::Word, format!("{peer} said `failed`")));
                }
            }
        }
        if is_on(Rule::Entry) {
            let entries = self.entries(event);
            let bad = |one: &&Try| {
                policies
                    .iter()
                    .all(|p| matches!(self.outcome(one, p), Outcome::Failed | Outcome::Unknown))
            };
            let client_gone =
                |one: &&Try| one.ended.is_some_and(|(_, ending)| ending.client_gone());
            let by_word = |one: &&Try| one.ended.is_some_and(|(_, ending)| ending.word.is_some());
            let refused =
                self.truth.tries.iter().any(|one| {
                    one.event == *event && one.from.is_none() && one.kind == What::Refused
                });
            if !entries.is_empty()
                && entries.iter().all(bad)
                && !entries.iter().any(client_gone)
                && !entries.iter().any(by_word)
                && !entries.iter().any(|one| one.is_safe())
                && !refused
            {
                return Some((Rule::Entry, "its entry failed".into()));
            }
        }
        None
    }

    /// An entry that succeeded after the decision contests it.
    fn judge_contest(&mut self, event: &EventId, decision: &kaeru_flow::Decision) {
        let policy = self.database.policy();
        let slack_ms = 2 * self.shape.aggregators_apart_ms + 100;
        let succeeded = self.entries(event).iter().any(|one| {
            self.is_stored(one)
                && self.outcome(one, &policy) == Outcome::Succeeded
                && one
                    .ended
                    .is_some_and(|(at_ms, _)| at_ms > decision.decided_ms + slack_ms)
        });
        let mode = policy
            .for_event(self.true_type(event).as_ref(), None)
            .contested();
        let changed = self.database.policies.len() > 1;
        if succeeded && !changed && mode == Contested::Wait && decision.standing == Standing::Live {
            if self.left_unseen(event) {
                return self
                    .tally
                    .count("excused: a call past a dead filter looks like an entry");
            }
            self.oracle.fail(
                Condition::NotContested,
                format!("{event}: its entry succeeded"),
            );
        }
    }

    /// Every proxy knows what the feed says, and no more.
    fn judge_caches(&mut self, events: &[EventId]) {
        for proxy in 0..self.proxies.len() {
            if !self.proxies[proxy].is_up || self.proxies[proxy].ceiling == Mode::Off {
                continue;
            }
            for event in events {
                let path = format!("/v1/events/{event}/verdict");
                let Some((_, said)) = self.ask_sidecar(proxy, "GET", &path) else {
                    continue;
                };
                // Of two ids of one event the first is meant.
                if !said.body.contains(&format!("\"event\":\"{event}\"")) {
                    continue;
                }
                let row = self.database.feed.get(event);
                // Where the end of its time is near, by which clock is open.
                let near = row.is_some_and(|row| row.expires_ms.abs_diff(self.now_ms) < 1_500);
                let in_feed = row.is_some_and(|row| {
                    row.entry.verdict == Verdict::RollBack && row.expires_ms > self.now_ms
                });
                let in_cache = said.body.contains("\"roll_back\"");
                if in_feed != in_cache && !near {
                    let name = &self.proxies[proxy].name;
                    let words = format!("{event}: {name} says {}, the feed {row:?}", said.body);
                    return self.oracle.fail(Condition::NotConverged, words);
                }
            }
        }
        self.tally.count("schedule at its end");
    }
}
