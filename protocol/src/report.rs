//! A report: a fact that a reporter states once. This is its full form, with absolute times; how a batch
//! packs it is in `batch.rs`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{DecisionId, Ending, EventId, EventType, Peer, ProxyStatus, ServiceName, Word};

/// One fact of one reporter.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Grows by one for each report of a reporter; with the day of `at_ms` and the reporter it is the
    /// report's identity.
    pub seq: u64,
    /// When it was so, by the reporter's clock, ms since 1970; the same at each delivery.
    pub at_ms: u64,
    /// What is stated.
    pub body: Body,
}

/// What a report is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// One event at one service.
    Event(Box<EventReport>),
    /// The proxy itself, once a minute.
    Proxy(Box<ProxyStatus>),
}

/// What kind of fact about an event.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An attempt ended, as the service's own proxy saw it (a gateway's: on its outbound side).
    #[default]
    Attempt,
    /// An attempt is still open.
    Running,
    /// A call whose callee did not report it, as the caller's proxy saw it end.
    Call,
    /// Kaeru refused this request.
    Refused,
    /// Kaeru would have refused this request (`shadow`).
    WouldRefuse,
    /// A request that the configuration's `pass` names (the application's own compensation, audit, notice): it is
    /// never refused and joins no plan.
    Cleanup,
    /// An undo call, let through by its decision id.
    Undo,
    /// The service's word, by the status call.
    Word,
    /// An operator's demand that the event be rolled back; stated by an aggregator.
    Operator,
}

/// Which side of its proxy a request was on.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Towards the service.
    #[default]
    Inbound,
    /// Away from the service (or through a gateway).
    Outbound,
}

/// What attempts of one call have in common. Batches keep a table of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    /// The event type, where a header said it.
    pub event_type: Option<EventType>,
    /// The caller (inbound; absent at the entry).
    pub from: Option<ServiceName>,
    /// The callee (outbound).
    pub to: Option<Peer>,
    /// The HTTP method.
    pub method: Box<str>,
    /// The path, ids folded, without query; a gRPC method is its path.
    pub path: Box<str>,
}

/// One fact about one event at one service.
#[derive(Debug, Clone, PartialEq)]
pub struct EventReport {
    /// The event.
    pub event: EventId,
    /// The id is borrowed (a trace or request id), not chosen as an event id.
    pub borrowed: bool,
    /// What kind of fact.
    pub kind: Kind,
    /// Which side of the proxy.
    pub side: Side,
    /// Caller, callee, method, path, event type.
    pub call: Arc<Call>,
    /// The `t` that the caller's proxy wrote, by the caller's clock, ms.
    pub sent_ms: Option<u64>,
    /// It belongs to a branch that a queue (or a clock) handed over: its caller, or a caller above that, handled no
    /// request of the event when it made its call. An entry has no caller and says nothing of it.
    pub handed_over: bool,
    /// The sequence of the first report about this attempt, where this is not it.
    pub opened: Option<u64>,
    /// Attempt: which of Envoy's retries it was (1 is the first). Call: how many were made.
    pub attempt: u32,
    /// How it ended; `status: None` is "no answer". Of a `Running` report only the word counts.
    pub ending: Ending,
    /// How long it took, or has taken so far, ms.
    pub duration_ms: u32,
    /// Running: the next report comes within this time, ms.
    pub due_ms: Option<u32>,
    /// How far the job is, 0 to 1.
    pub progress: Option<f32>,
    /// The sum of ORCA `request_cost`: the cost of this event at this service.
    pub cost: Option<f64>,
    /// Seconds that the entry gave the event.
    pub deadline_s: Option<u32>,
    /// The decision that refused, was undone for, or was passed by.
    pub decision: Option<DecisionId>,
    /// Free text of a status or an operator's reason, at most 4 KiB.
    pub detail: Option<Box<str>>,
}

impl EventReport {
    /// A bare report of `kind` about `event`; the rest at its default.
    pub fn new(event: EventId, kind: Kind) -> Self {
        Self {
            event,
            borrowed: false,
            kind,
            side: Side::Inbound,
            call: Arc::default(),
            sent_ms: None,
            handed_over: false,
            opened: None,
            attempt: 1,
            ending: Ending::default(),
            duration_ms: 0,
            due_ms: None,
            progress: None,
            cost: None,
            deadline_s: None,
            decision: None,
            detail: None,
        }
    }

    /// Its call, to be written in; the other reports that share it keep theirs.
    pub fn call_mut(&mut self) -> &mut Call {
        Arc::make_mut(&mut self.call)
    }

    /// The service's word in this report.
    pub fn word(&self) -> Option<Word> {
        self.ending.word
    }
}

/// Safe methods change nothing (RFC 9110, 9.2.1); they are never refused.
pub fn is_safe_method(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
}
