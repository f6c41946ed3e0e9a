//! The JSON form in which the store keeps a decision, and the way back.

use std::collections::BTreeSet;

use kaeru_flow::{
    Decision, Effect, Evidence, Ground, Plan, PlanEntry, Reason, ReportKey, Scope, Stall, Standing,
    Withdrawal,
};
use kaeru_protocol::{EventType, Outcome, Peer, ReporterId};
use serde::{Deserialize, Serialize};

/// A decision in JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Body {
    revision: u32,
    standing: StandingBody,
    reason: ReasonBody,
    evidence: Vec<EvidenceBody>,
    entries: Vec<EntryBody>,
    missing: BTreeSet<Peer>,
    policy_version: u64,
    #[serde(default)]
    plan_policy_version: Option<u64>,
    #[serde(default)]
    grounds: Vec<GroundBody>,
    flow_version: Option<u64>,
    decided_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct GroundBody {
    scope: ScopeBody,
    key: Box<str>,
    says: Box<str>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ScopeBody {
    Default,
    Global,
    EventType(EventType),
    Service(Peer),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
enum StandingBody {
    Live,
    Contested,
    Withdrawn {
        by: Box<str>,
        reason: Box<str>,
        at_ms: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "rule")]
enum ReasonBody {
    Word { service: Peer },
    Fatal { peer: Peer, status: String },
    Entry { service: Peer, outcome: Outcome },
    Deadline { given_ms: u64 },
    Stalled { service: Peer, how: StallBody },
    Operator { words: Box<str> },
    Learned { service: Peer },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StallBody {
    NotNamed,
    NoWord,
    OutOfTouch,
}

#[derive(Debug, Serialize, Deserialize)]
struct EvidenceBody {
    reporter: ReporterId,
    seq: u64,
    #[serde(default)]
    at_ms: u64,
    text: Box<str>,
}

#[derive(Debug, Serialize, Deserialize)]
struct EntryBody {
    service: Peer,
    effect: EffectBody,
    by_hand: bool,
    after: BTreeSet<Peer>,
    together: BTreeSet<Peer>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EffectBody {
    No,
    Maybe,
    Yes,
}

impl From<&Decision> for Body {
    fn from(decision: &Decision) -> Self {
        Self {
            revision: decision.revision,
            standing: match &decision.standing {
                Standing::Live => StandingBody::Live,
                Standing::Contested => StandingBody::Contested,
                Standing::Withdrawn(w) => StandingBody::Withdrawn {
                    by: w.by.clone(),
                    reason: w.reason.clone(),
                    at_ms: w.at_ms,
                },
            },
            reason: (&decision.reason).into(),
            evidence: decision
                .evidence
                .iter()
                .map(|e| EvidenceBody {
                    reporter: e.key.reporter,
                    seq: e.key.seq,
                    at_ms: e.at_ms,
                    text: e.text.clone(),
                })
                .collect(),
            entries: decision
                .plan
                .entries
                .iter()
                .map(|entry| EntryBody {
                    service: entry.service.clone(),
                    effect: match entry.effect {
                        Effect::No => EffectBody::No,
                        Effect::Maybe => EffectBody::Maybe,
                        Effect::Yes => EffectBody::Yes,
                    },
                    by_hand: entry.by_hand,
                    after: entry.after.clone(),
                    together: entry.together.clone(),
                })
                .collect(),
            missing: decision.plan.missing.clone(),
            policy_version: decision.policy_version,
            plan_policy_version: Some(decision.plan_policy_version),
            grounds: decision.grounds.iter().map(GroundBody::from).collect(),
            flow_version: decision.flow_version,
            decided_ms: decision.decided_ms,
        }
    }
}

impl From<&Ground> for GroundBody {
    fn from(ground: &Ground) -> Self {
        Self {
            scope: match ground.scope.clone() {
                Scope::Default => ScopeBody::Default,
                Scope::Global => ScopeBody::Global,
                Scope::EventType(event_type) => ScopeBody::EventType(event_type),
                Scope::Service(peer) => ScopeBody::Service(peer),
            },
            key: ground.key.clone(),
            says: ground.says.clone(),
        }
    }
}

impl From<GroundBody> for Ground {
    fn from(body: GroundBody) -> Self {
        Self {
            scope: match body.scope {
                ScopeBody::Default => Scope::Default,
                ScopeBody::Global => Scope::Global,
                ScopeBody::EventType(event_type) => Scope::EventType(event_type),
                ScopeBody::Service(peer) => Scope::Service(peer),
            },
            key: body.key,
            says: body.says,
        }
    }
}

impl From<&Reason> for ReasonBody {
    fn from(reason: &Reason) -> Self {
        match reason.clone() {
            Reason::Word { service } => Self::Word { service },
            Reason::Fatal { peer, status } => Self::Fatal {
                peer,
                status: status.to_string(),
            },
            Reason::Entry { service, outcome } => Self::Entry { service, outcome },
            Reason::Deadline { given_ms } => Self::Deadline { given_ms },
            Reason::Stalled { service, how } => Self::Stalled {
                service,
                how: match how {
                    Stall::NotNamed => StallBody::NotNamed,
                    Stall::NoWord => StallBody::NoWord,
                    Stall::OutOfTouch => StallBody::OutOfTouch,
                },
            },
            Reason::Operator { words } => Self::Operator { words },
            Reason::Learned { service } => Self::Learned { service },
        }
    }
}

impl TryFrom<ReasonBody> for Reason {
    type Error = String;

    fn try_from(body: ReasonBody) -> Result<Self, String> {
        Ok(match body {
            ReasonBody::Word { service } => Self::Word { service },
            ReasonBody::Fatal { peer, status } => Self::Fatal {
                peer,
                status: status.parse().map_err(|e| format!("{e}"))?,
            },
            ReasonBody::Entry { service, outcome } => Self::Entry { service, outcome },
            ReasonBody::Deadline { given_ms } => Self::Deadline { given_ms },
            ReasonBody::Stalled { service, how } => Self::Stalled {
                service,
                how: match how {
                    StallBody::NotNamed => Stall::NotNamed,
                    StallBody::NoWord => Stall::NoWord,
                    StallBody::OutOfTouch => Stall::OutOfTouch,
                },
            },
            ReasonBody::Operator { words } => Self::Operator { words },
            ReasonBody::Learned { service } => Self::Learned { service },
        })
    }
}

impl TryFrom<Body> for Decision {
    type Error = String;

    fn try_from(body: Body) -> Result<Self, String> {
        Ok(Self {
            revision: body.revision,
            standing: match body.standing {
                StandingBody::Live => Standing::Live,
                StandingBody::Contested => Standing::Contested,
                StandingBody::Withdrawn { by, reason, at_ms } => {
                    Standing::Withdrawn(Withdrawal { by, reason, at_ms })
                }
            },
            reason: body.reason.try_into()?,
            evidence: body
                .evidence
                .into_iter()
                .map(|e| Evidence {
                    key: ReportKey {
                        reporter: e.reporter,
                        seq: e.seq,
                    },
                    at_ms: e.at_ms,
                    text: e.text,
                })
                .collect(),
            grounds: body.grounds.into_iter().map(Into::into).collect(),
            plan: Plan {
                entries: body
                    .entries
                    .into_iter()
                    .map(|entry| PlanEntry {
                        service: entry.service,
                        effect: match entry.effect {
                            EffectBody::No => Effect::No,
                            EffectBody::Maybe => Effect::Maybe,
                            EffectBody::Yes => Effect::Yes,
                        },
                        by_hand: entry.by_hand,
                        after: entry.after,
                        together: entry.together,
                    })
                    .collect(),
                missing: body.missing,
            },
            policy_version: body.policy_version,
            plan_policy_version: body.plan_policy_version.unwrap_or(body.policy_version),
            flow_version: body.flow_version,
            decided_ms: body.decided_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use kaeru_flow::{
        Decision, Effect, Evidence, Ground, Plan, PlanEntry, Reason, ReportKey, Scope, Standing,
        Withdrawal,
    };
    use kaeru_protocol::ReporterId;

    use super::Body;

    #[test]
    fn a_decision_comes_back_as_it_went() {
        let peer = |name: &str| name.parse().unwrap();
        let decision = Decision {
            revision: 3,
            standing: Standing::Withdrawn(Withdrawal {
                by: "alice".into(),
                reason: "a test".into(),
                at_ms: 7,
            }),
            reason: Reason::Fatal {
                peer: peer("host:pay.example"),
                status: "402".parse().unwrap(),
            },
            evidence: vec![Evidence {
                key: ReportKey {
                    reporter: ReporterId(u64::MAX),
                    seq: 9,
                },
                at_ms: 8,
                text: "it said so".into(),
            }],
            grounds: vec![Ground {
                scope: Scope::Service(peer("host:pay.example")),
                key: "fatal".into(),
                says: "402".into(),
            }],
            plan: Plan {
                entries: vec![PlanEntry {
                    service: peer("shop/db"),
                    effect: Effect::Maybe,
                    by_hand: true,
                    after: [peer("shop/a")].into(),
                    together: [peer("shop/b")].into(),
                }],
                missing: [peer("shop/c")].into(),
            },
            policy_version: 4,
            plan_policy_version: 5,
            flow_version: Some(5),
            decided_ms: 6,
        };
        let json = serde_json::to_string(&Body::from(&decision)).unwrap();
        let body: Body = serde_json::from_str(&json).unwrap();
        assert_eq!(Decision::try_from(body), Ok(decision));
    }
}
