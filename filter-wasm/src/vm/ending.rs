//! How a request ends: what its response says, and what the proxy's log knows in the end. Outcomes are judged at the end
//! only: an answer that is cut short has good headers.

use kaeru_protocol::headers as names;
use kaeru_protocol::{Body, Ending, Kind, Outcome, Peer, ServiceName, Side, Word};

use super::setup::{Setup, property_number};
use super::stream::Stream;
use super::{LEARNED_HOSTS_MAX, Vm};
use crate::host::{HeaderMap, Headers, Host};
use crate::metrics::Counter;
use crate::orca::Load;
use crate::{kin, said};

impl<H: Host> Vm<H> {
    /// A response's headers are here.
    pub fn response_headers(&mut self, id: u32) {
        let Some(mut stream) = self.streams.remove(&id) else {
            return;
        };
        let Some(setup) = self.setup.clone() else {
            return;
        };
        let headers = self.host.headers(HeaderMap::Response);
        let status = headers.get(":status").and_then(said::number);
        stream.report.ending.status = status.and_then(|status| u16::try_from(status).ok());
        match stream.report.side {
            Side::Inbound => self.hear_service(&setup, &mut stream, &headers),
            Side::Outbound => self.hear_callee(&mut stream, &headers),
        }
        if is_event_stream(&headers)
            && stream.report.opened.is_none()
            && !setup.config.matching.names_paths()
        {
            self.close(&stream);
        } else {
            self.streams.insert(id, stream);
        }
    }

    /// What the own service says of the event and of itself.
    fn hear_service(&mut self, setup: &Setup, stream: &mut Stream, headers: &Headers) {
        let mut invalid = 0;
        if let Some(value) = headers.get(names::EVENT_STATUS) {
            stream.report.ending.word = Word::from_bytes(value);
            invalid += u64::from(stream.report.ending.word.is_none());
        }
        if let Some(value) = headers.get(names::EVENT_PROGRESS) {
            stream.report.progress = said::progress(value);
            invalid += u64::from(stream.report.progress.is_none());
        }
        match Load::read(headers.get(names::ORCA), headers.get(names::ORCA_BIN)) {
            Some(Ok(load)) => {
                stream.report.cost = load.cost;
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
    fn hear_callee(&mut self, stream: &mut Stream, headers: &Headers) {
        let Some(value) = headers.get(names::EVENT_REPORTED) else {
            return;
        };
        self.host
            .remove_header(HeaderMap::Response, names::EVENT_REPORTED.as_bytes());
        let Some(service) = ServiceName::from_bytes(value).ok().filter(|_| stream.mesh) else {
            return self.metrics.add(Counter::InvalidHeaders, 1);
        };
        stream.reported = true;
        let peer = Peer::from(service);
        let known = self.learned.get(&stream.host) == Some(&peer);
        if !known
            && (self.learned.len() < LEARNED_HOSTS_MAX || self.learned.contains_key(&stream.host))
        {
            self.learned.insert(stream.host.clone(), peer);
        }
    }

    /// A request is over.
    pub fn log(&mut self, id: u32) {
        let Some(mut stream) = self.streams.remove(&id) else {
            return;
        };
        self.close(&stream);
        kin::part(&self.host, &stream.ids, stream.mark);
        let gateway = self.setup.as_ref().is_some_and(|s| s.reporter.gateway);
        if stream.report.side == Side::Outbound && !gateway && stream.reported {
            return;
        }
        let now_ms = self.now_ms();
        stream.report.ending = self.ending(&stream);
        let lasted_ms = now_ms.saturating_sub(stream.started_ms);
        stream.report.duration_ms = u32::try_from(lasted_ms).unwrap_or(u32::MAX);
        self.tell(stream, now_ms);
    }

    fn tell(&mut self, mut stream: Stream, now_ms: u64) {
        let report = &mut stream.report;
        let outcome = report.ending.outcome();
        let urgent = match report.kind {
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
        if report.side == Side::Outbound {
            let learned = self.learned.get(&stream.host);
            let is_news =
                |service: &&Peer| report.call.to.as_ref().is_some_and(|to| to != *service);
            if let Some(service) = learned.filter(is_news) {
                report.call_mut().to = Some(service.clone());
                self.calls.share(report);
            }
            if report.kind != Kind::Attempt {
                let made = property_number(&self.host, &["upstream", "request_attempt_count"]);
                report.attempt = made.and_then(|n| u32::try_from(n).ok()).unwrap_or(1).max(1);
            }
        }
        self.push(now_ms, Body::Event(stream.report));
        if urgent {
            self.hurry(now_ms);
        }
    }

    /// The facts in the end. Without flags the response's status stands; with them the proxy is asked again, for it may
    /// have been answered and then broken off.
    fn ending(&self, stream: &Stream) -> Ending {
        let number = |path: &[&str]| property_number(&self.host, path);
        let bits = number(&["response", "flags"]).unwrap_or(0).cast_unsigned();
        let status = match stream.report.ending.status {
            Some(status) if bits == 0 => Some(status),
            _ => number(&["response", "code"]).and_then(|code| u16::try_from(code).ok()),
        };
        let grpc = stream.grpc.then(|| number(&["response", "grpc_status"]));
        Ending {
            // Envoy says 0 where no response was begun.
            status: status.filter(|&status| status > 0),
            grpc: grpc.flatten().and_then(|code| u8::try_from(code).ok()),
            flags: bits,
            word: stream.report.ending.word,
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

fn is_event_stream(headers: &Headers) -> bool {
    headers
        .get("content-type")
        .is_some_and(|value| value.starts_with(b"text/event-stream"))
}
