//! What a verdict means for one request, and what a refused one is told. Pure: the verdict comes from the cache, the
//! request from the proxy.

use kaeru_protocol::headers as names;
use kaeru_protocol::{DecisionId, Mode, Refusal, Verdict, VerdictEntry};

use crate::config::Config;
use crate::host::{Host, Reply};
use crate::json::Writer;
use crate::request::Request;

/// gRPC `FAILED_PRECONDITION`: the client is not to retry until the state of the system has changed.
const FAILED_PRECONDITION: u8 = 9;

/// What to do with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// Let it through: a step like any other.
    Pass,
    /// Let it through, and say that it would have been refused.
    WouldRefuse(DecisionId),
    /// Let it through as the application's own compensation, which may come before the decision does.
    Cleanup(Option<DecisionId>),
    /// Let it through as an undo call.
    Undo(DecisionId),
    /// Refuse it.
    Refuse(Box<VerdictEntry>),
}

/// Rules on a request of an event with this verdict.
pub fn rule(verdict: Option<VerdictEntry>, config: &Config, request: &Request<'_>) -> Ruling {
    let verdict = verdict.filter(|entry| entry.verdict == Verdict::RollBack);
    let undoes = |entry: &VerdictEntry| {
        let id = request.undo.map(<[u8]>::trim_ascii);
        id == Some(entry.decision.as_str().as_bytes())
    };
    let mode = match &verdict {
        Some(entry) => entry.mode.min(config.mode),
        None => Mode::Off,
    };
    match verdict {
        Some(entry) if mode != Mode::Off && undoes(&entry) => Ruling::Undo(entry.decision),
        _ if is_safe(request.method) => Ruling::Pass,
        verdict if config.pass.iter().any(|rule| rule.matches(request)) => {
            Ruling::Cleanup(verdict.map(|entry| entry.decision))
        }
        Some(entry) if mode == Mode::Shadow => Ruling::WouldRefuse(entry.decision),
        Some(entry) if mode == Mode::Enforce => Ruling::Refuse(Box::new(entry)),
        _ => Ruling::Pass,
    }
}

fn is_safe(method: &[u8]) -> bool {
    std::str::from_utf8(method).is_ok_and(kaeru_protocol::is_safe_method)
}

/// Answers a refused request. `reported` is the own service where its caller's proxy listens for it.
pub fn reply(
    host: &impl Host,
    config: &Config,
    entry: &VerdictEntry,
    grpc: bool,
    reported: Option<&str>,
) {
    let refusal = Refusal::new(entry, config.refusal_status);
    let mut headers = vec![
        (names::RATE_LIMITED, "true"),
        (names::EVENT_VERDICT, "roll_back"),
        ("cache-control", "no-store"),
    ];
    headers.extend(reported.map(|service| (names::EVENT_REPORTED, service)));
    let json;
    let (body, grpc) = if grpc {
        headers.push((names::GRPC_PUSHBACK, "-1"));
        (&*refusal.detail, Some(FAILED_PRECONDITION))
    } else {
        headers.push(("content-type", "application/problem+json"));
        json = body_json(&refusal);
        (json.as_str(), None)
    };
    host.reply(&Reply {
        status: config.refusal_status,
        details: "kaeru_refused",
        headers: &headers,
        body,
        grpc,
    });
}

/// The problem+json of a refusal.
fn body_json(refusal: &Refusal) -> String {
    let mut json = Writer::default();
    json.open(b'{');
    json.key("type").text(&refusal.problem_type);
    json.key("title").text(&refusal.title);
    json.key("status").number(refusal.status.into());
    json.key("detail").text(&refusal.detail);
    json.key("event").text(refusal.event.as_str());
    json.key("decision").text(refusal.decision.as_str());
    if let Some(failed) = &refusal.failed {
        json.key("failed").text(failed.as_str());
    }
    json.close(b'}');
    json.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn ruled(policy: Mode, config: &str, method: &str, undo: Option<&str>) -> String {
        let entry = VerdictEntry {
            event: "e1".parse().unwrap(),
            verdict: Verdict::RollBack,
            decision: "d1".parse().unwrap(),
            failed: None,
            mode: policy,
            ttl_ms: 1,
        };
        let request = Request {
            method: method.as_bytes(),
            path: b"/audit/1?x",
            undo: undo.map(str::as_bytes),
            ..Request::default()
        };
        let config = parse(config.as_bytes()).0;
        let ruling = rule(Some(entry), &config, &request);
        format!("{ruling:?}").split('(').next().unwrap().to_owned()
    }

    #[test]
    fn the_lower_of_both_modes_rules() {
        use Mode::{Enforce, Off, Shadow};
        for (policy, ceiling, ruling) in [
            (Enforce, "enforce", "Refuse"),
            (Enforce, "shadow", "WouldRefuse"),
            (Enforce, "off", "Pass"),
            (Shadow, "enforce", "WouldRefuse"),
            (Off, "enforce", "Pass"),
        ] {
            let config = format!(r#"{{"mode":"{ceiling}"}}"#);
            assert_eq!(
                ruled(policy, &config, "POST", None),
                ruling,
                "{policy:?} {ceiling}"
            );
        }
    }

    #[test]
    fn the_body_is_the_one_that_the_protocol_describes() {
        for failed in [None, Some("shop/pay".parse().unwrap())] {
            let entry = VerdictEntry {
                event: "e1".parse().unwrap(),
                verdict: Verdict::RollBack,
                decision: "d1".parse().unwrap(),
                failed,
                mode: Mode::Enforce,
                ttl_ms: 1,
            };
            let refusal = Refusal::new(&entry, 424);
            let read: Refusal = serde_json::from_str(&body_json(&refusal)).unwrap();
            assert_eq!(read, refusal);
        }
    }

    #[test]
    fn what_passes_a_doomed_event() {
        let pass = r#"{"pass":[{"paths":["/audit/*"],"methods":["POST"]}]}"#;
        for (config, method, undo, ruling) in [
            ("", "GET", None, "Pass"),
            ("", "HEAD", None, "Pass"),
            ("", "get", None, "Refuse"),
            ("", "DELETE", None, "Refuse"),
            ("", "DELETE", Some("d1"), "Undo"),
            ("", "DELETE", Some("d2"), "Refuse"),
            (pass, "POST", None, "Cleanup"),
            (pass, "PUT", None, "Refuse"),
        ] {
            assert_eq!(
                ruled(Mode::Enforce, config, method, undo),
                ruling,
                "{method} {undo:?}"
            );
        }
        let request = Request {
            method: b"POST",
            path: b"/audit/1",
            ..Request::default()
        };
        assert_eq!(rule(None, &Config::default(), &request), Ruling::Pass);
        // The application compensates before it hears of the decision.
        let config = parse(pass.as_bytes()).0;
        assert_eq!(rule(None, &config, &request), Ruling::Cleanup(None));
    }
}
