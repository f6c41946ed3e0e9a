//! What is bounded by name: how many there are of whom, and who had one too many.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection, PgPool};

use super::Result;
use crate::census::{Census, Excesses, OTHERS, What};

/// Rows: 1,000 of 300 bytes. Those of a transaction come on top, 100 at most.
const EXCESSES_MAX: i64 = 1_000;

/// Who had how many too many.
#[derive(Debug, FromRow)]
pub(crate) struct ExcessRow {
    pub(crate) what: String,
    pub(crate) who: String,
    pub(crate) count: i64,
    pub(crate) proxy: String,
    pub(crate) last_at: DateTime<Utc>,
}

/// Counts anew what is held.
pub(crate) async fn count(connection: &mut PgConnection, census: &Census) -> Result<()> {
    for what in What::ALL {
        census.reads(what);
        let counts: Vec<(String, i64)> = sqlx::query_as(match what {
            What::Proxies => "SELECT service, count(*) FROM proxies GROUP BY service",
            What::Reporters => "SELECT service, count(*) FROM reporters GROUP BY service",
            What::Calls => "SELECT service, count(*) FROM calls GROUP BY service",
            What::Types => "SELECT entry, count(*) FROM flows GROUP BY entry",
        })
        .fetch_all(&mut *connection)
        .await?;
        census.set(what, counts);
    }
    Ok(())
}

/// Writes down what was one too many.
pub(crate) async fn add(
    connection: &mut PgConnection,
    excesses: &Excesses,
    now: DateTime<Utc>,
) -> Result<()> {
    if excesses.is_empty() {
        return Ok(());
    }
    // One row a pair, though several are put together.
    sqlx::query(
        "INSERT INTO excesses AS e (what, who, count, proxy, last_at)
         SELECT what, CASE WHEN known OR held < $6 THEN who ELSE $7 END AS who, sum(count)::bigint, max(proxy), $5
         FROM (SELECT new.*, EXISTS (SELECT FROM excesses o WHERE o.what = new.what AND o.who = new.who) AS known,
                   (SELECT count(*) FROM excesses) AS held
               FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[]) AS new (what, who, count, proxy)) AS new
         GROUP BY 1, 2 ORDER BY 1, 2
         ON CONFLICT (what, who) DO UPDATE SET count = e.count + excluded.count, proxy = excluded.proxy,
             last_at = greatest(e.last_at, excluded.last_at)",
    )
    .bind(excesses.keys().map(|(what, _)| what.as_str()).collect::<Vec<_>>())
    .bind(excesses.keys().map(|(_, who)| who.as_str()).collect::<Vec<_>>())
    .bind(excesses.values().map(|e| e.count.cast_signed()).collect::<Vec<_>>())
    .bind(excesses.values().map(|e| &*e.proxy).collect::<Vec<_>>())
    .bind(now)
    .bind(EXCESSES_MAX)
    .bind(OTHERS)
    .execute(connection)
    .await?;
    Ok(())
}

/// All of them, the most first.
pub(crate) async fn list(pool: &PgPool) -> Result<Vec<ExcessRow>> {
    let sql =
        "SELECT what, who, count, proxy, last_at FROM excesses ORDER BY count DESC, what, who";
    Ok(sqlx::query_as(sql).fetch_all(pool).await?)
}

/// Forgets those that have kept to their share since `first`.
pub(crate) async fn forget(connection: &mut PgConnection, first: DateTime<Utc>) -> Result<()> {
    sqlx::query("DELETE FROM excesses WHERE last_at < $1")
        .bind(first)
        .execute(connection)
        .await?;
    Ok(())
}
