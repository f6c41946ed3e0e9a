//! Reports as this VM keeps them, small, for there may be thousands: what a request's headers said stands once, for the
//! open request and for every report on it. How they are said on the wire is in `batch.rs`.

use std::num::{NonZeroU32, NonZeroU64};
use std::rc::Rc;

use kaeru_protocol::{Counts, DecisionId, Ending, EventId, Kind, ReporterMark, Side};

use crate::calls::Call;

/// What the headers of a request said.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The event.
    pub event: EventId,
    /// Caller, callee, method, path, event type.
    pub call: Rc<Call>,
    /// The `t` that the caller's proxy wrote, ms.
    pub sent_ms: Option<NonZeroU64>,
    /// Seconds that the entry gave the event.
    pub deadline_s: Option<NonZeroU32>,
    /// Which of Envoy's retries it was, or how many were made.
    pub attempt: u32,
    /// Which side of the proxy.
    pub side: Side,
    /// The event's id is borrowed.
    pub borrowed: bool,
    /// It belongs to a branch that a queue handed over.
    pub handed_over: bool,
}

#[cfg(test)]
impl Facts {
    /// An inbound request of this event and call that said nothing else.
    pub(crate) fn of(event: &str, call: Rc<Call>) -> Self {
        Self {
            event: event.parse().unwrap(),
            call,
            sent_ms: None,
            deadline_s: None,
            attempt: 1,
            side: Side::Inbound,
            borrowed: false,
            handed_over: false,
        }
    }
}

/// What few reports say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct More {
    /// How far the job is, 0 to 1.
    pub progress: Option<f32>,
    /// The cost of this event at this service.
    pub cost: Option<f64>,
    /// The decision that refused, was undone for, or was passed by.
    pub decision: Option<DecisionId>,
}

/// One fact about one event here.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What its request said.
    pub facts: Rc<Facts>,
    /// What kind of fact.
    pub kind: Kind,
    /// How it ended.
    pub ending: Ending,
    /// How long it took, or has taken so far, ms.
    pub duration_ms: u32,
    /// The sequence of the first report about this attempt, where this is not it.
    pub opened: Option<NonZeroU64>,
    /// The next report comes within this time, ms.
    pub due_ms: Option<NonZeroU32>,
    /// What else is to be said.
    pub more: Option<Box<More>>,
}

impl Event {
    /// A fact of this kind, the rest at its default.
    pub fn new(facts: Rc<Facts>, kind: Kind) -> Self {
        Self {
            facts,
            kind,
            ending: Ending::default(),
            duration_ms: 0,
            opened: None,
            due_ms: None,
            more: None,
        }
    }
}

/// What the proxy states of itself once a minute.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    /// The next one comes within this time, ms.
    pub due_ms: u32,
    /// Requests of events open now, over all workers.
    pub in_flight: u64,
    /// Age of the oldest of them, ms.
    pub oldest_ms: u64,
    /// Counted since the last status.
    pub counts: Counts,
    /// The last load values of the service.
    pub load: Vec<(Box<str>, f64)>,
    /// Every reporter of this proxy and how far it came.
    pub reporters: Vec<ReporterMark>,
}

/// What a report is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// One event at this service.
    Event(Event),
    /// The proxy itself.
    Proxy(Box<Status>),
}

/// A fact that is stated once.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Its number at this reporter.
    pub seq: u64,
    /// When it was so, ms.
    pub at_ms: u64,
    /// What is stated.
    pub body: Body,
}

/// 8,192 of them wait, and 10,000 requests are open: their size in the VM is what it takes.
#[cfg(target_arch = "wasm32")]
const _: () = assert!(size_of::<Report>() <= 64 && size_of::<Facts>() <= 40);
