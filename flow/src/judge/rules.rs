//! The rules, one function each: those about what was said and how the entry ended here, those about what is
//! still open in `rules/open.rs`. A rule fires, waits for a time, or says why it does not apply.

mod open;

use std::collections::BTreeSet;

use kaeru_protocol::{Outcome, Peer, Word};

use super::{Case, Look, Rule};
use crate::ground::duration;
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

/// Whether a failure of one service concerns the whole event.
enum Concern {
    /// It does; by what the policy says, where it is a branch that a queue handed over.
    Yes(Option<Ground>),
    /// It does not: a queue handed the branch over, and delivers again.
    No(Ground),
    /// A queue handed the branch over, and whether the event has an entry is known only then.
    NotYet(u64),
}

impl Concern {
    /// What this is for a rule that would fire: it, or why not (yet).
    fn judge(self, peer: &Peer, what: &str, fired: impl FnOnce() -> Look) -> Look {
        match self {
            Self::Yes(ground) => fired().on(ground),
            Self::No(ground) => Look::no(format!(
                "{peer} {what}, in a branch that a queue handed over and the policy does not require"
            ))
            .on([ground]),
            Self::NotYet(until_ms) => Look::waits(
                until_ms,
                format!("{peer} {what}, in a branch that a queue handed over; the event's entry may be on its way"),
            ),
        }
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

    /// Whether a failure of the service concerns the whole event.
    fn concerns(&self, peer: &Peer, step: &Step, reached: &BTreeSet<&Peer>) -> Concern {
        let rules = self.policy.for_step(self.trace.event_type.as_ref(), peer);
        // A caller that was called for the event works for it still, though its proxy may have forgotten that.
        let is_called = |caller: &Peer| {
            let step = self.trace.steps.get(caller);
            step.is_some_and(|s| !s.calls.is_empty() && !s.handed_over)
        };
        let is_own = !step.handed_over
            || step.parents.iter().any(is_called)
            || step.calls.is_empty() && reached.contains(peer);
        if is_own {
            Concern::Yes(None)
        } else if rules.is_required() {
            Concern::Yes(Some(rules.required_ground()))
        } else if self.trace.entry.is_some() {
            Concern::No(rules.required_ground())
        } else if self.now.at_ms < self.settles_ms() {
            Concern::NotYet(self.settles_ms())
        } else {
            Concern::Yes(None)
        }
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
        let looks = self.trace.steps.iter().filter_map(|(peer, step)| {
            let said = step.word.filter(|w| w.word == Word::Failed)?;
            Some(if !self.trace.takes_part(peer) {
                Look::no(format!(
                    "{peer} says `failed`, but takes no part in the event"
                ))
            } else if !self.is_news(said.received_ms) {
                Look::no(format!(
                    "{peer} said `failed` before the decision was withdrawn"
                ))
            } else {
                self.concerns(peer, step, &reached)
                    .judge(peer, "says `failed`", || {
                        let reason = Reason::Word {
                            service: peer.clone(),
                        };
                        let text = format!("{peer} said `failed`");
                        Look::fired(reason, evidence(said.key, said.at_ms, text))
                    })
            })
        });
        Look::first(looks, "no service says `failed`")
    }

    fn fatal(&self) -> Look {
        let reached = self.trace.reached_from_entry();
        let all = self.trace.steps.iter().flat_map(|(peer, step)| {
            attempts(step).map(move |(call, attempt)| (peer, step, call, attempt))
        });
        let looks = all.filter_map(|(peer, step, call, attempt)| {
            let status = attempt.fatal?;
            let answered = format!("answered {}", answer(attempt));
            if !self.is_news(attempt.received_ms) {
                return Some(Look::no(format!(
                    "{peer} {answered} before the decision was withdrawn"
                )));
            }
            let concern = self.concerns(peer, step, &reached);
            Some(concern.judge(peer, &answered, || {
                let mut text = format!("{peer} {answered} to {} {}", call.method, call.path);
                if let Some(caller) = call.from.as_ref().filter(|_| peer.is_external()) {
                    text = format!("{text}, as the proxy of {caller} saw it");
                }
                let reason = Reason::Fatal {
                    peer: peer.clone(),
                    status,
                };
                let rules = self.policy.for_step(self.trace.event_type.as_ref(), peer);
                Look::fired(reason, evidence(attempt.key, attempt.ended_ms(), text))
                    .on(rules.fatal_ground(status))
            }))
        });
        Look::first(looks, "no answer has a status that the policy calls fatal")
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
                format!(
                    "the entry {service} {word}; it may be tried again within {}",
                    duration(wait_ms)
                ),
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
}

fn attempts(step: &Step) -> impl Iterator<Item = (&CallTrace, &Attempt)> {
    step.calls
        .iter()
        .flat_map(|call| call.attempts.iter().map(move |attempt| (call, attempt)))
}
