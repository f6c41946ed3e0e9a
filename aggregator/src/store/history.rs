//! Whether the store is the one that it was: what was read of another copy of it is not true of this one.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::Result;

/// A run of one Postgres over one set of our tables. To put back an older copy, or to fail over, either the one or
/// the other must begin anew.
pub(crate) type History = (DateTime<Utc>, i64);

/// The history that this connection sees.
pub(crate) async fn current(connection: &mut PgConnection) -> Result<History> {
    let history = "SELECT pg_postmaster_start_time(), 'store'::regclass::oid::bigint";
    Ok(sqlx::query_as(history).fetch_one(connection).await?)
}
