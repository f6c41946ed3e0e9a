//! What verdicts do to requests.

use kaeru_protocol::Kind;

use super::rig::{OK, Rig, kinds};
use crate::vm::Next;

const POST: &str = ":method: POST\n:path: /x\n:authority: web\nx-event-id: e1\n";

#[test]
fn a_doomed_event_is_refused_at_every_worker_and_side() {
    let mut rig = Rig::new(3, "");
    assert_eq!(rig.begin(2, 1, POST, true).1, Next::Continue);
    rig.doom("e1", "enforce");
    for (vm, direction) in [(0, 1), (1, 2), (2, 1)] {
        let (_, next) = rig.begin(
            vm,
            direction,
            &format!("{POST}x-event-from: shop/a;t=1"),
            true,
        );
        assert_eq!(next, Next::Answered);
        let said = rig.said(vm).unwrap();
        assert_eq!((said.status, said.grpc), (424, None));
        let headers = format!("{:?}", said.headers);
        for header in [
            "x-envoy-ratelimited",
            "no-store",
            "roll_back",
            "application/problem+json",
        ] {
            assert!(headers.contains(header), "{header} in {headers}");
        }
        assert_eq!(headers.contains("x-event-reported"), direction == 1);
        assert!(said.body.contains("\"decision\":\"d-1\""), "{}", said.body);
    }
    let (_, other) = rig.begin(0, 1, ":method: POST\n:path: /x\nx-event-id: e2", true);
    let (_, safe) = rig.begin(0, 1, &POST.replace("POST", "GET"), true);
    assert_eq!((other, safe), (Next::Continue, Next::Continue));
    let refused = rig.flushed();
    assert_eq!(
        kinds(&refused)
            .iter()
            .filter(|k| **k == Kind::Refused)
            .count(),
        3
    );
    assert_eq!(rig.proxy.metric("kaeru_requests_refused_total"), 3);
}

#[test]
fn grpc_is_refused_in_its_own_words() {
    let mut rig = Rig::new(1, "");
    rig.doom("e1", "enforce");
    rig.begin(
        0,
        2,
        &format!("{POST}content-type: application/grpc"),
        false,
    );
    let said = rig.said(0).unwrap();
    assert_eq!(said.grpc, Some(9));
    assert!(
        said.headers
            .contains(&("grpc-retry-pushback-ms".into(), "-1".into()))
    );
    assert!(
        said.body
            .starts_with("Event e1 is being rolled back because shop/pay failed")
    );
}

#[test]
fn in_shadow_a_request_passes_and_both_are_told() {
    for (configuration, mode) in [("", "shadow"), (r#"{"mode":"shadow"}"#, "enforce")] {
        let mut rig = Rig::new(1, configuration);
        rig.doom("e1", mode);
        rig.inbound(0, POST, &OK);
        assert_eq!(kinds(&rig.flushed()), [Kind::WouldRefuse, Kind::Attempt]);
    }
    for (configuration, mode) in [("", "off"), (r#"{"mode":"off"}"#, "enforce")] {
        let mut rig = Rig::new(1, configuration);
        rig.doom("e1", mode);
        rig.inbound(0, POST, &OK);
        assert_eq!(kinds(&rig.flushed()), [Kind::Attempt]);
    }
}

#[test]
fn undo_and_cleanup_pass_under_their_own_names() {
    let mut rig = Rig::new(1, r#"{"pass":[{"paths":["/audit/*"]}]}"#);
    rig.doom("e1", "enforce");
    let undo = format!("{POST}x-event-undo: d-1\nx-request-id: r1");
    let seen = rig.inbound(0, &undo, &OK);
    assert!(
        seen.contains("x-event-undo: d-1") && !seen.contains("baggage"),
        "{seen}"
    );
    let sent = rig.outbound(0, &undo, &OK);
    assert!(
        sent.contains("x-event-undo: d-1") && sent.contains("x-event-from"),
        "{sent}"
    );
    rig.inbound(0, &POST.replace("/x", "/audit/1"), &OK);
    assert_eq!(
        rig.begin(0, 1, &format!("{POST}x-event-undo: d-2"), true).1,
        Next::Answered
    );
    let reports = rig.flushed();
    assert_eq!(
        kinds(&reports),
        [Kind::Undo, Kind::Undo, Kind::Cleanup, Kind::Refused]
    );
    assert!(
        reports
            .iter()
            .all(|r| r.decision.as_ref().unwrap().as_str() == "d-1")
    );
}

#[test]
fn a_withdrawn_decision_lets_the_event_go_on() {
    let mut rig = Rig::new(2, "");
    rig.doom("e1", "enforce");
    rig.answer_poll(r#"{"cursor":"e:2","verdicts":[{"event":"e1","verdict":"proceed","decision":"d-1","ttl_ms":9000}]}"#);
    assert_eq!(rig.begin(1, 1, POST, true).1, Next::Continue);
}
