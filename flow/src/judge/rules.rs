//! The rules, one function each. A rule fires, waits for a time, or says why it does not apply.

use std::collections::BTreeSet;

use kaeru_protocol::{Outcome, Peer, Word};

use super::{Case, Look, Rule};
use crate::plan::Stall;
use crate::{
    Attempt, CallTrace, Effect, Evidence, Open, OutOfTouch, Reason, ReportKey, SeenBy, Standing,
    Step,
};

/// A heartbeat that named no time is due within a minute.
const DUE_DEFAULT_MS: u64 = 60_000;

/// How long until the next heartbeat of an open request, as its last one named it, ms.
fn heartbeat_ms(due_ms: u32) -> u64 {
    if due_ms == 0 {
        DUE_DEFAULT_MS
    } else {
        due_ms.into()
    }
}

/// Whether the last thing that happened at the entry was its client going away.
pub(super) fn client_gone(entry: &CallTrace) -> bool {
    matches!(entry.outcome, Outcome::Unknown | Outcome::Failed)
        && entry
            .attempts
            .last()
            .is_some_and(|a| a.open.is_none() && a.ending.client_gone())
}

fn evidence(key: ReportKey, text: String) -> Vec<Evidence> {
    vec![Evidence {
        key,
        text: text.into(),
    }]
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
            Rule::Learned => {
                Look::No("not in force yet: flows are learned, not yet acted on".to_owned())
            }
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
        match self
            .trace
            .demands
            .iter()
            .rev()
            .find(|d| self.is_news(d.received_ms))
        {
            Some(demand) => Look::Fired(
                Reason::Operator {
                    words: demand.words.clone(),
                },
                evidence(
                    demand.key,
                    format!("an operator demanded it: {}", demand.words),
                ),
            ),
            None => Look::No("no operator demands it".to_owned()),
        }
    }

    fn word(&self) -> Look {
        let reached = self.trace.reached_from_entry();
        let mut why = "no service says `failed`".to_owned();
        for (peer, step) in &self.trace.steps {
            let Some(said) = step.word.filter(|w| w.word == Word::Failed) else {
                continue;
            };
            if !self.trace.takes_part(peer) {
                why = format!("{peer} says `failed`, but takes no part in the event");
            } else if !self.concerns(peer, &reached) {
                why = format!(
                    "{peer} says `failed`, in a branch that a queue handed over and the policy does not require"
                );
            } else if !self.is_news(said.received_ms) {
                why = format!("{peer} said `failed` before the decision was withdrawn");
            } else {
                return Look::Fired(
                    Reason::Word {
                        service: peer.clone(),
                    },
                    evidence(said.key, format!("{peer} said `failed`")),
                );
            }
        }
        Look::No(why)
    }

    fn fatal(&self) -> Look {
        let reached = self.trace.reached_from_entry();
        let mut why = "no answer has a status that the policy calls fatal".to_owned();
        for (peer, step) in &self.trace.steps {
            for (call, attempt) in attempts(step) {
                let Some(status) = attempt.fatal else {
                    continue;
                };
                if !self.concerns(peer, &reached) {
                    why = format!(
                        "{peer} answered {status}, in a branch that a queue handed over and the policy does not require"
                    );
                } else if !self.is_news(attempt.received_ms) {
                    why = format!("{peer} answered {status} before the decision was withdrawn");
                } else {
                    let text = format!("{peer} answered {status} to {} {}", call.method, call.path);
                    return Look::Fired(
                        Reason::Fatal {
                            peer: peer.clone(),
                            status,
                        },
                        evidence(attempt.key, text),
                    );
                }
            }
        }
        Look::No(why)
    }

    fn entry(&self) -> Look {
        let (Some(service), Some(call)) = (&self.trace.entry, self.trace.entry_call()) else {
            return Look::No("no call that began the event was reported".to_owned());
        };
        let Some(last) = call.attempts.iter().max_by_key(|a| (a.received_ms, a.key)) else {
            return Look::No("no call that began the event was reported".to_owned());
        };
        let wait_ms = match call.outcome {
            Outcome::Running => return Look::No(format!("the entry {service} is still open")),
            Outcome::Succeeded => return Look::No(format!("the entry {service} succeeded")),
            Outcome::Refused => return Look::No(format!("the entry {service} was refused")),
            _ if client_gone(call) => {
                return Look::No("the client went away, which dooms nothing by itself".to_owned());
            }
            Outcome::Failed | Outcome::Unknown => self.event.entry_retry_wait_ms(),
            Outcome::Rejected => self.event.entry_retry_wait_ms().max(self.event.settle_ms()),
        };
        let word = match call.outcome {
            Outcome::Rejected => "rejected the event",
            Outcome::Unknown => "gave no answer",
            _ => "failed",
        };
        if !self.is_news(last.received_ms) {
            return Look::No(format!(
                "the entry {service} {word} before the decision was withdrawn"
            ));
        }
        let until_ms = self.counts_from(last.received_ms, wait_ms);
        if self.now.at_ms < until_ms {
            let why =
                format!("the entry {service} {word}; it may be tried again within {wait_ms} ms");
            return Look::Waits { until_ms, why };
        }
        if call.outcome == Outcome::Rejected && self.plan().is_empty() {
            return Look::No(format!(
                "the entry {service} rejected the event and nothing is left to undo"
            ));
        }
        let status = last
            .ending
            .status
            .map_or("without an answer".to_owned(), |s| format!("with {s}"));
        Look::Fired(
            Reason::Entry {
                service: service.clone(),
                outcome: call.outcome,
            },
            evidence(
                last.key,
                format!("{service} ended {} {} {status}", call.method, call.path),
            ),
        )
    }

    fn stalled(&self) -> Look {
        let reached = self.trace.reached_from_entry();
        let mut wait: Option<(u64, String)> = None;
        let mut why = "nothing is open".to_owned();
        for (peer, step) in &self.trace.steps {
            if step.is_open() && !self.concerns(peer, &reached) {
                why = format!(
                    "{peer} is open in a branch that a queue handed over and the policy does not require"
                );
                continue;
            }
            let looks = attempts(step)
                .filter_map(|(_, attempt)| match &attempt.open {
                    Some(Open::Request { proxy, due_ms }) => {
                        Some(self.unnamed(peer, attempt, proxy, heartbeat_ms(*due_ms)))
                    }
                    _ => None,
                })
                .chain(self.silent(peer, step));
            for look in looks {
                match look {
                    Look::Fired(..) => return look,
                    Look::Waits { until_ms, why } => {
                        if wait.as_ref().is_none_or(|(known, _)| until_ms < *known) {
                            wait = Some((until_ms, why));
                        }
                    }
                    Look::No(reason) => why = reason,
                }
            }
        }
        match wait {
            Some((until_ms, why)) => Look::Waits { until_ms, why },
            None => Look::No(why),
        }
    }

    /// An open request whose proxy owes a heartbeat.
    fn unnamed(&self, peer: &Peer, attempt: &Attempt, proxy: &str, due_ms: u64) -> Look {
        let grace_ms = due_ms.saturating_add(self.event.settle_ms());
        let owed_ms = self.counts_from(attempt.received_ms, grace_ms);
        if self.now.at_ms < owed_ms {
            return Look::Waits {
                until_ms: owed_ms,
                why: format!("{peer} is open and heard of"),
            };
        }
        if !self.is_news(owed_ms) {
            return Look::No(format!(
                "{peer} had stalled before the decision was withdrawn"
            ));
        }
        let fired = |how, text: String| {
            Look::Fired(
                Reason::Stalled {
                    service: peer.clone(),
                    how,
                },
                evidence(attempt.key, text),
            )
        };
        if self
            .now
            .heard
            .get(proxy)
            .is_some_and(|heard| *heard >= owed_ms)
        {
            return fired(
                Stall::NotNamed,
                format!("{peer} was last named running here, then no more"),
            );
        }
        let policy = self.policy.for_step(self.trace.event_type.as_ref(), peer);
        let lost_ms = owed_ms.saturating_add(due_ms);
        match policy.out_of_touch() {
            OutOfTouch::Doom if self.now.at_ms >= lost_ms => fired(
                Stall::OutOfTouch,
                format!("the proxy of {peer} was last heard of here"),
            ),
            OutOfTouch::Doom => Look::Waits {
                until_ms: lost_ms,
                why: format!("{peer} is out of touch"),
            },
            // Its proxy may be heard again: look again then.
            OutOfTouch::Show => Look::Waits {
                until_ms: self.now.at_ms.saturating_add(due_ms),
                why: format!("{peer} is out of touch, which dooms nothing by itself"),
            },
        }
    }

    /// A step open by its service's word, which owes further words where the policy says how often.
    fn silent(&self, peer: &Peer, step: &Step) -> Option<Look> {
        let said = step.word.filter(|w| w.word == Word::Running)?;
        let policy = self.policy.for_step(self.trace.event_type.as_ref(), peer);
        let Some(silence_ms) = policy.silence_ms() else {
            return Some(Look::No(format!(
                "{peer} said `running`, and the policy lets it be silent"
            )));
        };
        let until_ms = self.counts_from(said.received_ms, silence_ms);
        Some(if self.now.at_ms < until_ms {
            Look::Waits {
                until_ms,
                why: format!("{peer} said `running` and may be silent for {silence_ms} ms"),
            }
        } else if self.is_news(until_ms) {
            Look::Fired(
                Reason::Stalled {
                    service: peer.clone(),
                    how: Stall::NoWord,
                },
                evidence(said.key, format!("the last word of {peer} was `running`")),
            )
        } else {
            Look::No(format!(
                "{peer} had stalled before the decision was withdrawn"
            ))
        })
    }

    fn deadline(&self) -> Look {
        let by_policy = self
            .event
            .deadline_ms()
            .map(|given_ms| (self.trace.began_received_ms + given_ms, given_ms));
        let by_entry = self.trace.deadline.map(|d| (d.at_ms, d.given_ms));
        let Some((at_ms, given_ms)) = by_entry.or(by_policy) else {
            return Look::No("the event has no deadline".to_owned());
        };
        if self.now.at_ms < at_ms && self.trace.is_open() {
            return Look::Waits {
                until_ms: at_ms,
                why: format!("its {given_ms} ms are not over"),
            };
        }
        if !self.is_news(at_ms) {
            return Look::No(
                "its deadline had passed before the decision was withdrawn".to_owned(),
            );
        }
        // Only a step that is open and heard of is known to be late: the end of any other may be on its way.
        let reached = self.trace.reached_from_entry();
        let late: Vec<Evidence> = self
            .trace
            .steps
            .iter()
            .filter(|(peer, _)| self.concerns(peer, &reached))
            .filter_map(|(peer, step)| {
                let key = self.known_open(step)?;
                Some(Evidence {
                    key,
                    text: format!("{peer} was still running").into(),
                })
            })
            .collect();
        if !late.is_empty() {
            return Look::Fired(Reason::Deadline { given_ms }, late);
        }
        if self.trace.is_open() {
            let until_ms = self.now.at_ms.saturating_add(self.event.settle_ms().max(1));
            let why = "its time is up, but what is open is out of touch".to_owned();
            return Look::Waits { until_ms, why };
        }
        Look::No("nothing is open".to_owned())
    }

    /// The report by which the step is known to be open now.
    fn known_open(&self, step: &Step) -> Option<ReportKey> {
        let request = attempts(step).find_map(|(_, attempt)| match &attempt.open {
            Some(Open::Request { due_ms, .. }) => {
                let grace_ms = heartbeat_ms(*due_ms).saturating_add(self.event.settle_ms());
                let in_outage = self.now.outages.iter().any(|o| {
                    o.to_ms > attempt.received_ms
                        && self.now.at_ms < o.to_ms.saturating_add(grace_ms)
                });
                let heard = self.now.at_ms < attempt.received_ms.saturating_add(grace_ms);
                (heard && !in_outage).then_some(attempt.key)
            }
            _ => None,
        });
        request.or_else(|| step.word.filter(|w| w.word == Word::Running).map(|w| w.key))
    }

    /// Whether an entry attempt succeeded that was heard of after `ms`.
    pub(super) fn entry_succeeded_after(&self, ms: u64) -> bool {
        self.trace.entry_call().is_some_and(|call| {
            call.attempts.iter().any(|a| {
                a.seen_by == SeenBy::Service
                    && a.outcome == Outcome::Succeeded
                    && a.received_ms > ms
            })
        })
    }

    /// Services with something to undo, or that had in an earlier revision.
    pub(super) fn effects(&self) -> impl Iterator<Item = (&Peer, Effect)> {
        let planned = self
            .planned()
            .map(|p| p.entries.as_slice())
            .unwrap_or_default();
        self.trace
            .steps
            .iter()
            .filter(|(_, step)| !step.external && !step.gateway && step.effect != Effect::No)
            .map(|(peer, step)| (peer, step.effect))
            .chain(planned.iter().filter_map(|entry| {
                let known = self
                    .trace
                    .steps
                    .get(&entry.service)
                    .map_or(Effect::No, |s| s.effect);
                (known == Effect::No).then_some((&entry.service, Effect::No))
            }))
    }
}

fn attempts(step: &Step) -> impl Iterator<Item = (&CallTrace, &Attempt)> {
    step.calls
        .iter()
        .flat_map(|call| call.attempts.iter().map(move |attempt| (call, attempt)))
}
