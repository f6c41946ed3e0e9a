//! The decider's durable to-do list.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

use super::Result;
use crate::decider::ENTRY_EVENTS_MAX;

/// An event reaches further than its reports say: by its `settle`, and by how far its reporters' clocks are off.
const REACH: TimeDelta = TimeDelta::minutes(1);

/// Events that one loss puts on the list, the newest: more would hold its transaction up.
const ROLLED_BACK_MAX: i64 = 10_000;

/// Adds events that have news.
pub(crate) async fn add(connection: &mut PgConnection, events: &[String]) -> Result<()> {
    if !events.is_empty() {
        sqlx::query("INSERT INTO intake (events) VALUES ($1)")
            .bind(events)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Adds the events that are being rolled back and reach into a time in which reports were lost.
pub(crate) async fn add_rolled_back(
    connection: &mut PgConnection,
    (since, until): (DateTime<Utc>, DateTime<Utc>),
) -> Result<()> {
    sqlx::query(
        "INSERT INTO intake (events)
         SELECT array_agg(event) FROM (
             SELECT event, (row_number() OVER (ORDER BY event) - 1) / $3 AS entry FROM events
             WHERE state = 'rolling_back' AND last_received >= $1 AND first_at <= $2
             ORDER BY first_at DESC LIMIT $4
         ) AS found GROUP BY entry",
    )
    .bind(since - REACH)
    .bind(until + REACH)
    .bind(i64::try_from(ENTRY_EVENTS_MAX).unwrap_or(1))
    .bind(ROLLED_BACK_MAX)
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes the oldest entries off the list, as long as this transaction commits; entries that another decider holds
/// are left to it.
pub(crate) async fn take(connection: &mut PgConnection, entries_max: i64) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "WITH taken AS (
             DELETE FROM intake WHERE id IN (
                 SELECT id FROM intake ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
             ) RETURNING events
         )
         SELECT DISTINCT unnest(events) FROM taken ORDER BY 1",
    )
    .bind(entries_max)
    .fetch_all(connection)
    .await?)
}
