//! Breakers: event types that too many events of were doomed at once. A breaker holds for one version of the
//! policy.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::Result;

/// The types whose breaker is open under this policy; the empty one stands for events of no type.
pub(crate) async fn open(
    connection: &mut PgConnection,
    policy_version: i64,
) -> Result<BTreeSet<String>> {
    let types: Vec<String> =
        sqlx::query_scalar("SELECT type FROM breakers WHERE policy_version = $1")
            .bind(policy_version)
            .fetch_all(connection)
            .await?;
    Ok(types.into_iter().collect())
}

/// Types with at least `least` decisions since then, with their number.
pub(crate) async fn doomed_since(
    connection: &mut PgConnection,
    since: DateTime<Utc>,
    least: i64,
) -> Result<Vec<(String, i64)>> {
    Ok(sqlx::query_as(
        "SELECT coalesce(type, ''), count(*) FROM decisions WHERE decided_at > $1
         GROUP BY 1 HAVING count(*) >= $2",
    )
    .bind(since)
    .bind(least)
    .fetch_all(connection)
    .await?)
}

/// Whether at least this many events of the type began since then.
pub(crate) async fn began_at_least(
    connection: &mut PgConnection,
    event_type: &str,
    since: DateTime<Utc>,
    events: i64,
) -> Result<bool> {
    let began: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (
             SELECT FROM events WHERE type IS NOT DISTINCT FROM nullif($1, '') AND first_at > $2
             LIMIT $3) AS began",
    )
    .bind(event_type)
    .bind(since)
    .bind(events)
    .fetch_one(connection)
    .await?;
    Ok(began >= events)
}

/// Opens the breaker of a type; whether it was closed.
pub(crate) async fn trip(
    connection: &mut PgConnection,
    event_type: &str,
    policy_version: i64,
    doomed: i64,
    now: DateTime<Utc>,
) -> Result<bool> {
    let outcome = sqlx::query(
        "INSERT INTO breakers (type, policy_version, tripped_at, doomed) VALUES ($1, $2, $3, $4)
         ON CONFLICT ON CONSTRAINT breakers_pkey DO NOTHING",
    )
    .bind(event_type)
    .bind(policy_version)
    .bind(now)
    .bind(doomed)
    .execute(connection)
    .await?;
    Ok(outcome.rows_affected() > 0)
}
