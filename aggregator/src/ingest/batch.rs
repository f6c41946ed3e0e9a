//! What a batch must be: bytes in, a checked [`Batch`] out. A report that cannot be read is rejected alone.

use std::sync::Arc;

use kaeru_protocol::{
    Batch as WireBatch, Body, Call, CallEntry, Rejection, Report, Reporter, WireReport, limits,
};
use serde::Deserialize;
use serde_json::Value;

use super::Batch;
use crate::store::reporters::Sender;

/// Bytes of a proxy's name.
const PROXY_MAX: usize = 256;
/// Bytes of the name of a load value.
const LOAD_NAME_MAX: usize = 128;

/// Reporters that the statuses in one batch may name: those of 60 statuses, an hour's, of a proxy with 16 workers.
const MARKS_MAX: usize = 1_024;

/// Why a body is no batch.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not a batch at all.
    #[error("not a report batch: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// It holds too many reports.
    #[error("{0} reports; a batch holds at most {max}", max = limits::BATCH_REPORTS_MAX)]
    TooMany(usize),
    /// Its proxy has no usable name.
    #[error("reporter.proxy: 1 to {PROXY_MAX} characters without control characters")]
    Proxy,
}

/// A batch of which each call and report is read alone.
#[derive(Deserialize)]
struct Lenient {
    reporter: Reporter,
    sent_ms: u64,
    #[serde(default)]
    calls: Vec<Value>,
    reports: Vec<Value>,
}

/// Reads a batch. The quick way takes it whole; when that fails, each report stands alone.
pub fn read(body: &[u8]) -> Result<Batch, Error> {
    let (reporter, sent_ms, (reports, rejected)) = match serde_json::from_slice::<WireBatch>(body) {
        Ok(batch) => unpack(batch),
        Err(_) => unpack_leniently(serde_json::from_slice(body)?),
    };
    let count = reports.len() + rejected.len();
    if count > limits::BATCH_REPORTS_MAX {
        return Err(Error::TooMany(count));
    }
    let proxy = &reporter.proxy;
    if proxy.is_empty() || proxy.len() > PROXY_MAX || proxy.chars().any(char::is_control) {
        return Err(Error::Proxy);
    }
    let mut batch = Batch {
        sender: Sender {
            reporter,
            is_proxy: true,
        },
        sent_ms,
        reports: Vec::with_capacity(reports.len()),
        rejected,
    };
    let mut marks = 0;
    for report in reports {
        if let Body::Proxy(status) = &report.body {
            marks += status.reporters.len();
        }
        let is_too_much = matches!(report.body, Body::Proxy(_)) && marks > MARKS_MAX;
        let too_much = is_too_much.then_some("its batch names too many reporters");
        match refuse(&report).or(too_much) {
            None => batch.reports.push(report),
            Some(reason) => batch.rejected.push(rejection(Some(report.seq), reason)),
        }
    }
    Ok(batch)
}

/// Who sent it, when, and what can be read of it or not.
type Unpacked = (Reporter, u64, (Vec<Report>, Vec<Rejection>));

fn unpack(batch: WireBatch) -> Unpacked {
    let mut rejected = Vec::new();
    let mut reports = Vec::with_capacity(batch.reports.len());
    let (reporter, sent_ms) = (batch.reporter.clone(), batch.sent_ms);
    for report in batch.into_reports() {
        match report {
            Ok(report) => reports.push(report),
            Err(rejection) => rejected.push(rejection),
        }
    }
    (reporter, sent_ms, (reports, rejected))
}

fn unpack_leniently(batch: Lenient) -> Unpacked {
    let calls: Vec<Option<CallEntry>> = batch
        .calls
        .into_iter()
        .map(|call| serde_json::from_value(call).ok())
        .collect();
    let known: Vec<Arc<Call>> = calls
        .iter()
        .map(|call| {
            call.as_ref()
                .map(|entry| Arc::new(entry.into()))
                .unwrap_or_default()
        })
        .collect();
    let mut rejected = Vec::new();
    let mut reports = Vec::new();
    for value in batch.reports {
        let seq = value.get("seq").and_then(Value::as_u64);
        let outcome = serde_json::from_value::<WireReport>(value)
            .map_err(|error| rejection(seq, &error.to_string()))
            .and_then(|report| {
                let call = report.call.and_then(|index| usize::try_from(index).ok());
                if call.is_some_and(|index| matches!(calls.get(index), Some(None))) {
                    return Err(rejection(seq, "its call cannot be read"));
                }
                report.unpack(&known, batch.sent_ms)
            });
        match outcome {
            Ok(report) => reports.push(report),
            Err(rejection) => rejected.push(rejection),
        }
    }
    (batch.reporter, batch.sent_ms, (reports, rejected))
}

/// Why the store cannot hold a report, if it cannot.
fn refuse(report: &Report) -> Option<&'static str> {
    if i64::try_from(report.seq).is_err() {
        return Some("its sequence is above 2^63");
    }
    match &report.body {
        Body::Event(event) => {
            let texts = [&event.call.method, &event.call.path];
            let has_zero = |text: &str| text.contains('\0');
            let detail_has_zero = event.detail.as_deref().is_some_and(has_zero);
            (detail_has_zero || texts.into_iter().any(|text| has_zero(text)))
                .then_some("it holds a zero character")
        }
        Body::Proxy(status) => status
            .load
            .keys()
            .any(|name| name.len() > LOAD_NAME_MAX || name.contains('\0'))
            .then_some("a load value has no usable name"),
    }
}

/// A rejection in words.
pub(crate) fn rejection(seq: Option<u64>, reason: &str) -> Rejection {
    Rejection {
        seq,
        reason: reason.into(),
    }
}
