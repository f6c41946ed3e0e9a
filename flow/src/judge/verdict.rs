//! From a rule that fired, or a decision in force, to the decision or its next revision.

use std::collections::{BTreeMap, BTreeSet};

use kaeru_protocol::{Outcome, Peer};

use super::{Case, Considered, Judgement};
use crate::order::order;
use crate::{
    Contested, Decision, Effect, EventState, Evidence, Ground, Plan, PlanEntry, Reason, SeenBy,
    Standing, Withdrawal,
};

/// How long after an event's last report a silent proxy is known to be silent, ms: its promise of a status within
/// 65 s is broken then. (A loss that is written down wakes its events by itself.)
const SILENCE_KNOWN_MS: u64 = 70_000;

impl Case<'_> {
    /// The first revision, unless there is nothing to undo.
    pub(super) fn doom(
        &self,
        reason: &Reason,
        evidence: &[Evidence],
        grounds: &[Ground],
    ) -> Option<Decision> {
        let plan = self.plan();
        (!plan.is_empty()).then(|| Decision {
            revision: 1,
            standing: Standing::Live,
            reason: reason.clone(),
            evidence: evidence.to_vec(),
            grounds: grounds.to_vec(),
            plan,
            policy_version: self.event.version(),
            plan_policy_version: self.event.version(),
            flow_version: self.flow.map(|f| f.version),
            decided_ms: self.now.at_ms,
        })
    }

    /// What becomes of a decision in force: it is withdrawn from a shared id, contested by an entry that
    /// succeeds, or its plan grows; else it holds.
    pub(super) fn revise(&self, decided: &Decision) -> Judgement {
        let standing = self.standing(decided);
        let plan = self.plan();
        let changed = standing != decided.standing || plan != decided.plan;
        let withdrawn = matches!(standing, Standing::Withdrawn(_));
        let settles_ms = self.settles_ms();
        let settled = !self.trace.is_open() && self.now.at_ms >= settles_ms;
        Judgement {
            state: if withdrawn {
                self.state(settled, &[])
            } else {
                EventState::RollingBack
            },
            settled,
            wake_ms: [settles_ms, self.silence_known_ms()]
                .into_iter()
                .filter(|wake_ms| *wake_ms > self.now.at_ms)
                .min(),
            considered: vec![Considered {
                rule: decided.reason.rule(),
                fired: true,
                why: decided.reason.to_string().into(),
                grounds: decided.grounds.clone(),
                until_ms: None,
            }],
            decision: changed.then(|| Decision {
                revision: decided.revision + 1,
                standing,
                plan,
                plan_policy_version: self.event.version(),
                ..decided.clone()
            }),
        }
    }

    /// When it is known which proxies of the event have fallen silent, ms.
    pub(super) fn silence_known_ms(&self) -> u64 {
        self.trace.last_received_ms.saturating_add(SILENCE_KNOWN_MS)
    }

    fn standing(&self, decided: &Decision) -> Standing {
        let withdraw = |reason: String| {
            Standing::Withdrawn(Withdrawal {
                by: "kaeru".into(),
                reason: reason.into(),
                at_ms: self.now.at_ms,
            })
        };
        if let Some(shared) = self.trace.shared {
            return withdraw(format!("the id is shared: {shared}"));
        }
        if decided.standing == Standing::Live && self.entry_succeeded_after(decided.decided_ms) {
            return match self.event.contested() {
                Contested::Wait => Standing::Contested,
                Contested::RollBack => Standing::Live,
                Contested::Withdraw => {
                    withdraw("the entry succeeded after the decision".to_owned())
                }
            };
        }
        decided.standing.clone()
    }

    /// Everything there is to undo, as far as was heard. What an earlier revision held stays in it.
    pub(super) fn plan(&self) -> Plan {
        let effects: BTreeMap<&Peer, Effect> = self.effects().collect();
        let wanted: BTreeSet<Peer> = effects.keys().map(|p| (*p).clone()).collect();
        let entries = order(self.trace, &wanted)
            .into_iter()
            .map(|(service, place)| PlanEntry {
                effect: effects.get(&service).copied().unwrap_or_default(),
                service,
                by_hand: true,
                after: place.after,
                together: place.together,
            })
            .collect();
        Plan {
            entries,
            missing: self.missing(),
        }
    }

    /// Services of the event, or of its learned flow, that lost reports or fell silent in its time. A request that was
    /// refused names its event's services too: an earlier one may have passed there, and be among what was lost.
    fn missing(&self) -> BTreeSet<Peer> {
        let earlier = self.planned().into_iter().flat_map(|p| &p.missing);
        let from_ms = self.trace.may_have_begun_ms();
        let to_ms = self
            .trace
            .last_received_ms
            .saturating_add(self.event.settle_ms());
        self.now
            .losses
            .iter()
            .filter(|loss| loss.span.from_ms <= to_ms && loss.span.to_ms >= from_ms)
            .map(|loss| &loss.service)
            .filter(|service| {
                self.trace.takes_part(service)
                    || self.trace.is_named_by_refusals(service)
                    || self
                        .flow
                        .is_some_and(|flow| flow.steps.contains_key(*service))
            })
            .chain(earlier)
            .cloned()
            .collect()
    }

    /// Whether an entry attempt succeeded that was heard of after `ms`.
    fn entry_succeeded_after(&self, ms: u64) -> bool {
        self.trace.entry_call().is_some_and(|call| {
            call.attempts.iter().any(|a| {
                a.seen_by == SeenBy::Service
                    && a.outcome == Outcome::Succeeded
                    && a.received_ms > ms
            })
        })
    }

    /// Services with something to undo, or that had in an earlier revision.
    fn effects(&self) -> impl Iterator<Item = (&Peer, Effect)> {
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
