//! Rows as `COPY … (FORMAT binary)` takes them: half the work of `INSERT … ON CONFLICT`, but all of them must be new.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::Row;
use crate::store::Result;

/// Columns of a row.
const COLUMNS: i16 = 19;
/// What stands before the first row: the signature, no flags, no extension.
const HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// The number of columns of no row: the end.
const END: i16 = -1;
/// Seconds from 1970 to 2000, from which Postgres counts.
const EPOCH_S: i64 = 946_684_800;
/// The version of `jsonb` in binary.
const JSONB_VERSION: u8 = 1;

/// Writes these rows. When one of them is there already, none is written, and the transaction has failed.
pub(super) async fn copy(
    connection: &mut PgConnection,
    rows: &[Row],
    received: DateTime<Utc>,
) -> Result<()> {
    let mut bytes = Vec::with_capacity(rows.len() * 256);
    bytes.extend_from_slice(HEAD);
    for row in rows {
        write(&mut bytes, row, received);
    }
    bytes.extend_from_slice(&END.to_be_bytes());
    let mut copy = connection
        .copy_in_raw(
            "COPY reports (reporter, seq, at, received, sent, call, ms, kind, status, outbound, borrowed, event,
                 word, grpc, attempt, due_ms, flags, opened, rest) FROM STDIN (FORMAT binary)",
        )
        .await?;
    copy.send(bytes).await?;
    copy.finish().await?;
    Ok(())
}

fn write(to: &mut Vec<u8>, row: &Row, received: DateTime<Utc>) {
    to.extend_from_slice(&COLUMNS.to_be_bytes());
    field(to, Some(row.reporter.to_be_bytes()));
    field(to, Some(row.seq.to_be_bytes()));
    field(to, Some(time(row.at)));
    field(to, Some(time(received)));
    field(to, row.sent.map(time));
    field(to, row.call.map(i32::to_be_bytes));
    field(to, Some(row.ms.to_be_bytes()));
    field(to, Some(row.kind.to_be_bytes()));
    field(to, row.status.map(i16::to_be_bytes));
    field(to, Some([u8::from(row.outbound)]));
    field(to, Some([u8::from(row.borrowed)]));
    field(to, row.event.as_deref());
    field(to, row.word.map(i16::to_be_bytes));
    field(to, row.grpc.map(i16::to_be_bytes));
    field(to, row.attempt.map(i32::to_be_bytes));
    field(to, row.due_ms.map(i32::to_be_bytes));
    field(to, row.flags.map(i64::to_be_bytes));
    field(to, row.opened.map(i64::to_be_bytes));
    let rest = row.rest.as_ref().map(ToString::to_string);
    field(
        to,
        rest.map(|text| [&[JSONB_VERSION], text.as_bytes()].concat()),
    );
}

/// A value with its length before it; nothing has the length -1.
fn field(to: &mut Vec<u8>, value: Option<impl AsRef<[u8]>>) {
    match value {
        None => to.extend_from_slice(&(-1_i32).to_be_bytes()),
        Some(value) => {
            let bytes = value.as_ref();
            let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
            to.extend_from_slice(&length.to_be_bytes());
            to.extend_from_slice(bytes);
        }
    }
}

fn time(at: DateTime<Utc>) -> [u8; 8] {
    (at.timestamp_micros() - EPOCH_S * 1_000_000).to_be_bytes()
}
