//! The breaker: when too many events of a type are doomed at once, more likely the policy or a shared fault is
//! wrong than all of them; the type falls back to `shadow`, until the policy changes or an operator closes the
//! breaker. And what follows from a change of what is in force: verdicts that are told again with their new mode.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use kaeru_protocol::{EventType, Mode};

use crate::app::Parts;
use crate::clock::timestamp;
use crate::policy::InForce;
use crate::store::breakers::{self, Breaker};
use crate::store::{Result, decisions, feed};

/// The time over which events are counted.
const WINDOW: TimeDelta = TimeDelta::minutes(1);
/// Fewer decisions than this trip nothing: a share of a few events says little.
const DOOMED_MIN: i64 = 20;
/// Verdicts looked at in one statement.
const PAGE: i64 = 1_000;

/// What became of closing a breaker.
#[derive(Debug)]
pub(crate) enum Closed {
    /// The type's mode is the policy's again.
    Done(Breaker),
    /// It was closed before.
    Before(Breaker),
    /// None of this type has tripped under the policy in force.
    Unknown,
}

/// Trips the breakers of event types of which more than the policy's share was doomed in the last minute; what is in
/// force then.
pub(crate) async fn check(parts: &Parts, now: DateTime<Utc>) -> Result<Arc<InForce>> {
    let mut connection = parts.store.own().acquire().await?;
    let in_force = parts
        .policies
        .current(&mut connection, &parts.metrics)
        .await?;
    let since = now - WINDOW;
    let mut is_changed = false;
    for suspect in breakers::doomed_since(&mut connection, since, DOOMED_MIN).await? {
        let event_type: Option<EventType> = suspect.r#type.parse().ok();
        if in_force.mode(event_type.as_ref(), None) <= Mode::Shadow {
            continue;
        }
        let percent = in_force
            .policy
            .for_event(event_type.as_ref(), None)
            .doomed_max_percent();
        let Some(enough) = events_for(suspect.doomed, percent) else {
            continue;
        };
        if breakers::began_at_least(&mut connection, &suspect.r#type, since, enough).await? {
            continue;
        }
        let mut transaction = parts.store.begin().await?;
        let is_tripped =
            breakers::trip(&mut transaction, &suspect, in_force.version(), now).await?;
        transaction.commit().await?;
        if is_tripped {
            is_changed = true;
            parts.metrics.breaker_trips.inc();
            tracing::error!(
                event_type = suspect.r#type,
                doomed = suspect.doomed,
                percent,
                "too many events of this type were doomed in a minute: it falls back to shadow until an \
                 operator closes its breaker or the policy changes"
            );
        }
    }
    if !is_changed {
        return Ok(in_force);
    }
    let policies = &parts.policies;
    policies.current(&mut connection, &parts.metrics).await
}

/// Closes the breaker of a type for an operator. Verdicts are told again with their mode at the next beat.
pub(crate) async fn close(
    parts: &Parts,
    event_type: &str,
    by: &str,
    reason: &str,
    now_ms: u64,
) -> Result<Closed> {
    let mut connection = parts.store.own().acquire().await?;
    let in_force = parts
        .policies
        .current(&mut connection, &parts.metrics)
        .await?;
    let version = in_force.version();
    drop(connection);
    let mut transaction = parts.store.begin().await?;
    let now = timestamp(now_ms);
    let closed = breakers::close(&mut transaction, event_type, version, by, reason, now).await?;
    let Some(closed) = closed else {
        let last = breakers::last(&mut transaction, event_type, version).await?;
        return Ok(last.map_or(Closed::Unknown, Closed::Before));
    };
    transaction.commit().await?;
    tracing::info!(event_type, by, reason, "an operator closed the breaker");
    Ok(Closed::Done(closed))
}

/// How many events must have begun for `doomed` of them to be at most `percent`; `None` when any number will do.
fn events_for(doomed: i64, percent: u8) -> Option<i64> {
    match percent {
        100.. => None,
        0 => Some(i64::MAX),
        _ => Some((doomed * 100 + i64::from(percent) - 1) / i64::from(percent)),
    }
}

/// Tells again, with its new mode, each verdict whose mode is another one by what is in force now.
pub(crate) async fn tell_modes_again(
    parts: &Parts,
    in_force: &Arc<InForce>,
    now: DateTime<Utc>,
) -> Result<()> {
    let mut after = String::new();
    loop {
        let mut transaction = parts.store.begin().await?;
        let page = feed::in_force(&mut transaction, &after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after.clone_from(&last.event);
        let changed: Vec<(String, Mode)> = page
            .into_iter()
            .filter_map(|row| {
                let event_type = row.r#type.and_then(|name| name.parse().ok());
                let entry = row.entry.and_then(|entry| entry.parse().ok());
                let mode = in_force.mode(event_type.as_ref(), entry.as_ref());
                (decisions::mode_word(mode) != row.mode).then_some((row.event, mode))
            })
            .collect();
        feed::tell_modes(&mut transaction, &changed, now).await?;
        transaction.commit().await?;
        if !changed.is_empty() {
            parts.feed.wake();
        }
    }
}
