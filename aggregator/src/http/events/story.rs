//! Everything that is known of one event, read at one moment and judged anew by the same rules as the decider's,
//! so that a page and a decision can never tell two stories. Nothing is written.

use kaeru_flow::{Considered, Now, Policy, Trace, judge};
use kaeru_protocol::EventId;
use sqlx::PgConnection;

use crate::app::Parts;
use crate::clock::timestamp;
use crate::store::decisions::Stored;
use crate::store::pages::{self, EventRow};
use crate::store::{self, aggregators, decisions, facts, flows, losses, reporters};

/// One event.
pub(super) struct Story {
    /// As the decider last saw it; absent before its first look.
    pub(super) row: Option<EventRow>,
    /// What its reports say; absent where none are kept.
    pub(super) trace: Option<Trace>,
    /// Each rule, and what it says now.
    pub(super) considered: Vec<Considered>,
    /// The last decision about it.
    pub(super) decision: Option<Stored>,
}

impl Story {
    /// Reads it.
    pub(super) async fn read(parts: &Parts, event: &EventId, now_ms: u64) -> store::Result<Self> {
        let mut connection = parts.store.pool().acquire().await?;
        let in_force = parts
            .policies
            .current(&mut connection, &parts.metrics)
            .await?;
        drop(connection);
        let mut snapshot = parts.store.begin().await?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            .execute(&mut *snapshot)
            .await?;
        let row = pages::event(&mut snapshot, event.as_str()).await?;
        let decision = decisions::last_of_events(&mut snapshot, &[event.to_string()])
            .await?
            .remove(event);
        // One more than any event may have: with it the id counts as shared.
        let facts_max = in_force.reports_max().saturating_add(1);
        let facts = facts::of_events(&mut snapshot, std::slice::from_ref(event), facts_max).await?;
        let facts = facts.into_values().next().unwrap_or_default();
        if facts.is_empty() {
            return Ok(Self {
                row,
                trace: None,
                considered: Vec::new(),
                decision,
            });
        }
        let trace = Trace::fold(event.clone(), facts, &in_force.policy);
        let considered = consider(
            &mut snapshot,
            &trace,
            decision.as_ref(),
            &in_force.policy,
            now_ms,
        )
        .await?;
        Ok(Self {
            row,
            trace: Some(trace),
            considered,
            decision,
        })
    }
}

async fn consider(
    snapshot: &mut PgConnection,
    trace: &Trace,
    decision: Option<&Stored>,
    policy: &Policy,
    now_ms: u64,
) -> store::Result<Vec<Considered>> {
    let types: Vec<_> = trace.event_type.iter().cloned().collect();
    let flow = flows::of_types(snapshot, &types)
        .await?
        .into_values()
        .next();
    let heard = reporters::heard(snapshot, &trace.open_reporters()).await?;
    let outages = aggregators::outages(snapshot, timestamp(now_ms)).await?;
    let losses = losses::since(
        snapshot,
        timestamp(trace.began_received_ms),
        timestamp(now_ms),
    )
    .await?;
    let now = Now {
        at_ms: now_ms,
        heard: &heard,
        outages: &outages,
        losses: &losses,
    };
    Ok(judge(
        trace,
        decision.map(|stored| &stored.decision),
        flow.as_ref(),
        policy,
        &now,
    )
    .considered)
}
