//! What a look leaves in the event's row.

use kaeru_flow::{EventState, Judgement, Trace};
use kaeru_protocol::{Outcome, Peer};

use crate::clock::timestamp;
use crate::store::decisions::Stored;
use crate::store::events::Looked;

/// The row of an event after a look. `decision` is its last one, withdrawn or not.
pub(super) fn looked(
    trace: &Trace,
    judgement: &Judgement,
    decision: Option<&Stored>,
    learned: bool,
) -> Looked {
    Looked {
        event: trace.event.clone(),
        event_type: trace.event_type.as_ref().map(ToString::to_string),
        state: judgement.state.as_str(),
        borrowed: trace.borrowed,
        shared: trace.shared.is_some(),
        entry: trace.entry.as_ref().map(ToString::to_string),
        services: trace.steps.keys().map(ToString::to_string).collect(),
        failed: failed(trace, judgement.state, decision).map(ToString::to_string),
        decision: decision.map(|stored| stored.id.to_string()),
        first_at: timestamp(trace.first_ms),
        last_at: timestamp(trace.last_ms),
        last_received: timestamp(trace.last_received_ms),
        reports: i64::try_from(trace.reports).unwrap_or(i64::MAX),
        wake_at: judgement.wake_ms.map(timestamp),
        learned,
    }
}

/// Whose step failed: as the decision says; else, of an event that failed, the deepest step that did: one none of
/// whose callees failed.
fn failed<'a>(
    trace: &'a Trace,
    state: EventState,
    decision: Option<&'a Stored>,
) -> Option<&'a Peer> {
    if let Some(peer) = decision.and_then(|stored| stored.decision.reason.failed()) {
        return Some(peer);
    }
    if state != EventState::Failed {
        return None;
    }
    let is_bad = |outcome| {
        matches!(
            outcome,
            Outcome::Failed | Outcome::Unknown | Outcome::Rejected
        )
    };
    let bad = || {
        trace
            .steps
            .iter()
            .filter(move |(_, step)| is_bad(step.outcome))
    };
    bad()
        .find(|(peer, _)| !bad().any(|(_, callee)| callee.parents.contains(*peer)))
        .or_else(|| bad().next())
        .map(|(peer, _)| peer)
}
