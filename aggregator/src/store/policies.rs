//! Policies in versions; the newest is in force everywhere.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::Result;

/// The newest version's number; 0 is the built-in policy.
pub(crate) async fn newest_version(connection: &mut PgConnection) -> Result<i64> {
    Ok(
        sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM policies")
            .fetch_one(connection)
            .await?,
    )
}

/// The newest version with its text.
pub(crate) async fn newest(connection: &mut PgConnection) -> Result<Option<(i64, String)>> {
    Ok(
        sqlx::query_as("SELECT version, yaml FROM policies ORDER BY version DESC LIMIT 1")
            .fetch_optional(connection)
            .await?,
    )
}

/// Makes this text the newest version, unless it is; says its number.
pub(crate) async fn put(
    connection: &mut PgConnection,
    yaml: &str,
    now: DateTime<Utc>,
) -> Result<Option<i64>> {
    // One at a time, so that aggregators with the same file make one version of it.
    sqlx::query("LOCK TABLE policies IN SHARE ROW EXCLUSIVE MODE")
        .execute(&mut *connection)
        .await?;
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
