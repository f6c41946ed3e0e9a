//! Plans against the truth: every effect that the rules name is in the plan or among the incomplete, and no bystander is.

use kaeru_flow::{Decision, Effect, Policy};
use kaeru_protocol::{EventId, Outcome, Peer, Word};

use super::Condition;
use crate::truth::{Try, What};
use crate::world::World;

impl World {
    /// Whether the rules call a try's effect something to undo: an unsafe request, not called harmless, that was not
    /// rejected. A rejection that passes something on from below is left to Kaeru.
    pub(crate) fn is_named(&self, one: &Try, policy: &Policy) -> bool {
        let peer = self.peer_of(one);
        let event_type = self.true_type(&one.event);
        let rules = policy.for_step(event_type.as_ref(), &peer);
        let harmless = one.is_safe()
            || rules.is_read_only(one.method, &one.path)
            || rules.has_nothing_to_undo();
        let gateway = one
            .service
            .is_none_or(|s| self.shape.services[s].is_gateway);
        !harmless
            && !gateway
            && match self.outcome(one, policy) {
                Outcome::Rejected | Outcome::Refused => false,
                // Answered, and the work went on: the last word counts.
                Outcome::Running => self.last_word(one) != Some(Word::Rejected),
                Outcome::Succeeded | Outcome::Unknown | Outcome::Failed => true,
            }
    }

    fn last_word(&self, one: &Try) -> Option<Word> {
        let words = self.words_of(&one.event, one.service?);
        words.last().map(|(_, word)| *word)
    }

    /// What was truly left behind by a service and is named by the rules under every policy that there was.
    pub(crate) fn left_behind(&self, event: &EventId, service: usize) -> bool {
        let left = self
            .truth
            .written
            .get(&(event.clone(), service))
            .is_some_and(|count| *count > 0);
        left && self.named_tries(event, service).next().is_some()
    }

    /// What a service was asked to do that is named by the rules under every policy that there was.
    fn named_tries<'a>(
        &'a self,
        event: &'a EventId,
        service: usize,
    ) -> impl Iterator<Item = &'a Try> {
        self.tries(event).filter(move |one| {
            let mut policies = self.database.policies.iter();
            one.service == Some(service) && policies.all(|policy| self.is_named(one, policy))
        })
    }

    /// The last revision of a decision in force, against the truth.
    pub(crate) fn judge_plan(&mut self, event: &EventId, decision: &Decision) {
        for service in 0..self.shape.services.len() {
            if !self.left_behind(event, service) {
                continue;
            }
            let peer = self.peer(service);
            let mut entries = decision.plan.entries.iter();
            let planned = entries.any(|entry| entry.service == peer && entry.effect != Effect::No);
            if planned || decision.plan.missing.contains(&peer) {
                self.tally.count("effect found in the plan");
                continue;
            }
            if let Some(excuse) = self.excuse(event, service) {
                self.tally.count(excuse);
            } else {
                let words = format!("{event}: {peer} left something behind");
                self.oracle.fail(Condition::EffectMissing, words);
            }
        }
        for entry in &decision.plan.entries {
            if entry.effect != Effect::No && !self.took_part(event, &entry.service) {
                let words = format!(
                    "{event}: {} did nothing that could be undone",
                    entry.service
                );
                self.oracle.fail(Condition::BystanderPlanned, words);
            }
        }
    }

    /// Why an effect may be missing from a plan that nobody calls incomplete: all that was done there was never seen by a
    /// filter, so that no report of it was ever given out.
    fn excuse(&self, event: &EventId, service: usize) -> Option<&'static str> {
        let mut named = self.named_tries(event, service);
        // Of a VM that died with its whole proxy before any report of it was stored, nobody knows that it was.
        let is_unknown = |one: &Try| {
            one.reporter
                .is_none_or(|id| !self.database.reporters.contains_key(&id))
        };
        if named.all(|one| (one.unseen_ms.is_some() || is_unknown(one)) && !self.is_heard(one)) {
            return Some("excused: an effect that no filter saw to its end");
        }
        // All that it reported is lost, so nobody ever said that it takes part; a learned flow may still name it.
        let peer = self.peer(service);
        let is_known = self.database.facts.get(event).is_some_and(|facts| {
            facts.iter().any(|fact| {
                let call = &fact.report.call;
                let is_it = |name: &str| name == peer.as_str();
                is_it(fact.service.as_str())
                    || call.from.as_ref().is_some_and(|from| is_it(from.as_str()))
                    || call.to.as_ref() == Some(&peer)
            })
        });
        if !is_known {
            return Some("excused: nobody said that the service takes part");
        }
        let cleaned = self
            .truth
            .cleanups
            .iter()
            .any(|(of, at, _)| of == event && *at == service);
        // It compensated, and wrote again: what it says last of itself is believed.
        cleaned.then_some("excused: an effect after a clean-up of the same service")
    }

    /// Whether a service may have something to undo by what was done there, or tried to be done.
    fn took_part(&self, event: &EventId, peer: &Peer) -> bool {
        let by_try = self.truth.tries.iter().any(|one| {
            one.event == *event
                && one.kind == What::Attempt
                && !one.is_safe()
                && self.peer_of(one) == *peer
        });
        let by_word = (0..self.shape.services.len()).any(|service| {
            self.peer(service) == *peer && !self.words_of(event, service).is_empty()
        });
        by_try || by_word || self.was_called(event, peer)
    }

    /// Whether a caller's proxy says that it tried to call it.
    fn was_called(&self, event: &EventId, peer: &Peer) -> bool {
        self.database.facts.get(event).is_some_and(|facts| {
            facts
                .iter()
                .any(|fact| fact.report.call.to.as_ref() == Some(peer))
        })
    }
}
