//! Who was alive when, and so when reports could not be taken: no evidence against anybody.

mod quiet;

use chrono::{DateTime, TimeDelta, Utc};
use kaeru_flow::Span;
use serde::Deserialize;
use sqlx::PgConnection;

use super::Result;
use crate::clock::{millis, timestamp};

pub(crate) use quiet::SILENCE_MS;
pub use quiet::{Alive, quiet, unheard};

/// Outages and aggregators older than this matter to no open event.
pub(super) const KEPT: TimeDelta = TimeDelta::days(1);
/// Outages that are read at most: the newest. One a second for over an hour.
pub(super) const OUTAGES_MAX: i64 = 4_096;

/// This aggregator is alive. Writes down since when reports could not be taken, if they could not: nobody was
/// alive, it was not itself, another fell silent without goodbye, or (`refused_since`) it had to refuse some.
pub(crate) async fn beat(
    connection: &mut PgConnection,
    id: i64,
    now: DateTime<Utc>,
    refused_since: Option<DateTime<Utc>>,
) -> Result<()> {
    let known: Vec<(i64, DateTime<Utc>, bool)> =
        sqlx::query_as("SELECT id, alive_at, has_left FROM aggregators")
            .fetch_all(&mut *connection)
            .await?;
    let known: Vec<Alive> = known
        .into_iter()
        .map(|(id, alive_at, has_left)| Alive {
            id,
            alive_ms: millis(alive_at),
            has_left,
        })
        .collect();
    let spans = quiet(&known, id, millis(now));
    let each = |of: fn(&Span) -> u64| spans.iter().map(of).map(timestamp).collect::<Vec<_>>();
    sqlx::query(
        "INSERT INTO outages (since, until)
         SELECT since, until FROM unnest($1::timestamptz[], $2::timestamptz[]) AS quiet (since, until)
         ON CONFLICT (since) DO UPDATE SET until = greatest(outages.until, excluded.until)",
    )
    .bind(each(|span| span.from_ms))
    .bind(each(|span| span.to_ms))
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

/// A time in which reports could not be taken, as it stands in the store.
#[derive(Deserialize)]
pub(super) struct OutageRow {
    since: DateTime<Utc>,
    until: DateTime<Utc>,
}

impl OutageRow {
    /// What it says.
    pub(super) fn span(&self) -> Span {
        Span {
            from_ms: millis(self.since),
            to_ms: millis(self.until),
        }
    }
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
