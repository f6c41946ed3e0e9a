//! Reporters and their proxies: who they are, when they were last heard of, what they state of themselves, and
//! which of their reports never came.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use kaeru_flow::{Heard, set_right};
use kaeru_protocol::{ProxyStatus, Reporter, ReporterId, ReporterMark, ServiceName};
use serde::Deserialize;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};

use super::Result;
use super::history::History;
use super::losses::{self, Lost};
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

/// Who was heard of.
#[derive(Debug)]
pub(crate) struct Senders {
    /// Of which history all this is.
    pub(crate) history: Option<History>,
    /// Of whom nothing may be taken.
    pub(crate) strangers: BTreeMap<i64, Stranger>,
    /// Up to which sequence each was accounted for.
    pub(crate) checked: BTreeMap<i64, i64>,
}

/// What became of a sender: as which of the two rows it is known.
#[derive(FromRow)]
struct Known {
    id: i64,
    /// Whether its own row is new; absent where there is none, or it is another service's.
    reporter_is_new: Option<bool>,
    checked_seq: Option<i64>,
    /// Whose its proxy is, where it is its service's.
    proxy_of: Option<String>,
    proxy_is_new: Option<bool>,
    since: DateTime<Utc>,
    store: i64,
}

/// Notes that these were heard of, whose rows are held until the transaction ends. `clocks` says how far our clock was ahead of theirs at most.
pub(crate) async fn hear(
    connection: &mut PgConnection,
    senders: &BTreeMap<i64, Sender>,
    clocks: &BTreeMap<i64, i64>,
    census: &Census,
    now: DateTime<Utc>,
) -> Result<Senders> {
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
    // One row a proxy, whatever number of its VMs sent.
    let known: Vec<Known> = sqlx::query_as(
        "WITH new AS MATERIALIZED (
             SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::boolean[], $5::bigint[], $9::boolean[],
                 $10::boolean[], $11::boolean[])
                 AS new (id, proxy, service, gateway, clock_ms, room, room_of_proxy, is_proxy)
         ), known AS (
             INSERT INTO reporters AS r (id, proxy, service, gateway, clock_ms, first_heard, last_heard, checked_at)
             SELECT new.id, new.proxy, new.service, new.gateway, new.clock_ms, $6, $6, coalesce(p.status_at, $8)
             FROM new LEFT JOIN proxies p ON p.proxy = new.proxy LEFT JOIN reporters old ON old.id = new.id
             WHERE old.id IS NOT NULL OR (room AND (room_of_proxy OR NOT is_proxy OR p.proxy IS NOT NULL))
             ORDER BY new.id
             ON CONFLICT (id) DO UPDATE SET last_heard = greatest(r.last_heard, excluded.last_heard),
                 clock_ms = CASE WHEN excluded.clock_ms BETWEEN r.clock_ms AND r.clock_ms + $7 THEN r.clock_ms
                     ELSE excluded.clock_ms END
                 WHERE r.service = excluded.service AND r.proxy = excluded.proxy
             RETURNING id, r.xmax = 0 AS is_new, checked_seq
         ), ours AS (
             INSERT INTO proxies (proxy, service, gateway, first_heard, last_heard)
             SELECT DISTINCT ON (proxy) proxy, service, gateway, $6, $6 FROM new JOIN known USING (id)
             WHERE is_proxy ORDER BY proxy, id DESC
             ON CONFLICT (proxy) DO UPDATE SET last_heard = greatest(proxies.last_heard, excluded.last_heard)
                 WHERE proxies.service = excluded.service
             RETURNING proxy, service, proxies.xmax = 0 AS is_new
         )
         SELECT id, known.is_new AS reporter_is_new, known.checked_seq, ours.service AS proxy_of, ours.is_new AS proxy_is_new,
             pg_postmaster_start_time() AS since, 'store'::regclass::oid::bigint AS store
         FROM new LEFT JOIN known USING (id) LEFT JOIN ours USING (proxy)",
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
    .bind(is_open(&room_of_proxy))
    .bind(senders.values().map(|s| s.is_proxy).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let history = known.first().map(|row| (row.since, row.store));
    let checked = known
        .iter()
        .filter_map(|row| Some((row.id, row.checked_seq?)));
    let checked = checked.collect();
    let known: BTreeMap<i64, Known> = known.into_iter().map(|row| (row.id, row)).collect();
    let mut strangers = BTreeMap::new();
    let mut new_proxies: BTreeSet<&str> = BTreeSet::new();
    for ((id, sender), rooms) in senders.iter().zip(room.into_iter().zip(room_of_proxy)) {
        let service = sender.reporter.service.as_str();
        let row = known.get(id);
        let Some(is_new) = row.and_then(|row| row.reporter_is_new) else {
            let stranger = match rooms {
                (Err(full), _) => Stranger::OneTooMany(What::Reporters, full),
                (_, Err(full)) if sender.is_proxy => Stranger::OneTooMany(What::Proxies, full),
                _ => Stranger::Foreign,
            };
            strangers.insert(*id, stranger);
            continue;
        };
        if is_new {
            census.took(What::Reporters, service);
        }
        let proxy = row.and_then(|row| Some((row.proxy_of.as_deref()?, row.proxy_is_new?)));
        if let Some((owner, true)) = proxy
            && new_proxies.insert(&sender.reporter.proxy)
        {
            census.took(What::Proxies, owner);
        }
        if sender.is_proxy && proxy.is_none_or(|(owner, _)| owner != service) {
            strangers.insert(*id, Stranger::Foreign);
        }
    }
    Ok(Senders {
        history,
        strangers,
        checked,
    })
}

/// Takes these reports, by reporter and sequence, from those that never came: they are about to be stored, if they are not yet.
pub(crate) async fn came_late(connection: &mut PgConnection, reports: &[(i64, i64)]) -> Result<()> {
    if reports.is_empty() {
        return Ok(());
    }
    let (reporters, seqs): (Vec<i64>, Vec<i64>) = reports.iter().copied().unzip();
    // OFFSET keeps it one look into an index for each report, whatever there is when the plan is made.
    sqlx::query(
        "UPDATE reporters SET missing = greatest(missing - late.count, 0)
         FROM (
             SELECT named.reporter, count(DISTINCT named.seq) FROM unnest($1::bigint[], $2::bigint[]) AS named (reporter, seq)
             WHERE NOT EXISTS (SELECT FROM reports r WHERE r.reporter = named.reporter AND r.seq = named.seq OFFSET 0)
             GROUP BY named.reporter
         ) AS late
         WHERE id = late.reporter",
    )
    .bind(reporters)
    .bind(seqs)
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes in what a proxy states about itself, once, and what turns out to be lost.
pub(crate) async fn take_status(
    connection: &mut PgConnection,
    sender: &Reporter,
    status: &ProxyStatus,
    at_ms: u64,
    census: &Census,
    now: DateTime<Utc>,
    lost: &mut Lost,
) -> Result<()> {
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
    let marks: BTreeMap<i64, &ReporterMark> = (status.reporters.iter().rev())
        .map(|mark| (reporter_number(mark.id), mark))
        .collect();
    let mut found = sequences(&mut *connection, sender, &marks, census, (since, now)).await?;
    let mut spans = Vec::new();
    for one in &mut found {
        let count = marks
            .get(&one.id)
            .map_or(0, |mark| one.take(mark, stated_ms));
        if count > 0 {
            spans.push((one.id, (one.checked_before, now), count));
        }
    }
    let missed = account(&mut *connection, sender, &marks, &found, at).await?;
    // What they held, nobody can count.
    spans.extend(missed.into_iter().map(|(id, since)| (id, (since, at), 0)));
    for (id, span, count) in spans {
        losses::add(&mut *connection, lost, id, &sender.service, span, count).await?;
    }
    Ok(())
}

/// What a reporter's row says of its sequences.
#[derive(FromRow)]
struct Sequences {
    id: i64,
    marked_seq: i64,
    marked_at: Option<DateTime<Utc>>,
    marked_gone: bool,
    checked_seq: i64,
    checked_at: DateTime<Utc>,
    dropped: i64,
    missing: i64,
    is_new: bool,
    /// `checked_at` as it was read.
    checked_before: DateTime<Utc>,
    /// Reports that have arrived of those above `checked_seq` and up to `marked_seq`.
    #[sqlx(skip)]
    came: i64,
}

impl Sequences {
    /// How far the reporter came, by its proxy; how many turn out to be lost.
    fn take(&mut self, mark: &ReporterMark, stated_ms: u64) -> u64 {
        let mut account = Account {
            marked_seq: self.marked_seq.cast_unsigned(),
            marked_ms: self.marked_at.map(millis),
            marked_gone: self.marked_gone,
            checked_seq: self.checked_seq.cast_unsigned(),
            checked_ms: millis(self.checked_at),
            dropped: self.dropped.cast_unsigned(),
            missing: self.missing.cast_unsigned(),
        };
        let mark = ReporterMark {
            seq: bounded(mark.seq).cast_unsigned(),
            dropped: bounded(mark.dropped).cast_unsigned(),
            ..*mark
        };
        let told = account.take(&mark, stated_ms, self.came.cast_unsigned());
        self.marked_seq = account.marked_seq.cast_signed();
        self.marked_at = account.marked_ms.map(timestamp);
        self.marked_gone = account.marked_gone;
        self.checked_seq = account.checked_seq.cast_signed();
        self.checked_at = timestamp(account.checked_ms);
        self.dropped = bounded(account.dropped);
        self.missing = bounded(account.missing);
        match told {
            Told::Nothing => 0,
            Told::Lost(lost) => lost,
        }
    }
}

/// What is known of these reporters, which their proxy names. One of another proxy is not its to speak for, and one that is one
/// too many is none: they are left out.
async fn sequences(
    connection: &mut PgConnection,
    sender: &Reporter,
    marks: &BTreeMap<i64, &ReporterMark>,
    census: &Census,
    (since, now): (DateTime<Utc>, DateTime<Utc>),
) -> Result<Vec<Sequences>> {
    let service = sender.service.as_str();
    let rooms = census.rooms(What::Reporters, 1, marks.keys().map(|_| service));
    let room = rooms.iter().filter(|room| room.is_ok()).count();
    let mut found: Vec<Sequences> = sqlx::query_as(
        "WITH named AS (
             SELECT new.id, old.id IS NOT NULL AS is_known,
                 row_number() OVER (PARTITION BY old.id IS NULL ORDER BY new.id) AS place
             FROM unnest($1::bigint[]) AS new (id) LEFT JOIN reporters old ON old.id = new.id
         ), marked AS (
             INSERT INTO reporters AS r (id, proxy, service, gateway, first_heard, last_heard, checked_at)
             SELECT id, $2, $3, $4, $5, $5, $6 FROM named WHERE is_known OR place <= $7 ORDER BY id
             ON CONFLICT (id) DO UPDATE SET gone_at = NULL WHERE r.proxy = excluded.proxy
             RETURNING id, marked_seq, marked_at, marked_gone, checked_seq, checked_at, dropped, missing,
                 r.xmax = 0 AS is_new
         )
         SELECT marked.*, checked_at AS checked_before FROM marked",
    )
    .bind(marks.keys().copied().collect::<Vec<_>>())
    .bind(&*sender.proxy)
    .bind(service)
    .bind(sender.gateway)
    .bind(now)
    .bind(since)
    .bind(i64::try_from(room).unwrap_or(i64::MAX))
    .fetch_all(&mut *connection)
    .await?;
    // Their rows are held now: what is counted is all that was stored before.
    let came: Vec<i64> = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM reports WHERE reporter = id AND seq > checked_seq AND seq <= marked_seq)
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS named (id, checked_seq, marked_seq, place)
         ORDER BY place",
    )
    .bind(found.iter().map(|one| one.id).collect::<Vec<_>>())
    .bind(found.iter().map(|one| one.checked_seq).collect::<Vec<_>>())
    .bind(found.iter().map(|one| one.marked_seq).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    for (one, came) in found.iter_mut().zip(came) {
        one.came = came;
    }
    for _ in found.iter().filter(|one| one.is_new) {
        census.took(What::Reporters, service);
    }
    Ok(found)
}

/// Writes down how far these reporters came, and says which others their proxy names no more though it did: the whole proxy was
/// started anew. Until when each of those is accounted for comes with it.
async fn account(
    connection: &mut PgConnection,
    sender: &Reporter,
    marks: &BTreeMap<i64, &ReporterMark>,
    found: &[Sequences],
    at: DateTime<Utc>,
) -> Result<Vec<(i64, DateTime<Utc>)>> {
    fn each<T>(found: &[Sequences], of: fn(&Sequences) -> T) -> Vec<T> {
        found.iter().map(of).collect()
    }
    Ok(sqlx::query_as(
        "WITH accounted AS (
             UPDATE reporters SET marked_seq = new.marked_seq, marked_at = new.marked_at,
                 marked_gone = new.marked_gone, checked_seq = new.checked_seq, checked_at = new.checked_at,
                 dropped = new.dropped, missing = new.missing
             FROM unnest($4::bigint[], $5::bigint[], $6::timestamptz[], $7::boolean[], $8::bigint[],
                 $9::timestamptz[], $10::bigint[], $11::bigint[])
                 AS new (id, marked_seq, marked_at, marked_gone, checked_seq, checked_at, dropped, missing)
             WHERE reporters.id = new.id
         )
         UPDATE reporters SET gone_at = $3
         WHERE proxy = $1 AND id <> ALL($2) AND gone_at IS NULL AND last_heard < $3
         RETURNING id, checked_at",
    )
    .bind(&*sender.proxy)
    .bind(marks.keys().copied().collect::<Vec<_>>())
    .bind(at)
    .bind(each(found, |one| one.id))
    .bind(each(found, |one| one.marked_seq))
    .bind(each(found, |one| one.marked_at))
    .bind(each(found, |one| one.marked_gone))
    .bind(each(found, |one| one.checked_seq))
    .bind(each(found, |one| one.checked_at))
    .bind(each(found, |one| one.dropped))
    .bind(each(found, |one| one.missing))
    .fetch_all(connection)
    .await?)
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

/// A reporter's row, as far as its reports and its open requests need it.
#[derive(Debug, Deserialize)]
pub(super) struct ReporterRow {
    id: i64,
    service: String,
    gateway: bool,
    clock_ms: Option<i64>,
    last_heard: Option<DateTime<Utc>>,
    checked_at: DateTime<Utc>,
}

impl ReporterRow {
    /// How far it was heard; `None` where its proxy is not known.
    pub(super) fn heard(&self) -> Option<(ReporterId, Heard)> {
        let heard = Heard {
            proxy_ms: millis(self.last_heard?),
            accounted_ms: millis(self.checked_at),
        };
        Some((ReporterId(self.id.cast_unsigned()), heard))
    }
}

/// What the reports of these reporters are read by.
pub(super) fn of_rows(rows: Vec<ReporterRow>) -> HashMap<i64, Stated> {
    let stated = |row: ReporterRow| {
        let stated = Stated {
            service: row.service.parse().ok()?,
            gateway: row.gateway,
            clock_ms: row.clock_ms.unwrap_or(0),
        };
        Some((row.id, stated))
    };
    rows.into_iter().filter_map(stated).collect()
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
pub(super) fn bounded(count: u64) -> i64 {
    const COUNT_MAX: u64 = 1 << 33;
    count.min(COUNT_MAX).cast_signed()
}
