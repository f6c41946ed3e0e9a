//! The rules, one function each: those about what was said and how the entry ended here, those about what is
//! still open in `rules/open.rs`. A rule fires, waits for a time, or says why it does not apply.

mod open;

use std::collections::BTreeSet;

use kaeru_protocol::{Outcome, Peer, Word};

use super::{Case, Look, Rule};
use crate::{Attempt, CallTrace, Evidence, Ground, Reason, ReportKey, Standing, Step};

/// Whether the last thing that happened at the entry was its client going away.
pub(super) fn client_gone(entry: &CallTrace) -> bool {
    matches!(entry.outcome, Outcome::Unknown | Outcome::Failed)
        && entry
            .attempts
            .last()
            .is_some_and(|a| a.open.is_none() && a.ending.client_gone())
}

fn evidence(key: ReportKey, at_ms: u64, text: String) -> Vec<Evidence> {
    vec![Evidence {
        key,
        at_ms,
        text: text.into(),
    }]
}

/// How an attempt ended, for a person.
fn answer(attempt: &Attempt) -> String {
    let ending = &attempt.ending;
    match (ending.grpc, ending.status) {
        (Some(code), _) => format!("grpc:{code}"),
        (None, Some(status)) => status.to_string(),
        (None, None) => "nothing".to_owned(),
    }
}

impl Case<'_> {
    pub(super) fn look(&self, rule: Rule) -> Look {
        match rule {
            Rule::Operator => self.operator(),
            Rule::Word => self.word(),
            Rule::Fatal => self.fatal(),
            Rule::Entry => self.entry(),
            Rule::Stalled => self.stalled(),
            Rule::Deadline => self.deadline(),
            Rule::Learned => Look::no("not in force yet: flows are learned, not yet acted on"),
        }
    }

    /// Whether what was received (or fell due) then still counts: what a withdrawn decision knew, its
    /// withdrawal has answered.
    fn is_news(&self, ms: u64) -> bool {
        match self.before.map(|d| &d.standing) {
            Some(Standing::Withdrawn(withdrawal)) => ms > withdrawal.at_ms,
            _ => true,
        }
    }

    /// Whether a failure of the service concerns the whole event: a branch that a queue handed over does only
    /// where the policy calls it `required`. In an event without an entry every branch does.
    fn concerns(&self, peer: &Peer, reached: &BTreeSet<&Peer>) -> bool {
        self.trace.entry.is_none()
            || reached.contains(peer)
            || self
                .policy
                .for_step(self.trace.event_type.as_ref(), peer)
                .is_required()
    }

    fn operator(&self) -> Look {
        let mut demands = self.trace.demands.iter().rev();
        match demands.find(|d| self.is_news(d.received_ms)) {
            Some(demand) => Look::fired(
                Reason::Operator {
                    words: demand.words.clone(),
                },
                evidence(
                    demand.key,
                    demand.received_ms,
                    format!("an operator demanded it: {}", demand.words),
                ),
            ),
            None => Look::no("no operator demands it"),
        }
    }

    fn word(&self) -> Look {
        let reached = self.trace.reached_from_entry();
        let mut look = Look::no("no service says `failed`");
        for (peer, step) in &self.trace.steps {
            let Some(said) = step.word.filter(|w| w.word == Word::Failed) else {
                continue;
            };
            look = if !self.trace.takes_part(peer) {
                Look::no(format!(
                    "{peer} says `failed`, but takes no part in the event"
                ))
            } else if !self.concerns(peer, &reached) {
                self.not_required(peer, "says `failed`")
            } else if !self.is_news(said.received_ms) {
                Look::no(format!(
                    "{peer} said `failed` before the decision was withdrawn"
                ))
            } else {
                return Look::fired(
                    Reason::Word {
                        service: peer.clone(),
                    },
                    evidence(said.key, said.at_ms, format!("{peer} said `failed`")),
                )
                .on(self.handed_over_ground(peer, &reached));
            };
        }
        look
    }

    fn fatal(&self) -> Look {
        let reached = self.trace.reached_from_entry();
        let mut look = Look::no("no answer has a status that the policy calls fatal");
        for (peer, step) in &self.trace.steps {
            let rules = self.policy.for_step(self.trace.event_type.as_ref(), peer);
            for (call, attempt) in attempts(step) {
                let Some(status) = attempt.fatal else {
                    continue;
                };
                let answered = format!("answered {}", answer(attempt));
                look = if !self.concerns(peer, &reached) {
                    self.not_required(peer, &answered)
                } else if !self.is_news(attempt.received_ms) {
                    Look::no(format!(
                        "{peer} {answered} before the decision was withdrawn"
                    ))
                } else {
                    let mut text = format!("{peer} {answered} to {} {}", call.method, call.path);
                    if let Some(caller) = call.from.as_ref().filter(|_| peer.is_external()) {
                        text = format!("{text}, as the proxy of {caller} saw it");
                    }
                    return Look::fired(
                        Reason::Fatal {
                            peer: peer.clone(),
                            status,
                        },
                        evidence(attempt.key, attempt.ended_ms(), text),
                    )
                    .on(rules.fatal_ground(status))
                    .on(self.handed_over_ground(peer, &reached));
                };
            }
        }
        look
    }

    fn entry(&self) -> Look {
        let unheard = || Look::no("no call that began the event was reported");
        let (Some(service), Some(call)) = (&self.trace.entry, self.trace.entry_call()) else {
            return unheard();
        };
        let Some(last) = call.attempts.iter().max_by_key(|a| (a.received_ms, a.key)) else {
            return unheard();
        };
        let word = match call.outcome {
            Outcome::Running => return Look::no(format!("the entry {service} is still open")),
            Outcome::Succeeded => return Look::no(format!("the entry {service} succeeded")),
            Outcome::Refused => return Look::no(format!("the entry {service} was refused")),
            _ if client_gone(call) => {
                return Look::no("the client went away, which dooms nothing by itself");
            }
            Outcome::Rejected => "rejected the event",
            Outcome::Unknown => "gave no answer",
            Outcome::Failed => "failed",
        };
        if !self.is_news(last.received_ms) {
            return Look::no(format!(
                "the entry {service} {word} before the decision was withdrawn"
            ));
        }
        let wait_ms = self.event.entry_retry_wait_ms();
        let rules = self
            .policy
            .for_step(self.trace.event_type.as_ref(), service);
        let grounds = [
            rules.outcome_ground(&last.ending),
            Some(self.event.entry_retry_wait_ground()),
            Some(self.event.settle_ground()),
        ];
        let grounds = grounds.into_iter().flatten();
        // An attempt that began within the wait is heard of a flush later.
        let heard_ms = wait_ms.saturating_add(self.event.settle_ms());
        let until_ms = self.counts_from(last.received_ms, heard_ms);
        if self.now.at_ms < until_ms {
            return Look::waits(
                until_ms,
                format!("the entry {service} {word}; it may be tried again within {wait_ms} ms"),
            )
            .on(grounds);
        }
        if call.outcome == Outcome::Rejected && self.plan().is_empty() {
            return Look::no(format!(
                "the entry {service} rejected the event and nothing is left to undo"
            ))
            .on(grounds);
        }
        let text = format!(
            "{service} answered {} to {} {}",
            answer(last),
            call.method,
            call.path
        );
        Look::fired(
            Reason::Entry {
                service: service.clone(),
                outcome: call.outcome,
            },
            evidence(last.key, last.ended_ms(), text),
        )
        .on(grounds)
    }

    /// Why a failure in a branch that a queue handed over is none of the event's.
    fn not_required(&self, peer: &Peer, what: &str) -> Look {
        let rules = self.policy.for_step(self.trace.event_type.as_ref(), peer);
        Look::no(format!(
            "{peer} {what}, in a branch that a queue handed over and the policy does not require"
        ))
        .on([rules.required_ground()])
    }

    /// What makes a failure in a branch that a queue handed over the event's, where it is one.
    fn handed_over_ground(&self, peer: &Peer, reached: &BTreeSet<&Peer>) -> Option<Ground> {
        let handed_over = self.trace.entry.is_some() && !reached.contains(peer);
        let rules = self.policy.for_step(self.trace.event_type.as_ref(), peer);
        handed_over.then(|| rules.required_ground())
    }
}

fn attempts(step: &Step) -> impl Iterator<Item = (&CallTrace, &Attempt)> {
    step.calls
        .iter()
        .flat_map(|call| call.attempts.iter().map(move |attempt| (call, attempt)))
}
