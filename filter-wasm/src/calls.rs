//! The kinds of call that this VM saw lately, each kept once: a service is asked for few things again and again, so its
//! requests share what they say of that, while they are open, while their reports wait, and in the batch that they leave in.

use std::rc::Rc;

use kaeru_protocol::{EventType, Peer, ServiceName};

use crate::path;

/// How many are kept, the latest; looked through one by one. 64 x about 250 bytes.
const CALLS_MAX: usize = 64;

/// What attempts of one call have in common, as `kaeru_protocol::Call` has it, and what this VM needs to know beside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    /// The event type, where a header said it.
    pub event_type: Option<EventType>,
    /// The caller.
    pub from: Option<ServiceName>,
    /// The callee.
    pub to: Option<Peer>,
    /// The HTTP method.
    pub method: Box<str>,
    /// The path, folded.
    pub path: Box<str>,
    /// Outbound: the host that it goes to.
    pub host: Box<[u8]>,
    /// At an entry where nobody said the event's type: what the aggregator will learn from it.
    pub learned_type: Option<EventType>,
}

impl Call {
    /// The event's type, as far as it is known here.
    pub fn known_type(&self) -> Option<&EventType> {
        self.event_type.as_ref().or(self.learned_type.as_ref())
    }

    /// Whether a batch would write the same of both.
    pub fn says_same(&self, other: &Self) -> bool {
        self.path == other.path
            && self.method == other.method
            && (&self.event_type, &self.from, &self.to)
                == (&other.event_type, &other.from, &other.to)
    }
}

/// What a request says of its call, each part valid; the path as it came.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parts<'a> {
    /// The event type.
    pub event_type: Option<&'a [u8]>,
    /// The caller.
    pub from: Option<&'a [u8]>,
    /// The callee.
    pub to: Option<&'a [u8]>,
    /// The HTTP method.
    pub method: &'a str,
    /// The path, as it came.
    pub path: &'a [u8],
    /// Outbound: the host that it goes to.
    pub host: &'a [u8],
    /// This service, where the request may be an entry.
    pub entry_of: Option<&'a str>,
}

impl Parts<'_> {
    fn are_of(&self, call: &Call, path: &str) -> bool {
        let is = |known: Option<&str>, part: Option<&[u8]>| known.map(str::as_bytes) == part;
        *call.path == *path
            && *call.method == *self.method
            && is(call.from.as_ref().map(ServiceName::as_str), self.from)
            && is(
                call.event_type.as_ref().map(EventType::as_str),
                self.event_type,
            )
            && is(call.to.as_ref().map(Peer::as_str), self.to)
            && *call.host == *self.host
    }

    fn call(&self, path: &str) -> Call {
        let learned = match (self.entry_of, self.from, self.event_type) {
            (Some(service), None, None) => [self.method, service, path].join(" ").parse().ok(),
            _ => None,
        };
        Call {
            event_type: self.event_type.and_then(|t| EventType::from_bytes(t).ok()),
            from: self.from.and_then(|s| ServiceName::from_bytes(s).ok()),
            to: self.to.and_then(|peer| Peer::from_bytes(peer).ok()),
            method: self.method.into(),
            path: path.into(),
            host: self.host.into(),
            learned_type: learned,
        }
    }
}

/// What was seen, the oldest first.
#[derive(Debug, Default)]
pub struct Calls {
    known: Vec<Rc<Call>>,
    /// The last path, folded: its memory is used again.
    path: String,
}

impl Calls {
    /// The call of a request: the one that others of its kind have.
    pub fn share(&mut self, parts: &Parts<'_>) -> Rc<Call> {
        path::fold_into(&mut self.path, parts.path);
        let path = &self.path;
        if let Some(known) = self.known.iter().find(|call| parts.are_of(call, path)) {
            return Rc::clone(known);
        }
        let call = parts.call(path);
        self.keep(call)
    }

    /// The same call with a callee that was not known when it was made.
    pub fn to(&mut self, call: &Call, to: Peer) -> Rc<Call> {
        let call = Call {
            to: Some(to),
            ..call.clone()
        };
        match self.known.iter().find(|known| ***known == call) {
            Some(known) => Rc::clone(known),
            None => self.keep(call),
        }
    }

    fn keep(&mut self, call: Call) -> Rc<Call> {
        if self.known.len() >= CALLS_MAX {
            self.known.remove(0);
        }
        let call = Rc::new(call);
        self.known.push(Rc::clone(&call));
        call
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kind_is_kept_once_and_the_latest_are_known() {
        let mut calls = Calls::default();
        let mut shared = |path: &str| {
            calls.share(&Parts {
                path: path.as_bytes(),
                ..Parts::default()
            })
        };
        let first = shared("/a");
        assert!(Rc::ptr_eq(&first, &shared("/a?x")));
        for kind in 0..CALLS_MAX {
            shared(&format!("/{}", "a/".repeat(kind + 1)));
        }
        let again = shared("/a");
        assert!(again == first && !Rc::ptr_eq(&first, &again));
        assert_eq!(calls.known.len(), CALLS_MAX);
    }

    #[test]
    fn an_entry_names_the_type_that_will_be_learned() {
        let mut calls = Calls::default();
        let entry = Parts {
            method: "POST",
            path: b"/orders/17",
            entry_of: Some("shop/web"),
            ..Parts::default()
        };
        let typed = |call: &Call| call.known_type().map(ToString::to_string);
        let call = calls.share(&entry);
        assert_eq!(typed(&call).unwrap(), "POST shop/web /orders/{id}");
        let called = calls.share(&Parts {
            from: Some(b"shop/till"),
            ..entry
        });
        assert_eq!(typed(&called), None);
        let said = calls.share(&Parts {
            event_type: Some(b"order"),
            ..entry
        });
        assert_eq!(typed(&said).unwrap(), "order");
        let to = calls.to(&said, "shop/pay".parse().unwrap());
        assert!(
            !to.says_same(&said) && Rc::ptr_eq(&to, &calls.to(&said, "shop/pay".parse().unwrap()))
        );
    }
}
