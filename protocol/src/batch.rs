//! One batch: a reporter's header, a table of calls, and reports that point into it.
//!
//! Times are offsets to `sent_ms` and calls stand once, so that a quick request's report is about 100
//! bytes. A batch is sent again with another `sent_ms` and other offsets; the times that it states stay.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::report::{Body, Call, EventReport, Kind, Report, Side};
use crate::status::is_default;
use crate::{
    DecisionId, Ending, EventId, EventType, Peer, ProxyStatus, ReporterId, ServiceName, Word,
    limits,
};

/// The version that batches name. A reader takes every batch of its own or an older version, and of a newer
/// one what it understands.
pub const PROTOCOL_VERSION: u32 = 1;

/// Who reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reporter {
    /// The VM.
    pub id: ReporterId,
    /// The proxy (Envoy's node id), 1 to 256 characters.
    pub proxy: Box<str>,
    /// The service it stands beside.
    pub service: ServiceName,
    /// The proxy is a gateway: its service takes part but has nothing to undo.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gateway: bool,
}

/// `POST /v1/reports`. `R` is [`WireReport`], or anything more lenient that the reader wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch<R = WireReport> {
    /// [`PROTOCOL_VERSION`] of the writer.
    pub protocol: u32,
    /// Who reports.
    pub reporter: Reporter,
    /// When the batch was packed, by the reporter's clock, ms since 1970; the base of all offsets.
    pub sent_ms: u64,
    /// The calls that reports point to.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<CallEntry>,
    /// The reports, in sequence order, at most 4,096.
    pub reports: Vec<R>,
}

/// One call in the table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CallEntry {
    /// The event type, where a header said it.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<EventType>,
    /// The caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<ServiceName>,
    /// The callee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Peer>,
    /// HTTP method.
    pub method: Box<str>,
    /// Folded path.
    pub path: Box<str>,
}

/// One report as the batch packs it; fields at their default are left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WireReport {
    /// Sequence.
    pub seq: u64,
    /// When, relative to the batch's `sent_ms`, ms; usually negative.
    pub at: i64,
    /// The event; absent for a proxy status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<EventId>,
    /// The id is borrowed.
    #[serde(skip_serializing_if = "is_default")]
    pub borrowed: bool,
    /// What kind of fact.
    #[serde(skip_serializing_if = "is_default")]
    pub kind: Kind,
    /// Which side of the proxy.
    #[serde(skip_serializing_if = "is_default")]
    pub side: Side,
    /// Index into the batch's `calls`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<u32>,
    /// The caller's `t`, relative to `sent_ms`, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<i64>,
    /// It belongs to a branch that a queue handed over.
    #[serde(skip_serializing_if = "is_default")]
    pub handed_over: bool,
    /// Sequence of this attempt's first report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened: Option<u64>,
    /// Which attempt, or how many; absent: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// gRPC status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<u8>,
    /// Envoy's response flags.
    #[serde(skip_serializing_if = "is_default")]
    pub flags: u64,
    /// Duration, ms.
    #[serde(skip_serializing_if = "is_default")]
    pub ms: u32,
    /// Next report within, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<u32>,
    /// The service's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub word: Option<Word>,
    /// 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<f32>,
    /// Sum of the request cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// Deadline given at the entry, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u32>,
    /// The decision referred to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionId>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Box<str>>,
    /// The proxy's status; absent for an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Box<ProxyStatus>>,
}

/// The answer to a batch, after commit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// How many reports are stored now (those that were already there count).
    pub accepted: u32,
    /// Those that never will be; the sender drops and counts them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejection>,
}

/// One report that was rejected alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Its sequence; absent where not even that could be read.
    pub seq: Option<u64>,
    /// Why, in words.
    pub reason: Box<str>,
}

impl Batch {
    /// Its reports in full, or why they are none; they share their calls.
    pub fn into_reports(self) -> impl Iterator<Item = Result<Report, Rejection>> {
        let calls: Vec<Arc<Call>> = (self.calls.iter())
            .map(|entry| Arc::new(entry.into()))
            .collect();
        let sent_ms = self.sent_ms;
        (self.reports.into_iter()).map(move |report| report.unpack(&calls, sent_ms))
    }
}

impl WireReport {
    /// The report in full, or why it is none. `calls` and `sent_ms` are the batch's.
    pub fn unpack(self, calls: &[Arc<Call>], sent_ms: u64) -> Result<Report, Rejection> {
        let seq = self.seq;
        let reject = |reason: &str| Rejection {
            seq: Some(seq),
            reason: reason.into(),
        };
        let at_ms = sent_ms
            .checked_add_signed(self.at)
            .ok_or_else(|| reject("its time is before 1970"))?;
        let body = match (self.event, self.proxy) {
            (None, Some(status)) => {
                if status.load.len() > limits::LOAD_VALUES_MAX
                    || status.reporters.len() > limits::REPORTERS_MAX
                {
                    return Err(reject("proxy status above its limits"));
                }
                Body::Proxy(status)
            }
            (Some(event), None) => {
                let call = match self.call {
                    None => Arc::default(),
                    Some(index) => usize::try_from(index)
                        .ok()
                        .and_then(|index| calls.get(index))
                        .cloned()
                        .ok_or_else(|| reject("it points outside the table of calls"))?,
                };
                if call.path.len() > limits::PATH_MAX || call.method.len() > limits::METHOD_MAX {
                    return Err(reject("method or path too long"));
                }
                if self
                    .detail
                    .as_ref()
                    .is_some_and(|d| d.len() > limits::DETAIL_MAX)
                {
                    return Err(reject("detail above 4 KiB"));
                }
                let sent_ms = match self.sent {
                    None => None,
                    Some(offset) => Some(
                        sent_ms
                            .checked_add_signed(offset)
                            .ok_or_else(|| reject("its sent time is before 1970"))?,
                    ),
                };
                Body::Event(Box::new(EventReport {
                    event,
                    borrowed: self.borrowed,
                    kind: self.kind,
                    side: self.side,
                    call,
                    sent_ms,
                    handed_over: self.handed_over,
                    opened: self.opened,
                    attempt: self.attempt.unwrap_or(1),
                    ending: Ending {
                        status: self.status,
                        grpc: self.grpc,
                        flags: self.flags,
                        word: self.word,
                    },
                    duration_ms: self.ms,
                    due_ms: self.due,
                    progress: self.progress,
                    cost: self.cost,
                    deadline_s: self.deadline,
                    decision: self.decision,
                    detail: self.detail,
                }))
            }
            (None, None) => return Err(reject("it names neither an event nor a proxy status")),
            (Some(_), Some(_)) => {
                return Err(reject("it names both an event and a proxy status"));
            }
        };
        Ok(Report { seq, at_ms, body })
    }
}

impl From<&CallEntry> for Call {
    fn from(entry: &CallEntry) -> Self {
        Self {
            event_type: entry.event_type.clone(),
            from: entry.from.clone(),
            to: entry.to.clone(),
            method: entry.method.clone(),
            path: entry.path.clone(),
        }
    }
}

impl From<&Call> for CallEntry {
    fn from(call: &Call) -> Self {
        Self {
            event_type: call.event_type.clone(),
            from: call.from.clone(),
            to: call.to.clone(),
            method: call.method.clone(),
            path: call.path.clone(),
        }
    }
}

/// Packs reports into one batch.
#[derive(Debug)]
pub struct BatchBuilder {
    batch: Batch,
    indexes: HashMap<CallEntry, u32>,
}

impl BatchBuilder {
    /// An empty batch of `reporter`, packed at `sent_ms`.
    pub fn new(reporter: Reporter, sent_ms: u64) -> Self {
        Self {
            batch: Batch {
                protocol: PROTOCOL_VERSION,
                reporter,
                sent_ms,
                calls: Vec::new(),
                reports: Vec::new(),
            },
            indexes: HashMap::new(),
        }
    }

    /// Adds one report.
    pub fn push(&mut self, report: &Report) {
        let base = self.batch.sent_ms;
        let offset = |ms: u64| ms.cast_signed().wrapping_sub(base.cast_signed());
        let mut wire = WireReport {
            seq: report.seq,
            at: offset(report.at_ms),
            ..WireReport::default()
        };
        match &report.body {
            Body::Proxy(status) => wire.proxy = Some(status.clone()),
            Body::Event(event) => {
                wire.call = (*event.call != Call::default()).then(|| self.index(&event.call));
                wire.event = Some(event.event.clone());
                wire.borrowed = event.borrowed;
                wire.kind = event.kind;
                wire.side = event.side;
                wire.sent = event.sent_ms.map(offset);
                wire.handed_over = event.handed_over;
                wire.opened = event.opened;
                wire.attempt = (event.attempt != 1).then_some(event.attempt);
                wire.status = event.ending.status;
                wire.grpc = event.ending.grpc;
                wire.flags = event.ending.flags;
                wire.word = event.ending.word;
                wire.ms = event.duration_ms;
                wire.due = event.due_ms;
                wire.progress = event.progress;
                wire.cost = event.cost;
                wire.deadline = event.deadline_s;
                wire.decision.clone_from(&event.decision);
                wire.detail.clone_from(&event.detail);
            }
        }
        self.batch.reports.push(wire);
    }

    /// How many reports it holds.
    pub fn len(&self) -> usize {
        self.batch.reports.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.batch.reports.is_empty()
    }

    /// The batch, ready to be written as JSON.
    pub fn finish(self) -> Batch {
        self.batch
    }

    fn index(&mut self, call: &Call) -> u32 {
        let entry = CallEntry::from(call);
        if let Some(&index) = self.indexes.get(&entry) {
            return index;
        }
        let index = u32::try_from(self.batch.calls.len()).unwrap_or(u32::MAX);
        self.batch.calls.push(entry.clone());
        self.indexes.insert(entry, index);
        index
    }
}
