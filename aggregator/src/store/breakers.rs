//! Breakers: event types that too many events of were doomed at once. A breaker holds for one version of the
//! policy, until an operator closes it. The empty type stands for events of no type.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};

use super::{Result, policies};
use crate::policy::InForce;

/// A breaker that tripped.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(crate) struct Breaker {
    pub(crate) r#type: String,
    /// The version that it tripped under.
    pub(crate) policy_version: i64,
    pub(crate) tripped_at: DateTime<Utc>,
    /// Events that were doomed within the minute before.
    pub(crate) doomed: i64,
    /// Null while it is open, as the two after it.
    pub(crate) closed_at: Option<DateTime<Utc>>,
    pub(crate) closed_by: Option<String>,
    pub(crate) closed_for: Option<String>,
}

/// A type of which enough events were doomed to look closer.
#[derive(Debug, FromRow)]
pub(crate) struct Suspect {
    pub(crate) r#type: String,
    pub(crate) doomed: i64,
    /// Since when they were counted: a closing begins the count anew.
    pub(crate) counted_since: DateTime<Utc>,
}

/// The breakers that are open under this policy, the newest first.
pub(crate) async fn open(
    connection: &mut PgConnection,
    policy_version: i64,
) -> Result<Vec<Breaker>> {
    Ok(sqlx::query_as(
        "SELECT type, policy_version, tripped_at, doomed, closed_at, closed_by, closed_for FROM breakers
         WHERE policy_version = $1 AND closed_at IS NULL ORDER BY tripped_at DESC, type",
    )
    .bind(policy_version)
    .fetch_all(connection)
    .await?)
}

/// The breaker of this type, where it is open by what is in force.
pub(crate) async fn open_of(
    connection: &mut PgConnection,
    event_type: &str,
    in_force: &InForce,
) -> Result<Option<Breaker>> {
    if !in_force.tripped.contains(event_type) {
        return Ok(None);
    }
    let last = last(connection, event_type, in_force.version()).await?;
    Ok(last.filter(|breaker| breaker.closed_at.is_none()))
}

/// The last breaker of this type that tripped under this policy, open or closed.
pub(crate) async fn last(
    connection: &mut PgConnection,
    event_type: &str,
    policy_version: i64,
) -> Result<Option<Breaker>> {
    Ok(sqlx::query_as(
        "SELECT type, policy_version, tripped_at, doomed, closed_at, closed_by, closed_for FROM breakers
         WHERE type = $1 AND policy_version = $2 ORDER BY tripped_at DESC LIMIT 1",
    )
    .bind(event_type)
    .bind(policy_version)
    .fetch_optional(connection)
    .await?)
}

/// Types with at least `least` decisions since then, or since their breaker was closed.
pub(crate) async fn doomed_since(
    connection: &mut PgConnection,
    since: DateTime<Utc>,
    least: i64,
) -> Result<Vec<Suspect>> {
    Ok(sqlx::query_as(
        "WITH closings AS (
             SELECT type, max(closed_at) AS at FROM breakers WHERE closed_at > $1 GROUP BY type)
         SELECT t.type, count(*) AS doomed, max(greatest($1, c.at)) AS counted_since
         FROM decisions d LEFT JOIN events e USING (event)
         -- The type may have been learned from the entry after the decision.
         CROSS JOIN LATERAL (SELECT coalesce(e.type, d.type, '') AS type) t
         LEFT JOIN closings c ON c.type = t.type
         WHERE d.decided_at > $1 AND d.decided_at > greatest($1, c.at)
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

/// Opens the breaker of a type; whether it was closed. What was counted before a closing opens nothing.
pub(crate) async fn trip(
    connection: &mut PgConnection,
    suspect: &Suspect,
    policy_version: i64,
    now: DateTime<Utc>,
) -> Result<bool> {
    policies::change(&mut *connection).await?;
    let outcome = sqlx::query(
        "INSERT INTO breakers (type, policy_version, tripped_at, doomed)
         SELECT $1, $2, $3, $4
         WHERE NOT EXISTS (SELECT FROM breakers WHERE type = $1 AND closed_at > $5)
         ON CONFLICT DO NOTHING",
    )
    .bind(&suspect.r#type)
    .bind(policy_version)
    .bind(now)
    .bind(suspect.doomed)
    .bind(suspect.counted_since)
    .execute(connection)
    .await?;
    Ok(outcome.rows_affected() > 0)
}

/// Closes the open breaker of a type, if there is one.
pub(crate) async fn close(
    connection: &mut PgConnection,
    event_type: &str,
    policy_version: i64,
    by: &str,
    reason: &str,
    now: DateTime<Utc>,
) -> Result<Option<Breaker>> {
    policies::change(&mut *connection).await?;
    Ok(sqlx::query_as(
        "UPDATE breakers SET closed_at = $3, closed_by = $4, closed_for = $5
         WHERE type = $1 AND policy_version = $2 AND closed_at IS NULL
         RETURNING type, policy_version, tripped_at, doomed, closed_at, closed_by, closed_for",
    )
    .bind(event_type)
    .bind(policy_version)
    .bind(now)
    .bind(by)
    .bind(reason)
    .fetch_optional(connection)
    .await?)
}

/// Forgets breakers that tripped before `first` and hold no more.
pub(crate) async fn forget(
    connection: &mut PgConnection,
    first: DateTime<Utc>,
    policy_version: i64,
) -> Result<()> {
    sqlx::query(
        "DELETE FROM breakers WHERE tripped_at < $1 AND coalesce(closed_at < $1, policy_version <> $2)",
    )
    .bind(first)
    .bind(policy_version)
    .execute(connection)
    .await?;
    Ok(())
}
