//! The decider's durable to-do list: events that have news, and events whose time comes.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

use super::Result;
use crate::decider::ENTRY_EVENTS_MAX;

/// How long news that can doom nobody waits, so that reports of one event from several proxies are looked at together.
const GATHER: TimeDelta = TimeDelta::milliseconds(500);
/// How long it waits when there is much of it: by then most events have been heard of by all their proxies, which flush every
/// second, and have settled (2 s by default), so that one look does for each.
const GATHER_MUCH: TimeDelta = TimeDelta::milliseconds(3_500);
/// Events with news in one transaction that are much: more than 5,000 a second, at 20 transactions a second.
const MUCH: usize = 250;

/// Times are rounded up to this, so that events that wait for about the same time share an entry, and entries a round, ms.
const STEP_MS: i64 = 100;

/// Entries that are locked at once: at a time when most hold one event, a round of 200 is still worth its transaction.
const ENTRIES_MAX: i64 = 200;

/// An event reaches further than its reports say: by its `settle`, and by how far its reporters' clocks are off.
const REACH: TimeDelta = TimeDelta::minutes(1);

/// Events that one loss looks for among those that are being rolled back, the newest: more would hold its transaction up.
const ROLLED_BACK_MAX: i64 = 10_000;

/// What was taken off the list.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Events that have news.
    pub(crate) news: Vec<String>,
    /// Events whose time may have come: their rows say.
    pub(crate) wakes: Vec<String>,
    /// No new report is of an earlier time.
    pub(crate) since: Option<DateTime<Utc>>,
}

/// How long news of so many events may wait.
pub fn gather(events: usize) -> TimeDelta {
    if events < MUCH { GATHER } else { GATHER_MUCH }
}

/// Adds events that have news of the time since `since`, to be looked at from `due_at` on.
pub(crate) async fn add(
    connection: &mut PgConnection,
    events: &[String],
    since: Option<DateTime<Utc>>,
    due_at: DateTime<Utc>,
) -> Result<()> {
    for entry in events.chunks(ENTRY_EVENTS_MAX) {
        sqlx::query("INSERT INTO intake (news, due_at, since, events) VALUES (true, $1, $2, $3)")
            .bind(due_at)
            .bind(since)
            .bind(entry)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Adds the events that are being rolled back and reach into a time in which reports were lost.
pub(crate) async fn add_rolled_back(
    connection: &mut PgConnection,
    (since, until): (DateTime<Utc>, DateTime<Utc>),
) -> Result<()> {
    sqlx::query(
        "INSERT INTO intake (news, due_at, events)
         SELECT true, clock_timestamp(), array_agg(event) FROM (
             SELECT event, (row_number() OVER (ORDER BY event) - 1) / $3 AS entry
             FROM (SELECT event, last_received FROM events
                   WHERE reports > 0 AND state = 'rolling_back' AND first_at <= $2
                   ORDER BY first_at DESC LIMIT $4) AS newest
             WHERE last_received >= $1
         ) AS found GROUP BY entry",
    )
    .bind(since - REACH)
    .bind(until + REACH)
    .bind(i64::try_from(ENTRY_EVENTS_MAX).unwrap_or(1))
    .bind(ROLLED_BACK_MAX)
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes entries that are due off the list, with about `events_max` events, as long as this transaction commits; entries that
/// another decider holds are left to it. `None` when there is none.
pub(crate) async fn take(
    connection: &mut PgConnection,
    now: DateTime<Utc>,
    events_max: i64,
) -> Result<Option<Taken>> {
    let entries: Vec<(bool, Option<DateTime<Utc>>, Vec<String>)> = sqlx::query_as(
        "WITH held AS (
             SELECT id, due_at, cardinality(events) AS size FROM intake WHERE due_at <= $1
             ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED
         ), placed AS (
             SELECT id, sum(size) OVER (ORDER BY due_at, id) - size AS before FROM held
         )
         DELETE FROM intake WHERE id IN (SELECT id FROM placed WHERE before < $3) RETURNING news, since, events",
    )
    .bind(now)
    .bind(ENTRIES_MAX)
    .bind(events_max)
    .fetch_all(connection)
    .await?;
    if entries.is_empty() {
        return Ok(None);
    }
    let mut taken = Taken::default();
    for (is_news, since, events) in entries {
        taken.since = taken.since.into_iter().chain(since).min();
        let list = if is_news {
            &mut taken.news
        } else {
            &mut taken.wakes
        };
        list.extend(events);
    }
    Ok(Some(taken))
}

/// When the next entry is due.
pub(crate) async fn next_due(connection: &mut PgConnection) -> Result<Option<DateTime<Utc>>> {
    Ok(sqlx::query_scalar("SELECT min(due_at) FROM intake")
        .fetch_one(connection)
        .await?)
}

/// Everything is due: nobody waits for more news.
#[cfg(test)]
pub(crate) async fn hurry(connection: &mut PgConnection, now: DateTime<Utc>) -> Result<()> {
    sqlx::query("UPDATE intake SET due_at = $1 WHERE news")
        .bind(now)
        .execute(connection)
        .await?;
    Ok(())
}

/// When an event is taken that is to be looked at at this time.
pub(crate) fn rounded_up(at: DateTime<Utc>) -> DateTime<Utc> {
    let over = at.timestamp_millis().rem_euclid(STEP_MS);
    if over == 0 {
        at
    } else {
        at + TimeDelta::milliseconds(STEP_MS - over)
    }
}
