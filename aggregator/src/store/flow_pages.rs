//! Learned flows for people: the list, and one flow with its steps and edges.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgPool};

use super::Result;

/// One flow in short.
#[derive(Debug, FromRow)]
pub(crate) struct FlowRow {
    pub(crate) r#type: String,
    pub(crate) version: i64,
    pub(crate) events: i64,
    pub(crate) succeeded: i64,
    pub(crate) failed: i64,
    pub(crate) abandoned: i64,
    pub(crate) doomed: i64,
    pub(crate) last_at: DateTime<Utc>,
}

/// What one service did in a flow.
#[derive(Debug, FromRow)]
pub(crate) struct StepRow {
    pub(crate) peer: String,
    pub(crate) events: i64,
    pub(crate) attempts: i64,
    pub(crate) failed: i64,
    pub(crate) failed_whole: i64,
    pub(crate) total_ms: i64,
    pub(crate) timed: i64,
}

/// One kind of call in a flow; an empty caller is the world outside.
#[derive(Debug, FromRow)]
pub(crate) struct EdgeRow {
    pub(crate) caller: String,
    pub(crate) callee: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) count: i64,
    pub(crate) positions: i64,
}

/// All flows, the one that learned last first. Their number is bounded where they are written.
pub(crate) async fn list(pool: &PgPool) -> Result<Vec<FlowRow>> {
    let sql =
        "SELECT type, version, events, succeeded, failed, abandoned, doomed, last_at FROM flows
               ORDER BY last_at DESC, type";
    Ok(sqlx::query_as(sql).fetch_all(pool).await?)
}

/// One flow.
pub(crate) async fn find(pool: &PgPool, event_type: &str) -> Result<Option<FlowRow>> {
    let sql =
        "SELECT type, version, events, succeeded, failed, abandoned, doomed, last_at FROM flows
               WHERE type = $1";
    Ok(sqlx::query_as(sql)
        .bind(event_type)
        .fetch_optional(pool)
        .await?)
}

/// Its steps, by name.
pub(crate) async fn steps(pool: &PgPool, event_type: &str) -> Result<Vec<StepRow>> {
    let sql = "SELECT peer, events, attempts, failed, failed_whole, total_ms, timed FROM flow_steps
               WHERE type = $1 ORDER BY peer";
    Ok(sqlx::query_as(sql).bind(event_type).fetch_all(pool).await?)
}

/// Its edges, by caller in the order in which it makes its calls.
pub(crate) async fn edges(pool: &PgPool, event_type: &str) -> Result<Vec<EdgeRow>> {
    let sql =
        "SELECT caller, callee, method, path, count, positions FROM flow_edges WHERE type = $1
               ORDER BY caller, positions::float / greatest(count, 1), callee, method, path";
    Ok(sqlx::query_as(sql).bind(event_type).fetch_all(pool).await?)
}
