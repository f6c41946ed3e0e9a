//! Everything that is known of one event, read at one moment and judged anew by the same rules as the decider's,
//! so that a page and a decision can never tell two stories. Nothing is written.

use std::sync::Arc;

use kaeru_flow::{Judgement, Now, Policy, Trace, judge};
use kaeru_protocol::{EventId, EventType, Mode, Peer};
use sqlx::PgConnection;

use crate::app::Parts;
use crate::clock::timestamp;
use crate::http::decisions;
use crate::http::grounds::Quoted;
use crate::policy::InForce;
use crate::store::breakers::{self, Breaker};
use crate::store::decisions::Stored;
use crate::store::pages::{self, EventRow};
use crate::store::{self, aggregators, facts, flows, losses, reporters, services};

/// One event.
pub(super) struct Story {
    /// As the decider last saw it; absent before its first look.
    pub(super) row: Option<EventRow>,
    /// What its reports say, and what follows from it; absent where none are kept.
    pub(super) seen: Option<Seen>,
    /// The last decision about it.
    pub(super) decision: Option<decisions::Story>,
    /// The breaker of its type, where it is open.
    pub(super) breaker: Option<Breaker>,
    /// The mode in force for it.
    pub(super) mode: Mode,
    /// What is in force.
    pub(super) in_force: Arc<InForce>,
}

/// What its reports say.
pub(super) struct Seen {
    pub(super) trace: Trace,
    /// Each rule and what it says now, and when something may change without a report.
    pub(super) judgement: Judgement,
    /// The policy that it was judged by.
    pub(super) policy: Quoted,
    /// Services whose proxies hold open requests of it and are silent for longer than they promised.
    pub(super) out_of_touch: Vec<String>,
}

impl Story {
    /// Reads it.
    pub(super) async fn read(parts: &Parts, event: &EventId, now_ms: u64) -> store::Result<Self> {
        let mut connection = parts.store.connection().await?;
        let in_force = parts
            .policies
            .current(&mut connection, &parts.metrics)
            .await?;
        drop(connection);
        let mut snapshot = parts.store.snapshot().await?;
        let row = pages::event(&mut snapshot, event.as_str()).await?;
        let stored = store::decisions::last_of_events(&mut snapshot, &[event.to_string()])
            .await?
            .remove(event);
        // One more than any event may have: with it the id counts as shared.
        let facts_max = in_force.reports_max().saturating_add(1);
        let facts =
            facts::of_events(&mut snapshot, std::slice::from_ref(event), facts_max, None).await?;
        let facts = facts.into_values().next().unwrap_or_default();
        let seen = if facts.is_empty() {
            None
        } else {
            let trace = Trace::fold(event.clone(), facts, &in_force.policy);
            Some(
                Seen::of(
                    &mut snapshot,
                    trace,
                    stored.as_ref(),
                    &in_force.policy,
                    now_ms,
                )
                .await?,
            )
        };
        let event_type = type_of(row.as_ref(), seen.as_ref());
        let entry = entry_of(row.as_ref(), seen.as_ref());
        let name = event_type.as_ref().map_or("", EventType::as_str);
        let breaker = breakers::open_of(&mut snapshot, name, in_force.version()).await?;
        let decision = match stored {
            None => None,
            Some(stored) => Some(decisions::Story::read(&mut snapshot, &in_force, stored).await?),
        };
        Ok(Self {
            mode: in_force.mode(event_type.as_ref(), entry.as_ref()),
            row,
            seen,
            decision,
            breaker,
            in_force,
        })
    }
}

fn type_of(row: Option<&EventRow>, seen: Option<&Seen>) -> Option<EventType> {
    match (seen, row) {
        (Some(seen), _) => seen.trace.event_type.clone(),
        (None, row) => row?.r#type.as_deref()?.parse().ok(),
    }
}

fn entry_of(row: Option<&EventRow>, seen: Option<&Seen>) -> Option<Peer> {
    match (seen, row) {
        (Some(seen), _) => seen.trace.entry.clone(),
        (None, row) => row?.entry.as_deref()?.parse().ok(),
    }
}

impl Seen {
    async fn of(
        snapshot: &mut PgConnection,
        trace: Trace,
        decision: Option<&Stored>,
        policy: &Policy,
        now_ms: u64,
    ) -> store::Result<Self> {
        let types: Vec<_> = trace.event_type.iter().cloned().collect();
        let flow = flows::of_types(&mut *snapshot, &types)
            .await?
            .into_values()
            .next();
        let open = trace.open_reporters();
        let now_at = timestamp(now_ms);
        let heard = reporters::heard(&mut *snapshot, &open).await?;
        let outages = aggregators::outages(&mut *snapshot, now_at).await?;
        let began_at = timestamp(trace.may_have_begun_ms());
        let losses = losses::since(&mut *snapshot, began_at, now_at).await?;
        let now = Now {
            at_ms: now_ms,
            heard: &heard,
            outages: &outages,
            losses: &losses,
        };
        let before = decision.map(|stored| &stored.decision);
        // While a decision holds, what is considered is what it was decided by.
        let version = before
            .filter(|decided| decided.is_in_force())
            .map_or(policy.version, |decided| decided.policy_version);
        let judgement = judge(&trace, before, flow.as_ref(), policy, &now);
        Ok(Self {
            out_of_touch: services::out_of_touch(&mut *snapshot, &open, now_at).await?,
            policy: Quoted::read(snapshot, version).await?,
            judgement,
            trace,
        })
    }
}
