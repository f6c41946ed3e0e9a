//! A trace as people and programs read it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use kaeru_flow::{Attempt, CallTrace, Cleanup, Considered, RefusalSeen, SeenBy, Step, UndoSeen};
use kaeru_protocol::{Outcome, Peer, Side, Word};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::decisions::ReportView;
use crate::http::grounds::{QuoteView, Quoted};
use crate::http::time::Time;

/// What one service or external host did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Step)]
pub(super) struct StepView {
    service: String,
    /// A host outside the mesh, as its callers saw it.
    external: bool,
    gateway: bool,
    /// The event began here.
    entry: bool,
    /// The worst of its calls and its word: `succeeded`, `running`, `refused`, `rejected`, `unknown`, `failed`.
    #[schema(value_type = String, example = "succeeded")]
    outcome: Outcome,
    /// What it may have left behind: `yes`, `maybe` or `no`.
    #[schema(example = "yes")]
    effect: &'static str,
    /// Who called it.
    parents: Vec<String>,
    /// The last that the service itself said: `running`, `succeeded`, `rejected` or `failed`.
    #[schema(value_type = Option<String>)]
    word: Option<Word>,
    /// How far it is, 0 to 1.
    progress: Option<f32>,
    /// The sum of its request costs.
    cost: Option<f64>,
    calls: Vec<CallView>,
}

/// Retries of one thing.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Call)]
struct CallView {
    /// The caller; `null` at the entry.
    from: Option<String>,
    method: String,
    /// Ids folded.
    path: String,
    /// The best of its attempts.
    #[schema(value_type = String, example = "succeeded")]
    outcome: Outcome,
    #[schema(example = "yes")]
    effect: &'static str,
    attempts: Vec<AttemptView>,
}

/// One request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attempt)]
struct AttemptView {
    /// Its first report.
    report: ReportView,
    /// When it began, by the clock of its reporter.
    at: Time,
    /// When it was sent, by the clock of its caller.
    sent: Option<Time>,
    /// How long it took, or has taken as last reported.
    duration_ms: u32,
    /// HTTP status; `null` without an answer.
    status: Option<u16>,
    grpc: Option<u8>,
    /// Envoy's response flags.
    flags: u64,
    /// Which of Envoy's retries it was; as its caller saw it: how many were made.
    attempt: u32,
    #[schema(value_type = String, example = "succeeded")]
    outcome: Outcome,
    /// Whose view this is: `service` or `caller`.
    #[schema(example = "service")]
    seen_by: &'static str,
    /// It has not ended as far as was heard.
    open: bool,
}

/// A request that was refused, or would have been.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RefusedRequest)]
pub(super) struct RefusalView {
    /// At whose proxy.
    service: String,
    #[schema(value_type = String, example = "inbound")]
    side: Side,
    from: Option<String>,
    to: Option<String>,
    method: String,
    path: String,
    at: Time,
    /// `false` in shadow mode: it went on.
    enforced: bool,
}

/// A clean-up request that was let through.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Cleanup)]
pub(super) struct CleanupView {
    /// At whose proxy.
    service: String,
    #[schema(value_type = String, example = "outbound")]
    side: Side,
    method: String,
    path: String,
    at: Time,
}

/// An undo call that was let through.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Undo)]
pub(super) struct UndoView {
    /// Whose step it reverts.
    service: String,
    /// For which decision.
    decision: Option<String>,
    method: String,
    path: String,
    /// HTTP status; `null` without an answer.
    status: Option<u16>,
    at: Time,
}

/// One rule and what it says.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Considered)]
pub(super) struct ConsideredView {
    #[schema(example = "entry")]
    rule: &'static str,
    fired: bool,
    /// Why, or why not.
    why: String,
    /// What the policy says that it relied on, and on which line.
    policy: Vec<QuoteView>,
    /// When it is asked again without a new report; `null` where only a report can change its word.
    asked_again: Option<Time>,
}

/// The steps as the event went through them: each before those that it called, in the order of its calls. Siblings
/// are in order by their caller's clock; between services that do not call each other there is none to trust.
pub(super) fn steps(entry: Option<&Peer>, mut steps: BTreeMap<Peer, Step>) -> Vec<StepView> {
    let mut views = Vec::with_capacity(steps.len());
    for peer in in_order(entry, &steps) {
        if let Some(step) = steps.remove(&peer) {
            views.push(StepView::new(&peer, step, entry));
        }
    }
    views
}

fn in_order(entry: Option<&Peer>, steps: &BTreeMap<Peer, Step>) -> Vec<Peer> {
    let mut roots: Vec<&Peer> = steps.keys().collect();
    roots.sort_by_key(|peer| {
        (
            entry != Some(*peer),
            steps[*peer].parents.len(),
            first_call_ms(&steps[*peer], None),
        )
    });
    let mut ordered = Vec::with_capacity(steps.len());
    for root in roots {
        let mut next = vec![root];
        while let Some(peer) = next.pop() {
            if ordered.contains(peer) {
                continue;
            }
            ordered.push(peer.clone());
            let mut called: Vec<(&Peer, &Step)> = steps
                .iter()
                .filter(|(_, step)| step.parents.contains(peer))
                .collect();
            called.sort_by_key(|(_, step)| Reverse(first_call_ms(step, Some(peer))));
            next.extend(called.into_iter().map(|(callee, _)| callee));
        }
    }
    ordered
}

/// When the step was first called, by this caller or by anybody.
fn first_call_ms(step: &Step, caller: Option<&Peer>) -> Option<u64> {
    let is_from = |call: &&CallTrace| {
        caller.is_none_or(|peer| {
            call.from
                .as_ref()
                .is_some_and(|from| from.as_str() == peer.as_str())
        })
    };
    let attempts = step
        .calls
        .iter()
        .filter(is_from)
        .flat_map(|call| &call.attempts);
    attempts
        .map(|attempt| attempt.sent_ms.unwrap_or(attempt.began_ms))
        .min()
}

impl StepView {
    fn new(peer: &Peer, step: Step, entry: Option<&Peer>) -> Self {
        Self {
            service: peer.to_string(),
            external: step.external,
            gateway: step.gateway,
            entry: entry == Some(peer),
            outcome: step.outcome,
            effect: step.effect.as_str(),
            parents: step.parents.iter().map(ToString::to_string).collect(),
            word: step.word.map(|said| said.word),
            progress: step.progress,
            cost: step.cost,
            calls: step.calls.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<CallTrace> for CallView {
    fn from(call: CallTrace) -> Self {
        Self {
            from: call.from.map(Into::into),
            method: call.method.into(),
            path: call.path.into(),
            outcome: call.outcome,
            effect: call.effect.as_str(),
            attempts: call.attempts.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Attempt> for AttemptView {
    fn from(attempt: Attempt) -> Self {
        Self {
            report: attempt.key.into(),
            at: Time::of_millis(attempt.began_ms),
            sent: attempt.sent_ms.map(Time::of_millis),
            duration_ms: attempt.duration_ms,
            status: attempt.ending.status,
            grpc: attempt.ending.grpc,
            flags: attempt.ending.flags,
            attempt: attempt.number,
            outcome: attempt.outcome,
            seen_by: match attempt.seen_by {
                SeenBy::Service => "service",
                SeenBy::Caller => "caller",
            },
            open: attempt.open.is_some(),
        }
    }
}

impl From<RefusalSeen> for RefusalView {
    fn from(seen: RefusalSeen) -> Self {
        Self {
            service: seen.service.into(),
            side: seen.side,
            from: seen.from.map(Into::into),
            to: seen.to.map(Into::into),
            method: seen.method.into(),
            path: seen.path.into(),
            at: Time::of_millis(seen.at_ms),
            enforced: seen.enforced,
        }
    }
}

impl From<Cleanup> for CleanupView {
    fn from(cleanup: Cleanup) -> Self {
        Self {
            service: cleanup.service.into(),
            side: cleanup.side,
            method: cleanup.method.into(),
            path: cleanup.path.into(),
            at: Time::of_millis(cleanup.at_ms),
        }
    }
}

impl From<UndoSeen> for UndoView {
    fn from(seen: UndoSeen) -> Self {
        Self {
            service: seen.service.into(),
            decision: seen.decision.map(Into::into),
            method: seen.method.into(),
            path: seen.path.into(),
            status: seen.ending.status,
            at: Time::of_millis(seen.at_ms),
        }
    }
}

impl ConsideredView {
    /// `policy` is what it was judged by.
    pub(super) fn new(considered: Considered, policy: &Quoted) -> Self {
        Self {
            policy: policy
                .quotes(&considered.grounds)
                .iter()
                .map(QuoteView::from)
                .collect(),
            rule: considered.rule.as_str(),
            fired: considered.fired,
            why: considered.why.into(),
            asked_again: considered.until_ms.map(Time::of_millis),
        }
    }
}
