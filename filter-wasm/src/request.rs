//! What the filter reads of a request: one pass over its packed headers, nothing copied, nothing judged.

use std::borrow::Cow;

use kaeru_protocol::headers::{self as names, BAGGAGE_MEMBER};
use kaeru_protocol::limits::METHOD_MAX;

use crate::host::Headers;
use crate::w3c;

/// Characters of a method that are told: as many as have room in it, whichever they are.
const METHOD_CHARS: usize = METHOD_MAX / 4;

/// The facts of a request; values are raw bytes.
#[derive(Debug, Default)]
pub struct Request<'a> {
    /// `:method`.
    pub method: &'a [u8],
    /// `:path`, with query.
    pub path: &'a [u8],
    /// `:authority`.
    pub authority: &'a [u8],
    /// `content-type` begins with `application/grpc`.
    pub grpc: bool,
    /// It wants another protocol (an `upgrade` header, or CONNECT).
    pub upgrade: bool,
    /// `user-agent`.
    pub user_agent: &'a [u8],
    /// `x-event-id`.
    pub event_id: Option<&'a [u8]>,
    /// More than one `x-event-id`: the first counts, and is handed on alone.
    pub event_ids: bool,
    /// `x-event-from`.
    pub event_from: Option<&'a [u8]>,
    /// `x-event-type`.
    pub event_type: Option<&'a [u8]>,
    /// `x-event-deadline`.
    pub deadline: Option<&'a [u8]>,
    /// `x-event-undo`.
    pub undo: Option<&'a [u8]>,
    /// `ce-correlationid`.
    pub ce_correlation_id: Option<&'a [u8]>,
    /// `ce-type`.
    pub ce_type: Option<&'a [u8]>,
    /// The first `baggage` header.
    pub baggage: Option<&'a [u8]>,
    /// More than one `baggage`: together they are one.
    pub baggages: bool,
    /// The first member `event.id` of all baggage.
    pub baggage_id: Option<Cow<'a, [u8]>>,
    /// More than one such member.
    pub baggage_ids: bool,
    /// `traceparent`.
    pub traceparent: Option<&'a [u8]>,
    /// More than one `traceparent`: none may be used (W3C Trace Context, 3.2.1 and 4.3).
    pub traceparents: bool,
    /// `b3`.
    pub b3: Option<&'a [u8]>,
    /// `x-b3-traceid`.
    pub b3_trace_id: Option<&'a [u8]>,
    /// `x-request-id`.
    pub request_id: Option<&'a [u8]>,
    /// `x-envoy-attempt-count`.
    pub attempt: Option<&'a [u8]>,
    /// Headers of ours came, or `ce-correlationid`: what [`ours`] names.
    pub has_ours: bool,
}

impl<'a> Request<'a> {
    /// Reads the packed headers; of a repeated header the first counts.
    pub fn read(headers: &'a Headers) -> Self {
        let mut request = Self::default();
        for (name, value) in headers.iter() {
            request.take(name, value);
        }
        request
    }

    fn take(&mut self, name: &'a [u8], value: &'a [u8]) {
        // Most names are other people's: of those of a length that none of these has nothing is compared.
        let slot = match name.len() {
            2 if is(name, names::B3) => &mut self.b3,
            5 if is(name, ":path") => return self.path = value,
            7 if is(name, ":method") => return self.method = value,
            7 if is(name, "upgrade") => return self.upgrade = true,
            7 if is(name, names::CE_TYPE) => &mut self.ce_type,
            7 if is(name, names::BAGGAGE) => return self.take_baggage(value),
            10 if is(name, ":authority") => return self.authority = value,
            10 if is(name, "user-agent") => return self.user_agent = value,
            11 if is(name, names::TRACEPARENT) => {
                self.traceparents |= self.traceparent.is_some();
                &mut self.traceparent
            }
            12 if is(name, "content-type") => {
                return self.grpc = value.starts_with(b"application/grpc");
            }
            12 if is(name, names::REQUEST_ID) => &mut self.request_id,
            12 if is(name, names::B3_TRACE_ID) => &mut self.b3_trace_id,
            16 if is(name, names::CE_CORRELATION_ID) => {
                self.has_ours = true;
                &mut self.ce_correlation_id
            }
            21 if is(name, names::ATTEMPT_COUNT) => &mut self.attempt,
            _ if name.starts_with(OURS) => {
                self.has_ours = true;
                match name.len() {
                    10 if is(name, names::EVENT_ID) => {
                        self.event_ids |= self.event_id.is_some();
                        &mut self.event_id
                    }
                    12 if is(name, names::EVENT_FROM) => &mut self.event_from,
                    12 if is(name, names::EVENT_TYPE) => &mut self.event_type,
                    12 if is(name, names::EVENT_UNDO) => &mut self.undo,
                    16 if is(name, names::EVENT_DEADLINE) => &mut self.deadline,
                    _ => return,
                }
            }
            _ => return,
        };
        slot.get_or_insert(value);
    }

    fn take_baggage(&mut self, value: &'a [u8]) {
        self.baggages |= self.baggage.is_some();
        self.baggage.get_or_insert(value);
        for id in w3c::baggage_members(value, BAGGAGE_MEMBER) {
            self.baggage_ids |= self.baggage_id.is_some();
            self.baggage_id.get_or_insert(id);
        }
    }

    /// The method as it is told: its first characters.
    pub fn short_method(&self) -> Cow<'a, str> {
        match self.method.get(..METHOD_CHARS).unwrap_or(self.method) {
            short if short.is_ascii() => String::from_utf8_lossy(short),
            _ => {
                let text = String::from_utf8_lossy(self.method);
                text.chars().take(METHOD_CHARS).collect::<String>().into()
            }
        }
    }

    /// The host of the authority, without its port.
    pub fn host(&self) -> &'a [u8] {
        host_of(self.authority)
    }

    /// The path without its query.
    pub fn bare_path(&self) -> &'a [u8] {
        self.path.split(|&b| b == b'?').next().unwrap_or_default()
    }

    /// It opens something other than a request with one answer.
    pub fn is_stream(&self) -> bool {
        self.upgrade || self.method == b"CONNECT"
    }

    /// All baggage headers as one.
    pub fn joined_baggage(&self, headers: &'a Headers) -> Cow<'a, [u8]> {
        if !self.baggages {
            return Cow::Borrowed(self.baggage.unwrap_or_default());
        }
        let all = headers.iter().filter(|(name, _)| is(name, names::BAGGAGE));
        Cow::Owned(
            all.map(|(_, value)| value)
                .collect::<Vec<_>>()
                .join(&b","[..]),
        )
    }

    /// Whether whoever reads its baggage finds this event, and no other.
    pub fn carries_in_baggage(&self, event: &[u8]) -> bool {
        self.baggage_id.as_deref() == Some(event) && !self.baggage_ids
    }

    /// Whether whoever reads its `x-event-id` finds this id.
    pub fn carries(&self, event: &[u8]) -> bool {
        self.event_id == Some(event) && !self.event_ids
    }

    /// Forgets what came from outside the mesh and may not be believed.
    pub fn forget_ours(&mut self) {
        for claim in [
            &mut self.event_id,
            &mut self.event_from,
            &mut self.event_type,
            &mut self.deadline,
            &mut self.undo,
            &mut self.ce_correlation_id,
        ] {
            *claim = None;
        }
    }
}

/// What every header of ours begins with.
pub const OURS: &[u8] = b"x-event-";

/// Every header of ours that came, and `ce-correlationid`: what is taken off at the edge.
pub fn ours(headers: &Headers) -> impl Iterator<Item = &[u8]> {
    let names = headers.iter().map(|(name, _)| name);
    names.filter(|name| name.starts_with(OURS) || is(name, names::CE_CORRELATION_ID))
}

fn is(name: &[u8], known: &str) -> bool {
    name == known.as_bytes()
}

/// An authority without its port; a bracketed IPv6 address keeps its brackets.
pub fn host_of(authority: &[u8]) -> &[u8] {
    match authority.iter().rposition(|&b| b == b':') {
        Some(colon) if authority[colon + 1..].iter().all(u8::is_ascii_digit) => &authority[..colon],
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::pack;

    #[test]
    fn one_pass_reads_what_is_there() {
        let pairs: [(&[u8], &[u8]); 9] = [
            (b":method", b"POST"),
            (b":authority", b"pay.example:8443"),
            (b":path", b"/charge?x=1"),
            (b"baggage", b"a=b"),
            (b"baggage", b"event.id=e1"),
            (b"x-event-id", b"e1"),
            (b"x-event-id", b"e2"),
            (b"x-event-new", b"\xff"),
            (b"traceparent", b"1"),
        ];
        let headers = Headers::new(pack(pairs.into_iter()));
        let mut request = Request::read(&headers);
        assert_eq!(request.host(), b"pay.example");
        assert_eq!(request.bare_path(), b"/charge");
        assert_eq!(request.event_id, Some(&b"e1"[..]));
        assert!(!request.carries(b"e1"));
        assert_eq!(*request.joined_baggage(&headers), *b"a=b,event.id=e1");
        assert!(request.carries_in_baggage(b"e1") && !request.carries_in_baggage(b"e2"));
        assert!(request.has_ours);
        assert_eq!(ours(&headers).count(), 3);
        assert!(!request.traceparents && !request.is_stream() && !request.grpc);
        request.forget_ours();
        assert_eq!(request.event_id, None);
    }

    #[test]
    fn every_header_is_known_by_its_name() {
        let all = names::ALL
            .iter()
            .chain(&[":method", ":path", ":authority", "user-agent"]);
        let pairs = all.map(|name| (name.as_bytes(), &b"1"[..]));
        let headers = Headers::new(pack(pairs));
        let said = format!("{:?}", Request::read(&headers));
        // All but `baggage_id`, and what is read of no value.
        assert_eq!(said.matches("None").count(), 1, "{said}");
    }

    #[test]
    fn hosts_lose_their_port() {
        for (authority, host) in [
            ("web", "web"),
            ("web:80", "web"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(host_of(authority.as_bytes()), host.as_bytes());
        }
    }
}
