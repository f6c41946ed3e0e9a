//! One look at some events, inside one transaction: lock, read, fold, judge, save; and at its end, learn and
//! tell.

mod seen;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use kaeru_flow::{Decision, Flow, Heard, Standing, Trace, judge};
use kaeru_protocol::{EventId, EventType, ReporterId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::ENTRY_EVENTS_MAX;
use crate::census::{Census, What};
use crate::clock::{millis, timestamp};
use crate::feed::telling::Occasion;
use crate::metrics::Metrics;
use crate::policy::InForce;
use crate::store::decisions::{self, Stored};
use crate::store::events::{self, Held, Looked};
use crate::store::feed::{self, Announced, Telling};
use crate::store::surroundings::{self, Surroundings};
use crate::store::{Error, Result, facts, flows};

/// Reports read at once, by the counts of the last look: 20,000 x 500 bytes = 10 MB.
const READ_MAX: i64 = 20_000;
/// How long a shared id with too many reports is left alone between looks.
const SHARED_REST: TimeDelta = TimeDelta::seconds(60);

/// A look under way.
pub(super) struct Look<'a> {
    in_force: Arc<InForce>,
    now_ms: u64,
    verdict_idle: TimeDelta,
    metrics: &'a Metrics,
    /// No report that was not looked at yet is of an earlier time.
    since: Option<DateTime<Utc>>,
    tellings: Vec<Telling>,
    lessons: BTreeMap<EventType, Flow>,
}

impl<'a> Look<'a> {
    /// A look at `now_ms` by what is in force.
    pub(super) fn new(
        in_force: Arc<InForce>,
        now_ms: u64,
        verdict_idle: TimeDelta,
        metrics: &'a Metrics,
        since: Option<DateTime<Utc>>,
    ) -> Self {
        Self {
            in_force,
            now_ms,
            verdict_idle,
            metrics,
            since,
            tellings: Vec::new(),
            lessons: BTreeMap::new(),
        }
    }

    /// Looks at these events, whose rows are locked.
    pub(super) async fn at(
        &mut self,
        connection: &mut PgConnection,
        held: Vec<Held>,
    ) -> Result<()> {
        let (resting, held): (Vec<Held>, Vec<Held>) =
            held.into_iter().partition(|held| self.is_resting(held));
        for held in resting {
            let until = timestamp(self.now_ms) + SHARED_REST;
            events::park(&mut *connection, &held.event, Some(until)).await?;
        }
        for chunk in by_size(held) {
            self.at_chunk(&mut *connection, &chunk).await?;
        }
        Ok(())
    }

    /// Learns and tells. Nothing may be locked after it.
    pub(super) async fn finish(
        self,
        connection: &mut PgConnection,
        census: &Census,
    ) -> Result<Option<Announced>> {
        let now = timestamp(self.now_ms);
        let lessons: Vec<Flow> = self.lessons.into_values().collect();
        for (entry, full) in flows::learn(&mut *connection, &lessons, census, now).await? {
            tracing::debug!(entry, "an event type is not learned: too many are");
            census.note(What::Types, full, "", self.metrics);
        }
        feed::tell(connection, &self.tellings, now).await
    }

    /// An id known to be shared for its number of reports is not read again with each of them.
    fn is_resting(&self, held: &Held) -> bool {
        held.shared && usize::try_from(held.reports).is_ok_and(|n| n > self.in_force.reports_max())
    }

    async fn at_chunk(&mut self, connection: &mut PgConnection, held: &[Held]) -> Result<()> {
        let ids = held
            .iter()
            .map(|held| events::parse(&held.event))
            .collect::<Result<Vec<_>>>()?;
        let each_max = self.in_force.reports_max().saturating_add(1);
        let mut read = facts::of_events(&mut *connection, &ids, each_max, self.since(held)).await?;
        let mut traces = Vec::with_capacity(held.len());
        for (held, id) in held.iter().zip(ids) {
            let facts = read.of.remove(&id).unwrap_or_default();
            if facts.is_empty() {
                // Its reports are past retention: there is nothing to wait for.
                events::park(&mut *connection, &held.event, None).await?;
                continue;
            }
            let fold = || Trace::fold(id.clone(), facts, &self.in_force.policy);
            traces.push((held, unharmed(&id, fold)?));
        }
        let around = self.surroundings(&mut *connection, &traces).await?;
        let mut decided = Vec::new();
        let mut looked = Vec::with_capacity(traces.len());
        let mut wakes = Vec::new();
        for (held, trace) in traces {
            let (one, decision) = self.judge(held, &trace, &read.heard, &around)?;
            decided.extend(decision);
            if let Some(at) = one.wake_at
                && (held.wake_at != one.wake_at || at <= timestamp(self.now_ms))
            {
                wakes.push((held.event.as_str(), at));
            }
            looked.push(one);
        }
        if !decided.is_empty() {
            decisions::save(&mut *connection, &decided).await?;
        }
        events::save(connection, &looked, &wakes).await
    }

    /// Since when these events have reports, at most: what was seen of them, and what was not.
    fn since(&self, held: &[Held]) -> Option<DateTime<Utc>> {
        let seen = held
            .iter()
            .filter(|held| held.reports > 0)
            .map(|held| held.first_at);
        seen.chain(self.since).min()
    }

    async fn surroundings(
        &self,
        connection: &mut PgConnection,
        traces: &[(&Held, Trace)],
    ) -> Result<Surroundings> {
        let names: Vec<&str> = traces.iter().map(|(held, _)| &*held.event).collect();
        let types: BTreeSet<&str> = (traces.iter())
            .filter_map(|(_, trace)| trace.event_type.as_ref().map(EventType::as_str))
            .collect();
        let types: Vec<&str> = types.into_iter().collect();
        let began_ms = traces.iter().map(|(_, t)| t.may_have_begun_ms()).min();
        let since = timestamp(began_ms.unwrap_or(self.now_ms));
        let now = timestamp(self.now_ms);
        surroundings::of_events(connection, &names, &types, since, now).await
    }

    /// What an event's row says from now on, and the decision or revision to be written down.
    fn judge(
        &mut self,
        held: &Held,
        trace: &Trace,
        heard: &BTreeMap<ReporterId, Heard>,
        around: &Surroundings,
    ) -> Result<(Looked, Option<Stored>)> {
        let before = around.before.get(&trace.event);
        let flow = trace
            .event_type
            .as_ref()
            .and_then(|name| around.flows.get(name));
        let now = around.now(self.now_ms, heard);
        let judgement = unharmed(&trace.event, || {
            judge(
                trace,
                before.map(|b| &b.decision),
                flow,
                &self.in_force.policy,
                &now,
            )
        })?;
        self.metrics.events_judged.inc();
        let decided = match judgement.decision.clone() {
            Some(decision) => Some(self.decided(trace, before, decision)?),
            None => None,
        };
        if let Some(telling) = self.telling(trace, decided.as_ref(), before, around) {
            self.tellings.push(telling);
        }
        let lesson = if judgement.settled && !held.learned {
            Flow::of(trace, judgement.state)
        } else {
            None
        };
        let learned = held.learned || lesson.is_some();
        if let Some(lesson) = lesson {
            self.lessons
                .entry(lesson.event_type.clone())
                .or_insert_with(|| Flow::new(lesson.event_type.clone()))
                .add(&lesson);
        }
        let looked = seen::looked(trace, &judgement, decided.as_ref().or(before), learned);
        Ok((looked, decided))
    }

    /// A new decision or revision as it is written down.
    fn decided(
        &self,
        trace: &Trace,
        before: Option<&Stored>,
        decision: Decision,
    ) -> Result<Stored> {
        // A first revision is a decision of its own, though an earlier one was withdrawn.
        let revised = before.filter(|_| decision.revision > 1);
        let stored = Stored {
            id: match revised {
                Some(before) => before.id.clone(),
                None => new_id(self.now_ms)?,
            },
            event: trace.event.clone(),
            event_type: trace.event_type.clone(),
            mode: self
                .in_force
                .mode(trace.event_type.as_ref(), trace.entry.as_ref()),
            revised_at: timestamp(self.now_ms),
            decision,
        };
        let rule = stored.decision.reason.rule().as_str();
        match (&stored.decision.standing, revised) {
            (Standing::Withdrawn(_), _) => self.metrics.withdrawals.inc(),
            (_, Some(_)) => self.metrics.revisions.inc(),
            (_, None) => self.metrics.decisions.with_label_values(&[rule]).inc(),
        }
        tracing::info!(
            event = %stored.event, decision = %stored.id, revision = stored.decision.revision,
            rule, reason = %stored.decision.reason, "decided"
        );
        Ok(stored)
    }

    /// What proxies are told, if anything.
    fn telling(
        &self,
        trace: &Trace,
        decided: Option<&Stored>,
        before: Option<&Stored>,
        around: &Surroundings,
    ) -> Option<Telling> {
        let mode = self
            .in_force
            .mode(trace.event_type.as_ref(), trace.entry.as_ref());
        let told = around.told.get(trace.event.as_str());
        let occasion = Occasion {
            is_decided_now: decided.is_some(),
            mode,
            told: told.map(|(mode, until)| (*mode, millis(*until))),
            last_received_ms: trace.last_received_ms,
            verdict_idle_ms: self.verdict_idle.num_milliseconds().unsigned_abs(),
            now_ms: self.now_ms,
        };
        let stored = decided.or(before)?;
        let until_ms = occasion.tell_until_ms(stored.decision.is_in_force())?;
        Some(Telling::of(stored, mode, timestamp(until_ms)))
    }
}

/// Runs pure code over one event's reports; a fault in it stops that event alone.
fn unharmed<T>(event: &EventId, work: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|_| Error::unreadable("an event", format!("{event}: looking at it panicked")))
}

fn new_id(now_ms: u64) -> Result<kaeru_protocol::DecisionId> {
    let seconds = now_ms / 1_000;
    let nanos = u32::try_from(now_ms % 1_000).unwrap_or(0) * 1_000_000;
    let id = Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos));
    id.to_string()
        .parse()
        .map_err(|e| Error::unreadable("a decision id", e))
}

/// Chunks whose reports, by the last count, are about [`READ_MAX`], in no more events than an entry of the list has.
fn by_size(held: Vec<Held>) -> Vec<Vec<Held>> {
    let mut chunks: Vec<Vec<Held>> = Vec::new();
    let mut size = 0;
    for one in held {
        let reports = one.reports.max(10);
        match chunks.last_mut() {
            Some(chunk) if size + reports <= READ_MAX && chunk.len() < ENTRY_EVENTS_MAX => {
                size += reports;
                chunk.push(one);
            }
            _ => {
                size = reports;
                chunks.push(vec![one]);
            }
        }
    }
    chunks
}
