//! Who was alive when, and so when reports could not be taken: no evidence against anybody.

use chrono::{DateTime, TimeDelta, Utc};
use kaeru_flow::Span;
use sqlx::PgConnection;
use sqlx::postgres::types::PgInterval;

use super::Result;
use crate::clock::millis;

/// An aggregator that did not commit for this long could not take reports.
pub(crate) const SILENCE: TimeDelta = TimeDelta::seconds(3);
/// After this long its reporters have found another one.
const SILENCE_MAX: TimeDelta = TimeDelta::seconds(60);
/// Outages and aggregators older than this matter to no open event.
const KEPT: TimeDelta = TimeDelta::days(1);
/// Outages that are read at most: the newest. One a second for over an hour.
const OUTAGES_MAX: i64 = 4_096;

/// This aggregator is alive. Writes down since when reports could not be taken, if they could not: nobody was
/// alive, it was not itself, another fell silent without goodbye, or (`refused_since`) it had to refuse some.
pub(crate) async fn beat(
    connection: &mut PgConnection,
    id: i64,
    now: DateTime<Utc>,
    refused_since: Option<DateTime<Utc>>,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO outages (since, until)
         SELECT since, max(until) FROM (
             SELECT max(alive_at), $2 FROM aggregators
             UNION ALL
             SELECT alive_at, $2 FROM aggregators WHERE id = $1
             UNION ALL
             SELECT alive_at, least($2, alive_at + $4) FROM aggregators WHERE NOT has_left
         ) AS quiet (since, until) WHERE since < $2 - $3 GROUP BY since
         ON CONFLICT (since) DO UPDATE SET until = greatest(outages.until, excluded.until)",
    )
    .bind(id)
    .bind(now)
    .bind(silence(SILENCE))
    .bind(silence(SILENCE_MAX))
    .execute(&mut *connection)
    .await?;
    if let Some(since) = refused_since {
        sqlx::query(
            "INSERT INTO outages (since, until) VALUES ($1, $2)
             ON CONFLICT (since) DO UPDATE SET until = greatest(outages.until, excluded.until)",
        )
        .bind(since)
        .bind(now)
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query(
        "INSERT INTO aggregators (id, alive_at) VALUES ($1, $2)
         ON CONFLICT (id) DO UPDATE SET alive_at = excluded.alive_at, has_left = false",
    )
    .bind(id)
    .bind(now)
    .execute(&mut *connection)
    .await?;
    Ok(())
}

/// What the store's clock shows.
pub(crate) async fn time(connection: &mut PgConnection) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_scalar("SELECT clock_timestamp()")
        .fetch_one(connection)
        .await?)
}

/// This aggregator stops in good order: while others are alive, its silence is no outage.
pub(crate) async fn leave(
    connection: &mut PgConnection,
    id: i64,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query("UPDATE aggregators SET alive_at = $2, has_left = true WHERE id = $1")
        .bind(id)
        .bind(now)
        .execute(connection)
        .await?;
    Ok(())
}

/// Times in which reports could not be taken, oldest first; what touches is one.
pub(crate) async fn outages(
    connection: &mut PgConnection,
    now: DateTime<Utc>,
) -> Result<Vec<Span>> {
    let rows: Vec<(DateTime<Utc>, DateTime<Utc>)> = sqlx::query_as(
        "SELECT since, until FROM outages WHERE until > $1 ORDER BY since DESC LIMIT $2",
    )
    .bind(now - KEPT)
    .bind(OUTAGES_MAX)
    .fetch_all(connection)
    .await?;
    let mut spans: Vec<Span> = Vec::new();
    for (since, until) in rows.into_iter().rev() {
        let span = Span {
            from_ms: millis(since),
            to_ms: millis(until),
        };
        match spans.last_mut() {
            Some(last) if span.from_ms <= last.to_ms => last.to_ms = last.to_ms.max(span.to_ms),
            _ => spans.push(span),
        }
    }
    Ok(spans)
}

/// Forgets what is too old to matter.
pub(crate) async fn forget(connection: &mut PgConnection, now: DateTime<Utc>) -> Result<()> {
    sqlx::query("DELETE FROM outages WHERE until < $1")
        .bind(now - KEPT)
        .execute(&mut *connection)
        .await?;
    // The newest stays: from it a standstill of all is seen.
    sqlx::query(
        "DELETE FROM aggregators
         WHERE alive_at < $1 AND alive_at < (SELECT max(alive_at) FROM aggregators)",
    )
    .bind(now - KEPT)
    .execute(connection)
    .await?;
    Ok(())
}

fn silence(time: TimeDelta) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: time.num_microseconds().unwrap_or(i64::MAX),
    }
}
