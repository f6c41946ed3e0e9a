//! A request towards the service: its event found, ruled on, handed on to the application.

use kaeru_protocol::headers::{self as names, BAGGAGE_MEMBER};
use kaeru_protocol::{Body, EventId, EventReport, Kind, Side};

use super::setup::Setup;
use super::stream::{self, Stream};
use super::{Next, Vm};
use crate::host::{HeaderMap, Headers, Host};
use crate::identity::{self, Identity};
use crate::kin::{self, Carried, RequestMark};
use crate::metrics::Counter;
use crate::refuse::{self, Ruling};
use crate::request::Request;
use crate::{said, w3c};

impl<H: Host> Vm<H> {
    pub(super) fn inbound(&mut self, setup: &Setup, id: u32, headers: &Headers) -> Next {
        let mut request = Request::read(headers);
        let trusted = self.trust(setup, &mut request, Self::is_mesh_peer);
        if !setup.config.matching.matches(&request) {
            return Next::Continue;
        }
        let now_ms = self.now_ms();
        let identity = self.identify(setup, &request, headers, trusted);
        let (Some(event), borrowed) = self.event_or_new(&identity, now_ms) else {
            return Next::Continue;
        };
        let mut report = stream::report(
            &request,
            event,
            borrowed,
            Kind::Attempt,
            Side::Inbound,
            &mut self.metrics,
        );
        if let Some(value) = request.event_from {
            let from = said::from(value);
            self.metrics
                .add(Counter::InvalidHeaders, u64::from(from.is_none()));
            if let Some(from) = from {
                report.call_mut().from = Some(from.service);
                report.sent_ms = Some(from.sent_ms);
                report.handed_over = from.handed_over;
            }
        }
        let attempt = request.attempt.and_then(said::number);
        report.attempt = attempt.map_or(1, |n| u32::try_from(n).unwrap_or(u32::MAX));

        let answers_caller = request.event_from.is_some();
        if self.obey(setup, now_ms, &request, &mut report, answers_caller) == Next::Answered {
            return Next::Answered;
        }
        if answers_caller {
            self.host
                .remove_header(HeaderMap::Request, names::EVENT_FROM.as_bytes());
        }
        let mut stream = Stream::new(report, &request, now_ms);
        if stream.report.kind != Kind::Undo {
            let aliases = identity.aliases.iter();
            if identity.borrowed {
                stream.ids = aliases.map(|id| Carried::own(id)).collect();
            } else {
                let own = Carried::own(stream.report.event.as_str().as_bytes());
                stream.ids = aliases.map(|id| Carried::beside(id)).collect();
                stream.ids.push(own);
            }
            stream.mark = RequestMark(self.me.0.wrapping_add(id.into()));
            if stream.report.call.event_type.is_none() {
                stream.event_type = stream::type_of(&stream.report, setup.service());
            }
            self.remember_ids(setup, &stream, now_ms);
            self.hand_on(&request, &stream.report.event);
        }
        stream.answers_caller = answers_caller;
        self.open(setup, id, stream);
        Next::Continue
    }

    /// Whether what the request says of events may be believed; if not, it is taken off. The peer is only looked at where
    /// the request says anything.
    pub(super) fn trust(
        &mut self,
        setup: &Setup,
        request: &mut Request<'_>,
        is_trusted: impl FnOnce(&Self, &Setup) -> bool,
    ) -> bool {
        let names = |baggage: &&[u8]| w3c::baggage_member(baggage, BAGGAGE_MEMBER).is_some();
        let says = !request.ours.is_empty() || request.baggage.iter().any(names);
        if !says && !setup.has_own_sources || is_trusted(self, setup) {
            return true;
        }
        let baggage = request.joined_baggage();
        let without = w3c::with_member(&baggage, BAGGAGE_MEMBER, None);
        for name in &request.ours {
            self.host.remove_header(HeaderMap::Request, name);
        }
        match without {
            Some(rest) if rest.is_empty() => self
                .host
                .remove_header(HeaderMap::Request, names::BAGGAGE.as_bytes()),
            Some(rest) => self
                .host
                .set_header(HeaderMap::Request, names::BAGGAGE, &rest),
            None => {}
        }
        request.forget_ours();
        self.metrics.add(Counter::TakenOff, u64::from(says));
        false
    }

    /// A sidecar's peer: anyone of the mesh, which is whoever shows a certificate.
    fn is_mesh_peer(&self, setup: &Setup) -> bool {
        let mtls = || self.host.property(&["connection", "mtls"]);
        setup.config.trust_plaintext || mtls().is_some_and(|flag| flag.first() == Some(&1))
    }

    /// A gateway's peer: no one, but those whom the configuration names.
    pub(super) fn is_named_peer(&self, setup: &Setup) -> bool {
        let names = &setup.config.trust_ids_from;
        !names.is_empty()
            && self
                .host
                .property(&["connection", "uri_san_peer_certificate"])
                .is_some_and(|peer| names.iter().any(|name| name.matches(&peer)))
    }

    pub(super) fn identify<'a>(
        &mut self,
        setup: &Setup,
        request: &Request<'a>,
        headers: &'a Headers,
        trusted: bool,
    ) -> Identity<'a> {
        let identity = Identity::read(request, headers, &setup.config.id_sources, trusted);
        self.metrics
            .add(Counter::InvalidIds, identity.invalid.into());
        identity
    }

    /// The request's event, or a new one; whether its id is borrowed.
    pub(super) fn event_or_new(
        &self,
        identity: &Identity<'_>,
        now_ms: u64,
    ) -> (Option<EventId>, bool) {
        let event = identity.event.clone();
        (event.or_else(|| self.mint(now_ms)), identity.borrowed)
    }

    /// A new event's id.
    pub(super) fn mint(&self, now_ms: u64) -> Option<EventId> {
        let random = [self.host.random(), self.host.random()];
        identity::mint(now_ms, random).ok()
    }

    /// Does what the verdict on the report's event says, and marks the report by it.
    pub(super) fn obey(
        &mut self,
        setup: &Setup,
        now_ms: u64,
        request: &Request<'_>,
        report: &mut EventReport,
        answers_caller: bool,
    ) -> Next {
        let verdict = match setup.config.mode {
            kaeru_protocol::Mode::Off => None,
            _ => self.verdicts.find(&self.host, now_ms, &report.event),
        };
        match refuse::rule(verdict, &setup.config, request) {
            Ruling::Pass => {}
            Ruling::WouldRefuse(decision) => {
                self.metrics.add(Counter::WouldRefuse, 1);
                let mut told = report.clone();
                told.kind = Kind::WouldRefuse;
                told.decision = Some(decision);
                self.push(now_ms, Body::Event(Box::new(told)));
            }
            Ruling::Cleanup(decision) => {
                self.metrics.add(Counter::Cleanups, 1);
                report.kind = Kind::Cleanup;
                report.decision = decision;
            }
            Ruling::Undo(decision) => {
                self.metrics.add(Counter::Undos, 1);
                report.kind = Kind::Undo;
                report.decision = Some(decision);
            }
            Ruling::Refuse(entry) => {
                self.metrics.add(Counter::Refused, 1);
                let mut told = report.clone();
                told.kind = Kind::Refused;
                told.decision = Some(entry.decision.clone());
                self.push(now_ms, Body::Event(Box::new(told)));
                let reported = answers_caller.then(|| setup.service());
                refuse::reply(&self.host, &setup.config, &entry, request.grpc, reported);
                return Next::Answered;
            }
        }
        Next::Continue
    }

    /// Tells all workers what the request's ids mean.
    pub(super) fn remember_ids(&self, setup: &Setup, stream: &Stream, now_ms: u64) {
        let report = &stream.report;
        let said = report.call.event_type.as_ref();
        let event_type = said.or(stream.event_type.as_ref());
        let open_ms = setup.open_ms();
        for id in &stream.ids {
            let mark = stream.mark;
            kin::remember(&self.host, now_ms, open_ms, *id, mark, report, event_type);
        }
    }

    /// Gives the application the event's id, as a header and as baggage, where the request does not have it yet.
    fn hand_on(&self, request: &Request<'_>, event: &EventId) {
        let event = event.as_str();
        if !request.carries(event.as_bytes()) {
            self.host
                .set_header(HeaderMap::Request, names::EVENT_ID, event.as_bytes());
        }
        let baggage = request.joined_baggage();
        if let Some(baggage) = w3c::with_member(&baggage, BAGGAGE_MEMBER, Some(event)) {
            self.host
                .set_header(HeaderMap::Request, names::BAGGAGE, &baggage);
        }
    }
}
