//! One look at some events, inside one transaction: lock, read, fold, judge, save; and at its end, learn and
//! tell.

mod seen;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use kaeru_flow::{Decision, Flow, Heard, Now, Standing, Trace, judge};
use kaeru_protocol::{EventId, EventType, Mode, ReporterId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::census::{Census, What};
use crate::clock::{millis, timestamp};
use crate::feed::telling::Occasion;
use crate::metrics::Metrics;
use crate::policy::InForce;
use crate::store::decisions::{self, Stored};
use crate::store::events::{self, Held, Looked};
use crate::store::feed::{self, Telling};
use crate::store::{Error, Result, aggregators, facts, flows, intake, losses, reporters};

/// Reports read at once, by the counts of the last look: 20,000 x 500 bytes = 10 MB.
const READ_MAX: i64 = 20_000;
/// News that is still on the list may be of reports so much earlier than what is known: those of longer ago are seen only when it
/// is its turn.
const LATER_NEWS: TimeDelta = TimeDelta::days(1);
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

/// What events are judged by beside their own reports.
struct Surroundings {
    heard: BTreeMap<ReporterId, Heard>,
    outages: Vec<kaeru_flow::Span>,
    losses: Vec<kaeru_flow::Loss>,
    flows: HashMap<EventType, Flow>,
    before: HashMap<EventId, Stored>,
    /// Under which mode, and until when, its verdict was told.
    told: HashMap<String, (Mode, DateTime<Utc>)>,
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

    /// Looks at these events, in the order of their names.
    pub(super) async fn at(
        &mut self,
        connection: &mut PgConnection,
        names: &[String],
    ) -> Result<()> {
        let held = events::lock(&mut *connection, names, timestamp(self.now_ms)).await?;
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
    ) -> Result<bool> {
        let now = timestamp(self.now_ms);
        let lessons: Vec<Flow> = self.lessons.into_values().collect();
        for (entry, full) in flows::learn(&mut *connection, &lessons, census, now).await? {
            tracing::debug!(entry, "an event type is not learned: too many are");
            census.note(What::Types, full, "", self.metrics);
        }
        feed::tell(connection, &self.tellings, now).await?;
        Ok(!self.tellings.is_empty())
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
            let facts = read.remove(&id).unwrap_or_default();
            if facts.is_empty() {
                // Its reports are past retention: there is nothing to wait for.
                events::park(&mut *connection, &held.event, None).await?;
                continue;
            }
            let fold = || Trace::fold(id.clone(), facts, &self.in_force.policy);
            traces.push((held, unharmed(&id, fold)?));
        }
        let surroundings = self.surroundings(&mut *connection, &traces).await?;
        let mut looked = Vec::with_capacity(traces.len());
        let mut wakes = Vec::new();
        for (held, trace) in traces {
            let one = self
                .judge(&mut *connection, held, &trace, &surroundings)
                .await?;
            if let Some(at) = one.wake_at
                && (held.wake_at != one.wake_at || at <= timestamp(self.now_ms))
            {
                wakes.push((held.event.as_str(), at));
            }
            looked.push(one);
        }
        events::save(&mut *connection, &looked).await?;
        intake::wake(connection, &wakes).await
    }

    /// Since when these events have reports, at most: what was seen of them, and what was not.
    fn since(&self, held: &[Held]) -> Option<DateTime<Utc>> {
        let seen = held
            .iter()
            .filter(|held| held.reports > 0)
            .map(|held| held.first_at);
        Some(seen.chain(self.since).min()? - LATER_NEWS)
    }

    async fn surroundings(
        &self,
        connection: &mut PgConnection,
        traces: &[(&Held, Trace)],
    ) -> Result<Surroundings> {
        let now = timestamp(self.now_ms);
        let open: BTreeSet<ReporterId> = traces
            .iter()
            .flat_map(|(_, t)| t.open_reporters())
            .collect();
        let types: BTreeSet<EventType> = traces
            .iter()
            .filter_map(|(_, t)| t.event_type.clone())
            .collect();
        let began_ms = traces
            .iter()
            .map(|(_, t)| t.may_have_begun_ms())
            .min()
            .unwrap_or(self.now_ms);
        let names: Vec<String> = traces.iter().map(|(held, _)| held.event.clone()).collect();
        let before = decisions::last_of_events(&mut *connection, &names).await?;
        let live: Vec<String> = before
            .values()
            .filter(|b| b.decision.is_in_force())
            .map(|b| b.event.to_string())
            .collect();
        let told = if live.is_empty() {
            Vec::new()
        } else {
            feed::told_of(&mut *connection, &live).await?
        };
        Ok(Surroundings {
            heard: reporters::heard(&mut *connection, &open).await?,
            outages: aggregators::outages(&mut *connection, now).await?,
            losses: losses::since(&mut *connection, timestamp(began_ms), now).await?,
            flows: flows::of_types(&mut *connection, &types.into_iter().collect::<Vec<_>>())
                .await?,
            before,
            told: told
                .into_iter()
                .map(|(event, mode, expires_at)| (event, (decisions::mode_of(&mode), expires_at)))
                .collect(),
        })
    }

    async fn judge(
        &mut self,
        connection: &mut PgConnection,
        held: &Held,
        trace: &Trace,
        around: &Surroundings,
    ) -> Result<Looked> {
        let before = around.before.get(&trace.event);
        let flow = trace
            .event_type
            .as_ref()
            .and_then(|name| around.flows.get(name));
        let now = Now {
            at_ms: self.now_ms,
            heard: &around.heard,
            outages: &around.outages,
            losses: &around.losses,
        };
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
            Some(decision) => Some(self.save(&mut *connection, trace, before, decision).await?),
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
        Ok(seen::looked(
            trace,
            &judgement,
            decided.as_ref().or(before),
            learned,
        ))
    }

    /// Writes a new decision or revision down.
    async fn save(
        &self,
        connection: &mut PgConnection,
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
        decisions::save(connection, &stored).await?;
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

/// Chunks whose reports, by the last count, are about [`READ_MAX`].
fn by_size(held: Vec<Held>) -> Vec<Vec<Held>> {
    let mut chunks: Vec<Vec<Held>> = Vec::new();
    let mut size = READ_MAX;
    for one in held {
        let reports = one.reports.max(10);
        if size + reports > READ_MAX {
            chunks.push(Vec::new());
            size = 0;
        }
        size += reports;
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(one);
        }
    }
    chunks
}
