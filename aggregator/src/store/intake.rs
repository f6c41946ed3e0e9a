//! The decider's durable to-do list.

use sqlx::PgConnection;

use super::Result;

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
