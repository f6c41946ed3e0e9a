//! Services for people: what their proxies last said of themselves.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use kaeru_protocol::{ProxyStatus, ReporterId};
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgPool};

use super::Result;

/// Services on the list: more than a mesh has. 10,000 rows of 200 bytes are 2 MB.
const SERVICES_MAX: i64 = 10_000;
/// Proxies of one service that are shown: those heard last.
const PROXIES_MAX: i64 = 1_000;
/// Reporters of one service that are shown, heard last: four for each proxy.
const REPORTERS_MAX: i64 = 4 * PROXIES_MAX;

/// One service in short. A proxy that is out of touch is no witness of what is open now.
#[derive(Debug, FromRow)]
pub(crate) struct ServiceRow {
    pub(crate) service: String,
    pub(crate) proxies: i64,
    pub(crate) in_flight: i64,
    pub(crate) last_heard: DateTime<Utc>,
    pub(crate) possible_splits: i64,
    pub(crate) dropped: i64,
    pub(crate) lost: i64,
}

/// One proxy.
#[derive(Debug, FromRow)]
pub(crate) struct ProxyRow {
    pub(crate) proxy: String,
    pub(crate) last_heard: DateTime<Utc>,
    pub(crate) due_at: Option<DateTime<Utc>>,
    pub(crate) status: Option<Json<ProxyStatus>>,
}

/// One VM: how far it came by its proxy's word, and how far in the store.
#[derive(Debug, FromRow)]
pub(crate) struct ReporterRow {
    pub(crate) proxy: String,
    pub(crate) id: i64,
    pub(crate) seq: i64,
    pub(crate) stored_seq: i64,
    pub(crate) dropped: i64,
}

/// Sums over a service's proxies since they were first seen.
#[derive(Debug, FromRow)]
pub(crate) struct CountsRow {
    pub(crate) proxies: i64,
    pub(crate) succeeded: i64,
    pub(crate) rejected: i64,
    pub(crate) failed: i64,
    pub(crate) unknown: i64,
    pub(crate) refused: i64,
    pub(crate) possible_splits: i64,
    pub(crate) invalid_ids: i64,
    pub(crate) dropped: i64,
    pub(crate) lost: i64,
}

/// All services that were heard of, those that lost most first.
pub(crate) async fn list(pool: &PgPool, now: DateTime<Utc>) -> Result<Vec<ServiceRow>> {
    Ok(sqlx::query_as(
        "SELECT service, count(*) AS proxies, max(last_heard) AS last_heard,
             coalesce(sum((status->>'in_flight')::bigint) FILTER (WHERE due_at >= $1), 0)::bigint AS in_flight,
             sum(possible_splits)::bigint AS possible_splits, sum(dropped)::bigint AS dropped,
             coalesce(max(l.lost), 0)::bigint AS lost
         FROM proxies LEFT JOIN (SELECT service, sum(lost) AS lost FROM losses GROUP BY service) AS l USING (service)
         GROUP BY service
         ORDER BY lost DESC, dropped DESC, possible_splits DESC, service LIMIT $2",
    )
    .bind(now)
    .bind(SERVICES_MAX)
    .fetch_all(pool)
    .await?)
}

/// What a service's proxies counted; none of it where there are no proxies.
pub(crate) async fn counts(pool: &PgPool, service: &str) -> Result<CountsRow> {
    Ok(sqlx::query_as(
        "SELECT count(*) AS proxies, coalesce(sum(succeeded), 0)::bigint AS succeeded,
             coalesce(sum(rejected), 0)::bigint AS rejected, coalesce(sum(failed), 0)::bigint AS failed,
             coalesce(sum(unknown), 0)::bigint AS unknown, coalesce(sum(refused), 0)::bigint AS refused,
             coalesce(sum(possible_splits), 0)::bigint AS possible_splits,
             coalesce(sum(invalid_ids), 0)::bigint AS invalid_ids,
             coalesce(sum(dropped), 0)::bigint AS dropped,
             (SELECT coalesce(sum(lost), 0)::bigint FROM losses WHERE losses.service = $1) AS lost
         FROM proxies WHERE proxies.service = $1",
    )
    .bind(service)
    .fetch_one(pool)
    .await?)
}

/// A service's proxies, those heard last first.
pub(crate) async fn proxies(pool: &PgPool, service: &str) -> Result<Vec<ProxyRow>> {
    Ok(sqlx::query_as(
        "SELECT proxy, last_heard, due_at, status FROM proxies WHERE service = $1
         ORDER BY last_heard DESC, proxy LIMIT $2",
    )
    .bind(service)
    .bind(PROXIES_MAX)
    .fetch_all(pool)
    .await?)
}

/// A service's reporters, those heard last first.
pub(crate) async fn reporters(pool: &PgPool, service: &str) -> Result<Vec<ReporterRow>> {
    // The highest sequence is the end of an index in each partition.
    Ok(sqlx::query_as(
        "SELECT v.proxy, v.id, v.marked_seq AS seq, coalesce(r.seq, 0) AS stored_seq, v.dropped
         FROM (SELECT proxy, id, marked_seq, dropped, last_heard FROM reporters WHERE service = $1
               ORDER BY last_heard DESC, id LIMIT $2) AS v
         LEFT JOIN LATERAL (SELECT max(seq) AS seq FROM reports WHERE reporter = v.id) AS r ON true
         ORDER BY v.last_heard DESC, v.id",
    )
    .bind(service)
    .bind(REPORTERS_MAX)
    .fetch_all(pool)
    .await?)
}

/// The services of those of these reporters whose proxies have been silent for longer than they promised.
pub(crate) async fn out_of_touch(
    connection: &mut PgConnection,
    reporters: &BTreeSet<ReporterId>,
    now: DateTime<Utc>,
) -> Result<Vec<String>> {
    if reporters.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<i64> = reporters.iter().map(|id| id.0.cast_signed()).collect();
    Ok(sqlx::query_scalar(
        "SELECT DISTINCT p.service FROM reporters r JOIN proxies p USING (proxy)
         WHERE r.id = ANY($1) AND p.due_at < $2 ORDER BY 1",
    )
    .bind(ids)
    .bind(now)
    .fetch_all(connection)
    .await?)
}
