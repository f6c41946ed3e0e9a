//! The way back: an operator takes a decision back, and everybody is told `proceed`.

use kaeru_flow::{Decision, Standing, Withdrawal};
use kaeru_protocol::DecisionId;

use crate::app::Parts;
use crate::clock::timestamp;
use crate::store::decisions::{self, Stored};
use crate::store::feed::{self, Telling};
use crate::store::{Result, events, intake};

/// What became of it.
#[derive(Debug)]
pub(crate) enum Withdrawn {
    /// The decision no longer holds.
    Done(Box<Stored>),
    /// There is no such decision.
    Unknown,
    /// It can no longer be taken back, for this reason.
    TooLate(&'static str),
}

/// Takes a decision back, unless an undo was acknowledged.
pub(crate) async fn withdraw(
    parts: &Parts,
    id: &DecisionId,
    by: Box<str>,
    reason: Box<str>,
    now_ms: u64,
) -> Result<Withdrawn> {
    let now = timestamp(now_ms);
    let mut transaction = parts.store.begin().await?;
    let Some(found) = decisions::find(&mut transaction, id).await? else {
        return Ok(Withdrawn::Unknown);
    };
    // Behind the event's lock nobody revises it; what was read before may be old.
    let event = [found.event.to_string()];
    events::lock(&mut transaction, &event, now).await?;
    let Some(found) = decisions::find(&mut transaction, id).await? else {
        return Ok(Withdrawn::Unknown);
    };
    if matches!(found.decision.standing, Standing::Withdrawn(_)) {
        return Ok(Withdrawn::TooLate("the decision is already withdrawn"));
    }
    if decisions::is_undo_acknowledged(&mut transaction, &found).await? {
        return Ok(Withdrawn::TooLate(
            "a service has already acknowledged its undo",
        ));
    }
    let stored = Stored {
        revised_at: now,
        decision: withdrawn(found.decision, by, reason, now_ms),
        ..found
    };
    decisions::save(&mut transaction, std::slice::from_ref(&stored)).await?;
    // What the event is now, the decider says.
    intake::add(&mut transaction, &event, None, now).await?;
    let expires_at =
        now + chrono::TimeDelta::from_std(parts.config.verdict_idle()).unwrap_or_default();
    let telling = Telling::of(&stored, stored.mode, expires_at);
    let announced = feed::tell(&mut transaction, &[telling], now).await?;
    transaction.commit().await?;
    parts.metrics.withdrawals.inc();
    parts.decider.told(announced);
    parts.decider.hurry();
    tracing::info!(event = %stored.event, decision = %stored.id, "withdrawn by an operator");
    Ok(Withdrawn::Done(Box::new(stored)))
}

/// The revision by which a decision is taken back.
pub fn withdrawn(decision: Decision, by: Box<str>, reason: Box<str>, at_ms: u64) -> Decision {
    Decision {
        revision: decision.revision + 1,
        standing: Standing::Withdrawn(Withdrawal { by, reason, at_ms }),
        ..decision
    }
}
