//! What the filter reads of a request: one pass over its packed headers, nothing copied, nothing judged.

use kaeru_protocol::headers as names;

use crate::host::Headers;

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
    /// All `baggage` headers, in order.
    pub baggage: Vec<&'a [u8]>,
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
    /// Every header of ours that came, and `ce-correlationid`: what is taken off at the edge.
    pub ours: Vec<&'a [u8]>,
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
        let Ok(text) = std::str::from_utf8(name) else {
            return;
        };
        if text.starts_with("x-event-") || text == names::CE_CORRELATION_ID {
            self.ours.push(name);
        }
        let slot = match text {
            ":method" => return self.method = value,
            ":path" => return self.path = value,
            ":authority" => return self.authority = value,
            "content-type" => return self.grpc = value.starts_with(b"application/grpc"),
            "upgrade" => return self.upgrade = true,
            "user-agent" => return self.user_agent = value,
            names::BAGGAGE => return self.baggage.push(value),
            names::EVENT_ID => {
                self.event_ids |= self.event_id.is_some();
                &mut self.event_id
            }
            names::EVENT_FROM => &mut self.event_from,
            names::EVENT_TYPE => &mut self.event_type,
            names::EVENT_DEADLINE => &mut self.deadline,
            names::EVENT_UNDO => &mut self.undo,
            names::CE_CORRELATION_ID => &mut self.ce_correlation_id,
            names::CE_TYPE => &mut self.ce_type,
            names::TRACEPARENT => {
                self.traceparents |= self.traceparent.is_some();
                &mut self.traceparent
            }
            names::B3 => &mut self.b3,
            names::B3_TRACE_ID => &mut self.b3_trace_id,
            names::REQUEST_ID => &mut self.request_id,
            names::ATTEMPT_COUNT => &mut self.attempt,
            _ => return,
        };
        slot.get_or_insert(value);
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
    pub fn joined_baggage(&self) -> Vec<u8> {
        self.baggage.join(&b","[..])
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
        assert_eq!(request.joined_baggage(), b"a=b,event.id=e1");
        assert_eq!(request.ours.len(), 3);
        assert!(!request.traceparents && !request.is_stream() && !request.grpc);
        request.forget_ours();
        assert_eq!(request.event_id, None);
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
