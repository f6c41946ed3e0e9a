//! How requests end: answered, broken off, timed out, left; at the target, at the caller, at a gateway.

use kaeru_protocol::{Ending, Word, flags};

use super::{From, Reached, Response};
use crate::world::proxies::{Ended, Stream};
use crate::world::{HEALED_MS, Moment, World};

impl World {
    /// The service answers a try of a request.
    pub(crate) fn answer(&mut self, hop: usize, tries: u32, response: Response) {
        let Some(reached) = self.reached(hop, tries).filter(|r| r.is_open) else {
            return;
        };
        let mut response = response;
        let word = response.word;
        if let Some(stream) = reached.stream {
            response.headers = self.show_response(stream, &response.headers);
        }
        let ended = Ended {
            code: Some(response.status),
            flags: response.flags,
        };
        self.close_try(hop, tries, ended, word);
        self.send_back(hop, tries, response);
    }

    fn reached(&self, hop: usize, tries: u32) -> Option<Reached> {
        let mut all = self.hops[hop].reached.iter();
        all.find(|reached| reached.tries == tries).copied()
    }

    /// The target's proxy is through with a try.
    pub(crate) fn close_try(&mut self, hop: usize, tries: u32, ended: Ended, word: Option<Word>) {
        let Some(reached) = self.reached(hop, tries).filter(|r| r.is_open) else {
            return;
        };
        for one in &mut self.hops[hop].reached {
            if one.truth == reached.truth {
                one.is_open = false;
            }
        }
        let seq = reached
            .stream
            .and_then(|stream| self.close_stream(stream, ended, 1));
        let one = &mut self.truth.tries[reached.truth];
        one.ended = Some((
            self.now_ms,
            Ending {
                status: ended.code,
                grpc: None,
                flags: ended.flags,
                word,
            },
        ));
        one.end_seq = seq;
        if seq.is_none() && one.unseen_ms.is_none() {
            // Its VM had no room to observe it, or is gone.
            one.unseen_ms = Some(self.now_ms);
            one.reporter = one.reporter.filter(|id| self.truth.dead.contains_key(id));
        }
    }

    pub(crate) fn send_back(&mut self, hop: usize, tries: u32, response: Response) {
        let rough = self.shape.rough * u64::from(self.age_ms() < HEALED_MS);
        let mut transit_ms = self.chance.within(1..=4);
        if self.chance.permille(rough) {
            self.tally.count("fault: answer delayed");
            transit_ms += self.chance.within(100..=2_000);
        } else if self.chance.permille(rough / 2) {
            self.tally.count("fault: answer lost");
            return self.after(transit_ms, Moment::Break { hop, tries });
        }
        self.hops[hop].note_answer(tries, response);
        self.after(transit_ms, Moment::Answered { hop, tries });
    }

    /// The connection between caller and target breaks.
    pub(crate) fn break_off(&mut self, hop: usize, tries: u32) {
        if self.hops[hop].is_over || self.hops[hop].tries != tries {
            return;
        }
        self.drop_downstream(hop, tries);
        self.came_back(
            hop,
            tries,
            &Response::by_envoy(503, flags::UPSTREAM_TERMINATION),
        );
    }

    /// The target sees that its caller is gone.
    pub(crate) fn drop_downstream(&mut self, hop: usize, tries: u32) {
        let gone = Ended {
            code: None,
            flags: flags::CLIENT_GONE,
        };
        self.close_try(hop, tries, gone, None);
    }

    /// An answer arrives at the caller.
    pub(crate) fn answered(&mut self, hop: usize, tries: u32) {
        if self.hops[hop].is_over || self.hops[hop].tries != tries {
            return;
        }
        let Some(response) = self.hops[hop].take_answer(tries) else {
            return;
        };
        self.came_back(hop, tries, &response);
    }

    pub(crate) fn came_back(&mut self, hop: usize, tries: u32, response: &Response) {
        let is_lost = response.flags
            & (flags::UPSTREAM_CONNECTION_FAILURE | flags::UPSTREAM_TERMINATION)
            != 0;
        if is_lost && self.hops[hop].out_stream.is_some() && tries <= self.shape.envoy_retries {
            self.tally.count("Envoy tries again");
            return self.travel(hop);
        }
        self.conclude(hop, response);
    }

    /// The caller's proxy waits no longer.
    pub(crate) fn time_out(&mut self, hop: usize) {
        if self.hops[hop].is_over {
            return;
        }
        self.tally.count("call timed out");
        let tries = self.hops[hop].tries;
        self.conclude(hop, &Response::by_envoy(504, flags::UPSTREAM_TIMEOUT));
        self.drop_downstream(hop, tries);
    }

    /// The client goes away.
    pub(crate) fn go_away(&mut self, hop: usize) {
        if self.hops[hop].is_over {
            return;
        }
        self.tally.count("client went away");
        let tries = self.hops[hop].tries;
        self.hops[hop].is_over = true;
        if let Some(stream) = self.hops[hop].out_stream {
            let gone = Ended {
                code: None,
                flags: flags::CLIENT_GONE,
            };
            self.end_out(hop, stream, gone);
        }
        self.drop_downstream(hop, tries);
        let From::Client(client) = self.hops[hop].from else {
            return;
        };
        self.client_left(client);
    }

    /// The caller is through with it.
    pub(crate) fn conclude(&mut self, hop: usize, response: &Response) {
        if self.hops[hop].is_over {
            return;
        }
        self.hops[hop].is_over = true;
        let mut response = response.clone();
        if let Some(stream) = self.hops[hop].out_stream {
            response.headers = self.show_response(stream, &response.headers);
            let ended = Ended {
                code: Some(response.status),
                flags: response.flags,
            };
            self.end_out(hop, stream, ended);
        }
        let now_ms = self.now_ms;
        for reached in self.hops[hop].reached.clone() {
            let ending = Ending {
                status: Some(response.status),
                flags: response.flags,
                ..Ending::default()
            };
            self.truth.tries[reached.truth]
                .answered
                .get_or_insert((now_ms, ending));
        }
        match self.hops[hop].from {
            From::Client(client) => self.client_answered(client, response.status),
            From::Job(job) => self.call_ended(job, hop, &response),
        }
    }

    /// The outbound stream is over; a gateway's is its step.
    pub(crate) fn end_out(&mut self, hop: usize, stream: Stream, ended: Ended) {
        let tries = self.hops[hop].tries;
        let seq = self.close_stream(stream, ended, tries);
        let is_gateway = self.shape.services[self.proxies[stream.proxy].service].is_gateway;
        let now_ms = self.now_ms;
        if is_gateway {
            let mine = self.hops[hop]
                .gate
                .and_then(|at| self.truth.tries.get_mut(at));
            if let Some(one) = mine {
                let ending = Ending {
                    status: ended.code,
                    flags: ended.flags,
                    ..Ending::default()
                };
                one.ended = Some((now_ms, ending));
                one.end_seq = seq;
                if seq.is_none() {
                    one.unseen_ms.get_or_insert(now_ms);
                }
            }
            return;
        }
        for reached in self.hops[hop].reached.clone() {
            self.truth.tries[reached.truth].call_seq = seq;
        }
    }

    /// A proxy is gone: every connection through it breaks.
    pub(crate) fn break_proxy(&mut self, proxy: usize) {
        for hop in 0..self.hops.len() {
            if self.hops[hop].is_over() {
                continue;
            }
            let tries = self.hops[hop].tries;
            let through = self.hops[hop].out == Some(proxy);
            let at = self.hops[hop]
                .reached
                .iter()
                .any(|r| r.is_open && self.truth.tries[r.truth].proxy == Some(proxy));
            if at {
                for reached in &mut self.hops[hop].reached {
                    reached.is_open = false;
                }
            }
            if through && !self.hops[hop].is_over {
                self.conclude(hop, &Response::by_envoy(503, flags::UPSTREAM_TERMINATION));
                self.drop_downstream(hop, tries);
            } else if at && !self.hops[hop].is_over {
                self.came_back(
                    hop,
                    tries,
                    &Response::by_envoy(503, flags::UPSTREAM_TERMINATION),
                );
            }
        }
    }

    /// The application in a pod is gone: its proxy tells the callers.
    pub(crate) fn break_application(&mut self, proxy: usize) {
        for hop in 0..self.hops.len() {
            let here: Vec<u32> = self.hops[hop]
                .reached
                .iter()
                .filter(|r| r.is_open && self.truth.tries[r.truth].proxy == Some(proxy))
                .map(|r| r.tries)
                .collect();
            for tries in here {
                self.answer(
                    hop,
                    tries,
                    Response::by_envoy(503, flags::UPSTREAM_TERMINATION),
                );
            }
        }
    }
}
