//! A request away from the service, or through a gateway: joined to the event that it belongs to, ruled on, and told on to
//! the mesh, or bared of everything of ours on its way out of it.

use kaeru_protocol::headers::{self as names, BAGGAGE_MEMBER};
use kaeru_protocol::{Body, EventId, EventReport, EventType, Kind, Peer, Side, Word};

use super::setup::Setup;
use super::stream::{self, Stream};
use super::{Next, Vm};
use crate::answer::{self, Question};
use crate::host::{HeaderMap, Headers, Host, Reply};
use crate::identity::Identity;
use crate::kin::{self, Alias, Kin, Meaning};
use crate::metrics::Counter;
use crate::request::Request;
use crate::{verdicts, w3c};

impl<H: Host> Vm<H> {
    pub(super) fn outbound(
        &mut self,
        setup: &Setup,
        id: u32,
        headers: &Headers,
        end: bool,
    ) -> Next {
        let request = Request::read(headers);
        if setup.config.is_aggregator(request.host()) {
            return self.answer(setup, &request, end);
        }
        let mesh = setup.config.is_mesh_host(request.host());
        if !setup.config.matching.matches(&request) {
            return self.leave(&request, mesh);
        }
        let now_ms = self.now_ms();
        let identity = self.identify(setup, &request, headers, true);
        let Some(kin) = self.open_event(setup, &identity, now_ms) else {
            return self.leave(&request, mesh);
        };
        let mut report = stream::report(
            &request,
            kin.event,
            kin.borrowed,
            Kind::Call,
            Side::Outbound,
            &mut self.metrics,
        );
        report.call_mut().to = self.callee(&request);
        report.handed_over = kin.handed_over;
        report.sent_ms = Some(self.stamp(now_ms));
        if report.call.event_type.is_none() {
            report.call_mut().event_type = kin.event_type;
        }
        let event_type = report.call.event_type.clone();
        self.send_on(setup, id, now_ms, &request, (report, event_type), mesh)
    }

    pub(super) fn gateway(&mut self, setup: &Setup, id: u32, headers: &Headers) -> Next {
        let mut request = Request::read(headers);
        let mesh = self.is_mesh_cluster(setup, &request);
        let trusted = self.trust(setup, &mut request, Self::is_named_peer);
        if !setup.config.matching.matches(&request) {
            return self.leave(&request, mesh);
        }
        let now_ms = self.now_ms();
        let identity = self.identify(setup, &request, headers, trusted);
        let (Some(event), borrowed) = self.event_or_new(&identity, now_ms) else {
            return self.leave(&request, mesh);
        };
        let mut report = stream::report(
            &request,
            event,
            borrowed,
            Kind::Attempt,
            Side::Outbound,
            &mut self.metrics,
        );
        report.sent_ms = Some(self.stamp(now_ms));
        let event_type = stream::type_of(&report, setup.service());
        self.send_on(setup, id, now_ms, &request, (report, event_type), mesh)
    }

    /// Rules on the request and sends it on its way.
    fn send_on(
        &mut self,
        setup: &Setup,
        id: u32,
        now_ms: u64,
        request: &Request<'_>,
        (mut report, event_type): (EventReport, Option<EventType>),
        mesh: bool,
    ) -> Next {
        if self.obey(setup, now_ms, request, &mut report, false) == Next::Answered {
            return Next::Answered;
        }
        if mesh {
            let event = report.event.as_str().as_bytes();
            if !request.carries(event) {
                self.host
                    .set_header(HeaderMap::Request, names::EVENT_ID, event);
            }
            let sent_ms = report.sent_ms.unwrap_or(now_ms);
            let branch = if report.handed_over {
                ";handed-over"
            } else {
                ""
            };
            let from = format!("{};t={sent_ms}{branch}", setup.service());
            self.host
                .set_header(HeaderMap::Request, names::EVENT_FROM, from.as_bytes());
            let event_type = event_type.as_ref().map(|t| t.as_str().as_bytes());
            if let Some(event_type) = event_type.filter(|t| request.event_type != Some(t)) {
                self.host
                    .set_header(HeaderMap::Request, names::EVENT_TYPE, event_type);
            }
        } else {
            self.leave(request, false);
        }
        let mut stream = Stream::new(report, request, now_ms);
        stream.host = request.host().into();
        stream.mesh = mesh;
        self.open(setup, id, stream);
        Next::Continue
    }

    /// The event of an outbound request: the one it names, or the open one that a borrowed id of it means. One that matches
    /// no open event while there are some is a possible split. Where its ids mean several, it is an event of its own: under
    /// their id it would share the fate of all that cannot be told apart either.
    fn open_event(&mut self, setup: &Setup, identity: &Identity<'_>, now_ms: u64) -> Option<Kin> {
        let recall = |id: &[u8]| kin::recall(&self.host, now_ms, setup.open_ms(), Alias::of(id));
        if let Some(event) = identity.event.as_ref().filter(|_| !identity.borrowed) {
            let known = recall(event.as_str().as_bytes()).event();
            let known = known.filter(|kin| kin.event == *event);
            return Some(known.unwrap_or_else(|| Kin::unknown(event.clone(), false)));
        }
        let mut many = false;
        for alias in &identity.aliases {
            match recall(alias) {
                Meaning::Event(kin) => return Some(kin),
                Meaning::Many => many = true,
                Meaning::Unknown => {}
            }
        }
        if self.metrics.open(&self.host) > 0 {
            self.metrics.add(Counter::PossibleSplits, 1);
        }
        if many {
            return Some(Kin::unknown(self.mint(now_ms)?, false));
        }
        let (event, borrowed) = self.event_or_new(identity, now_ms);
        Some(Kin::unknown(event?, borrowed))
    }

    /// The open event that a job means by an id.
    fn meant(&self, setup: &Setup, event: EventId, now_ms: u64) -> Kin {
        let alias = Alias::of(event.as_str().as_bytes());
        let known = kin::recall(&self.host, now_ms, setup.open_ms(), alias).event();
        known.unwrap_or_else(|| Kin::unknown(event, false))
    }

    /// Lets a request go that is no step. Out of the mesh it takes nothing of ours along.
    fn leave(&self, request: &Request<'_>, mesh: bool) -> Next {
        if mesh {
            return Next::Continue;
        }
        for name in request.ours.iter().filter(|n| n.starts_with(b"x-event-")) {
            self.host.remove_header(HeaderMap::Request, name);
        }
        match w3c::with_member(&request.joined_baggage(), BAGGAGE_MEMBER, None) {
            Some(rest) if rest.is_empty() => self
                .host
                .remove_header(HeaderMap::Request, names::BAGGAGE.as_bytes()),
            Some(rest) => self
                .host
                .set_header(HeaderMap::Request, names::BAGGAGE, &rest),
            None => {}
        }
        Next::Continue
    }

    /// The callee as far as it is known: the service that answered for this host before, or the host.
    fn callee(&self, request: &Request<'_>) -> Option<Peer> {
        self.learned.get(request.host()).cloned().or_else(|| {
            let authority = request.authority.to_ascii_lowercase();
            Peer::host(&authority)
                .or_else(|_| Peer::host(b"invalid"))
                .ok()
        })
    }

    /// A gateway's authority is a public name: whether the mesh is behind it, the chosen cluster says
    /// (`outbound|80||web.shop.svc.cluster.local`).
    fn is_mesh_cluster(&self, setup: &Setup, request: &Request<'_>) -> bool {
        let cluster = self
            .host
            .property(&["xds", "cluster_name"])
            .or_else(|| self.host.property(&["cluster_name"]));
        match cluster {
            Some(cluster) => {
                let host = cluster.rsplit(|&b| b == b'|').next().unwrap_or_default();
                setup.config.is_mesh_host(host)
            }
            None => setup.config.is_mesh_host(request.host()),
        }
    }

    /// Answers the application in the aggregator's place, where that can be done from here.
    fn answer(&mut self, setup: &Setup, request: &Request<'_>, end: bool) -> Next {
        let Some(question) = answer::question(request, end) else {
            return Next::Continue;
        };
        let now_ms = self.now_ms();
        match question {
            Question::Word {
                event,
                word,
                progress,
            } => {
                let kin = self.meant(setup, event, now_ms);
                let mut report = EventReport::new(kin.event, Kind::Word);
                report.borrowed = kin.borrowed;
                report.handed_over = kin.handed_over;
                report.call_mut().event_type = kin.event_type;
                report.ending.word = Some(word);
                report.progress = progress;
                self.metrics.add(Counter::Words, 1);
                self.push(now_ms, Body::Event(Box::new(report)));
                if word == Word::Failed {
                    self.hurry(now_ms);
                }
                self.say(202, &[], "");
            }
            Question::Verdict { event } => {
                // Before the first page an empty cache means nothing: the aggregator knows.
                if verdicts::cursor(&self.host).is_none() {
                    return Next::Continue;
                }
                let event = self.meant(setup, event, now_ms).event;
                let entry = self.verdicts.find(&self.host, now_ms, &event);
                self.metrics.add(Counter::VerdictsAnswered, 1);
                let json = answer::verdict_json(&event, entry.as_ref());
                self.say(200, &[("content-type", "application/json")], &json);
            }
        }
        Next::Answered
    }

    fn say(&self, status: u16, headers: &[(&str, &str)], body: &str) {
        self.host.reply(&Reply {
            status,
            details: "kaeru_answered",
            headers,
            body,
            grpc: None,
        });
    }
}
