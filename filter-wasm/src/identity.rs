//! Which event a request belongs to: the ids that it carries, in the configured order, the first of which names the
//! event and the others of which mean the same one.

use std::borrow::Cow;

use kaeru_protocol::headers as names;
use kaeru_protocol::{EventId, InvalidId};

use crate::host::Headers;
use crate::request::Request;
use crate::w3c;

/// Where an id may stand. *Chosen* ids were made to name an event; *borrowed* ones name something else (a trace, a
/// request) and are used for want of better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `x-event-id`; chosen.
    EventId,
    /// `ce-correlationid`; chosen.
    CeCorrelationId,
    /// The `baggage` member `event.id`; chosen.
    Baggage,
    /// The trace id of `traceparent`; borrowed.
    Traceparent,
    /// The trace id of `b3`; borrowed.
    B3,
    /// `x-b3-traceid`; borrowed.
    B3TraceId,
    /// `x-request-id`; borrowed.
    RequestId,
    /// Any other header; chosen.
    Header(Box<str>),
}

/// What stands there is no id.
struct Malformed;

impl Source {
    /// The source that a header name means.
    pub fn of_header(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            names::EVENT_ID => Self::EventId,
            names::CE_CORRELATION_ID => Self::CeCorrelationId,
            names::BAGGAGE => Self::Baggage,
            names::TRACEPARENT => Self::Traceparent,
            names::B3 => Self::B3,
            names::B3_TRACE_ID => Self::B3TraceId,
            names::REQUEST_ID => Self::RequestId,
            other => Self::Header(other.into()),
        }
    }

    fn is_borrowed(&self) -> bool {
        matches!(
            self,
            Self::Traceparent | Self::B3 | Self::B3TraceId | Self::RequestId
        )
    }

    /// The id at this place, or that what stands there breaks its specification.
    fn read<'a>(
        &self,
        request: &Request<'a>,
        headers: &'a Headers,
    ) -> Option<Result<Cow<'a, [u8]>, Malformed>> {
        let borrowed = |id: Option<&'a [u8]>| id.map(Cow::Borrowed).ok_or(Malformed);
        let plain = |value: Option<&'a [u8]>| value.map(|v| Ok(Cow::Borrowed(v.trim_ascii())));
        match self {
            Self::EventId => plain(request.event_id),
            Self::CeCorrelationId => {
                let decoded = |v: &'a [u8]| Ok(w3c::percent_decoded(v.trim_ascii()));
                request.ce_correlation_id.map(decoded)
            }
            Self::Baggage => request.baggage_id.clone().map(Ok),
            Self::Traceparent => request.traceparent.map(|value| {
                let once = (!request.traceparents).then_some(value);
                borrowed(once.and_then(w3c::traceparent))
            }),
            Self::B3 => request
                .b3
                .filter(|value| !w3c::is_b3_decision(value))
                .map(|value| borrowed(w3c::b3(value))),
            Self::B3TraceId => request
                .b3_trace_id
                .map(|value| borrowed(w3c::b3_trace(value))),
            Self::RequestId => request.request_id.map(|value| Ok(w3c::request_id(value))),
            Self::Header(name) => plain(headers.get(name)),
        }
    }
}

/// The ids that a request carries.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Identity<'a> {
    /// The first valid one.
    pub event: Option<EventId>,
    /// It is of the borrowed kind, or equals an id of that kind on the same request.
    pub borrowed: bool,
    /// All borrowed ids, each once, the event's own among them if it is one.
    pub aliases: Vec<Cow<'a, [u8]>>,
    /// How many broke their grammar and count as absent.
    pub invalid: u32,
}

impl<'a> Identity<'a> {
    /// Reads the ids; one of the chosen kind only where the sender is trusted.
    pub fn read(
        request: &Request<'a>,
        headers: &'a Headers,
        sources: &[Source],
        trusted: bool,
    ) -> Self {
        let mut identity = Self::default();
        for source in sources {
            let borrowed = source.is_borrowed();
            if !borrowed && !trusted {
                continue;
            }
            let valid = match source.read(request, headers) {
                None => continue,
                Some(Ok(id)) => identity.take(id, borrowed).is_ok(),
                Some(Err(Malformed)) => false,
            };
            identity.invalid += u32::from(!valid);
        }
        if let Some(event) = &identity.event {
            let event = event.as_str().as_bytes();
            identity.borrowed = identity.aliases.iter().any(|alias| **alias == *event);
        }
        identity
    }

    fn take(&mut self, id: Cow<'a, [u8]>, borrowed: bool) -> Result<(), Malformed> {
        match &self.event {
            None => self.event = Some(EventId::from_bytes(&id).map_err(|_| Malformed)?),
            Some(event) => {
                let same = *event.as_str().as_bytes() == *id;
                if !borrowed && !same && !EventId::is_valid(&id) {
                    return Err(Malformed);
                }
            }
        }
        if borrowed && !self.aliases.contains(&id) {
            self.aliases.push(id);
        }
        Ok(())
    }
}

/// A new event id where a request brings none: a UUID of version 7 (RFC 9562, 5.7).
pub fn mint(now_ms: u64, random: [u64; 2]) -> Result<EventId, InvalidId> {
    let high = (now_ms << 16) | 0x7000 | (random[0] & 0x0fff);
    let low = (random[1] >> 2) | (1 << 63);
    let text = format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    );
    text.parse()
}

#[cfg(test)]
mod tests;
