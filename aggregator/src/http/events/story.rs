//! Everything that is known of one event, read at one moment and judged anew by the same rules as the decider's,
//! so that a page and a decision can never tell two stories. Nothing is written.

use std::sync::Arc;

use kaeru_flow::{Decision, Judgement, Trace, judge};
use kaeru_protocol::{EventId, EventType, Mode, Peer};
use sqlx::PgConnection;

use crate::app::Parts;
use crate::clock::timestamp;
use crate::http::decisions;
use crate::http::grounds::Quoted;
use crate::policy::InForce;
use crate::store::breakers::{self, Breaker};
use crate::store::pages::{self, EventRow};
use crate::store::{self, facts, services, surroundings};

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
        let mut snapshot = parts.store.snapshot().await?;
        let in_force = (parts.policies)
            .current(&mut snapshot, &parts.metrics)
            .await?;
        let row = pages::event(&mut snapshot, event.as_str()).await?;
        // One more than any event may have: with it the id counts as shared.
        let facts_max = in_force.reports_max().saturating_add(1);
        let since = row.as_ref().map(|row| row.first_at);
        let only = std::slice::from_ref(event);
        let mut read = facts::of_events(&mut snapshot, only, facts_max, since).await?;
        let facts = read.of.remove(event).filter(|facts| !facts.is_empty());
        let trace = facts.map(|facts| Trace::fold(event.clone(), facts, &in_force.policy));
        let began_ms = trace.as_ref().map_or(now_ms, Trace::may_have_begun_ms);
        let types: Vec<&str> = (trace.iter())
            .filter_map(|trace| trace.event_type.as_ref().map(EventType::as_str))
            .collect();
        let (since, now) = (timestamp(began_ms), timestamp(now_ms));
        let mut around =
            surroundings::of_events(&mut snapshot, &[event.as_str()], &types, since, now).await?;
        let stored = around.before.remove(event);
        let seen = match trace {
            None => None,
            Some(trace) => {
                let before = stored.as_ref().map(|stored| &stored.decision);
                let flow = (trace.event_type.as_ref()).and_then(|name| around.flows.get(name));
                let now = around.now(now_ms, &read.heard);
                let judgement = judge(&trace, before, flow, &in_force.policy, &now);
                Some(Seen::of(&mut snapshot, trace, judgement, before, &in_force, now_ms).await?)
            }
        };
        let event_type = type_of(row.as_ref(), seen.as_ref());
        let entry = entry_of(row.as_ref(), seen.as_ref());
        let name = event_type.as_ref().map_or("", EventType::as_str);
        let breaker = breakers::open_of(&mut snapshot, name, &in_force).await?;
        let decision = match stored {
            None => None,
            Some(stored) => {
                let row = row.as_ref();
                Some(decisions::Story::read(&mut snapshot, &in_force, stored, row).await?)
            }
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
        judgement: Judgement,
        before: Option<&Decision>,
        in_force: &InForce,
        now_ms: u64,
    ) -> store::Result<Self> {
        // While a decision holds, what is considered is what it was decided by.
        let version = before
            .filter(|decided| decided.is_in_force())
            .map_or(in_force.policy.version, |decided| decided.policy_version);
        let open = trace.open_reporters();
        Ok(Self {
            out_of_touch: services::out_of_touch(&mut *snapshot, &open, timestamp(now_ms)).await?,
            policy: Quoted::read(snapshot, version).await?,
            judgement,
            trace,
        })
    }
}
