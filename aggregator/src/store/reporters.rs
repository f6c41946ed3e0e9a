//! Reporters and their proxies: who they are, when they were last heard of, what they state of themselves, and
//! which of their reports never came.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use kaeru_flow::{Heard, set_right};
use kaeru_protocol::{ProxyStatus, Reporter, ReporterId, ReporterMark, ServiceName};
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};

use super::Result;
use super::reports::reporter_number;
use crate::accounts::{Account, Told};
use crate::census::{Census, Full, What};
use crate::clock::{millis, timestamp};

/// What a reporter gave out before it, or its proxy's status, was first heard of goes back this far at most, as far as
/// we can know.
const UNKNOWN: TimeDelta = TimeDelta::minutes(5);
/// A clock that seems so much further behind than before was set back, ms: no batch takes that long.
const CLOCK_SET_BACK_MS: i64 = 60_000;

/// Who sent a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// As it names itself.
    pub reporter: Reporter,
    /// `false` for an aggregator that speaks for a service: it is no proxy of it.
    pub is_proxy: bool,
}

/// Why nothing of a reporter is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stranger {
    /// It may not be who it says: its id or its proxy belongs to another service.
    Foreign,
    /// It is new, and who is named here has used up its share.
    OneTooMany(What, Full),
}

/// Notes that these were heard of, and returns those of which nothing may be taken. `clocks` says how far our clock was
/// ahead of theirs at most.
pub(crate) async fn hear(
    connection: &mut PgConnection,
    senders: &BTreeMap<i64, Sender>,
    clocks: &BTreeMap<i64, i64>,
    census: &Census,
    now: DateTime<Utc>,
) -> Result<BTreeMap<i64, Stranger>> {
    let each = |of: fn(&Sender) -> &str| senders.values().map(of).collect::<Vec<&str>>();
    let services = || senders.values().map(|s| s.reporter.service.as_str());
    let room = census.rooms(What::Reporters, 1, services());
    let room_of_proxy = census.rooms(What::Proxies, 1, services());
    let is_open = |rooms: &[std::result::Result<(), Full>]| {
        rooms
            .iter()
            .map(std::result::Result::is_ok)
            .collect::<Vec<bool>>()
    };
    let ids: Vec<i64> = senders.keys().copied().collect();
    // A batch that took long makes a clock seem behind: the least is nearest to the truth, until a clock is set back.
    let known: Vec<(i64, bool)> = sqlx::query_as(
        "INSERT INTO reporters AS r (id, proxy, service, gateway, clock_ms, first_heard, last_heard, checked_at)
         SELECT new.id, new.proxy, new.service, new.gateway, new.clock_ms, $6, $6, coalesce(p.status_at, $8)
         FROM unnest($1::bigint[], $2::text[], $3::text[], $4::boolean[], $5::bigint[], $9::boolean[],
             $10::boolean[]) AS new (id, proxy, service, gateway, clock_ms, room, room_of_proxy)
         LEFT JOIN proxies p ON p.proxy = new.proxy LEFT JOIN reporters old ON old.id = new.id
         WHERE old.id IS NOT NULL OR (room AND (room_of_proxy OR p.proxy IS NOT NULL)) ORDER BY new.id
         ON CONFLICT (id) DO UPDATE SET last_heard = greatest(r.last_heard, excluded.last_heard),
             clock_ms = CASE WHEN excluded.clock_ms BETWEEN r.clock_ms AND r.clock_ms + $7 THEN r.clock_ms
                 ELSE excluded.clock_ms END
             WHERE r.service = excluded.service AND r.proxy = excluded.proxy
         RETURNING id, r.xmax = 0",
    )
    .bind(&ids)
    .bind(each(|s| &s.reporter.proxy))
    .bind(each(|s| s.reporter.service.as_str()))
    .bind(senders.values().map(|s| s.reporter.gateway).collect::<Vec<_>>())
    .bind(ids.iter().map(|id| clocks.get(id).copied().unwrap_or(0)).collect::<Vec<_>>())
    .bind(now)
    .bind(CLOCK_SET_BACK_MS)
    .bind(now - UNKNOWN)
    .bind(is_open(&room))
    .bind(
        (senders.values().zip(is_open(&room_of_proxy)))
            .map(|(sender, room)| room || !sender.is_proxy)
            .collect::<Vec<_>>(),
    )
    .fetch_all(&mut *connection)
    .await?;
    let known: BTreeMap<i64, bool> = known.into_iter().collect();
    // One row a proxy, whatever number of its VMs sent.
    let proxies: BTreeMap<&str, &Reporter> = (senders.iter())
        .filter(|(id, sender)| sender.is_proxy && known.contains_key(id))
        .map(|(_, sender)| (&*sender.reporter.proxy, &sender.reporter))
        .collect();
    let ours: Vec<(String, String, bool)> = sqlx::query_as(
        "INSERT INTO proxies (proxy, service, gateway, first_heard, last_heard)
         SELECT proxy, service, gateway, $4, $4
         FROM unnest($1::text[], $2::text[], $3::boolean[]) AS new (proxy, service, gateway) ORDER BY proxy
         ON CONFLICT (proxy) DO UPDATE SET last_heard = greatest(proxies.last_heard, excluded.last_heard)
             WHERE proxies.service = excluded.service
         RETURNING proxy, service, proxies.xmax = 0",
    )
    .bind(proxies.keys().copied().collect::<Vec<_>>())
    .bind(proxies.values().map(|r| r.service.as_str()).collect::<Vec<_>>())
    .bind(proxies.values().map(|r| r.gateway).collect::<Vec<_>>())
    .bind(now)
    .fetch_all(connection)
    .await?;
    for (_, service, is_new) in &ours {
        if *is_new {
            census.took(What::Proxies, service);
        }
    }
    let ours: BTreeMap<String, String> = (ours.into_iter())
        .map(|(proxy, service, _)| (proxy, service))
        .collect();
    let mut strangers = BTreeMap::new();
    for ((id, sender), rooms) in senders.iter().zip(room.into_iter().zip(room_of_proxy)) {
        let service = sender.reporter.service.as_str();
        let Some(is_new) = known.get(id) else {
            let stranger = match rooms {
                (Err(full), _) => Stranger::OneTooMany(What::Reporters, full),
                (_, Err(full)) if sender.is_proxy => Stranger::OneTooMany(What::Proxies, full),
                _ => Stranger::Foreign,
            };
            strangers.insert(*id, stranger);
            continue;
        };
        if *is_new {
            census.took(What::Reporters, service);
        }
        let is_ours = ours
            .get(&*sender.reporter.proxy)
            .is_some_and(|of| of == service);
        if sender.is_proxy && !is_ours {
            strangers.insert(*id, Stranger::Foreign);
        }
    }
    Ok(strangers)
}

/// Takes in what a proxy states about itself, once; says how many reports turn out to be lost.
pub(crate) async fn take_status(
    connection: &mut PgConnection,
    sender: &Reporter,
    status: &ProxyStatus,
    at_ms: u64,
    census: &Census,
    now: DateTime<Utc>,
) -> Result<u64> {
    let (clock_ms, stated_before): (Option<i64>, Option<DateTime<Utc>>) = sqlx::query_as(
        "SELECT r.clock_ms, p.status_at FROM reporters r LEFT JOIN proxies p ON p.proxy = r.proxy
         WHERE r.id = $1",
    )
    .bind(reporter_number(sender.id))
    .fetch_one(&mut *connection)
    .await?;
    let since = stated_before.unwrap_or(now - UNKNOWN);
    let stated_ms = set_right(at_ms, clock_ms.unwrap_or(0));
    let at = timestamp(stated_ms);
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
        lost += take_mark(
            &mut *connection,
            sender,
            mark,
            stated_ms,
            census,
            (since, now),
        )
        .await?;
    }
    miss(connection, sender, &marks, at).await?;
    Ok(lost)
}

/// What a reporter's row says of its sequences.
#[derive(FromRow)]
struct Sequences {
    marked_seq: i64,
    marked_at: Option<DateTime<Utc>>,
    marked_gone: bool,
    checked_seq: i64,
    checked_at: DateTime<Utc>,
    dropped: i64,
    missing: i64,
    is_new: bool,
}

impl Sequences {
    fn account(&self) -> Account {
        Account {
            marked_seq: self.marked_seq.cast_unsigned(),
            marked_ms: self.marked_at.map(millis),
            marked_gone: self.marked_gone,
            checked_seq: self.checked_seq.cast_unsigned(),
            checked_ms: millis(self.checked_at),
            dropped: self.dropped.cast_unsigned(),
            missing: self.missing.cast_unsigned(),
        }
    }
}

/// How far one reporter came, and what of it is lost.
async fn take_mark(
    connection: &mut PgConnection,
    sender: &Reporter,
    mark: &ReporterMark,
    stated_ms: u64,
    census: &Census,
    (since, now): (DateTime<Utc>, DateTime<Utc>),
) -> Result<u64> {
    let id = reporter_number(mark.id);
    let service = sender.service.as_str();
    let room = census.rooms(What::Reporters, 1, [service]);
    let marked: Option<Sequences> = sqlx::query_as(
        "INSERT INTO reporters AS r (id, proxy, service, gateway, first_heard, last_heard, checked_at)
         SELECT $1, $2, $3, $4, $5, $5, $6 WHERE $7 OR EXISTS (SELECT FROM reporters WHERE id = $1)
         ON CONFLICT (id) DO UPDATE SET gone_at = NULL WHERE r.proxy = excluded.proxy
         RETURNING marked_seq, marked_at, marked_gone, checked_seq, checked_at, dropped, missing,
             r.xmax = 0 AS is_new",
    )
    .bind(id)
    .bind(&*sender.proxy)
    .bind(service)
    .bind(sender.gateway)
    .bind(now)
    .bind(since)
    .bind(room.iter().all(std::result::Result::is_ok))
    .fetch_optional(&mut *connection)
    .await?;
    // A reporter of another proxy is not this proxy's to speak for; one that is one too many is none.
    let Some(marked) = marked else {
        return Ok(0);
    };
    if marked.is_new {
        census.took(What::Reporters, service);
    }
    let came: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM reports WHERE reporter = $1 AND seq > $2 AND seq <= $3",
    )
    .bind(id)
    .bind(marked.checked_seq)
    .bind(marked.marked_seq)
    .fetch_one(&mut *connection)
    .await?;
    let mut account = marked.account();
    let mark = ReporterMark {
        seq: bounded(mark.seq).cast_unsigned(),
        dropped: bounded(mark.dropped).cast_unsigned(),
        ..*mark
    };
    let told = account.take(&mark, stated_ms, came.cast_unsigned());
    sqlx::query(
        "UPDATE reporters SET marked_seq = $2, marked_at = $3, marked_gone = $4, checked_seq = $5,
             checked_at = $6, dropped = $7, missing = $8 WHERE id = $1",
    )
    .bind(id)
    .bind(account.marked_seq.cast_signed())
    .bind(account.marked_ms.map(timestamp))
    .bind(account.marked_gone)
    .bind(account.checked_seq.cast_signed())
    .bind(timestamp(account.checked_ms))
    .bind(bounded(account.dropped))
    .bind(bounded(account.missing))
    .execute(&mut *connection)
    .await?;
    match told {
        Told::Nothing | Told::Lost(0) => Ok(0),
        Told::Lost(lost) => {
            let span = (marked.checked_at, now);
            super::losses::add(connection, id, &sender.service, span, bounded(lost)).await?;
            Ok(lost)
        }
    }
}

/// Reporters that their proxy names no more though it did: the whole proxy was started anew. What they held then,
/// nobody can count.
async fn miss(
    connection: &mut PgConnection,
    sender: &Reporter,
    marks: &[ReporterMark],
    at: DateTime<Utc>,
) -> Result<()> {
    let named: Vec<i64> = marks.iter().map(|mark| reporter_number(mark.id)).collect();
    let missed: Vec<(i64, DateTime<Utc>)> = sqlx::query_as(
        "UPDATE reporters SET gone_at = $3
         WHERE proxy = $1 AND id <> ALL($2) AND gone_at IS NULL AND last_heard < $3
         RETURNING id, checked_at",
    )
    .bind(&*sender.proxy)
    .bind(&named)
    .bind(at)
    .fetch_all(&mut *connection)
    .await?;
    for (id, checked_at) in missed {
        super::losses::add(&mut *connection, id, &sender.service, (checked_at, at), 0).await?;
    }
    Ok(())
}

/// What a reporter's reports are read by.
#[derive(Debug)]
pub(crate) struct Stated {
    /// Whose it is.
    pub(crate) service: ServiceName,
    /// It stands at the edge.
    pub(crate) gateway: bool,
    /// How far our clock is ahead of its, ms.
    pub(crate) clock_ms: i64,
}

/// These reporters, those that are known.
pub(crate) async fn of_ids(
    connection: &mut PgConnection,
    ids: &BTreeSet<i64>,
) -> Result<HashMap<i64, Stated>> {
    let rows: Vec<(i64, String, bool, Option<i64>)> =
        sqlx::query_as("SELECT id, service, gateway, clock_ms FROM reporters WHERE id = ANY($1)")
            .bind(ids.iter().copied().collect::<Vec<_>>())
            .fetch_all(connection)
            .await?;
    let stated = |(id, service, gateway, clock_ms): (i64, String, bool, Option<i64>)| {
        let stated = Stated {
            service: service.parse().ok()?,
            gateway,
            clock_ms: clock_ms.unwrap_or(0),
        };
        Some((id, stated))
    };
    Ok(rows.into_iter().filter_map(stated).collect())
}

/// How far each of these reporters was heard.
pub(crate) async fn heard(
    connection: &mut PgConnection,
    reporters: &BTreeSet<ReporterId>,
) -> Result<BTreeMap<ReporterId, Heard>> {
    if reporters.is_empty() {
        return Ok(BTreeMap::new());
    }
    let ids: Vec<i64> = reporters.iter().copied().map(reporter_number).collect();
    let rows: Vec<(i64, DateTime<Utc>, DateTime<Utc>)> = sqlx::query_as(
        "SELECT r.id, p.last_heard, r.checked_at FROM reporters r JOIN proxies p USING (proxy)
         WHERE r.id = ANY($1)",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    let heard = |(id, last_heard, checked_at): (i64, _, _)| {
        let heard = Heard {
            proxy_ms: millis(last_heard),
            accounted_ms: millis(checked_at),
        };
        (ReporterId(id.cast_unsigned()), heard)
    };
    Ok(rows.into_iter().map(heard).collect())
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
