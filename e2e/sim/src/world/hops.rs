//! Requests between clients, proxies and services: on their way, lost, broken off, timed out, answered. What each side's
//! filter sees is what Envoy would show it.

mod ends;

use kaeru_filter::host::simulated::{Pairs, Said};
use kaeru_protocol::{Ending, EventId, Word, flags};

use super::proxies::{Passed, Stream, Way};
use super::{Moment, World};
use crate::shape::Target;
use crate::truth::{Try, What};

/// Who made a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// A client, for its order.
    Client(usize),
    /// A job of a service.
    Job(usize),
}

/// One request from its caller to its target.
#[derive(Debug)]
pub(crate) struct Hop {
    pub(crate) from: From,
    pub(crate) event: EventId,
    pub(crate) to: Target,
    pub(crate) method: &'static str,
    pub(crate) path: String,
    headers: Pairs,
    mtls: bool,
    /// The proxy that it leaves through: its caller's, or a gateway.
    pub(crate) out: Option<usize>,
    pub(crate) out_stream: Option<Stream>,
    caller_service: Option<usize>,
    /// A gateway's own step.
    gate: Option<usize>,
    pub(crate) sent_ms: u64,
    tries: u32,
    /// What reached the target, one each try.
    reached: Vec<Reached>,
    /// Answers on their way, by try.
    answers: Vec<(u32, Response)>,
    is_over: bool,
}

/// One try of a request at its target.
#[derive(Debug, Clone, Copy)]
struct Reached {
    tries: u32,
    truth: usize,
    stream: Option<Stream>,
    is_open: bool,
}

/// An answer on its way.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Pairs,
    /// Envoy's flags at who answered, where it was Envoy.
    pub(crate) flags: u64,
    pub(crate) word: Option<Word>,
}

impl Response {
    pub(crate) fn of(status: u16) -> Self {
        Self {
            status,
            headers: vec![(b":status".to_vec(), status.to_string().into_bytes())],
            flags: 0,
            word: None,
        }
    }

    fn by_envoy(status: u16, flags: u64) -> Self {
        Self {
            flags,
            ..Self::of(status)
        }
    }
}

impl Hop {
    /// Nothing of it is open any more.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over && self.reached.iter().all(|reached| !reached.is_open)
    }
}

/// A request that a job makes.
pub(crate) struct Call {
    pub(crate) job: usize,
    pub(crate) to: Target,
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) headers: Pairs,
    pub(crate) event: EventId,
}

impl World {
    /// A job's call leaves its pod.
    pub(crate) fn call(&mut self, call: Call) {
        let proxy = self.jobs[call.job].proxy;
        let service = self.proxies[proxy].service;
        let hop = self.hops.len();
        self.hops.push(Hop {
            from: From::Job(call.job),
            event: call.event,
            to: call.to,
            method: call.method,
            path: call.path,
            headers: call.headers,
            mtls: true,
            out: Some(proxy),
            out_stream: None,
            caller_service: Some(service),
            gate: None,
            sent_ms: self.now_ms,
            tries: 0,
            reached: Vec::new(),
            answers: Vec::new(),
            is_over: false,
        });
        if self.proxies[proxy].is_up {
            self.leave(hop);
        } else {
            // No way out of the pod.
            self.conclude(
                hop,
                &Response::by_envoy(503, flags::UPSTREAM_CONNECTION_FAILURE),
            );
        }
    }

    /// A client's request comes to the mesh; gives its hop.
    pub(crate) fn enter(
        &mut self,
        client: usize,
        event: EventId,
        method: &'static str,
        path: String,
        headers: Pairs,
        mtls: bool,
    ) -> usize {
        let hop = self.hops.len();
        let entry = self.shape.entry;
        let is_gateway = self.shape.services[entry].is_gateway;
        self.hops.push(Hop {
            from: From::Client(client),
            event,
            to: Target::Service(if is_gateway { 0 } else { entry }),
            method,
            path,
            headers,
            mtls,
            out: None,
            out_stream: None,
            caller_service: is_gateway.then_some(entry),
            gate: None,
            sent_ms: self.now_ms,
            tries: 0,
            reached: Vec::new(),
            answers: Vec::new(),
            is_over: false,
        });
        if is_gateway {
            match self.pod_of(entry) {
                Some(gate) if self.proxies[gate].is_up => {
                    self.hops[hop].out = Some(gate);
                    self.leave(hop);
                }
                _ => self.conclude(hop, &Response::of(503)),
            }
        } else {
            self.travel(hop);
        }
        hop
    }

    fn pod_of(&mut self, service: usize) -> Option<usize> {
        let pods: Vec<usize> = (0..self.proxies.len())
            .filter(|p| self.proxies[*p].service == service)
            .collect();
        (!pods.is_empty()).then(|| *self.chance.of(&pods))
    }

    /// Through the outbound filter of the caller's proxy, or the gateway's.
    fn leave(&mut self, hop: usize) {
        let Some(proxy) = self.hops[hop].out else {
            return;
        };
        let worker = self.pick(proxy);
        let headers = self.hops[hop].headers.clone();
        let mtls = self.hops[hop].mtls;
        let is_gateway = self.shape.services[self.proxies[proxy].service].is_gateway;
        match self.show(proxy, worker, Way::Out, &headers, mtls, true) {
            Passed::Unseen => {
                self.tally.count("request unseen by a dead VM");
                if is_gateway {
                    self.note_gateway(hop, proxy, None);
                }
            }
            Passed::Answered(stream, said) => {
                let (method, path) = (self.hops[hop].method, self.hops[hop].path.clone());
                self.judge_refusal(method, &path, stream, &said);
                if is_gateway {
                    let truth = self.note_gateway(hop, proxy, Some(stream));
                    self.truth.tries[truth].kind = What::Refused;
                }
                let response = refused(&said);
                self.conclude(hop, &response);
                return;
            }
            Passed::On(stream, headers) => {
                let (method, path) = (self.hops[hop].method, self.hops[hop].path.clone());
                self.judge_passed(event_in(&headers).as_ref(), method, &path, stream);
                if let Some(event) = event_in(&headers) {
                    self.hops[hop].event = event;
                }
                self.hops[hop].headers = headers;
                self.hops[hop].out_stream = Some(stream);
                if is_gateway {
                    self.note_gateway(hop, proxy, Some(stream).filter(|s| s.observed));
                }
            }
        }
        let timeout_ms = self.shape.call_timeout_ms;
        self.after(timeout_ms, Moment::TimeOut { hop });
        self.travel(hop);
    }

    /// Over the network to the target; or not.
    fn travel(&mut self, hop: usize) {
        self.hops[hop].tries += 1;
        let tries = self.hops[hop].tries;
        let transit_ms = self.chance.within(1..=4);
        let rough = self.shape.rough * u64::from(self.age_ms() < super::HEALED_MS);
        if self.chance.permille(rough) {
            self.tally.count("fault: request lost");
            let wait_ms = self.chance.within(1..=5);
            self.after(wait_ms, Moment::Answered { hop, tries });
            self.hops[hop].note_answer(
                tries,
                Response::by_envoy(503, flags::UPSTREAM_CONNECTION_FAILURE),
            );
            return;
        }
        if self.chance.permille(rough) {
            self.tally.count("fault: connection reset");
            let wait_ms = transit_ms + self.chance.within(0..=40);
            self.after(wait_ms, Moment::Break { hop, tries });
        }
        let slow_ms = if self.chance.permille(rough) {
            self.tally.count("fault: request delayed");
            self.chance.within(100..=2_000)
        } else {
            0
        };
        self.after(transit_ms + slow_ms, Moment::Arrive { hop, tries });
    }

    /// At the target's proxy.
    pub(super) fn arrive(&mut self, hop: usize, tries: u32) {
        if self.hops[hop].is_over || self.hops[hop].tries != tries {
            return;
        }
        let Target::Service(service) = self.hops[hop].to else {
            return self.arrive_outside(hop, tries);
        };
        let Some(proxy) = self.pod_of(service).filter(|p| self.proxies[*p].is_up) else {
            let response = Response::by_envoy(503, flags::UPSTREAM_CONNECTION_FAILURE);
            return self.send_back(hop, tries, response);
        };
        let worker = self.pick(proxy);
        let mut headers = self.hops[hop].headers.clone();
        if tries > 1 {
            headers.push((
                b"x-envoy-attempt-count".to_vec(),
                tries.to_string().into_bytes(),
            ));
        }
        let mtls = self.hops[hop].mtls || self.hops[hop].out.is_some();
        let passed = self.show(proxy, worker, Way::In, &headers, mtls, true);
        let truth = self.note_try(hop, proxy);
        let open = Reached {
            tries,
            truth,
            stream: None,
            is_open: true,
        };
        match passed {
            Passed::Unseen => {
                self.tally.count("request unseen by a dead VM");
                self.truth.tries[truth].unseen_ms = Some(self.now_ms);
                self.hops[hop].reached.push(open);
                self.start_job(hop, tries, proxy, headers);
            }
            Passed::Answered(stream, said) => {
                self.truth.tries[truth].reporter = Some(stream.reporter);
                self.truth.tries[truth].kind = What::Refused;
                self.truth.tries[truth].ended = Some((self.now_ms, Ending::default()));
                let (method, path) = (self.hops[hop].method, self.hops[hop].path.clone());
                self.judge_refusal(method, &path, stream, &said);
                self.hops[hop].reached.push(Reached {
                    is_open: false,
                    ..open
                });
                self.send_back(hop, tries, refused(&said));
            }
            Passed::On(stream, headers) => {
                let (method, path) = (self.hops[hop].method, self.hops[hop].path.clone());
                self.judge_passed(event_in(&headers).as_ref(), method, &path, stream);
                if let Some(event) = event_in(&headers) {
                    self.truth.tries[truth].event = event.clone();
                    self.hops[hop].event = event;
                }
                let one = &mut self.truth.tries[truth];
                one.reporter = stream.observed.then_some(stream.reporter);
                one.unseen_ms = (!stream.observed).then_some(self.now_ms);
                self.hops[hop].reached.push(Reached {
                    stream: Some(stream),
                    ..open
                });
                self.start_job(hop, tries, proxy, headers);
            }
        }
    }

    fn note_try(&mut self, hop: usize, proxy: usize) -> usize {
        let began_here_ms = self.clock_of(proxy);
        let one = &self.hops[hop];
        let kind = if one.path.starts_with("/compensate/") {
            What::Cleanup
        } else {
            What::Attempt
        };
        let is_entry = one.caller_service.is_none();
        let order = match one.from {
            From::Client(client) if is_entry => Some(client),
            _ => None,
        };
        self.truth.tries.push(Try {
            event: one.event.clone(),
            service: Some(self.proxies[proxy].service),
            from: one.caller_service,
            order,
            kind,
            method: one.method,
            path: one.path.clone(),
            proxy: Some(proxy),
            reporter: None,
            caller: one.out.zip(one.out_stream.map(|s| s.reporter)),
            sent_ms: one.sent_ms,
            began_ms: self.now_ms,
            began_here_ms,
            ended: None,
            answered: None,
            end_seq: None,
            call_seq: None,
            unseen_ms: None,
        });
        let what = format!(
            "{} {} at {}",
            one.method, one.path, self.proxies[proxy].name
        );
        let event = one.event.clone();
        self.tell(|| format!("{event}: {what}"));
        self.truth.tries.len() - 1
    }

    /// A gateway's request is the gateway's own step.
    fn note_gateway(&mut self, hop: usize, proxy: usize, stream: Option<Stream>) -> usize {
        let began_here_ms = self.clock_of(proxy);
        let one = &self.hops[hop];
        let order = match one.from {
            From::Client(client) => Some(client),
            From::Job(_) => None,
        };
        self.truth.tries.push(Try {
            event: one.event.clone(),
            service: Some(self.proxies[proxy].service),
            from: None,
            order,
            kind: What::Attempt,
            method: one.method,
            path: one.path.clone(),
            proxy: Some(proxy),
            reporter: stream.map(|s| s.reporter),
            caller: None,
            sent_ms: self.now_ms,
            began_ms: self.now_ms,
            began_here_ms,
            ended: None,
            answered: None,
            end_seq: None,
            call_seq: None,
            unseen_ms: stream.is_none().then_some(self.now_ms),
        });
        self.hops[hop].gate = Some(self.truth.tries.len() - 1);
        self.truth.tries.len() - 1
    }

    /// A host outside the mesh: it answers, or it does not.
    fn arrive_outside(&mut self, hop: usize, tries: u32) {
        let one = &self.hops[hop];
        self.truth.tries.push(Try {
            event: one.event.clone(),
            service: None,
            from: one.caller_service,
            order: None,
            kind: What::Attempt,
            method: one.method,
            path: one.path.clone(),
            proxy: None,
            reporter: None,
            caller: one.out.zip(one.out_stream.map(|s| s.reporter)),
            sent_ms: one.sent_ms,
            began_ms: self.now_ms,
            began_here_ms: 0,
            ended: None,
            answered: None,
            end_seq: None,
            call_seq: None,
            unseen_ms: None,
        });
        let truth = self.truth.tries.len() - 1;
        let status = *self.chance.of(&[200, 200, 200, 200, 402, 500, 0]);
        let wait_ms = self.chance.within(1..=60);
        if status != 0 {
            self.truth.tries[truth].ended = Some((
                self.now_ms + wait_ms,
                Ending {
                    status: Some(status),
                    ..Ending::default()
                },
            ));
            self.hops[hop].note_answer(tries, Response::of(status));
            self.after(wait_ms, Moment::Answered { hop, tries });
        }
        self.hops[hop].reached.push(Reached {
            tries,
            truth,
            stream: None,
            is_open: false,
        });
    }
}

impl Hop {
    fn note_answer(&mut self, tries: u32, response: Response) {
        self.answers.retain(|(known, _)| *known != tries);
        self.answers.push((tries, response));
    }

    fn take_answer(&mut self, tries: u32) -> Option<Response> {
        let at = self.answers.iter().position(|(known, _)| *known == tries)?;
        Some(self.answers.remove(at).1)
    }
}

fn refused(said: &Said) -> Response {
    let mut response = Response::of(said.status);
    for (name, value) in &said.headers {
        response
            .headers
            .push((name.clone().into_bytes(), value.clone().into_bytes()));
    }
    response
}

/// The event that a request's headers name.
fn event_in(headers: &Pairs) -> Option<EventId> {
    let value = headers.iter().find(|(name, _)| name == b"x-event-id")?;
    EventId::from_bytes(&value.1).ok()
}
