//! What services do with a request: work, write, call others, answer; crash, hang, say words, compensate. Each request is a
//! job, a short list of acts drawn when it begins.

mod asides;

use std::collections::VecDeque;

use kaeru_filter::host::simulated::Pairs;
use kaeru_protocol::{EventId, Word};

use super::hops::{Call, Response};
use super::{Moment, World};
use crate::shape::{EXTERNAL, Habit, Hands, Target};

/// Where Kaeru is reached from inside the mesh.
pub(crate) const KAERU: &str = "kaeru-aggregator.kaeru-system.svc.cluster.local";

/// One thing that a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Wait(u64),
    Write,
    /// The calls of its edges, from the first to the second number.
    Calls(usize, usize),
    /// A clean-up call to a service.
    Compensate(usize),
    /// What it wrote itself is undone.
    Unwrite,
    Answer(u16, Option<Word>),
    Say(Word),
    Ask,
    HandOver,
    Crash,
}

/// A job under way.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) proxy: usize,
    /// The request that it answers: its hop, and which try of it.
    hop: Option<(usize, u32)>,
    pub(crate) event: EventId,
    ids: Pairs,
    acts: VecDeque<Act>,
    waits_for: usize,
    /// Calls that are to be made again: the edge, and how often they were.
    tried: Vec<(usize, u32)>,
    has_failed: bool,
    was_rejected: bool,
    called: Vec<usize>,
    is_over: bool,
    /// Of a consumer: the message, delivered so often.
    message: Option<Message>,
    /// Which edge each of its calls is of.
    calls: Vec<(usize, Option<usize>)>,
}

/// A message on a queue.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    consumer: usize,
    event: EventId,
    ids: Pairs,
    deliveries: u32,
}

impl Job {
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }
}

impl World {
    /// A request reached its service.
    pub(super) fn start_job(&mut self, hop: usize, tries: u32, proxy: usize, headers: Pairs) {
        let service = self.proxies[proxy].service;
        let (method, path) = (self.hops[hop].method, self.hops[hop].path.clone());
        let is_again = path == "/a";
        let mut acts = if path.starts_with("/compensate/") {
            VecDeque::from([Act::Wait(2), Act::Unwrite, Act::Answer(200, None)])
        } else if method == "GET" {
            VecDeque::from([Act::Wait(2), Act::Answer(200, None)])
        } else {
            self.script(service)
        };
        if is_again {
            // The loop closes: no further calls.
            acts.retain(|act| !matches!(act, Act::Calls(..) | Act::HandOver));
        }
        let job = Job {
            proxy,
            hop: Some((hop, tries)),
            event: self.hops[hop].event.clone(),
            ids: headers
                .into_iter()
                .filter(|(name, _)| is_id(name))
                .collect(),
            acts,
            waits_for: 0,
            tried: Vec::new(),
            has_failed: false,
            was_rejected: false,
            called: Vec::new(),
            is_over: false,
            message: None,
            calls: Vec::new(),
        };
        self.begin_job(job);
    }

    fn begin_job(&mut self, job: Job) {
        self.jobs.push(job);
        let job = self.jobs.len() - 1;
        self.after(0, Moment::Work { job });
    }

    /// What a service does with a request.
    fn script(&mut self, service: usize) -> VecDeque<Act> {
        let one = &self.shape.services[service];
        let (temper, edges, writes_first) = (one.temper, one.edges.len(), one.writes_first);
        let (together, hands_over) = (one.together, one.hands_to.is_some());
        let mut acts = VecDeque::from([Act::Wait(self.chance.within(1..=20))]);
        let mut roll = self.chance.within(0..=99);
        let mut is = |share: u64| {
            let hit = roll < share;
            roll = if hit {
                1_000
            } else {
                roll.saturating_sub(share)
            };
            hit
        };
        let (rejects, crashes) = (is(temper.rejects), is(temper.crashes));
        let (fails, fatal, says_failed) =
            (is(temper.fails), is(temper.fatal), is(temper.says_failed));
        let (hangs, slow, long) = (is(temper.hangs), is(temper.slow), is(temper.long));
        if rejects {
            self.tally.count("service rejects");
            let status = *self.chance.of(&[404, 409, 422]);
            acts.push_back(Act::Answer(status, None));
            return acts;
        }
        if writes_first {
            acts.push_back(Act::Write);
        }
        if crashes && self.age_ms() < super::ACTIVE_MS {
            self.tally.count("service crashes");
            acts.push_back(Act::Crash);
            return acts;
        }
        if together {
            acts.push_back(Act::Calls(0, edges));
        } else {
            acts.extend((0..edges).map(|edge| Act::Calls(edge, edge + 1)));
        }
        if hands_over {
            acts.push_back(Act::HandOver);
        }
        acts.push_back(Act::Wait(self.chance.within(1..=20)));
        if slow {
            self.tally.count("service is slow");
            acts.push_back(Act::Wait(self.chance.within(1_500..=6_000)));
        }
        let wrote_nothing = !writes_first && fails && self.chance.percent(50);
        if !writes_first && !wrote_nothing {
            acts.push_back(Act::Write);
        }
        if fails {
            self.tally.count("service fails");
            let status = *self.chance.of(&[500, 503]);
            acts.push_back(Act::Answer(status, None));
        } else if fatal {
            self.tally.count("service answers 402");
            acts.push_back(Act::Answer(402, None));
        } else if says_failed {
            self.tally.count("service says failed in its answer");
            let status = *self.chance.of(&[200, 500]);
            acts.push_back(Act::Answer(status, Some(Word::Failed)));
        } else if hangs {
            self.tally.count("service hangs");
            acts.push_back(Act::Wait(12_000));
            acts.push_back(Act::Answer(200, None));
        } else if long {
            self.tally.count("service says running");
            acts.push_back(Act::Answer(202, Some(Word::Running)));
            for _ in 0..self.chance.below(3) {
                acts.push_back(Act::Wait(self.chance.within(300..=2_500)));
                acts.push_back(Act::Ask);
                acts.push_back(Act::Say(Word::Running));
            }
            acts.push_back(Act::Wait(self.chance.within(300..=3_000)));
            acts.push_back(Act::Write);
            match self.chance.below(5) {
                0 => acts.push_back(Act::Say(Word::Failed)),
                1 => self.tally.count("service falls silent"),
                _ => acts.push_back(Act::Say(Word::Succeeded)),
            }
        } else {
            acts.push_back(Act::Answer(200, None));
        }
        acts
    }

    /// The next act of a job.
    pub(super) fn work(&mut self, job: usize) {
        loop {
            if self.jobs[job].is_over || self.jobs[job].waits_for > 0 {
                return;
            }
            let Some(act) = self.jobs[job].acts.pop_front() else {
                self.jobs[job].is_over = true;
                return;
            };
            match act {
                Act::Wait(ms) => return self.after(ms, Moment::Work { job }),
                Act::Write => self.write(job),
                Act::Unwrite => self.unwrite(job),
                Act::Calls(from, to) => {
                    for edge in from..to {
                        self.call_edge(job, edge);
                    }
                }
                Act::Compensate(service) => self.compensate(job, service),
                Act::Answer(status, word) => self.answer_job(job, status, word),
                Act::Say(word) => self.say(job, word),
                Act::Ask => self.ask(job),
                Act::HandOver => self.hand_over(job),
                Act::Crash => {
                    let proxy = self.jobs[job].proxy;
                    return self.crash_application(proxy);
                }
            }
        }
    }

    fn write(&mut self, job: usize) {
        let (event, service) = (
            self.jobs[job].event.clone(),
            self.proxies[self.jobs[job].proxy].service,
        );
        *self.truth.written.entry((event, service)).or_default() += 1;
    }

    fn unwrite(&mut self, job: usize) {
        let (event, service) = (
            self.jobs[job].event.clone(),
            self.proxies[self.jobs[job].proxy].service,
        );
        let now_ms = self.now_ms;
        self.truth.written.insert((event.clone(), service), 0);
        self.truth.cleanups.push((event, service, now_ms));
    }

    fn answer_job(&mut self, job: usize, status: u16, word: Option<Word>) {
        let Some((hop, tries)) = self.jobs[job].hop else {
            return;
        };
        let mut response = Response::of(status);
        if let Some(word) = word {
            response
                .headers
                .push((b"x-event-status".to_vec(), word_text(word).into()));
            response.word = Some(word);
        }
        self.answer(hop, tries, response);
    }

    fn call_edge(&mut self, job: usize, edge: usize) {
        let service = self.proxies[self.jobs[job].proxy].service;
        let shape = self.shape.services[service].edges[edge].clone();
        let host = match shape.to {
            Target::Service(to) => self.shape.services[to].host,
            Target::External => EXTERNAL,
        };
        self.jobs[job].waits_for += 1;
        let call = self.make_call(job, shape.to, shape.method, shape.path.to_owned(), host);
        let hop = self.hops.len();
        self.jobs[job].calls.push((hop, Some(edge)));
        self.call(call);
    }

    fn compensate(&mut self, job: usize, service: usize) {
        self.jobs[job].waits_for += 1;
        self.tally.count("application compensates");
        let host = self.shape.services[service].host;
        let path = format!("/compensate{}", path_of(service));
        let call = self.make_call(job, Target::Service(service), "POST", path, host);
        let hop = self.hops.len();
        self.jobs[job].calls.push((hop, None));
        self.call(call);
    }

    fn make_call(
        &mut self,
        job: usize,
        to: Target,
        method: &'static str,
        path: String,
        host: &str,
    ) -> Call {
        let mut headers = vec![
            (b":method".to_vec(), method.as_bytes().to_vec()),
            (b":path".to_vec(), path.clone().into_bytes()),
            (b":authority".to_vec(), host.as_bytes().to_vec()),
        ];
        headers.extend(self.handed_on(job));
        Call {
            job,
            to,
            method,
            path,
            headers,
            event: self.jobs[job].event.clone(),
        }
    }

    /// The ids that the service hands on.
    fn handed_on(&self, job: usize) -> Pairs {
        let one = &self.jobs[job];
        let hands = self.shape.services[self.proxies[one.proxy].service].hands;
        let of = |names: &[&str]| -> Pairs {
            let is_named = |name: &[u8]| names.iter().any(|n| n.as_bytes() == name);
            one.ids
                .iter()
                .filter(|(name, _)| is_named(name))
                .cloned()
                .collect()
        };
        let borrowed = of(&["traceparent", "x-request-id"]);
        let baggage = of(&["baggage"]);
        match hands {
            Hands::Borrowed if !borrowed.is_empty() && one.message.is_none() => borrowed,
            Hands::Baggage if !baggage.is_empty() => baggage,
            _ => of(&["x-event-id", "baggage", "traceparent", "x-request-id"]),
        }
    }

    /// One of a job's calls is over.
    pub(super) fn call_ended(&mut self, job: usize, hop: usize, response: &Response) {
        if self.jobs[job].is_over {
            return;
        }
        let Some(at) = self.jobs[job].calls.iter().position(|(h, _)| *h == hop) else {
            return;
        };
        let (_, edge) = self.jobs[job].calls.remove(at);
        self.jobs[job].waits_for = self.jobs[job].waits_for.saturating_sub(1);
        let is_ok = (100..400).contains(&response.status);
        if let Some(edge) = edge {
            let service = self.proxies[self.jobs[job].proxy].service;
            let to = self.shape.services[service].edges[edge].to;
            if is_ok {
                if let Target::Service(to) = to {
                    self.jobs[job].called.push(to);
                }
            } else {
                self.call_failed(job, edge, response.status);
            }
        }
        if self.jobs[job].waits_for == 0 {
            self.settle_calls(job);
        }
    }

    fn call_failed(&mut self, job: usize, edge: usize, status: u16) {
        let service = self.proxies[self.jobs[job].proxy].service;
        let retries = self.shape.services[service].retries;
        let one = &mut self.jobs[job];
        let made = if let Some((_, made)) = one.tried.iter_mut().find(|(e, _)| *e == edge) {
            made
        } else {
            one.tried.push((edge, 0));
            let last = one.tried.len() - 1;
            &mut one.tried[last].1
        };
        // Refused work is not tried again, nor what was rejected.
        if (status >= 500 || status == 408) && *made < retries {
            *made += 1;
            one.acts.push_front(Act::Calls(edge, edge + 1));
            one.acts.push_front(Act::Wait(50));
            return;
        }
        one.has_failed = true;
        one.was_rejected = (400..500).contains(&status);
    }

    /// All calls of a job have ended: what it makes of those that failed.
    fn settle_calls(&mut self, job: usize) {
        let one = &self.jobs[job];
        let makes_again = matches!(one.acts.get(1), Some(Act::Calls(..)));
        if one.has_failed && !makes_again {
            let service = self.proxies[one.proxy].service;
            let habit = self.shape.services[service].habit;
            let was_rejected = one.was_rejected;
            let called = one.called.clone();
            let one = &mut self.jobs[job];
            one.has_failed = false;
            if one.message.is_some() {
                one.acts.clear();
                self.deliver_again(job);
            } else {
                match habit {
                    Habit::DoWithout => {}
                    Habit::PassOn => {
                        one.acts = VecDeque::from([Act::Answer(
                            if was_rejected { 409 } else { 502 },
                            None,
                        )]);
                    }
                    Habit::Reject => one.acts = VecDeque::from([Act::Answer(409, None)]),
                    Habit::SayFailed => {
                        one.acts = VecDeque::from([Act::Answer(500, Some(Word::Failed))]);
                    }
                    Habit::Compensate => {
                        one.acts = called.iter().rev().map(|s| Act::Compensate(*s)).collect();
                        one.acts.push_back(Act::Unwrite);
                        let status = if was_rejected { 409 } else { 500 };
                        one.acts.push_back(Act::Answer(status, None));
                    }
                }
            }
        }
        self.after(0, Moment::Work { job });
    }
}

fn is_id(name: &[u8]) -> bool {
    [
        &b"x-event-id"[..],
        b"baggage",
        b"traceparent",
        b"x-request-id",
    ]
    .contains(&name)
}

pub(crate) fn path_of(service: usize) -> &'static str {
    ["/a", "/b", "/c", "/d", "/e", "/f", "/gate"][service]
}

fn word_text(word: Word) -> &'static str {
    match word {
        Word::Running => "running",
        Word::Succeeded => "succeeded",
        Word::Rejected => "rejected",
        Word::Failed => "failed",
    }
}
