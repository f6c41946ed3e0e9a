//! Reporters and their proxies: who they are, when they were last heard of, what they state of themselves, and
//! which of their reports never came.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use kaeru_protocol::{ProxyStatus, Reporter, ReporterMark};
use sqlx::PgConnection;
use sqlx::types::Json;

use super::Result;
use super::reports::reporter_number;
use crate::clock::millis;

/// Who sent a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sender {
    /// As it names itself.
    pub(crate) reporter: Reporter,
    /// `false` for an aggregator that speaks for a service: it is no proxy of it.
    pub(crate) is_proxy: bool,
}

/// Notes that these were heard of, and returns the reporters that may not be who they say: their id or their
/// proxy belongs to another service.
pub(crate) async fn hear(
    connection: &mut PgConnection,
    senders: &BTreeMap<i64, Sender>,
    now: DateTime<Utc>,
) -> Result<Vec<i64>> {
    let each = |of: fn(&Sender) -> &str| senders.values().map(of).collect::<Vec<&str>>();
    let ids: Vec<i64> = senders.keys().copied().collect();
    let known: Vec<i64> = sqlx::query_scalar(
        "INSERT INTO reporters (id, proxy, service, gateway, first_heard, last_heard, checked_at)
         SELECT id, proxy, service, gateway, $5, $5, $5
         FROM unnest($1::bigint[], $2::text[], $3::text[], $4::boolean[])
             AS new (id, proxy, service, gateway) ORDER BY id
         ON CONFLICT (id) DO UPDATE SET last_heard = greatest(reporters.last_heard, excluded.last_heard)
             WHERE reporters.service = excluded.service AND reporters.proxy = excluded.proxy
         RETURNING id",
    )
    .bind(&ids)
    .bind(each(|s| &s.reporter.proxy))
    .bind(each(|s| s.reporter.service.as_str()))
    .bind(senders.values().map(|s| s.reporter.gateway).collect::<Vec<_>>())
    .bind(now)
    .fetch_all(&mut *connection)
    .await?;
    // One row a proxy, whatever number of its VMs sent.
    let proxies: BTreeMap<&str, &Reporter> = senders
        .values()
        .filter(|sender| sender.is_proxy)
        .map(|sender| (&*sender.reporter.proxy, &sender.reporter))
        .collect();
    let ours: Vec<(String, String)> = sqlx::query_as(
        "INSERT INTO proxies (proxy, service, gateway, first_heard, last_heard)
         SELECT proxy, service, gateway, $4, $4
         FROM unnest($1::text[], $2::text[], $3::boolean[]) AS new (proxy, service, gateway) ORDER BY proxy
         ON CONFLICT (proxy) DO UPDATE SET last_heard = greatest(proxies.last_heard, excluded.last_heard)
             WHERE proxies.service = excluded.service
         RETURNING proxy, service",
    )
    .bind(proxies.keys().copied().collect::<Vec<_>>())
    .bind(proxies.values().map(|r| r.service.as_str()).collect::<Vec<_>>())
    .bind(proxies.values().map(|r| r.gateway).collect::<Vec<_>>())
    .bind(now)
    .fetch_all(connection)
    .await?;
    let ours: BTreeMap<String, String> = ours.into_iter().collect();
    let is_known = |id: &i64, sender: &Sender| {
        let service = ours.get(&*sender.reporter.proxy).map(String::as_str);
        known.contains(id)
            && (!sender.is_proxy || service == Some(sender.reporter.service.as_str()))
    };
    Ok(senders
        .iter()
        .filter(|(id, sender)| !is_known(id, sender))
        .map(|(id, _)| *id)
        .collect())
}

/// Takes in what a proxy states about itself, once; says how many reports turn out to be lost.
pub(crate) async fn take_status(
    connection: &mut PgConnection,
    sender: &Reporter,
    status: &ProxyStatus,
    at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<u64> {
    let counts = &status.counts;
    sqlx::query(
        "UPDATE proxies SET
             succeeded = succeeded + $5, rejected = rejected + $6, failed = failed + $7,
             unknown = unknown + $8, refused = refused + $9, possible_splits = possible_splits + $10,
             invalid_ids = invalid_ids + $11, dropped = dropped + $12,
             status = CASE WHEN status_at IS NULL OR status_at <= $2 THEN $3 ELSE status END,
             due_at = CASE WHEN status_at IS NULL OR status_at <= $2 THEN $4 ELSE due_at END,
             status_at = greatest(status_at, $2)
         WHERE proxy = $1",
    )
    .bind(&*sender.proxy)
    .bind(at)
    .bind(Json(status))
    .bind(now + TimeDelta::milliseconds(status.due_ms.into()))
    .bind(bounded(counts.succeeded))
    .bind(bounded(counts.rejected))
    .bind(bounded(counts.failed))
    .bind(bounded(counts.unknown))
    .bind(bounded(counts.refused))
    .bind(bounded(counts.possible_splits))
    .bind(bounded(counts.invalid_ids))
    .bind(bounded(counts.dropped))
    .execute(&mut *connection)
    .await?;
    let mut lost = 0;
    let mut marks = status.reporters.clone();
    marks.sort_unstable_by_key(|mark| reporter_number(mark.id));
    for mark in &marks {
        lost += take_mark(connection, sender, mark, now).await?;
    }
    Ok(lost)
}

/// What a reporter's row says of its sequences.
type Marked = (i64, Option<DateTime<Utc>>, i64, DateTime<Utc>, i64, i64);

/// How far one reporter came. What it had given out by the last status must be here by now, or is lost: a
/// status comes after the reports that were due before it.
async fn take_mark(
    connection: &mut PgConnection,
    sender: &Reporter,
    mark: &ReporterMark,
    now: DateTime<Utc>,
) -> Result<u64> {
    let id = reporter_number(mark.id);
    let marked: Option<Marked> = sqlx::query_as(
        "INSERT INTO reporters AS r (id, proxy, service, gateway, first_heard, last_heard, checked_at)
         VALUES ($1, $2, $3, $4, $5, $5, $5)
         ON CONFLICT (id) DO UPDATE SET id = r.id WHERE r.proxy = excluded.proxy
         RETURNING marked_seq, marked_at, checked_seq, checked_at, dropped, missing",
    )
    .bind(id)
    .bind(&*sender.proxy)
    .bind(sender.service.as_str())
    .bind(sender.gateway)
    .bind(now)
    .fetch_optional(&mut *connection)
    .await?;
    // A reporter of another proxy is not this proxy's to speak for.
    let Some((marked_seq, marked_at, checked_seq, checked_at, dropped, missing)) = marked else {
        return Ok(0);
    };
    let came: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM reports WHERE reporter = $1 AND seq > $2 AND seq <= $3",
    )
    .bind(id)
    .bind(checked_seq)
    .bind(marked_seq)
    .fetch_one(&mut *connection)
    .await?;
    let now_missing = missing.saturating_add((marked_seq - checked_seq - came).max(0));
    let now_dropped = bounded(mark.dropped).max(dropped);
    // A report that its reporter dropped shows as a gap too: the larger number is what was lost.
    let lost = now_missing.max(now_dropped) - missing.max(dropped);
    sqlx::query(
        "UPDATE reporters SET marked_seq = greatest(marked_seq, $2), marked_at = $3, checked_seq = $4,
             checked_at = $5, dropped = $6, missing = $7 WHERE id = $1",
    )
    .bind(id)
    .bind(bounded(mark.seq))
    .bind(now)
    .bind(marked_seq)
    .bind(marked_at.unwrap_or(checked_at))
    .bind(now_dropped)
    .bind(now_missing)
    .execute(&mut *connection)
    .await?;
    if lost > 0 {
        super::losses::add(connection, id, sender, (checked_at, now), lost).await?;
    }
    Ok(lost.cast_unsigned())
}

/// When each of these proxies was last heard of, ms.
pub(crate) async fn last_heard(
    connection: &mut PgConnection,
    proxies: &BTreeSet<&str>,
) -> Result<BTreeMap<Box<str>, u64>> {
    if proxies.is_empty() {
        return Ok(BTreeMap::new());
    }
    let names: Vec<&str> = proxies.iter().copied().collect();
    let rows: Vec<(String, DateTime<Utc>)> =
        sqlx::query_as("SELECT proxy, last_heard FROM proxies WHERE proxy = ANY($1)")
            .bind(names)
            .fetch_all(connection)
            .await?;
    Ok(rows
        .into_iter()
        .map(|(proxy, at)| (proxy.into(), millis(at)))
        .collect())
}

/// Forgets proxies and reporters that were last heard of before `first`; their reports are gone too.
pub(crate) async fn forget(connection: &mut PgConnection, first: DateTime<Utc>) -> Result<()> {
    for statement in [
        "DELETE FROM proxies WHERE last_heard < $1",
        "DELETE FROM reporters WHERE last_heard < $1",
    ] {
        sqlx::query(statement)
            .bind(first)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// A count as a `bigint`, small enough that a billion of the largest still add up.
fn bounded(count: u64) -> i64 {
    const COUNT_MAX: u64 = 1 << 33;
    count.min(COUNT_MAX).cast_signed()
}
