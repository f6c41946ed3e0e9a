//! The breaker: when too many events of a type are doomed at once, more likely the policy or a shared fault is
//! wrong than all of them; the type falls back to `shadow`. And what follows from a change of what is in force:
//! verdicts that are told again with their new mode.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use kaeru_protocol::{EventType, Mode};

use crate::app::Parts;
use crate::policy::InForce;
use crate::store::{Result, breakers, decisions, feed};

/// The time over which events are counted.
const WINDOW: TimeDelta = TimeDelta::minutes(1);
/// Fewer decisions than this trip nothing: a share of a few events says little.
const DOOMED_MIN: i64 = 20;
/// Verdicts looked at in one statement.
const PAGE: i64 = 1_000;

/// Trips the breakers of event types of which more than the policy's share was doomed in the last minute.
pub(crate) async fn check(parts: &Parts, now: DateTime<Utc>) -> Result<()> {
    let mut connection = parts.store.pool().acquire().await?;
    let in_force = parts
        .policies
        .current(&mut connection, &parts.metrics)
        .await?;
    let since = now - WINDOW;
    let mut is_changed = false;
    for (name, doomed) in breakers::doomed_since(&mut connection, since, DOOMED_MIN).await? {
        let event_type: Option<EventType> = name.parse().ok();
        if in_force.mode(event_type.as_ref(), None) <= Mode::Shadow {
            continue;
        }
        let percent = in_force
            .policy
            .for_event(event_type.as_ref(), None)
            .doomed_max_percent();
        let Some(enough) = events_for(doomed, percent) else {
            continue;
        };
        if breakers::began_at_least(&mut connection, &name, since, enough).await? {
            continue;
        }
        if breakers::trip(&mut connection, &name, in_force.version(), doomed, now).await? {
            is_changed = true;
            parts.metrics.breaker_trips.inc();
            tracing::error!(
                event_type = name,
                doomed,
                percent,
                "too many events of this type were doomed in a minute: it falls back to shadow until the \
                 policy changes"
            );
        }
    }
    if is_changed {
        parts
            .policies
            .current(&mut connection, &parts.metrics)
            .await?;
    }
    Ok(())
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
        parts.decider.told(!changed.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::events_for;

    #[test]
    fn a_share_is_exceeded_only_above_it() {
        assert_eq!(events_for(20, 20), Some(100));
        assert_eq!(events_for(21, 20), Some(105));
        assert_eq!(events_for(20, 30), Some(67));
        assert_eq!(events_for(20, 100), None);
        assert_eq!(events_for(20, 0), Some(i64::MAX));
    }
}
