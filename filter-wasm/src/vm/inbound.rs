//! A request towards the service: its event found, ruled on, handed on to the application.

use std::num::{NonZeroU32, NonZeroU64};
use std::rc::Rc;

use kaeru_protocol::headers::{self as names, BAGGAGE_MEMBER};
use kaeru_protocol::{EventId, EventType, Kind, Side};

use super::setup::Setup;
use super::stream::{self, Stream};
use super::{Next, Vm};
use crate::calls::Parts;
use crate::host::{HeaderMap, Headers, Host};
use crate::identity::{self, Identity};
use crate::kin::{self, Carried, RequestMark};
use crate::metrics::Counter;
use crate::refuse::{self, Ruling};
use crate::report::{Body, Event, Facts, More};
use crate::request::{self, Request};
use crate::{said, w3c};

/// What the ruling on a request makes of it.
pub(super) enum Obeyed {
    /// It goes on, as this kind, for this decision.
    On(Kind, Option<Box<More>>),
    /// It was refused.
    Answered,
}

impl<H: Host> Vm<H> {
    pub(super) fn inbound(&mut self, setup: &Setup, id: u32, headers: &Headers) -> Next {
        let mut request = Request::read(headers);
        let trusted = self.trust(setup, &mut request, headers, Self::is_mesh_peer);
        if !setup.config.matching.matches(&request) {
            return Next::Continue;
        }
        let now_ms = self.now_ms();
        let mut identity = self.identify(setup, &request, headers, trusted);
        let Some(event) = self.event_or_new(&mut identity, now_ms) else {
            return Next::Continue;
        };
        let answers_caller = request.event_from.is_some();
        let from = request.event_from.and_then(said::from);
        let attempt = request.attempt.and_then(said::number);
        let parts = Parts {
            event_type: self.said_type(&request),
            from: from.as_ref().map(|from| from.service.as_bytes()),
            method: &request.short_method(),
            path: request.path,
            entry_of: Some(setup.service()),
            ..Parts::default()
        };
        let facts = Rc::new(Facts {
            event,
            call: self.calls.share(&parts),
            sent_ms: from.as_ref().and_then(|from| NonZeroU64::new(from.sent_ms)),
            deadline_s: self.said_deadline(&request),
            attempt: attempt.map_or(1, |n| u32::try_from(n).unwrap_or(u32::MAX)),
            side: Side::Inbound,
            borrowed: identity.borrowed,
            handed_over: from.as_ref().is_some_and(|from| from.handed_over),
        });
        let unread = answers_caller && from.is_none();
        self.metrics.add(Counter::InvalidHeaders, u64::from(unread));
        let kind = Kind::Attempt;
        let Obeyed::On(kind, more) =
            self.obey(setup, now_ms, &request, &facts, kind, answers_caller)
        else {
            return Next::Answered;
        };
        if answers_caller {
            self.host
                .remove_header(HeaderMap::Request, names::EVENT_FROM.as_bytes());
        }
        let mut stream = Stream {
            answers_caller,
            more,
            ..Stream::new(facts, kind, request.grpc, now_ms)
        };
        if kind != Kind::Undo {
            stream.ids = carried(&identity, &stream.facts.event);
            self.remember_ids(setup, &stream, self.mark(id), now_ms);
            self.hand_on(&request, headers, &stream.facts.event);
        }
        self.open(setup, id, stream);
        Next::Continue
    }

    /// Whether what the request says of events may be believed; if not, it is taken off. The peer is only looked at where
    /// the request says anything.
    pub(super) fn trust(
        &mut self,
        setup: &Setup,
        request: &mut Request<'_>,
        headers: &Headers,
        is_trusted: impl FnOnce(&Self, &Setup) -> bool,
    ) -> bool {
        let says = request.has_ours || request.baggage_id.is_some();
        if !says && !setup.has_own_sources || is_trusted(self, setup) {
            return true;
        }
        for name in request::ours(headers) {
            self.host.remove_header(HeaderMap::Request, name);
        }
        self.take_off_baggage(request, headers);
        request.forget_ours();
        self.metrics.add(Counter::TakenOff, u64::from(says));
        false
    }

    /// Takes the event's id off the baggage, where it is in it.
    pub(super) fn take_off_baggage(&self, request: &Request<'_>, headers: &Headers) {
        if request.baggage_id.is_none() {
            return;
        }
        let baggage = request.joined_baggage(headers);
        match w3c::with_member(&baggage, BAGGAGE_MEMBER, None) {
            Some(rest) if rest.is_empty() => self
                .host
                .remove_header(HeaderMap::Request, names::BAGGAGE.as_bytes()),
            Some(rest) => self
                .host
                .set_header(HeaderMap::Request, names::BAGGAGE, &rest),
            None => {}
        }
    }

    /// A sidecar's peer: anyone of the mesh, which is whoever shows a certificate.
    fn is_mesh_peer(&self, setup: &Setup) -> bool {
        let mtls = || self.host.property("connection\0mtls");
        setup.config.trust_plaintext || mtls().is_some_and(|flag| flag.first() == Some(&1))
    }

    /// A gateway's peer: no one, but those whom the configuration names.
    pub(super) fn is_named_peer(&self, setup: &Setup) -> bool {
        let names = &setup.config.trust_ids_from;
        !names.is_empty()
            && self
                .host
                .property("connection\0uri_san_peer_certificate")
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

    /// The request's event, or a new one.
    pub(super) fn event_or_new(&self, identity: &mut Identity<'_>, now_ms: u64) -> Option<EventId> {
        identity.event.take().or_else(|| self.mint(now_ms))
    }

    /// A new event's id.
    pub(super) fn mint(&self, now_ms: u64) -> Option<EventId> {
        let random = [self.host.random(), self.host.random()];
        identity::mint(now_ms, random).ok()
    }

    /// The event's type, where the request says it.
    pub(super) fn said_type<'a>(&mut self, request: &Request<'a>) -> Option<&'a [u8]> {
        let said = request.event_type.or(request.ce_type)?.trim_ascii();
        let valid = EventType::is_valid(said);
        self.metrics.add(Counter::InvalidHeaders, u64::from(!valid));
        valid.then_some(said)
    }

    /// The event's deadline, where the request says it.
    pub(super) fn said_deadline(&mut self, request: &Request<'_>) -> Option<NonZeroU32> {
        let said = said::deadline_s(request.deadline?);
        self.metrics
            .add(Counter::InvalidHeaders, u64::from(said.is_none()));
        said.and_then(NonZeroU32::new)
    }

    /// Does what the verdict on the request's event says; gives what that makes of it.
    pub(super) fn obey(
        &mut self,
        setup: &Setup,
        now_ms: u64,
        request: &Request<'_>,
        facts: &Rc<Facts>,
        kind: Kind,
        answers_caller: bool,
    ) -> Obeyed {
        let verdict = match setup.config.mode {
            kaeru_protocol::Mode::Off => None,
            _ => self.verdicts.find(&self.host, now_ms, &facts.event),
        };
        let by = |decision| {
            Some(Box::new(More {
                decision: Some(decision),
                ..More::default()
            }))
        };
        let told = |kind, decision| {
            Body::Event(Event {
                more: by(decision),
                ..Event::new(Rc::clone(facts), kind)
            })
        };
        match refuse::rule(verdict, &setup.config, request) {
            Ruling::Pass => Obeyed::On(kind, None),
            Ruling::WouldRefuse(decision) => {
                self.metrics.add(Counter::WouldRefuse, 1);
                self.push(now_ms, told(Kind::WouldRefuse, decision));
                Obeyed::On(kind, None)
            }
            Ruling::Cleanup(decision) => {
                self.metrics.add(Counter::Cleanups, 1);
                Obeyed::On(Kind::Cleanup, decision.and_then(by))
            }
            Ruling::Undo(decision) => {
                self.metrics.add(Counter::Undos, 1);
                Obeyed::On(Kind::Undo, by(decision))
            }
            Ruling::Refuse(entry) => {
                self.metrics.add(Counter::Refused, 1);
                self.push(now_ms, told(Kind::Refused, entry.decision.clone()));
                let reported = answers_caller.then(|| setup.service());
                refuse::reply(&self.host, &setup.config, &entry, request.grpc, reported);
                Obeyed::Answered
            }
        }
    }

    pub(super) fn mark(&self, id: u32) -> RequestMark {
        stream::mark(self.me, id)
    }

    /// Tells all workers what the request's ids mean.
    pub(super) fn remember_ids(
        &self,
        setup: &Setup,
        stream: &Stream,
        mark: RequestMark,
        now_ms: u64,
    ) {
        for id in &stream.ids {
            kin::remember(
                &self.host,
                now_ms,
                setup.open_ms(),
                *id,
                mark,
                &stream.facts,
            );
        }
    }

    /// Gives the application the event's id, as a header and as baggage, where the request does not have it yet.
    fn hand_on(&self, request: &Request<'_>, headers: &Headers, event: &EventId) {
        let event = event.as_str();
        if !request.carries(event.as_bytes()) {
            self.host
                .set_header(HeaderMap::Request, names::EVENT_ID, event.as_bytes());
        }
        if request.carries_in_baggage(event.as_bytes()) {
            return;
        }
        let baggage = request.joined_baggage(headers);
        if let Some(baggage) = w3c::with_member(&baggage, BAGGAGE_MEMBER, Some(event)) {
            self.host
                .set_header(HeaderMap::Request, names::BAGGAGE, &baggage);
        }
    }
}

/// The ids that mean this event.
fn carried(identity: &Identity<'_>, event: &EventId) -> Box<[Carried]> {
    let mut ids = Vec::with_capacity(identity.aliases.len() + 1);
    for alias in &identity.aliases {
        ids.push(if identity.borrowed {
            Carried::own(alias)
        } else {
            Carried::beside(alias)
        });
    }
    if !identity.borrowed {
        ids.push(Carried::own(event.as_str().as_bytes()));
    }
    ids.into()
}
