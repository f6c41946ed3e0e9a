//! Reports read back: the facts of events, in full.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use kaeru_flow::{Fact, ReportKey, set_right};
use kaeru_protocol::{Call, Ending, EventId, EventReport, ReporterId, Side};
use sqlx::{FromRow, PgConnection};

use super::reporters::Stated;
use super::reports::{Rest, kind_of, word_of};
use super::{Error, Result, calls, reporters};
use crate::clock::millis;

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
    rest: Option<sqlx::types::Json<Rest>>,
}

/// The facts of these events, at most `each_max` of each; only of days from `since` on, where the caller knows that there are no
/// earlier ones.
pub(crate) async fn of_events(
    connection: &mut PgConnection,
    events: &[EventId],
    each_max: usize,
    since: Option<DateTime<Utc>>,
) -> Result<HashMap<EventId, Vec<Fact>>> {
    let names: Vec<&str> = events.iter().map(EventId::as_str).collect();
    // One descent of the index per event and day; LIMIT holds for each event alone.
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT r.* FROM unnest($1::text[]) AS wanted (event)
         CROSS JOIN LATERAL (
             SELECT reporter, seq, at, received, sent, call, ms, kind, status, outbound, borrowed, event,
                 word, grpc, attempt, due_ms, flags, opened, rest
             FROM reports WHERE reports.event = wanted.event AND reports.at >= $3 LIMIT $2
         ) AS r",
    )
    .bind(&names)
    .bind(i64::try_from(each_max).unwrap_or(i64::MAX))
    .bind(since.unwrap_or(DateTime::UNIX_EPOCH))
    .fetch_all(&mut *connection)
    .await?;
    // Looked up apart: few of them are in many rows.
    let numbers: BTreeSet<i32> = rows.iter().filter_map(|row| row.call).collect();
    let calls = calls::of_numbers(&mut *connection, &numbers).await?;
    let ids: BTreeSet<i64> = rows.iter().map(|row| row.reporter).collect();
    let reporters = reporters::of_ids(connection, &ids).await?;
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
    Ok(facts)
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
