//! A decision as people and programs read it, in short; what stands beside it on its own page is in `story.rs`.

use std::collections::{BTreeSet, HashMap};

use kaeru_flow::{Decision, Evidence, PlanEntry, ReportKey, Standing};
use kaeru_protocol::{EventType, Peer};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::time::Time;
use crate::store::decisions::{Source, Stored, mode_word, standing_word};

/// That an event must be rolled back, why, and what there is to undo.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Decision)]
pub(crate) struct DecisionView {
    id: String,
    /// The event that it is about.
    event: String,
    /// The event's type.
    r#type: Option<String>,
    /// Grows by one at each change.
    revision: u32,
    /// `live`, `contested` (the entry succeeded after it) or `withdrawn`.
    #[schema(example = "live")]
    state: &'static str,
    reason: ReasonView,
    /// The reports that the reason rests on.
    evidence: Vec<EvidenceView>,
    plan: PlanView,
    /// The policy that it was decided by; 0 is the built-in one.
    policy_version: u64,
    /// The policy that the last revision's plan was read by.
    plan_policy_version: u64,
    /// The learned flow that completeness was judged by.
    flow_version: Option<u64>,
    /// `off`, `shadow` or `enforce`, as it was when it was decided.
    #[schema(example = "enforce")]
    mode: &'static str,
    decided_at: Time,
    /// When its last revision was written.
    revised_at: Time,
    withdrawn: Option<WithdrawnView>,
}

/// Why.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reason)]
struct ReasonView {
    /// The rule that fired.
    #[schema(example = "word")]
    rule: &'static str,
    /// The service or host whose step failed, where one did.
    peer: Option<String>,
    /// In words.
    text: String,
}

/// Which report.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReportKey)]
pub(crate) struct ReportView {
    /// Who stated it: 16 hex digits.
    reporter: String,
    /// Its sequence there.
    seq: u64,
}

/// One report that a decision rests on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Evidence)]
struct EvidenceView {
    /// Who stated it: 16 hex digits.
    reporter: String,
    /// Its sequence there.
    seq: u64,
    /// What it says.
    text: String,
    /// The service whose proxy stated it; `kaeru-system/operator` for an operator's demand.
    service: Option<String>,
    /// That proxy.
    proxy: Option<String>,
    /// When it was so.
    at: Option<Time>,
    /// When it was received.
    received_at: Option<Time>,
}

/// What there is to undo.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Plan)]
struct PlanView {
    /// Every service of the event could be heard.
    complete: bool,
    /// Those that could not.
    missing: Vec<String>,
    /// In an order that respects `after`.
    entries: Vec<PlanEntryView>,
}

/// One service that has something to undo.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PlanEntry)]
struct PlanEntryView {
    service: String,
    /// `yes`, `maybe`; `no` where it was cleared since an earlier revision.
    #[schema(example = "yes")]
    effect: &'static str,
    /// Nobody can be called to undo it: it waits for an operator.
    by_hand: bool,
    /// What must be undone before it.
    after: Vec<String>,
    /// What is undone together with it.
    together: Vec<String>,
}

/// Who took it back, and why.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Withdrawal)]
struct WithdrawnView {
    by: String,
    reason: String,
    at: Time,
}

impl DecisionView {
    /// `sources` say who stated the evidence.
    pub(crate) fn new(stored: Stored, sources: &HashMap<(String, ReportKey), Source>) -> Self {
        let id = stored.id.to_string();
        let source = |key: ReportKey| sources.get(&(id.clone(), key)).cloned();
        let Decision {
            revision,
            standing,
            reason,
            evidence,
            // On the decision's own page, quoted.
            grounds: _,
            plan,
            policy_version,
            plan_policy_version,
            flow_version,
            decided_ms,
        } = stored.decision;
        let state = standing_word(&standing);
        Self {
            id: stored.id.into(),
            event: stored.event.into(),
            r#type: stored.event_type.map(EventType::into),
            revision,
            state,
            reason: ReasonView {
                rule: reason.rule().as_str(),
                peer: reason.failed().map(ToString::to_string),
                text: reason.to_string(),
            },
            evidence: evidence
                .into_iter()
                .map(|evidence| EvidenceView::new(source(evidence.key), evidence))
                .collect(),
            plan: PlanView {
                complete: plan.is_complete(),
                missing: names(&plan.missing),
                entries: plan.entries.into_iter().map(PlanEntryView::from).collect(),
            },
            policy_version,
            plan_policy_version,
            flow_version,
            mode: mode_word(stored.mode),
            decided_at: Time::of_millis(decided_ms),
            revised_at: Time(stored.revised_at),
            withdrawn: match standing {
                Standing::Live | Standing::Contested => None,
                Standing::Withdrawn(withdrawal) => Some(WithdrawnView {
                    by: withdrawal.by.into(),
                    reason: withdrawal.reason.into(),
                    at: Time::of_millis(withdrawal.at_ms),
                }),
            },
        }
    }
}

impl From<ReportKey> for ReportView {
    fn from(key: ReportKey) -> Self {
        Self {
            reporter: key.reporter.to_string(),
            seq: key.seq,
        }
    }
}

impl EvidenceView {
    fn new(source: Option<Source>, evidence: Evidence) -> Self {
        let ReportKey { reporter, seq } = evidence.key;
        let received_at = source.as_ref().map(|source| Time(source.received));
        let (service, proxy) = source.map(|s| (s.service, s.proxy)).unzip();
        Self {
            reporter: reporter.to_string(),
            seq,
            text: evidence.text.into(),
            service,
            proxy,
            at: (evidence.at_ms > 0).then(|| Time::of_millis(evidence.at_ms)),
            received_at,
        }
    }
}

impl From<PlanEntry> for PlanEntryView {
    fn from(entry: PlanEntry) -> Self {
        Self {
            service: entry.service.to_string(),
            effect: entry.effect.as_str(),
            by_hand: entry.by_hand,
            after: names(&entry.after),
            together: names(&entry.together),
        }
    }
}

fn names(peers: &BTreeSet<Peer>) -> Vec<String> {
    peers.iter().map(ToString::to_string).collect()
}
