//! The two calls of the aggregator's API that a sidecar answers itself: a job's word on its event (without a body), and
//! the verdict on an event. Whatever is not exactly one of these goes on to the aggregator, which says what is wrong.

use kaeru_protocol::{EventId, Mode, Peer, Verdict, VerdictEntry, Word};

use crate::json::Writer;
use crate::request::Request;
use crate::{said, w3c};

/// What the application asks its sidecar.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// `POST /v1/events/{id}/status?status=…&progress=…`.
    Word {
        /// The event.
        event: EventId,
        /// The service's word on it.
        word: Word,
        /// How far it is.
        progress: Option<f32>,
    },
    /// `GET /v1/events/{id}/verdict`.
    Verdict {
        /// The event.
        event: EventId,
    },
}

/// Reads a request to the aggregator; `end` says that it has no body.
pub fn question(request: &Request<'_>, end: bool) -> Option<Question> {
    let (path, query) = match request.path.iter().position(|&b| b == b'?') {
        Some(mark) => (&request.path[..mark], &request.path[mark + 1..]),
        None => (request.path, &[][..]),
    };
    let rest = path.strip_prefix(b"/v1/events/").filter(|_| end)?;
    let slash = rest.iter().position(|&b| b == b'/')?;
    let event = EventId::from_bytes(&w3c::percent_decoded(&rest[..slash])).ok()?;
    match (request.method, &rest[slash..]) {
        (b"GET", b"/verdict") => Some(Question::Verdict { event }),
        (b"POST", b"/status") => word(event, query),
        _ => None,
    }
}

fn word(event: EventId, query: &[u8]) -> Option<Question> {
    let (mut word, mut progress) = (None, None);
    for pair in query.split(|&b| b == b'&').filter(|pair| !pair.is_empty()) {
        let equals = pair.iter().position(|&b| b == b'=')?;
        let value = w3c::percent_decoded(&pair[equals + 1..]);
        match &pair[..equals] {
            b"status" => word = Some(Word::from_bytes(&value)?),
            b"progress" => progress = Some(said::progress(&value)?),
            // `service` among them: who asks in another's name is not answered here.
            _ => return None,
        }
    }
    Some(Question::Word {
        event,
        word: word?,
        progress,
    })
}

/// The JSON answer to a verdict question; an event without a verdict may proceed.
pub fn verdict_json(event: &EventId, entry: Option<&VerdictEntry>) -> String {
    let verdict = match entry.map(|entry| entry.verdict) {
        Some(Verdict::RollBack) => "roll_back",
        _ => "proceed",
    };
    let mode = match entry.map_or(Mode::default(), |entry| entry.mode) {
        Mode::Off => "off",
        Mode::Shadow => "shadow",
        Mode::Enforce => "enforce",
    };
    let mut json = Writer::default();
    json.open(b'{');
    json.key("event").text(event.as_str());
    json.key("verdict").text(verdict);
    let text_or_null = |json: &mut Writer, text: Option<&str>| match text {
        Some(text) => json.text(text),
        None => json.word("null"),
    };
    text_or_null(json.key("decision"), entry.map(|e| e.decision.as_str()));
    let failed = entry.and_then(|e| e.failed.as_ref());
    text_or_null(json.key("failed"), failed.map(Peer::as_str));
    json.key("mode").text(mode);
    json.close(b'}');
    json.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, path: &str, end: bool) -> String {
        let request = Request {
            method: method.as_bytes(),
            path: path.as_bytes(),
            ..Request::default()
        };
        match question(&request, end) {
            None => "on".into(),
            Some(Question::Verdict { event }) => format!("verdict {event}"),
            Some(Question::Word {
                event,
                word,
                progress,
            }) => format!("{event} {word:?} {progress:?}"),
        }
    }

    #[test]
    fn only_what_is_understood_whole_is_answered() {
        for (method, path, end, expected) in [
            (
                "POST",
                "/v1/events/e1/status?status=failed",
                true,
                "e1 Failed None",
            ),
            (
                "POST",
                "/v1/events/a%3A1/status?status=running&progress=2%2F5",
                true,
                "a:1 Running Some(0.4)",
            ),
            ("POST", "/v1/events/e1/status?status=failed", false, "on"),
            ("POST", "/v1/events/e1/status", true, "on"),
            ("POST", "/v1/events/e1/status?status=fine", true, "on"),
            (
                "POST",
                "/v1/events/e1/status?status=failed&progress=7",
                true,
                "on",
            ),
            (
                "POST",
                "/v1/events/e1/status?status=failed&service=a/b",
                true,
                "on",
            ),
            ("POST", "/v1/events/a%20b/status?status=failed", true, "on"),
            ("PUT", "/v1/events/e1/status?status=failed", true, "on"),
            ("GET", "/v1/events/e1/verdict", true, "verdict e1"),
            ("GET", "/v1/events/e1", true, "on"),
            ("GET", "/v1/events//verdict", true, "on"),
            ("POST", "/v1/reports", true, "on"),
        ] {
            assert_eq!(asked(method, path, end), expected, "{method} {path}");
        }
    }

    #[test]
    fn verdicts_read_like_the_aggregators() {
        let event = "e1".parse().unwrap();
        assert_eq!(
            verdict_json(&event, None),
            r#"{"event":"e1","verdict":"proceed","decision":null,"failed":null,"mode":"shadow"}"#
        );
    }
}
