//! Reports as rows: how they are written. How they are read back is in `facts.rs`.

mod copy;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use kaeru_protocol::{EventReport, Kind, ProxyStatus, ReporterId, Side, Word};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{Acquire as _, PgConnection};

use super::{Error, Result};
use crate::clock::timestamp;

/// `kind` of a proxy's status.
pub(crate) const PROXY_STATUS: i16 = 100;

/// Rows that are worth the two more round trips of a copy that may fail.
const COPIED_MIN: usize = 256;

/// The kinds of reports by their number in the store; numbers never change their meaning.
const KINDS: [Kind; 9] = [
    Kind::Attempt,
    Kind::Running,
    Kind::Call,
    Kind::Refused,
    Kind::WouldRefuse,
    Kind::Cleanup,
    Kind::Undo,
    Kind::Word,
    Kind::Operator,
];
/// The words of services by their number in the store.
const WORDS: [Word; 4] = [Word::Running, Word::Succeeded, Word::Rejected, Word::Failed];

/// One report on its way into the store.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    reporter: i64,
    seq: i64,
    at: DateTime<Utc>,
    sent: Option<DateTime<Utc>>,
    call: Option<i32>,
    ms: i32,
    kind: i16,
    status: Option<i16>,
    outbound: bool,
    borrowed: bool,
    event: Option<String>,
    word: Option<i16>,
    grpc: Option<i16>,
    attempt: Option<i32>,
    due_ms: Option<i32>,
    flags: Option<i64>,
    opened: Option<i64>,
    rest: Option<Value>,
}

/// What few reports have.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Rest {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) handed_over: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) progress: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cost: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deadline_s: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) decision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<Box<str>>,
}

/// What was new in a batch of rows.
#[derive(Debug, Default)]
pub(crate) struct Inserted {
    /// How many rows.
    pub(crate) rows: u64,
    /// Which proxies' statuses, by reporter and sequence.
    pub(crate) statuses: Vec<(i64, i64)>,
}

/// The number of a kind in the store.
pub(crate) fn kind_number(kind: Kind) -> i16 {
    number(&KINDS, &kind)
}

/// The kind that has this number.
pub(crate) fn kind_of(number: i16) -> Option<Kind> {
    KINDS.get(usize::try_from(number).ok()?).copied()
}

/// The word that has this number.
pub(crate) fn word_of(number: i16) -> Option<Word> {
    WORDS.get(usize::try_from(number).ok()?).copied()
}

fn number<T: PartialEq>(all: &[T], one: &T) -> i16 {
    all.iter()
        .position(|each| each == one)
        .and_then(|place| i16::try_from(place).ok())
        .unwrap_or(i16::MAX)
}

/// A reporter's bits as Postgres keeps them.
pub(crate) fn reporter_number(id: ReporterId) -> i64 {
    id.0.cast_signed()
}

fn saturated(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

impl Row {
    /// A report about an event. `call` is its number in the dictionary.
    pub(crate) fn event(
        reporter: ReporterId,
        seq: u64,
        at_ms: u64,
        report: &EventReport,
        call: Option<i32>,
    ) -> Self {
        let rest = Rest {
            handed_over: report.handed_over,
            progress: report.progress,
            cost: report.cost.filter(|cost| cost.is_finite()),
            deadline_s: report.deadline_s,
            decision: report.decision.as_ref().map(ToString::to_string),
            detail: report.detail.clone(),
        };
        Self {
            reporter: reporter_number(reporter),
            seq: seq.cast_signed(),
            at: timestamp(at_ms),
            sent: report.sent_ms.map(timestamp),
            call,
            ms: saturated(report.duration_ms),
            kind: kind_number(report.kind),
            status: report
                .ending
                .status
                .map(|s| i16::try_from(s).unwrap_or(i16::MAX)),
            outbound: report.side == Side::Outbound,
            borrowed: report.borrowed,
            event: Some(report.event.to_string()),
            word: report.ending.word.map(|word| number(&WORDS, &word)),
            grpc: report.ending.grpc.map(i16::from),
            attempt: (report.attempt != 1).then(|| saturated(report.attempt)),
            due_ms: report.due_ms.map(saturated),
            flags: (report.ending.flags != 0).then(|| report.ending.flags.cast_signed()),
            opened: report.opened.map(u64::cast_signed),
            rest: (rest != Rest::default()).then(|| serde_json::to_value(rest).unwrap_or_default()),
        }
    }

    /// What a proxy states about itself.
    pub(crate) fn status(reporter: ReporterId, seq: u64, at_ms: u64, status: &ProxyStatus) -> Self {
        Self {
            reporter: reporter_number(reporter),
            seq: seq.cast_signed(),
            at: timestamp(at_ms),
            sent: None,
            call: None,
            ms: 0,
            kind: PROXY_STATUS,
            status: None,
            outbound: false,
            borrowed: false,
            event: None,
            word: None,
            grpc: None,
            attempt: None,
            due_ms: Some(saturated(status.due_ms)),
            flags: None,
            opened: None,
            rest: serde_json::to_value(status).ok(),
        }
    }
}

/// Writes the rows that are not there yet, and says which those were.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    rows: &mut [Row],
    received: DateTime<Utc>,
) -> Result<Inserted> {
    // In one order, so that two aggregators with the same reports wait for each other only one way.
    rows.sort_unstable_by_key(|row| (row.reporter, row.seq));
    // Reports come again where a receipt was lost, which is rare.
    if rows.len() >= COPIED_MIN && copy_all(&mut *connection, rows, received).await? {
        return Ok(Inserted {
            rows: u64::try_from(rows.len()).unwrap_or(u64::MAX),
            statuses: statuses(rows),
        });
    }
    let (new, reporters, seqs): (i64, Vec<i64>, Vec<i64>) = sqlx::query_as(
        "WITH new AS (
             INSERT INTO reports (reporter, seq, at, received, sent, call, ms, kind, status, outbound,
                 borrowed, event, word, grpc, attempt, due_ms, flags, opened, rest)
             SELECT reporter, seq, at, $1, sent, call, ms, kind, status, outbound,
                 borrowed, event, word, grpc, attempt, due_ms, flags, opened, rest
             FROM unnest($2::bigint[], $3::bigint[], $4::timestamptz[], $5::timestamptz[], $6::int[],
                 $7::int[], $8::smallint[], $9::smallint[], $10::boolean[], $11::boolean[], $12::text[],
                 $13::smallint[], $14::smallint[], $15::int[], $16::int[], $17::bigint[], $18::bigint[],
                 $19::jsonb[])
                 AS r (reporter, seq, at, sent, call, ms, kind, status, outbound, borrowed, event,
                     word, grpc, attempt, due_ms, flags, opened, rest)
             ON CONFLICT DO NOTHING
             RETURNING reporter, seq, kind
         )
         SELECT count(*),
             coalesce(array_agg(reporter ORDER BY reporter, seq) FILTER (WHERE kind = 100), '{}'),
             coalesce(array_agg(seq ORDER BY reporter, seq) FILTER (WHERE kind = 100), '{}')
         FROM new",
    )
    .bind(received)
    .bind(column(rows, |r| r.reporter))
    .bind(column(rows, |r| r.seq))
    .bind(column(rows, |r| r.at))
    .bind(column(rows, |r| r.sent))
    .bind(column(rows, |r| r.call))
    .bind(column(rows, |r| r.ms))
    .bind(column(rows, |r| r.kind))
    .bind(column(rows, |r| r.status))
    .bind(column(rows, |r| r.outbound))
    .bind(column(rows, |r| r.borrowed))
    .bind(rows.iter().map(|r| r.event.as_deref()).collect::<Vec<_>>())
    .bind(column(rows, |r| r.word))
    .bind(column(rows, |r| r.grpc))
    .bind(column(rows, |r| r.attempt))
    .bind(column(rows, |r| r.due_ms))
    .bind(column(rows, |r| r.flags))
    .bind(column(rows, |r| r.opened))
    .bind(rows.iter().map(|r| r.rest.clone()).collect::<Vec<_>>())
    .fetch_one(connection)
    .await?;
    Ok(Inserted {
        rows: u64::try_from(new).unwrap_or(0),
        statuses: reporters.into_iter().zip(seqs).collect(),
    })
}

/// Reporter and sequence of the rows that are not above what their reporter is accounted for up to.
pub(crate) fn up_to(rows: &[Row], checked: &BTreeMap<i64, i64>) -> Vec<(i64, i64)> {
    let is_late = |row: &&Row| {
        checked
            .get(&row.reporter)
            .is_some_and(|seq| row.seq <= *seq)
    };
    rows.iter()
        .filter(is_late)
        .map(|row| (row.reporter, row.seq))
        .collect()
}

/// Writes the rows, if all of them are new.
async fn copy_all(
    connection: &mut PgConnection,
    rows: &[Row],
    received: DateTime<Utc>,
) -> Result<bool> {
    let mut attempt = connection.begin().await?;
    match copy::copy(&mut attempt, rows, received).await {
        Ok(()) => {
            attempt.commit().await?;
            Ok(true)
        }
        Err(Error::Statement(sqlx::Error::Database(told))) if told.is_unique_violation() => {
            attempt.rollback().await?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The proxies' statuses among the rows.
fn statuses(rows: &[Row]) -> Vec<(i64, i64)> {
    let statuses = rows.iter().filter(|row| row.kind == PROXY_STATUS);
    statuses.map(|row| (row.reporter, row.seq)).collect()
}

fn column<T>(rows: &[Row], of: fn(&Row) -> T) -> Vec<T> {
    rows.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::{KINDS, WORDS, kind_number, kind_of, number, word_of};

    #[test]
    fn numbers_name_kinds_and_words() {
        assert!(
            KINDS
                .iter()
                .all(|kind| kind_of(kind_number(*kind)) == Some(*kind))
        );
        assert!(
            WORDS
                .iter()
                .all(|word| word_of(number(&WORDS, word)) == Some(*word))
        );
        assert_eq!((kind_of(9), kind_of(-1), word_of(4)), (None, None, None));
    }
}
