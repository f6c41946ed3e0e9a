//! Times in which reports of a service may be missing: its reporters lost some, or its proxy fell silent.

use chrono::{DateTime, Utc};
use kaeru_flow::{Loss, Span};
use kaeru_protocol::{ReporterId, ServiceName};
use sqlx::PgConnection;

use super::{Result, intake};
use crate::clock::millis;

/// Losses that are read at most, the newest: a plan that names this many services is incomplete anyhow.
const LOSSES_MAX: i64 = 1_000;

/// Writes down that a reporter lost reports between two times: in one transaction several statuses may tell of more, after
/// an outage. Plans of that time are no longer known to be complete: the decider looks at them again.
pub(crate) async fn add(
    connection: &mut PgConnection,
    reporter: i64,
    service: &ServiceName,
    (since, until): (DateTime<Utc>, DateTime<Utc>),
    lost: i64,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO losses (reporter, service, since, until, lost) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (reporter, until) DO UPDATE SET
             since = least(losses.since, excluded.since), lost = losses.lost + excluded.lost",
    )
    .bind(reporter)
    .bind(service.as_str())
    .bind(since)
    .bind(until)
    .bind(lost)
    .execute(&mut *connection)
    .await?;
    intake::add_rolled_back(connection, (since, until)).await
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
