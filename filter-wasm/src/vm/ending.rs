//! How a request ends: what its response says, and what the proxy's log knows in the end. Outcomes are judged at the end
//! only: an answer that is cut short has good headers.

use std::rc::Rc;

use kaeru_protocol::headers as names;
use kaeru_protocol::{Ending, Kind, Outcome, Peer, ServiceName, Side, Word};

use super::Vm;
use super::setup::{Setup, property_number};
use super::stream::Stream;
use crate::host::{HeaderMap, Headers, Host};
use crate::metrics::Counter;
use crate::orca::Load;
use crate::report::Body;
use crate::{kin, said};

/// What the headers of a response say, read in one pass; of a repeated header the first counts.
#[derive(Debug, Default)]
struct Response<'a> {
    code: Option<&'a [u8]>,
    content_type: Option<&'a [u8]>,
    status: Option<&'a [u8]>,
    progress: Option<&'a [u8]>,
    reported: Option<&'a [u8]>,
    orca: Option<&'a [u8]>,
    orca_bin: Option<&'a [u8]>,
}

impl<'a> Response<'a> {
    fn read(headers: &'a Headers) -> Self {
        let mut response = Self::default();
        for (name, value) in headers.iter() {
            let is = |known: &str| name == known.as_bytes();
            let slot = match name.len() {
                7 if is(":status") => &mut response.code,
                12 if is("content-type") => &mut response.content_type,
                14 if is(names::EVENT_STATUS) => &mut response.status,
                16 if is(names::EVENT_PROGRESS) => &mut response.progress,
                16 if is(names::EVENT_REPORTED) => &mut response.reported,
                21 if is(names::ORCA) => &mut response.orca,
                25 if is(names::ORCA_BIN) => &mut response.orca_bin,
                _ => continue,
            };
            slot.get_or_insert(value);
        }
        response
    }

    fn is_event_stream(&self) -> bool {
        self.content_type
            .is_some_and(|value| value.starts_with(b"text/event-stream"))
    }
}

impl<H: Host> Vm<H> {
    /// A response's headers are here.
    pub fn response_headers(&mut self, id: u32) {
        let Some(setup) = self.setup.clone() else {
            self.streams.remove(id);
            return;
        };
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        let headers = self.host.headers(HeaderMap::Response);
        let response = Response::read(&headers);
        let code = response.code.and_then(said::number);
        stream.status = code.and_then(|code| u16::try_from(code).ok());
        let unseen = stream.opened.is_none();
        match stream.facts.side {
            Side::Inbound => self.hear_service(&setup, id, &response),
            Side::Outbound => self.hear_callee(id, &response),
        }
        if unseen
            && response.is_event_stream()
            && !setup.config.matching.names_paths()
            && let Some(stream) = self.streams.remove(id)
        {
            self.close(&stream);
        }
    }

    /// What the own service says of the event and of itself.
    fn hear_service(&mut self, setup: &Setup, id: u32, response: &Response<'_>) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        let mut invalid = 0;
        if let Some(value) = response.status {
            stream.word = Word::from_bytes(value);
            invalid += u64::from(stream.word.is_none());
        }
        if let Some(value) = response.progress {
            let progress = said::progress(value);
            stream.more_mut().progress = progress;
            invalid += u64::from(progress.is_none());
        }
        match Load::read(response.orca, response.orca_bin) {
            Some(Ok(load)) => {
                if load.cost.is_some() {
                    stream.more_mut().cost = load.cost;
                }
                if !load.values.is_empty() {
                    self.load = Some(load);
                }
            }
            Some(Err(_)) => invalid += 1,
            None => {}
        }
        self.metrics.add(Counter::InvalidHeaders, invalid);
        if stream.answers_caller {
            self.host.set_header(
                HeaderMap::Response,
                names::EVENT_REPORTED,
                setup.service().as_bytes(),
            );
        }
    }

    /// Whether the callee reported for itself, and who it is. An external host is not asked.
    fn hear_callee(&mut self, id: u32, response: &Response<'_>) {
        let (Some(value), Some(stream)) = (response.reported, self.streams.get_mut(id)) else {
            return;
        };
        self.host
            .remove_header(HeaderMap::Response, names::EVENT_REPORTED.as_bytes());
        if !stream.mesh || !ServiceName::is_valid(value) {
            return self.metrics.add(Counter::InvalidHeaders, 1);
        }
        stream.reported = true;
        self.learned.learn(&stream.facts.call.host, value);
    }

    /// A request is over.
    pub fn log(&mut self, id: u32) {
        let Some(stream) = self.streams.remove(id) else {
            return;
        };
        self.close(&stream);
        kin::part(&self.host, &stream.ids, self.mark(id));
        let gateway = self.setup.as_ref().is_some_and(|s| s.reporter.gateway);
        if stream.facts.side == Side::Outbound && !gateway && stream.reported {
            return;
        }
        let now_ms = self.now_ms();
        let ending = self.ending(&stream);
        self.tell(*stream, ending, now_ms);
    }

    fn tell(&mut self, mut stream: Stream, ending: Ending, now_ms: u64) {
        let outcome = ending.outcome();
        let urgent = match stream.kind {
            Kind::Attempt => {
                self.count(outcome);
                matches!(outcome, Outcome::Failed | Outcome::Unknown)
            }
            Kind::Call => {
                self.metrics.add(Counter::Calls, 1);
                outcome != Outcome::Succeeded
            }
            _ => outcome == Outcome::Failed,
        };
        if stream.facts.side == Side::Outbound {
            self.see_call(&mut stream);
        }
        self.push(
            now_ms,
            Body::Event(stream.event(stream.kind, ending, now_ms)),
        );
        if urgent {
            self.hurry(now_ms);
        }
    }

    /// What is known of an outbound request only when it is over: who it went to, and how often.
    fn see_call(&mut self, stream: &mut Stream) {
        let call = &stream.facts.call;
        let is_news = |service: &&Peer| call.to.as_ref().is_some_and(|to| to != *service);
        let news = self.learned.get(&call.host).filter(is_news).cloned();
        let facts = Rc::make_mut(&mut stream.facts);
        if let Some(service) = news {
            facts.call = self.calls.to(&facts.call, service);
        }
        if stream.kind != Kind::Attempt {
            let made = property_number(&self.host, "upstream\0request_attempt_count");
            facts.attempt = made.and_then(|n| u32::try_from(n).ok()).unwrap_or(1).max(1);
        }
    }

    /// The facts in the end. Without flags the response's status stands; with them the proxy is asked again, for it may
    /// have been answered and then broken off.
    fn ending(&self, stream: &Stream) -> Ending {
        let number = |path: &str| property_number(&self.host, path);
        let bits = number("response\0flags").unwrap_or(0).cast_unsigned();
        let status = match stream.status {
            Some(status) if bits == 0 => Some(status),
            _ => number("response\0code").and_then(|code| u16::try_from(code).ok()),
        };
        let grpc = stream.grpc.then(|| number("response\0grpc_status"));
        Ending {
            // Envoy says 0 where no response was begun.
            status: status.filter(|&status| status > 0),
            grpc: grpc.flatten().and_then(|code| u8::try_from(code).ok()),
            flags: bits,
            word: stream.word,
        }
    }

    fn count(&mut self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Succeeded | Outcome::Running => Counter::Succeeded,
            Outcome::Rejected | Outcome::Refused => Counter::Rejected,
            Outcome::Unknown => Counter::Unknown,
            Outcome::Failed => Counter::Failed,
        };
        self.metrics.add(counter, 1);
    }
}
