//! What events are judged by beside their own reports: the decisions about them and what was told of those, the flows of their
//! types, and the times in which nothing, or not everything, could be heard. One statement, so that it is one round trip
//! between a failure and its verdict; what the rows mean is said in the files of what they are.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use kaeru_flow::{Flow, Heard, Loss, Now, Span};
use kaeru_protocol::{EventId, EventType, Mode, ReporterId};
use serde::Deserialize;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};

use super::Result;
use super::aggregators::{self, OutageRow};
use super::decisions::{self, Stored, mode_of};
use super::flows::{self, FlowRow, StepRow};
use super::losses::{self, LossRow};

/// What events are judged by beside their own reports.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// The last decision about each event, withdrawn or not.
    pub(crate) before: HashMap<EventId, Stored>,
    /// Under which mode, and until when, its verdict was told.
    pub(crate) told: HashMap<String, (Mode, DateTime<Utc>)>,
    /// The sums and steps of the flows, not their edges.
    pub(crate) flows: HashMap<EventType, Flow>,
    /// Times in which reports could not be taken, or had yet to come, oldest first.
    pub(crate) outages: Vec<Span>,
    /// Times in which reports of a service may be missing.
    pub(crate) losses: Vec<Loss>,
}

impl Surroundings {
    /// What the rules read of the time `at_ms`.
    pub(crate) fn now<'a>(&'a self, at_ms: u64, heard: &'a BTreeMap<ReporterId, Heard>) -> Now<'a> {
        Now {
            at_ms,
            heard,
            outages: &self.outages,
            losses: &self.losses,
        }
    }
}

/// Many rows in one column; null where there are none.
type Rows<T> = Option<Json<Vec<T>>>;

#[derive(FromRow)]
struct Row {
    before: Rows<decisions::Row>,
    told: Rows<ToldRow>,
    flows: Rows<FlowRow>,
    steps: Rows<StepRow>,
    outages: Rows<OutageRow>,
    losses: Rows<LossRow>,
}

#[derive(Deserialize)]
struct ToldRow {
    event: String,
    mode: String,
    expires_at: DateTime<Utc>,
}

/// The surroundings of these events, which are of these types and began at `since` or later.
pub(crate) async fn of_events(
    connection: &mut PgConnection,
    events: &[&str],
    types: &[&str],
    since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Surroundings> {
    // A proxy that broke its promise to be heard of counts as a loss from then until the moment that it had promised: after that
    // it is gone, and nothing passes it.
    let row: Row = sqlx::query_as(
        "SELECT (
             SELECT json_agg(d) FROM (
                 SELECT DISTINCT ON (event) id, event, type, mode, revised_at, body FROM decisions
                 WHERE event = ANY($1) ORDER BY event, decided_at DESC, id DESC) AS d
         ) AS before, (
             SELECT json_agg(f) FROM (SELECT event, mode, expires_at FROM feed WHERE event = ANY($1)) AS f
         ) AS told, (
             SELECT json_agg(f) FROM (
                 SELECT type, version, events, succeeded, failed, abandoned, doomed FROM flows
                 WHERE type = ANY($2)) AS f
         ) AS flows, (
             SELECT json_agg(s) FROM flow_steps AS s WHERE type = ANY($2)
         ) AS steps, (
             SELECT json_agg(o ORDER BY since) FROM (
                 SELECT since, until FROM outages WHERE until > $5 ORDER BY since DESC LIMIT $6) AS o
         ) AS outages, (
             SELECT json_agg(l) FROM (
                 SELECT service, reporter, since, until FROM losses WHERE until >= $3
                 UNION ALL
                 SELECT service, NULL, last_heard, due_at FROM proxies
                 WHERE due_at BETWEEN $3 AND $4 AND last_heard < due_at
                 ORDER BY 4 DESC LIMIT $7) AS l
         ) AS losses",
    )
    .bind(events)
    .bind(types)
    .bind(since)
    .bind(now)
    .bind(now - aggregators::KEPT)
    .bind(aggregators::OUTAGES_MAX)
    .bind(losses::LOSSES_MAX)
    .fetch_one(connection)
    .await?;
    let told = |row: ToldRow| (row.event, (mode_of(&row.mode), row.expires_at));
    Ok(Surroundings {
        before: (all(row.before).into_iter())
            .map(|row| Stored::try_from(row).map(|stored| (stored.event.clone(), stored)))
            .collect::<Result<_>>()?,
        told: all(row.told).into_iter().map(told).collect(),
        flows: flows::of_rows(all(row.flows), all(row.steps)),
        outages: aggregators::unheard(all(row.outages).iter().map(OutageRow::span)),
        losses: (all(row.losses).iter()).filter_map(LossRow::loss).collect(),
    })
}

fn all<T>(rows: Rows<T>) -> Vec<T> {
    rows.map(|rows| rows.0).unwrap_or_default()
}
