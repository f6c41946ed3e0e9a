//! A request away from the service, or through a gateway: joined to the event that it belongs to, ruled on, and told on to
//! the mesh, or bared of everything of ours on its way out of it.

use std::num::NonZeroU64;
use std::rc::Rc;

use kaeru_protocol::headers as names;
use kaeru_protocol::{EventId, Kind, Peer, Side, Word};

use super::inbound::Obeyed;
use super::setup::Setup;
use super::stream::Stream;
use super::{Next, Vm};
use crate::answer::{self, Question};
use crate::calls::{Call, Parts};
use crate::host::{HeaderMap, Headers, Host, Reply};
use crate::identity::Identity;
use crate::kin::{self, Alias, Kin, Meaning};
use crate::metrics::Counter;
use crate::report::{Body, Event, Facts, More};
use crate::request::{self, OURS, Request};
use crate::verdicts;

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
            return self.leave(&request, headers, mesh);
        }
        let now_ms = self.now_ms();
        let mut identity = self.identify(setup, &request, headers, true);
        let Some(kin) = self.open_event(setup, &mut identity, now_ms) else {
            return self.leave(&request, headers, mesh);
        };
        let said = self.said_type(&request);
        let known = kin.event_type.as_ref().map(|t| t.as_str().as_bytes());
        let to = self.callee(&request);
        let parts = Parts {
            event_type: said.or(known),
            to: Some(&to),
            method: &request.short_method(),
            path: request.path,
            host: request.host(),
            ..Parts::default()
        };
        let facts = Facts {
            event: kin.event,
            call: self.calls.share(&parts),
            sent_ms: NonZeroU64::new(self.stamp(now_ms)),
            deadline_s: self.said_deadline(&request),
            attempt: 1,
            side: Side::Outbound,
            borrowed: kin.borrowed,
            handed_over: kin.handed_over,
        };
        let stream = Stream {
            mesh,
            ..Stream::new(Rc::new(facts), Kind::Call, request.grpc, now_ms)
        };
        self.send_on(setup, id, &request, headers, stream)
    }

    pub(super) fn gateway(&mut self, setup: &Setup, id: u32, headers: &Headers) -> Next {
        let mut request = Request::read(headers);
        let mesh = self.is_mesh_cluster(setup, &request);
        let trusted = self.trust(setup, &mut request, headers, Self::is_named_peer);
        if !setup.config.matching.matches(&request) {
            return self.leave(&request, headers, mesh);
        }
        let now_ms = self.now_ms();
        let mut identity = self.identify(setup, &request, headers, trusted);
        let Some(event) = self.event_or_new(&mut identity, now_ms) else {
            return self.leave(&request, headers, mesh);
        };
        let parts = Parts {
            event_type: self.said_type(&request),
            method: &request.short_method(),
            path: request.path,
            host: request.host(),
            entry_of: Some(setup.service()),
            ..Parts::default()
        };
        let facts = Facts {
            event,
            call: self.calls.share(&parts),
            sent_ms: NonZeroU64::new(self.stamp(now_ms)),
            deadline_s: self.said_deadline(&request),
            attempt: 1,
            side: Side::Outbound,
            borrowed: identity.borrowed,
            handed_over: false,
        };
        let stream = Stream {
            mesh,
            ..Stream::new(Rc::new(facts), Kind::Attempt, request.grpc, now_ms)
        };
        self.send_on(setup, id, &request, headers, stream)
    }

    /// Rules on the request and sends it on its way.
    fn send_on(
        &mut self,
        setup: &Setup,
        id: u32,
        request: &Request<'_>,
        headers: &Headers,
        mut stream: Stream,
    ) -> Next {
        let now_ms = stream.started_ms;
        let facts = &stream.facts;
        let Obeyed::On(kind, more) = self.obey(setup, now_ms, request, facts, stream.kind, false)
        else {
            return Next::Answered;
        };
        if stream.mesh {
            let event = facts.event.as_str().as_bytes();
            if !request.carries(event) {
                self.host
                    .set_header(HeaderMap::Request, names::EVENT_ID, event);
            }
            let sent_ms = facts.sent_ms.map_or(now_ms, NonZeroU64::get);
            let branch = if facts.handed_over {
                ";handed-over"
            } else {
                ""
            };
            let from = format!("{};t={sent_ms}{branch}", setup.service());
            self.host
                .set_header(HeaderMap::Request, names::EVENT_FROM, from.as_bytes());
            let event_type = facts.call.known_type().map(|t| t.as_str().as_bytes());
            if let Some(event_type) = event_type.filter(|t| request.event_type != Some(t)) {
                self.host
                    .set_header(HeaderMap::Request, names::EVENT_TYPE, event_type);
            }
        } else {
            self.leave(request, headers, false);
        }
        (stream.kind, stream.more) = (kind, more);
        self.open(setup, id, stream);
        Next::Continue
    }

    /// The event of an outbound request: the one it names, or the open one that a borrowed id of it means. One that matches
    /// no open event while there are some is a possible split. Where its ids mean several, it is an event of its own: under
    /// their id it would share the fate of all that cannot be told apart either.
    fn open_event(
        &mut self,
        setup: &Setup,
        identity: &mut Identity<'_>,
        now_ms: u64,
    ) -> Option<Kin> {
        let recall = |id: &[u8]| kin::recall(&self.host, now_ms, setup.open_ms(), Alias::of(id));
        if let Some(event) = identity.event.take_if(|_| !identity.borrowed) {
            let known = recall(event.as_str().as_bytes()).event();
            let known = known.filter(|kin| kin.event == event);
            return Some(known.unwrap_or_else(|| Kin::unknown(event, false)));
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
        let event = self.event_or_new(identity, now_ms)?;
        Some(Kin::unknown(event, identity.borrowed))
    }

    /// The open event that a job means by an id.
    fn meant(&self, setup: &Setup, event: EventId, now_ms: u64) -> Kin {
        let alias = Alias::of(event.as_str().as_bytes());
        let known = kin::recall(&self.host, now_ms, setup.open_ms(), alias).event();
        known.unwrap_or_else(|| Kin::unknown(event, false))
    }

    /// Lets a request go that is no step. Out of the mesh it takes nothing of ours along.
    fn leave(&self, request: &Request<'_>, headers: &Headers, mesh: bool) -> Next {
        if !mesh {
            for name in request::ours(headers).filter(|name| name.starts_with(OURS)) {
                self.host.remove_header(HeaderMap::Request, name);
            }
            self.take_off_baggage(request, headers);
        }
        Next::Continue
    }

    /// The callee as far as it is known: the service that answered for this host before, or the host.
    fn callee(&self, request: &Request<'_>) -> Vec<u8> {
        if let Some(known) = self.learned.get(request.host()) {
            return known.as_str().as_bytes().to_vec();
        }
        let host = [b"host:", &*request.authority.to_ascii_lowercase()].concat();
        if Peer::is_valid(&host) {
            host
        } else {
            b"host:invalid".to_vec()
        }
    }

    /// A gateway's authority is a public name: whether the mesh is behind it, the chosen cluster says
    /// (`outbound|80||web.shop.svc.cluster.local`).
    fn is_mesh_cluster(&self, setup: &Setup, request: &Request<'_>) -> bool {
        let cluster = self
            .host
            .property("xds\0cluster_name")
            .or_else(|| self.host.property("cluster_name"));
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
                let call = Call {
                    event_type: kin.event_type,
                    ..Call::default()
                };
                let facts = Facts {
                    event: kin.event,
                    call: Rc::new(call),
                    sent_ms: None,
                    deadline_s: None,
                    attempt: 1,
                    side: Side::Inbound,
                    borrowed: kin.borrowed,
                    handed_over: kin.handed_over,
                };
                let mut told = Event::new(Rc::new(facts), Kind::Word);
                told.ending.word = Some(word);
                told.more = progress.map(|progress| {
                    Box::new(More {
                        progress: Some(progress),
                        ..More::default()
                    })
                });
                self.metrics.add(Counter::Words, 1);
                self.push(now_ms, Body::Event(told));
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
