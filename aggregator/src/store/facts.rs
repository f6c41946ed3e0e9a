//! Reports read back: the facts of events, in full.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use kaeru_flow::{Fact, Heard, ReportKey, set_right};
use kaeru_protocol::{Call, Ending, EventId, EventReport, ReporterId, Side};
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};

use super::calls::{self, CallRow};
use super::reporters::{self, ReporterRow, Stated};
use super::reports::{Rest, kind_of, word_of};
use super::{Error, Result};
use crate::clock::millis;

/// News that is still on the list may be of reports so much earlier than what is known: those of longer ago are seen only when it
/// is its turn.
const LATER_NEWS: TimeDelta = TimeDelta::days(1);

#[derive(FromRow)]
struct Row {
    reporter: i64,
    seq: i64,
    at: DateTime<Utc>,
    received: DateTime<Utc>,
    sent: Option<DateTime<Utc>>,
    call: Option<i32>,
    ms: i32,
    kind: i16,
    status: Option<i16>,
    outbound: bool,
    borrowed: bool,
    event: String,
    word: Option<i16>,
    grpc: Option<i16>,
    attempt: Option<i32>,
    due_ms: Option<i32>,
    flags: Option<i64>,
    opened: Option<i64>,
    rest: Option<Json<Rest>>,
    /// With the first row: the calls and the reporters of all. Few of them are in many rows.
    calls: Option<Json<Vec<CallRow>>>,
    reporters: Option<Json<Vec<ReporterRow>>>,
}

/// What the reports of events say.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// The facts of each event.
    pub(crate) of: HashMap<EventId, Vec<Fact>>,
    /// How far each reporter that stated any of them was heard.
    pub(crate) heard: BTreeMap<ReporterId, Heard>,
}

/// The facts of these events, at most `each_max` of each. `since`, where it is known, is the time of the first report that was
/// looked at or is about to be: what others state of days before comes to be known later.
pub(crate) async fn of_events(
    connection: &mut PgConnection,
    events: &[EventId],
    each_max: usize,
    since: Option<DateTime<Utc>>,
) -> Result<Read> {
    let names: Vec<&str> = events.iter().map(EventId::as_str).collect();
    // One descent of the index per event and day; LIMIT holds for each event alone.
    let mut rows: Vec<Row> = sqlx::query_as(
        "WITH facts AS MATERIALIZED (
             SELECT r.* FROM unnest($1::text[]) AS wanted (event)
             CROSS JOIN LATERAL (
                 SELECT reporter, seq, at, received, sent, call, ms, kind, status, outbound, borrowed, event,
                     word, grpc, attempt, due_ms, flags, opened, rest
                 FROM reports WHERE reports.event = wanted.event AND reports.at >= $3 LIMIT $2
             ) AS r
         )
         SELECT facts.*,
             CASE WHEN row_number() OVER () = 1 THEN (
                 SELECT json_agg(named) FROM (
                     SELECT id, caller, callee, method, path, event_type FROM calls
                     WHERE id = ANY(ARRAY(SELECT DISTINCT call FROM facts))
                 ) AS named
             ) END AS calls,
             CASE WHEN row_number() OVER () = 1 THEN (
                 SELECT json_agg(stated) FROM (
                     SELECT r.id, r.service, r.gateway, r.clock_ms, p.last_heard, r.checked_at
                     FROM reporters r LEFT JOIN proxies p USING (proxy)
                     WHERE r.id = ANY(ARRAY(SELECT DISTINCT reporter FROM facts))
                 ) AS stated
             ) END AS reporters
         FROM facts",
    )
    .bind(&names)
    .bind(i64::try_from(each_max).unwrap_or(i64::MAX))
    .bind(since.map_or(DateTime::UNIX_EPOCH, |since| since - LATER_NEWS))
    .fetch_all(connection)
    .await?;
    let (calls, stated) = (rows.first_mut())
        .map(|first| (first.calls.take(), first.reporters.take()))
        .unwrap_or_default();
    let calls = calls::of_rows(calls.map(|calls| calls.0).unwrap_or_default());
    let stated = stated.map(|stated| stated.0).unwrap_or_default();
    let heard = stated.iter().filter_map(ReporterRow::heard).collect();
    let reporters = reporters::of_rows(stated);
    let mut facts: HashMap<EventId, Vec<Fact>> = events
        .iter()
        .map(|event| (event.clone(), Vec::new()))
        .collect();
    for row in rows {
        let event: EventId = row
            .event
            .parse()
            .map_err(|e| Error::unreadable("an event", e))?;
        let Some(reporter) = reporters.get(&row.reporter) else {
            continue;
        };
        let call = row.call.and_then(|number| calls.get(&number));
        let Some(fact) = row.fact(&event, call, reporter) else {
            continue;
        };
        facts.entry(event).or_default().push(fact);
    }
    Ok(Read { of: facts, heard })
}

impl Row {
    /// The fact that the row states; `None` for kinds of a later version.
    fn fact(self, event: &EventId, call: Option<&Arc<Call>>, reporter: &Stated) -> Option<Fact> {
        let kind = kind_of(self.kind)?;
        let rest = self.rest.map(|rest| rest.0).unwrap_or_default();
        let mut report = EventReport::new(event.clone(), kind);
        report.borrowed = self.borrowed;
        report.side = if self.outbound {
            Side::Outbound
        } else {
            Side::Inbound
        };
        report.call = call.cloned().unwrap_or_default();
        report.sent_ms = self.sent.map(millis);
        report.opened = self.opened.map(i64::cast_unsigned);
        report.attempt = self.attempt.map_or(1, i32::cast_unsigned);
        report.ending = Ending {
            status: self.status.and_then(|status| u16::try_from(status).ok()),
            grpc: self.grpc.and_then(|code| u8::try_from(code).ok()),
            flags: self.flags.unwrap_or(0).cast_unsigned(),
            word: self.word.and_then(word_of),
        };
        report.duration_ms = self.ms.cast_unsigned();
        report.due_ms = self.due_ms.map(i32::cast_unsigned);
        report.handed_over = rest.handed_over;
        report.progress = rest.progress;
        report.cost = rest.cost;
        report.deadline_s = rest.deadline_s;
        report.decision = rest.decision.and_then(|id| id.parse().ok());
        report.detail = rest.detail;
        Some(Fact {
            key: ReportKey {
                reporter: ReporterId(self.reporter.cast_unsigned()),
                seq: self.seq.cast_unsigned(),
            },
            service: reporter.service.clone(),
            gateway: reporter.gateway,
            at_ms: set_right(millis(self.at), reporter.clock_ms),
            received_ms: millis(self.received),
            report,
        })
    }
}
