//! The rules about what is still open: a step that stalled, a deadline that passed. They read silence, so they
//! are the careful ones: silence counts only once everything that could break it must have arrived.

use kaeru_protocol::{Peer, Word};

use super::super::{Case, Look, Says};
use super::{Concern, attempts, evidence};
use crate::ground::duration;
use crate::plan::Stall;
use crate::{Attempt, Evidence, Open, OutOfTouch, Reason, Step};

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

impl Case<'_> {
    pub(super) fn stalled(&self) -> Look {
        let reached = self.trace.reached_from_entry();
        let looks = self.trace.steps.iter().flat_map(|(peer, step)| {
            let requests = attempts(step).filter_map(|(_, attempt)| match &attempt.open {
                Some(Open::Request { due_ms }) => {
                    Some(self.unnamed(peer, attempt, heartbeat_ms(*due_ms)))
                }
                _ => None,
            });
            let all: Vec<Look> = requests.chain(self.silent(peer, step)).collect();
            let concern = |look: Look| match look.says {
                Says::Fired(..) => {
                    self.concerns(peer, step, &reached)
                        .judge(peer, "has stalled", || look)
                }
                _ => look,
            };
            all.into_iter().map(concern).collect::<Vec<_>>()
        });
        Look::first(looks, "nothing is open")
    }

    /// An open request that is no longer named. Its reporter (the VM that holds it) owes a heartbeat; that it
    /// says none counts only when all else that it said until then has arrived.
    fn unnamed(&self, peer: &Peer, attempt: &Attempt, due_ms: u64) -> Look {
        let settle = || [self.event.settle_ground()];
        let settle_ms = self.event.settle_ms();
        let owed_ms = self.counts_from(attempt.received_ms, due_ms.saturating_add(settle_ms));
        if self.now.at_ms < owed_ms {
            return Look::waits(owed_ms, format!("{peer} is open and heard of")).on(settle());
        }
        if !self.is_news(owed_ms) {
            return Look::no(format!(
                "{peer} had stalled before the decision was withdrawn"
            ));
        }
        let reporter = attempt.key.reporter;
        let heard = self.now.heard.get(&reporter).copied().unwrap_or_default();
        // Its end may be among what was lost.
        let is_lossy = self
            .now
            .losses
            .iter()
            .any(|l| l.reporter == Some(reporter) && l.span.to_ms >= attempt.received_ms);
        let fired = |how, text: String| {
            Look::fired(
                Reason::Stalled {
                    service: peer.clone(),
                    how,
                },
                evidence(attempt.key, attempt.ended_ms(), text),
            )
        };
        if !is_lossy && heard.accounted_ms >= owed_ms {
            return fired(
                Stall::NotNamed,
                format!("{peer} was last named running here, then no more"),
            )
            .on(settle());
        }
        if !is_lossy && heard.proxy_ms >= owed_ms {
            return Look::waits(
                self.now.at_ms.saturating_add(settle_ms.max(due_ms / 4)),
                format!("{peer} is open; its proxy has yet to state that all it said has arrived"),
            )
            .on(settle());
        }
        let policy = self.policy.for_step(self.trace.event_type.as_ref(), peer);
        let ground = [policy.out_of_touch_ground()];
        let lost_ms = owed_ms.saturating_add(due_ms);
        match policy.out_of_touch() {
            OutOfTouch::Doom if self.now.at_ms >= lost_ms => fired(
                Stall::OutOfTouch,
                format!("{peer} was last named running here, then it was out of touch"),
            ),
            OutOfTouch::Doom => Look::waits(lost_ms, format!("{peer} is out of touch")),
            // It may be heard again: look again then.
            OutOfTouch::Show => Look::waits(
                self.now.at_ms.saturating_add(due_ms),
                format!("{peer} is out of touch, which dooms nothing by itself"),
            ),
        }
        .on(ground)
    }

    /// A step open by its service's word, which owes further words where the policy says how often.
    fn silent(&self, peer: &Peer, step: &Step) -> Option<Look> {
        let said = step.word.filter(|w| w.word == Word::Running)?;
        let policy = self.policy.for_step(self.trace.event_type.as_ref(), peer);
        let ground = [policy.silence_ground()];
        let Some(silence_ms) = policy.silence_ms() else {
            let why = format!("{peer} said `running`, and the policy lets it be silent");
            return Some(Look::no(why).on(ground));
        };
        // A word said in time is heard of a flush later.
        let heard_ms = silence_ms.saturating_add(self.event.settle_ms());
        let until_ms = self.counts_from(said.received_ms, heard_ms);
        let look = if self.now.at_ms < until_ms {
            let why = format!(
                "{peer} said `running` and may be silent for {}",
                duration(silence_ms)
            );
            Look::waits(until_ms, why)
        } else if self.is_news(until_ms) {
            Look::fired(
                Reason::Stalled {
                    service: peer.clone(),
                    how: Stall::NoWord,
                },
                evidence(
                    said.key,
                    said.at_ms,
                    format!("the last word of {peer} was `running`"),
                ),
            )
        } else {
            Look::no(format!(
                "{peer} had stalled before the decision was withdrawn"
            ))
        };
        Some(look.on(ground))
    }

    pub(super) fn deadline(&self) -> Look {
        let by_entry = self.trace.deadline.map(|d| (d.at_ms, d.given_ms, None));
        let by_policy = || {
            let (given_ms, ground) = self.event.deadline()?;
            let at_ms = self.trace.began_received_ms.saturating_add(given_ms);
            Some((at_ms, given_ms, Some(ground)))
        };
        let Some((at_ms, given_ms, ground)) = by_entry.or_else(by_policy) else {
            return Look::no("the event has no deadline");
        };
        self.late(at_ms, given_ms).on(ground)
    }

    /// What is open at `at_ms` is late; what ended before is heard of a flush later.
    fn late(&self, at_ms: u64, given_ms: u64) -> Look {
        let settle_ms = self.event.settle_ms();
        // An end from the time of an outage may come after it.
        let until_ms = self.counts_from(at_ms, settle_ms);
        if self.now.at_ms < until_ms && self.trace.is_open() {
            return Look::waits(until_ms, format!("its {} are not over", duration(given_ms)));
        }
        if !self.is_news(at_ms) {
            return Look::no("its deadline had passed before the decision was withdrawn");
        }
        // Only a step that is open and heard of is known to be late: the end of any other may be on its way.
        let reached = self.trace.reached_from_entry();
        let late: Vec<Evidence> = self
            .trace
            .steps
            .iter()
            .filter(|(peer, step)| matches!(self.concerns(peer, step, &reached), Concern::Yes(_)))
            .filter_map(|(peer, step)| self.known_open(peer, step))
            .collect();
        if !late.is_empty() {
            return Look::fired(Reason::Deadline { given_ms }, late);
        }
        if self.trace.is_open() {
            let until_ms = self.now.at_ms.saturating_add(settle_ms.max(1));
            let why = "its time is up, but what is open is out of touch";
            return Look::waits(until_ms, why);
        }
        Look::no("nothing is open")
    }

    /// The report by which the step is known to be open now.
    fn known_open(&self, peer: &Peer, step: &Step) -> Option<Evidence> {
        let request = attempts(step).find_map(|(_, attempt)| match &attempt.open {
            Some(Open::Request { due_ms }) => {
                let grace_ms = heartbeat_ms(*due_ms).saturating_add(self.event.settle_ms());
                let in_outage = self.now.outages.iter().any(|o| {
                    o.to_ms > attempt.received_ms
                        && self.now.at_ms < o.to_ms.saturating_add(grace_ms)
                });
                let heard = self.now.at_ms < attempt.received_ms.saturating_add(grace_ms);
                (heard && !in_outage).then_some((attempt.key, attempt.ended_ms()))
            }
            _ => None,
        });
        let word = || {
            let said = step.word.filter(|w| w.word == Word::Running)?;
            Some((said.key, said.at_ms))
        };
        let (key, at_ms) = request.or_else(word)?;
        let text = format!("{peer} was still running").into();
        Some(Evidence { key, at_ms, text })
    }
}
