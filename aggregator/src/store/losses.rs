//! Times in which reports of a service may be missing: its reporters lost some, or its proxy fell silent.

use chrono::{DateTime, Utc};
use kaeru_flow::{Loss, Span};
use kaeru_protocol::{ReporterId, ServiceName};
use sqlx::PgConnection;

use super::Result;
use crate::clock::millis;

/// Losses that are read at most, the newest: a plan that names this many services is incomplete anyhow.
const LOSSES_MAX: i64 = 1_000;

/// Events with a live decision that are looked at again for one loss: more would hold its transaction up.
const RECALLED_MAX: i64 = 10_000;

/// Writes down that a reporter lost reports between two times, and has the live decisions of that time looked at
/// again: their plans may be incomplete.
pub(crate) async fn add(
    connection: &mut PgConnection,
    reporter: i64,
    service: &ServiceName,
    (since, until): (DateTime<Utc>, DateTime<Utc>),
    lost: i64,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO losses (reporter, service, since, until, lost) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (reporter, until) DO NOTHING",
    )
    .bind(reporter)
    .bind(service.as_str())
    .bind(since)
    .bind(until)
    .bind(lost)
    .execute(&mut *connection)
    .await?;
    let events: Vec<String> = sqlx::query_scalar(
        "SELECT event FROM events
         WHERE state = 'rolling_back' AND first_at <= $2 AND last_received >= $1 - interval '1 minute'
         ORDER BY first_at DESC LIMIT $3",
    )
    .bind(since)
    .bind(until)
    .bind(RECALLED_MAX)
    .fetch_all(&mut *connection)
    .await?;
    for entry in events.chunks(crate::decider::ENTRY_EVENTS_MAX) {
        super::intake::add(&mut *connection, entry).await?;
    }
    Ok(())
}

/// Service, reporter, since, until.
type Row = (String, Option<i64>, DateTime<Utc>, DateTime<Utc>);

/// Losses that reach into the time since `since`. A proxy that broke its promise to be heard of counts from
/// then until the moment it had promised: after that it is gone, and nothing passes it.
pub(crate) async fn since(
    connection: &mut PgConnection,
    since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Vec<Loss>> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT service, reporter, since, until FROM losses WHERE until >= $1
         UNION ALL
         SELECT service, NULL, last_heard, due_at FROM proxies
         WHERE due_at BETWEEN $1 AND $2 AND last_heard < due_at
         ORDER BY 4 DESC LIMIT $3",
    )
    .bind(since)
    .bind(now)
    .bind(LOSSES_MAX)
    .fetch_all(connection)
    .await?;
    let loss = |(service, reporter, since, until): Row| {
        Some(Loss {
            service: service.parse().ok()?,
            reporter: reporter.map(|id| ReporterId(id.cast_unsigned())),
            span: Span {
                from_ms: millis(since),
                to_ms: millis(until),
            },
        })
    };
    Ok(rows.into_iter().filter_map(loss).collect())
}

/// Forgets losses that ended before `first`.
pub(crate) async fn forget(connection: &mut PgConnection, first: DateTime<Utc>) -> Result<()> {
    sqlx::query("DELETE FROM losses WHERE until < $1")
        .bind(first)
        .execute(connection)
        .await?;
    Ok(())
}
