//! A breaker as people and programs read it.

use kaeru_protocol::EventType;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::time::Time;
use crate::policy::InForce;
use crate::store::breakers::Breaker;

/// An event type that fell back to shadow.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Breaker)]
pub(crate) struct BreakerView {
    /// The event type; `null` stands for events of no type.
    r#type: Option<String>,
    /// Since when it is open.
    tripped_at: Time,
    /// The policy that it tripped under; a changed policy closes it.
    policy_version: u64,
    /// Events of the type that were doomed within the minute before.
    doomed: u64,
    /// In words.
    text: String,
    /// Who closed it; `null` while it is open.
    closed: Option<ClosedView>,
}

/// Who closed it, and why.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Closing)]
struct ClosedView {
    by: String,
    reason: String,
    at: Time,
}

impl BreakerView {
    /// `in_force` is the policy that it tripped under.
    pub(crate) fn new(breaker: Breaker, in_force: &InForce) -> Self {
        let text = text(&breaker, in_force);
        Self {
            r#type: Some(breaker.r#type).filter(|name| !name.is_empty()),
            tripped_at: Time(breaker.tripped_at),
            policy_version: breaker.policy_version.cast_unsigned(),
            doomed: breaker.doomed.cast_unsigned(),
            text,
            closed: breaker.closed_at.map(|at| ClosedView {
                by: breaker.closed_by.unwrap_or_default(),
                reason: breaker.closed_for.unwrap_or_default(),
                at: Time(at),
            }),
        }
    }
}

fn text(breaker: &Breaker, in_force: &InForce) -> String {
    let event_type: Option<EventType> = breaker.r#type.parse().ok();
    let percent = in_force
        .policy
        .for_event(event_type.as_ref(), None)
        .doomed_max_percent();
    let doomed = format!(
        "{} were doomed within a minute, more than {percent} % of those that began",
        events(breaker)
    );
    match (breaker.closed_at, &breaker.closed_by, &breaker.closed_for) {
        (Some(at), by, reason) => format!(
            "{doomed}; closed at {} by {}: {}",
            Time(at),
            by.as_deref().unwrap_or_default(),
            reason.as_deref().unwrap_or_default()
        ),
        (None, ..) => format!(
            "{doomed}: requests are counted and not refused, until an operator closes the breaker or the policy changes"
        ),
    }
}

/// That it was closed before, and by whom.
pub(super) fn closed_before(breaker: &Breaker) -> String {
    let at = breaker
        .closed_at
        .map_or_else(String::new, |at| Time(at).to_string());
    format!(
        "it was closed at {at} by {}: {}",
        breaker.closed_by.as_deref().unwrap_or_default(),
        breaker.closed_for.as_deref().unwrap_or_default()
    )
}

fn events(breaker: &Breaker) -> String {
    if breaker.r#type.is_empty() {
        format!("{} events of no type", breaker.doomed)
    } else {
        format!("{} events of type {}", breaker.doomed, breaker.r#type)
    }
}
