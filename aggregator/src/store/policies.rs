//! Policies in versions; the newest is in force everywhere.
//!
//! What is in force (the version, and the breakers that are open under it) changes only while nobody decides, so that
//! no decision by what was is committed after one by what is: whoever decides holds a shared lock from before he reads
//! it to his commit (`events::lock` takes it), and it is changed under the whole of it. It is no lock of the table, for a
//! backup holds that for as long as it takes.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::Result;

/// The lock's number: "policy" in ASCII.
pub(super) const LOCK: i64 = 0x706f_6c69_6379;

/// One text of the policy: the number of its version, 0 for the built-in one, and when it was written. The time tells
/// two texts apart that have one number in turn, since a restored store gives its numbers again.
pub(crate) type Edition = (i64, Option<DateTime<Utc>>);

/// The newest edition, and the event types whose breaker is open under this version.
pub(crate) async fn in_force(
    connection: &mut PgConnection,
    version: i64,
) -> Result<(Edition, BTreeSet<String>)> {
    let (newest, at, tripped): (i64, Option<DateTime<Utc>>, Vec<String>) = sqlx::query_as(
        "SELECT coalesce(version, 0), at,
             ARRAY(SELECT type FROM breakers WHERE policy_version = $1 AND closed_at IS NULL)
         FROM (VALUES (1)) AS always
         LEFT JOIN (SELECT version, at FROM policies ORDER BY version DESC LIMIT 1) AS newest ON true",
    )
    .bind(version)
    .fetch_one(connection)
    .await?;
    Ok(((newest, at), tripped.into_iter().collect()))
}

/// The newest version up to this one, with its text.
pub(crate) async fn up_to(
    connection: &mut PgConnection,
    version: i64,
) -> Result<Option<(i64, String)>> {
    Ok(sqlx::query_as(
        "SELECT version, yaml FROM policies WHERE version <= $1 ORDER BY version DESC LIMIT 1",
    )
    .bind(version)
    .fetch_optional(connection)
    .await?)
}

/// From here to the commit nobody decides, and nobody else changes what is in force. Waits for those who decide; after
/// a second it gives up, so that one who hangs holds up the others no longer.
pub(crate) async fn change(connection: &mut PgConnection) -> Result<()> {
    sqlx::query("SET LOCAL lock_timeout = '1s'")
        .execute(&mut *connection)
        .await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(connection)
        .await?;
    Ok(())
}

/// Makes this text the newest version, unless it is; says its number.
pub(crate) async fn put(
    connection: &mut PgConnection,
    yaml: &str,
    now: DateTime<Utc>,
) -> Result<Option<i64>> {
    change(&mut *connection).await?;
    Ok(sqlx::query_scalar(
        "INSERT INTO policies (yaml, at) SELECT $1, $2
         WHERE $1 IS DISTINCT FROM (SELECT yaml FROM policies ORDER BY version DESC LIMIT 1)
         RETURNING version",
    )
    .bind(yaml)
    .bind(now)
    .fetch_optional(connection)
    .await?)
}

/// The text of one version, where it is kept.
pub(crate) async fn text(connection: &mut PgConnection, version: i64) -> Result<Option<String>> {
    Ok(
        sqlx::query_scalar("SELECT yaml FROM policies WHERE version = $1")
            .bind(version)
            .fetch_optional(connection)
            .await?,
    )
}
