//! One observed request between its headers and its end: the report it will become, and what is needed to finish that.

use std::sync::Arc;

use kaeru_protocol::limits::METHOD_MAX;
use kaeru_protocol::{Call, EventId, EventReport, EventType, Kind, Side};

use crate::kin::{Carried, RequestMark};
use crate::metrics::{Counter, Metrics};
use crate::request::Request;
use crate::{path, said};

/// An open request.
#[derive(Debug)]
pub(super) struct Stream {
    /// As it will be reported, but for its ending.
    pub(super) report: Box<EventReport>,
    pub(super) started_ms: u64,
    pub(super) grpc: bool,
    /// Inbound: the ids that mean this event.
    pub(super) ids: Vec<Carried>,
    /// Inbound: how other VMs are told which request carries them.
    pub(super) mark: RequestMark,
    /// Inbound: the event's type where nobody said it, for what the service calls.
    pub(super) event_type: Option<EventType>,
    /// Inbound: the caller's proxy listens for `x-event-reported`.
    pub(super) answers_caller: bool,
    /// Outbound: the host that it goes to.
    pub(super) host: Box<[u8]>,
    /// Outbound: the host belongs to the mesh, so its answer may say that it was reported.
    pub(super) mesh: bool,
    /// Outbound: the callee reported it.
    pub(super) reported: bool,
    /// When it is to be named again, ms; 0 before the first time.
    pub(super) due_at_ms: u64,
}

impl Stream {
    /// A request that is to be reported as `report`.
    pub(super) fn new(report: EventReport, request: &Request<'_>, started_ms: u64) -> Self {
        Self {
            report: Box::new(report),
            started_ms,
            grpc: request.grpc,
            ids: Vec::new(),
            mark: RequestMark::default(),
            event_type: None,
            answers_caller: false,
            host: Box::default(),
            mesh: false,
            reported: false,
            due_at_ms: 0,
        }
    }

    /// It is handled by this proxy's own service, or by this gateway: an attempt, not a call.
    pub(super) fn is_at_service(&self) -> bool {
        self.report.side == Side::Inbound || self.report.kind == Kind::Attempt
    }
}

/// The report that a request will become, as far as its headers tell.
pub(super) fn report(
    request: &Request<'_>,
    event: EventId,
    borrowed: bool,
    kind: Kind,
    side: Side,
    metrics: &mut Metrics,
) -> EventReport {
    let mut invalid = 0;
    let mut valid = |header: bool, read: bool| invalid += u64::from(header && !read);
    let type_header = request.event_type.or(request.ce_type);
    let event_type = type_header.and_then(|value| EventType::from_bytes(value.trim_ascii()).ok());
    valid(type_header.is_some(), event_type.is_some());
    let deadline_s = request.deadline.and_then(said::deadline_s);
    valid(request.deadline.is_some(), deadline_s.is_some());
    let method = String::from_utf8_lossy(request.method);
    let report = EventReport {
        borrowed,
        side,
        call: Arc::new(Call {
            event_type,
            from: None,
            to: None,
            method: method
                .chars()
                .take(METHOD_MAX / 4)
                .collect::<String>()
                .into(),
            path: path::fold(request.path).into(),
        }),
        deadline_s,
        ..EventReport::new(event, kind)
    };
    metrics.add(Counter::InvalidHeaders, invalid);
    report
}

/// The event's type: what was said, or at its entry what the aggregator will learn from it.
pub(super) fn type_of(report: &EventReport, service: &str) -> Option<EventType> {
    let call = &report.call;
    match (&call.event_type, &call.from) {
        (Some(said), _) => Some(said.clone()),
        (None, None) => format!("{} {service} {}", call.method, call.path)
            .parse()
            .ok(),
        (None, Some(_)) => None,
    }
}
