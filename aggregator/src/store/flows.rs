//! Learned flows, kept as sums: to learn is to add.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use kaeru_flow::{Flow, FlowStep};
use kaeru_protocol::{EventType, Peer};
use serde::Deserialize;
use sqlx::PgConnection;

use super::Result;
use crate::census::{Census, Full, What};

/// Edges of one flow: more than 256 services that call each other in a few ways have.
const EDGES_MAX: i64 = 2_000;
/// Steps of one flow.
const STEPS_MAX: i64 = 512;

/// The sums of a flow, as they stand in the store.
#[derive(Deserialize)]
pub(super) struct FlowRow {
    r#type: String,
    version: i64,
    events: i64,
    succeeded: i64,
    failed: i64,
    abandoned: i64,
    doomed: i64,
}

/// The sums of one of its steps.
#[derive(Deserialize)]
pub(super) struct StepRow {
    r#type: String,
    peer: String,
    events: i64,
    attempts: i64,
    failed: i64,
    failed_undecided: i64,
    failed_whole: i64,
    total_ms: i64,
    timed: i64,
}

/// Flows with their steps.
pub(super) fn of_rows(flows: Vec<FlowRow>, steps: Vec<StepRow>) -> HashMap<EventType, Flow> {
    let mut found: HashMap<EventType, Flow> = flows
        .into_iter()
        .filter_map(FlowRow::flow)
        .map(|flow| (flow.event_type.clone(), flow))
        .collect();
    for row in steps {
        let Ok(event_type) = row.r#type.parse::<EventType>() else {
            continue;
        };
        let Ok(peer) = row.peer.parse::<Peer>() else {
            continue;
        };
        if let Some(flow) = found.get_mut(&event_type) {
            flow.steps.insert(peer, row.step());
        }
    }
    found
}

/// Adds what settled events taught, in the order of the types' names. Says at which entries there were types for which there
/// is no room, and whose share is used up.
pub(crate) async fn learn(
    connection: &mut PgConnection,
    lessons: &[Flow],
    census: &Census,
    now: DateTime<Utc>,
) -> Result<Vec<(String, Full)>> {
    if lessons.is_empty() {
        return Ok(Vec::new());
    }
    let entries: Vec<&str> = lessons.iter().map(entry).collect();
    let rooms = census.rooms(What::Types, 1, entries.iter().copied());
    let known = add_flows(connection, lessons, &entries, &rooms, now).await?;
    let mut learned = Vec::new();
    let mut excess = Vec::new();
    for ((lesson, room), entry) in lessons.iter().zip(rooms).zip(entries) {
        match (known.get(lesson.event_type.as_str()), room) {
            (Some(is_new), _) => {
                if *is_new {
                    census.took(What::Types, entry);
                }
                learned.push(lesson);
            }
            (None, Err(full)) => excess.push((entry.to_owned(), full)),
            (None, Ok(())) => {}
        }
    }
    add_steps(connection, &learned).await?;
    add_edges(connection, &learned).await?;
    Ok(excess)
}

/// At which service a flow begins; empty where it has no entry.
fn entry(flow: &Flow) -> &str {
    let first = flow.edges.keys().find(|edge| edge.from.is_none());
    first.map_or("", |edge| edge.to.as_str())
}

/// The types that are known, and whether they are new; the others are one too many.
async fn add_flows(
    connection: &mut PgConnection,
    lessons: &[Flow],
    entries: &[&str],
    rooms: &[std::result::Result<(), Full>],
    now: DateTime<Utc>,
) -> Result<HashMap<String, bool>> {
    let each = |of: fn(&Flow) -> u64| {
        lessons
            .iter()
            .map(|f| of(f).cast_signed())
            .collect::<Vec<i64>>()
    };
    let known: Vec<(String, bool)> = sqlx::query_as(
        "INSERT INTO flows (type, version, events, succeeded, failed, abandoned, doomed, last_at, entry)
         SELECT type, version, events, succeeded, failed, abandoned, doomed, $8, entry
         FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
             $7::bigint[], $9::text[], $10::boolean[])
             AS new (type, version, events, succeeded, failed, abandoned, doomed, entry, room)
         WHERE room OR EXISTS (SELECT FROM flows WHERE flows.type = new.type)
         ORDER BY type
         ON CONFLICT (type) DO UPDATE SET version = flows.version + excluded.version,
             events = flows.events + excluded.events, succeeded = flows.succeeded + excluded.succeeded,
             failed = flows.failed + excluded.failed, abandoned = flows.abandoned + excluded.abandoned,
             doomed = flows.doomed + excluded.doomed, last_at = greatest(flows.last_at, excluded.last_at)
         RETURNING type, flows.xmax = 0",
    )
    .bind(lessons.iter().map(|f| f.event_type.as_str()).collect::<Vec<_>>())
    .bind(each(|f| f.version))
    .bind(each(|f| f.events))
    .bind(each(|f| f.succeeded))
    .bind(each(|f| f.failed))
    .bind(each(|f| f.abandoned))
    .bind(each(|f| f.doomed))
    .bind(now)
    .bind(entries)
    .bind(rooms.iter().map(std::result::Result::is_ok).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(known.into_iter().collect())
}

/// Forgets flows that no event taught anything since `first`: their types have room for others.
pub(crate) async fn forget(connection: &mut PgConnection, first: DateTime<Utc>) -> Result<()> {
    sqlx::query("DELETE FROM flows WHERE last_at < $1")
        .bind(first)
        .execute(connection)
        .await?;
    Ok(())
}

async fn add_steps(connection: &mut PgConnection, lessons: &[&Flow]) -> Result<()> {
    let rows: Vec<(&EventType, &Peer, &FlowStep)> = lessons
        .iter()
        .flat_map(|flow| {
            flow.steps
                .iter()
                .map(|(peer, step)| (&flow.event_type, peer, step))
        })
        .collect();
    let each = |of: fn(&FlowStep) -> u64| {
        rows.iter()
            .map(|row| of(row.2).cast_signed())
            .collect::<Vec<i64>>()
    };
    sqlx::query(
        "WITH sizes AS (SELECT type, count(*) AS size FROM flow_steps WHERE type = ANY($1) GROUP BY type)
         INSERT INTO flow_steps (type, peer, events, attempts, failed, failed_undecided, failed_whole,
             total_ms, timed)
         SELECT new.* FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[],
             $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[])
             AS new (type, peer, events, attempts, failed, failed_undecided, failed_whole, total_ms, timed)
         LEFT JOIN sizes ON sizes.type = new.type LEFT JOIN flow_steps AS old
             ON (old.type, old.peer) = (new.type, new.peer)
         WHERE old.type IS NOT NULL OR coalesce(size, 0) < $10
         ORDER BY new.type, new.peer
         ON CONFLICT (type, peer) DO UPDATE SET events = flow_steps.events + excluded.events,
             attempts = flow_steps.attempts + excluded.attempts,
             failed = flow_steps.failed + excluded.failed,
             failed_undecided = flow_steps.failed_undecided + excluded.failed_undecided,
             failed_whole = flow_steps.failed_whole + excluded.failed_whole,
             total_ms = flow_steps.total_ms + excluded.total_ms,
             timed = flow_steps.timed + excluded.timed",
    )
    .bind(rows.iter().map(|row| row.0.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.1.as_str()).collect::<Vec<_>>())
    .bind(each(|s| s.events))
    .bind(each(|s| s.attempts))
    .bind(each(|s| s.failed))
    .bind(each(|s| s.failed_undecided))
    .bind(each(|s| s.failed_whole))
    .bind(each(|s| s.total_ms))
    .bind(each(|s| s.timed))
    .bind(STEPS_MAX)
    .execute(connection)
    .await?;
    Ok(())
}

async fn add_edges(connection: &mut PgConnection, lessons: &[&Flow]) -> Result<()> {
    let rows: Vec<_> = lessons
        .iter()
        .flat_map(|flow| {
            flow.edges
                .iter()
                .map(|(key, edge)| (&flow.event_type, key, edge))
        })
        .collect();
    sqlx::query(
        "WITH sizes AS (SELECT type, count(*) AS size FROM flow_edges WHERE type = ANY($1) GROUP BY type)
         INSERT INTO flow_edges (type, caller, callee, method, path, count, positions)
         SELECT new.* FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[],
             $7::bigint[]) AS new (type, caller, callee, method, path, count, positions)
         LEFT JOIN sizes ON sizes.type = new.type LEFT JOIN flow_edges AS old
             ON (old.type, old.caller, old.callee, old.method, old.path)
                 = (new.type, new.caller, new.callee, new.method, new.path)
         WHERE old.type IS NOT NULL OR coalesce(size, 0) < $8
         ORDER BY new.type, new.caller, new.callee, new.method, new.path
         ON CONFLICT (type, caller, callee, method, path) DO UPDATE SET
             count = flow_edges.count + excluded.count,
             positions = flow_edges.positions + excluded.positions",
    )
    .bind(rows.iter().map(|row| row.0.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.1.from.as_ref().map_or("", |from| from.as_str())).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.1.to.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| &*row.1.method).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| &*row.1.path).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.2.count.cast_signed()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.2.positions.cast_signed()).collect::<Vec<_>>())
    .bind(EDGES_MAX)
    .execute(connection)
    .await?;
    Ok(())
}

impl FlowRow {
    fn flow(self) -> Option<Flow> {
        Some(Flow {
            version: self.version.cast_unsigned(),
            events: self.events.cast_unsigned(),
            succeeded: self.succeeded.cast_unsigned(),
            failed: self.failed.cast_unsigned(),
            abandoned: self.abandoned.cast_unsigned(),
            doomed: self.doomed.cast_unsigned(),
            ..Flow::new(self.r#type.parse().ok()?)
        })
    }
}

impl StepRow {
    fn step(&self) -> FlowStep {
        FlowStep {
            events: self.events.cast_unsigned(),
            attempts: self.attempts.cast_unsigned(),
            failed: self.failed.cast_unsigned(),
            failed_undecided: self.failed_undecided.cast_unsigned(),
            failed_whole: self.failed_whole.cast_unsigned(),
            total_ms: self.total_ms.cast_unsigned(),
            timed: self.timed.cast_unsigned(),
        }
    }
}
