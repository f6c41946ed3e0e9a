//! Events as they were last looked at. The row's lock is what makes one decider at a time look at an event.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use kaeru_protocol::EventId;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Row as _};

use super::{Error, Result, intake, policies};

/// What of an event's row the next look needs.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct Held {
    /// Which event.
    pub(crate) event: String,
    /// Its flow has been learned.
    pub(crate) learned: bool,
    /// The id is shared.
    pub(crate) shared: bool,
    /// Reports at the last look; none of a row that was made just now.
    pub(crate) reports: i64,
    /// Its first report's time, at the last look.
    pub(crate) first_at: DateTime<Utc>,
    /// When it is to be looked at again without news.
    pub(crate) wake_at: Option<DateTime<Utc>>,
}

/// An event's row after a look.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Looked {
    /// Which event.
    pub(crate) event: EventId,
    /// Its type.
    pub(crate) event_type: Option<String>,
    /// Where it stands.
    pub(crate) state: &'static str,
    /// Its id is borrowed.
    pub(crate) borrowed: bool,
    /// Its id is shared.
    pub(crate) shared: bool,
    /// The service of its entry.
    pub(crate) entry: Option<String>,
    /// Who takes part.
    pub(crate) services: Vec<String>,
    /// Whose step failed.
    pub(crate) failed: Option<String>,
    /// Its last decision.
    pub(crate) decision: Option<String>,
    /// Its first report's time.
    pub(crate) first_at: DateTime<Utc>,
    /// Its last report's time.
    pub(crate) last_at: DateTime<Utc>,
    /// When that was received.
    pub(crate) last_received: DateTime<Utc>,
    /// How many reports.
    pub(crate) reports: i64,
    /// When to look again without a new one.
    pub(crate) wake_at: Option<DateTime<Utc>>,
    /// Its flow has been learned.
    pub(crate) learned: bool,
}

/// Locks what is in force (`policies.rs`), then the rows of these events, making those that are not there. What is read from
/// here on was committed before, or waits for us.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    events: &[String],
    now: DateTime<Utc>,
) -> Result<Vec<Held>> {
    let rows: Vec<Option<Held>> = sqlx::query(
        "WITH held AS (
             SELECT event, learned, shared, reports, first_at, wake_at FROM events
             WHERE event = ANY($1) ORDER BY event FOR UPDATE
         ), made AS (
             INSERT INTO events (event, state, borrowed, first_at, last_at, last_received)
             SELECT event, 'running', false, $2, $2, $2 FROM unnest($1::text[]) AS new (event)
             WHERE event NOT IN (SELECT event FROM held) ORDER BY event
             ON CONFLICT (event) DO NOTHING RETURNING event, learned, shared, reports, first_at, wake_at
         )
         SELECT row.* FROM pg_advisory_xact_lock_shared($3) AS in_force
         LEFT JOIN (SELECT * FROM held UNION ALL SELECT * FROM made) AS row ON true",
    )
    .bind(events)
    .bind(now)
    .bind(policies::LOCK)
    .try_map(|row: PgRow| {
        let event: Option<String> = row.try_get("event")?;
        event.map(|_| Held::from_row(&row)).transpose()
    })
    .fetch_all(&mut *connection)
    .await?;
    let mut held: Vec<Held> = rows.into_iter().flatten().collect();
    if held.len() < events.len() {
        // Made by somebody else since the statement began: it saw neither them nor room for them.
        let names: HashSet<&str> = held.iter().map(|held| &*held.event).collect();
        let others: Vec<&str> = (events.iter().map(String::as_str))
            .filter(|event| !names.contains(event))
            .collect();
        let others: Vec<Held> = sqlx::query_as(
            "SELECT event, learned, shared, reports, first_at, wake_at FROM events
             WHERE event = ANY($1) ORDER BY event FOR UPDATE",
        )
        .bind(others)
        .fetch_all(connection)
        .await?;
        held.extend(others);
    }
    held.sort_unstable_by(|a, b| a.event.cmp(&b.event));
    Ok(held)
}

/// Those of these events that are to be looked at by now, news or not.
pub(crate) async fn due(
    connection: &mut PgConnection,
    events: &[String],
    now: DateTime<Utc>,
) -> Result<Vec<String>> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    Ok(
        sqlx::query_scalar("SELECT event FROM events WHERE event = ANY($1) AND wake_at <= $2")
            .bind(events)
            .bind(now)
            .fetch_all(connection)
            .await?,
    )
}

/// Writes down what was seen, and on the decider's list which of them are to be looked at again at their times.
pub(crate) async fn save(
    connection: &mut PgConnection,
    events: &[Looked],
    wakes: &[(&str, DateTime<Utc>)],
) -> Result<()> {
    let services: Vec<String> = events.iter().map(|e| e.services.join(",")).collect();
    sqlx::query(
        "WITH listed AS (
             INSERT INTO intake (news, due_at, events)
             SELECT false, due_at, array_agg(event)
             FROM unnest($16::text[], $17::timestamptz[]) AS wake (event, due_at) GROUP BY due_at
         )
         UPDATE events SET type = new.type, state = new.state, borrowed = new.borrowed,
             shared = new.shared, entry = new.entry, services = string_to_array(new.services, ','),
             failed = new.failed, decision = new.decision, first_at = new.first_at,
             last_at = new.last_at, last_received = new.last_received, reports = new.reports,
             wake_at = new.wake_at, learned = new.learned
         FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[], $5::boolean[], $6::text[],
             $7::text[], $8::text[], $9::text[], $10::timestamptz[], $11::timestamptz[],
             $12::timestamptz[], $13::bigint[], $14::timestamptz[], $15::boolean[])
             AS new (event, type, state, borrowed, shared, entry, services, failed, decision, first_at,
                 last_at, last_received, reports, wake_at, learned)
         WHERE events.event = new.event",
    )
    .bind(events.iter().map(|e| e.event.as_str()).collect::<Vec<_>>())
    .bind(events.iter().map(|e| e.event_type.as_deref()).collect::<Vec<_>>())
    .bind(events.iter().map(|e| e.state).collect::<Vec<_>>())
    .bind(events.iter().map(|e| e.borrowed).collect::<Vec<_>>())
    .bind(events.iter().map(|e| e.shared).collect::<Vec<_>>())
    .bind(events.iter().map(|e| e.entry.as_deref()).collect::<Vec<_>>())
    .bind(services)
    .bind(events.iter().map(|e| e.failed.as_deref()).collect::<Vec<_>>())
    .bind(events.iter().map(|e| e.decision.as_deref()).collect::<Vec<_>>())
    .bind(events.iter().map(|e| e.first_at).collect::<Vec<_>>())
    .bind(events.iter().map(|e| e.last_at).collect::<Vec<_>>())
    .bind(events.iter().map(|e| e.last_received).collect::<Vec<_>>())
    .bind(events.iter().map(|e| e.reports).collect::<Vec<_>>())
    .bind(events.iter().map(|e| e.wake_at).collect::<Vec<_>>())
    .bind(events.iter().map(|e| e.learned).collect::<Vec<_>>())
    .bind(wakes.iter().map(|(event, _)| *event).collect::<Vec<_>>())
    .bind(wakes.iter().map(|(_, at)| intake::rounded_up(*at)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Puts an event off: it is looked at again then, or when it has news.
pub(crate) async fn park(
    connection: &mut PgConnection,
    event: &str,
    until: Option<DateTime<Utc>>,
) -> Result<()> {
    sqlx::query(
        "WITH listed AS (
             INSERT INTO intake (news, due_at, events) SELECT false, $3, ARRAY[$1] WHERE $3 IS NOT NULL
         )
         UPDATE events SET wake_at = $2 WHERE event = $1",
    )
    .bind(event)
    .bind(until)
    .bind(until.map(intake::rounded_up))
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether there is such an event, looked at or not yet, and whether its id is shared.
pub(crate) async fn find(connection: &mut PgConnection, event: &EventId) -> Result<Option<bool>> {
    let shared: Option<bool> = sqlx::query_scalar(
        "SELECT coalesce((SELECT shared FROM events WHERE event = $1),
             CASE WHEN EXISTS (SELECT FROM reports WHERE event = $1) THEN false END)",
    )
    .bind(event.as_str())
    .fetch_one(connection)
    .await?;
    Ok(shared)
}

/// Deletes events that began before `first`, a bounded number at a time; says how many.
pub(crate) async fn forget(
    connection: &mut PgConnection,
    first: DateTime<Utc>,
    events_max: i64,
) -> Result<u64> {
    let outcome = sqlx::query(
        "DELETE FROM events WHERE event IN (
             SELECT event FROM events WHERE first_at < $1 AND last_received < $1 LIMIT $2)",
    )
    .bind(first)
    .bind(events_max)
    .execute(connection)
    .await?;
    Ok(outcome.rows_affected())
}

/// An event id as the store holds it.
pub(crate) fn parse(event: &str) -> Result<EventId> {
    event
        .parse()
        .map_err(|e| Error::unreadable("an event id", e))
}
