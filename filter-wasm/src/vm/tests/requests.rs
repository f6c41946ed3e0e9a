//! What requests become: headers handed on, reports made.

use kaeru_protocol::{EventType, Kind, Outcome, Side};

use super::rig::{Ended, OK, Rig, START_MS, kinds};
use crate::vm::Next;

const POST: &str = ":method: POST\n:path: /orders/17?x=1\n:authority: web.shop.svc.cluster.local\n";

#[test]
fn an_inbound_request_is_one_report() {
    let mut rig = Rig::new(1, "");
    let seen = rig.inbound(
        0,
        &format!(
            "{POST}x-event-id: e1\nx-event-type: order.placed\nx-event-deadline: 30\nx-event-from: shop/front;t=12345\nx-envoy-attempt-count: 2"
        ),
        &Ended {
            response: Some(":status: 200\nx-event-status: running\nx-event-progress: 2/5\nendpoint-load-metrics: TEXT eps=1,request_cost.db=2"),
            ..OK
        },
    );
    assert!(
        seen.contains("x-event-id: e1") && seen.contains("baggage: event.id=e1"),
        "{seen}"
    );
    assert!(!seen.contains("x-event-from"), "{seen}");
    assert!(
        rig.response_headers(0)
            .contains("x-event-reported: shop/web")
    );
    let reports = rig.flushed();
    assert_eq!(kinds(&reports), [Kind::Attempt]);
    let report = &reports[0];
    assert_eq!(
        (report.event.as_str(), report.borrowed, report.side),
        ("e1", false, Side::Inbound)
    );
    assert_eq!(report.call.from.as_ref().unwrap().as_str(), "shop/front");
    assert_eq!(
        report.call.event_type.as_ref().unwrap().as_str(),
        "order.placed"
    );
    assert_eq!(
        (&*report.call.method, &*report.call.path),
        ("POST", "/orders/{id}")
    );
    assert_eq!(
        (report.sent_ms, report.attempt, report.deadline_s),
        (Some(12_345), 2, Some(30))
    );
    assert_eq!((report.progress, report.cost), (Some(0.4), Some(2.0)));
    assert_eq!(report.ending.outcome(), Outcome::Running);
}

#[test]
fn an_entry_without_any_id_gets_one_and_asks_for_no_answer() {
    let mut rig = Rig::new(1, "");
    let seen = rig.inbound(0, POST, &OK);
    assert!(seen.contains("x-event-id: 0"), "{seen}");
    assert!(!rig.response_headers(0).contains("x-event-reported"));
    assert_eq!(rig.flushed()[0].call.from, None);
}

#[test]
fn from_outside_nothing_of_ours_is_believed() {
    let mut rig = Rig::new(1, "");
    rig.host(0)
        .properties
        .borrow_mut()
        .remove("connection.mtls");
    let seen = rig.inbound(
        0,
        &format!(
            "{POST}x-event-id: forged\nx-event-from: shop/x;t=1\nx-event-undo: d\nx-event-new: 1\nce-correlationid: forged\nbaggage: a=b,event.id=forged\nx-request-id: r1"
        ),
        &OK,
    );
    assert!(
        !seen.contains("forged") && !seen.contains("x-event-new"),
        "{seen}"
    );
    assert!(
        seen.contains("x-event-id: r1") && seen.contains("baggage: a=b,event.id=r1"),
        "{seen}"
    );
    let report = &rig.flushed()[0];
    assert_eq!((report.event.as_str(), report.borrowed), ("r1", true));
    assert_eq!(report.call.from, None);
    assert_eq!(rig.proxy.metric("kaeru_taken_off_at_the_edge_total"), 1);
}

#[test]
fn a_long_baggage_from_outside_is_believed_no_more_than_a_short_one() {
    let mut rig = Rig::new(1, "");
    rig.host(0)
        .properties
        .borrow_mut()
        .remove("connection.mtls");
    let long = format!("a={}", "b".repeat(9_000));
    let seen = rig.inbound(
        0,
        &format!("{POST}baggage: {long},event.id=forged\nx-request-id: r1"),
        &OK,
    );
    assert!(
        seen.contains("x-event-id: r1") && !seen.contains("forged"),
        "{seen}"
    );
}

/// Whoever joins repeated headers, or takes the last one, would hand on another event's id.
#[test]
fn of_repeated_ids_the_first_is_handed_on_alone() {
    let mut rig = Rig::new(1, "");
    let twice = format!("{POST}x-event-id: e1\nx-event-id: e2");
    for seen in [rig.inbound(0, &twice, &OK), rig.outbound(0, &twice, &OK)] {
        let ids: Vec<_> = seen
            .lines()
            .filter(|l| l.starts_with("x-event-id"))
            .collect();
        assert_eq!(ids, ["x-event-id: e1"]);
    }
}

#[test]
fn a_second_id_finds_the_event_on_another_worker() {
    let mut rig = Rig::new(2, "");
    let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let (open, _) = rig.begin(0, 1, &format!("{POST}x-event-id: e1\n{trace}"), true);
    let sent = rig.outbound(
        1,
        &format!(":method: POST\n:path: /x\n:authority: backend:80\n{trace}"),
        &OK,
    );
    assert!(sent.contains("x-event-id: e1"), "{sent}");
    assert!(
        sent.contains(&format!("x-event-from: shop/web;t={START_MS}")),
        "{sent}"
    );
    rig.end(0, open, &OK);
    assert_eq!(rig.flushed().len(), 2);
    assert_eq!(rig.proxy.metric("kaeru_possible_splits_total"), 0);
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A request of this chosen event that carries the common trace.
fn traced(event: &str) -> String {
    format!("{POST}x-event-id: {event}\ntraceparent: 00-{TRACE}-00f067aa0ba902b7-01")
}

/// The event that an outbound request is told of which brings nothing but the common trace.
fn meant(rig: &mut Rig, vm: usize) -> String {
    let call = ":method: POST\n:path: /x\n:authority: backend";
    let sent = rig.outbound(
        vm,
        &format!("{call}\ntraceparent: 00-{TRACE}-00f067aa0ba902b7-01"),
        &OK,
    );
    let id = sent
        .lines()
        .find_map(|line| line.strip_prefix("x-event-id: "));
    id.unwrap_or_default().into()
}

#[test]
fn a_trace_of_two_open_events_means_neither() {
    let mut rig = Rig::new(2, "");
    let (first, _) = rig.begin(0, 1, &traced("e1"), true);
    assert_eq!(meant(&mut rig, 1), "e1");
    let (second, _) = rig.begin(1, 1, &traced("e2"), true);
    for vm in [0, 1] {
        let new = meant(&mut rig, vm);
        assert!(!["", "e1", "e2", TRACE].contains(&new.as_str()), "{new}");
        assert_ne!(new, meant(&mut rig, vm), "nor is it one with the next");
    }
    // As long as both are open, however long that is.
    rig.pass(60_000);
    assert_eq!(rig.proxy.metric("kaeru_possible_splits_total"), 4);
    assert!(!["e1", "e2"].contains(&meant(&mut rig, 0).as_str()));
    // And when one has been over for a while, the other is meant.
    rig.end(1, second, &OK);
    rig.pass(5_000);
    assert_eq!(meant(&mut rig, 1), "e1");
    rig.end(0, first, &OK);
    assert_eq!(
        meant(&mut rig, 0),
        "e1",
        "what it still does after its answer is its own"
    );
}

#[test]
fn events_of_one_trace_that_come_one_after_the_other_are_found() {
    let mut rig = Rig::new(2, "");
    for (vm, event) in [(0, "e1"), (1, "e2"), (0, "e3")] {
        let (open, _) = rig.begin(vm, 1, &traced(event), true);
        assert_eq!(meant(&mut rig, 1 - vm), event);
        rig.end(vm, open, &OK);
    }
    // A borrowed id means itself beside an open event of a chosen one.
    let (_open, _) = rig.begin(0, 1, &traced("e4"), true);
    let trace = traced("").replace("x-event-id: \n", "");
    let (_borrowed, _) = rig.begin(1, 1, &trace, true);
    assert_eq!(meant(&mut rig, 0), TRACE);
}

#[test]
fn a_branch_that_a_queue_handed_over_is_marked_all_the_way_down() {
    let mut rig = Rig::new(2, "");
    let call = ":method: POST\n:path: /x\n:authority: backend\nx-event-id: e1";
    let is_marked = |rig: &mut Rig| rig.outbound(1, call, &OK).contains(";handed-over");
    // Off a queue: nobody called the service for the event.
    assert!(is_marked(&mut rig));
    // By such a caller.
    let marked = format!("{POST}x-event-id: e1\nx-event-from: shop/a;t=1;handed-over");
    rig.inbound(0, &marked, &OK);
    assert!(is_marked(&mut rig));
    // By a caller within the event, and as its entry.
    let called = format!("{POST}x-event-id: e1\nx-event-from: shop/a;t=1");
    for inbound in [called, format!("{POST}x-event-id: e1")] {
        rig.inbound(0, &inbound, &OK);
        assert!(!is_marked(&mut rig));
    }
    let told: Vec<bool> = rig.flushed().iter().map(|r| r.handed_over).collect();
    assert_eq!(told, [true, false, false, true, true, false, false]);
}

#[test]
fn two_requests_of_one_millisecond_have_times_of_their_own() {
    let mut rig = Rig::new(1, "");
    let call = ":method: POST\n:path: /x\n:authority: backend\nx-event-id: e1";
    for sent_ms in [START_MS, START_MS + 1] {
        let sent = rig.outbound(0, call, &OK);
        let from = format!("x-event-from: shop/web;t={sent_ms};");
        assert!(sent.contains(&from), "{sent}");
    }
}

#[test]
fn the_type_is_handed_on_as_it_was_said_or_will_be_learned() {
    let mut rig = Rig::new(2, "");
    let call = ":method: POST\n:path: /x\n:authority: backend\nx-event-id: e1";
    for (said, handed) in [
        ("x-event-type: order.placed", "x-event-type: order.placed"),
        ("ce-type: com.shop.order", "x-event-type: com.shop.order"),
        ("", "x-event-type: POST shop/web /orders/{id}"),
        ("x-event-from: shop/front;t=1", "x-event-id: e1"),
    ] {
        let (open, _) = rig.begin(0, 1, &format!("{POST}x-event-id: e1\n{said}"), true);
        let sent = rig.outbound(1, call, &OK);
        assert!(sent.contains(handed), "{said}: {sent}");
        assert_eq!(
            sent.contains("x-event-type"),
            handed.contains("x-event-type"),
            "{sent}"
        );
        rig.end(0, open, &OK);
        let reports = rig.flushed();
        let (of_call, of_entry) = match reports[0].kind {
            Kind::Call => (&reports[0], &reports[1]),
            _ => (&reports[1], &reports[0]),
        };
        let typed = handed.strip_prefix("x-event-type: ");
        assert_eq!(
            of_call.call.event_type.as_ref().map(EventType::as_str),
            typed
        );
        assert_eq!(
            of_entry.call.event_type.is_some(),
            said.contains("type"),
            "learned by the aggregator"
        );
    }
}

#[test]
fn broken_propagation_is_counted_only_while_something_is_open() {
    let mut rig = Rig::new(2, "");
    let call = ":method: POST\n:path: /x\n:authority: backend\nx-request-id: r9";
    rig.outbound(1, call, &OK);
    let (open, _) = rig.begin(0, 1, &format!("{POST}x-request-id: r1"), true);
    let sent = rig.outbound(1, call, &OK);
    assert!(sent.contains("x-event-id: r9"), "{sent}");
    rig.end(0, open, &OK);
    rig.flushed();
    assert_eq!(rig.proxy.metric("kaeru_possible_splits_total"), 1);
    assert_eq!(rig.proxy.metric("kaeru_open_requests"), 0);
}

#[test]
fn a_call_is_reported_only_where_the_callee_did_not() {
    let mut rig = Rig::new(1, "");
    let call = ":method: POST\n:path: /x\n:authority: backend\nx-event-id: e1";
    let answered = Ended {
        response: Some(":status: 200\nx-event-reported: shop/backend"),
        ..OK
    };
    rig.outbound(0, call, &answered);
    assert!(!rig.response_headers(0).contains("x-event-reported"));
    assert_eq!(rig.flushed(), []);
    rig.host(0)
        .set_number("upstream.request_attempt_count", Some(3));
    let refused = Ended {
        response: Some(":status: 503"),
        code: Some(503),
        flags: 0x8020,
    };
    rig.outbound(0, call, &refused);
    let report = &rig.flushed()[0];
    assert_eq!(
        (report.kind, report.side, report.attempt),
        (Kind::Call, Side::Outbound, 3)
    );
    assert_eq!(report.call.to.as_ref().unwrap().as_str(), "shop/backend");
    assert_eq!(report.sent_ms, Some(rig.proxy.now_ms.get() - 1_200));
    assert_eq!(report.ending.outcome(), Outcome::Rejected);
}

#[test]
fn an_external_host_learns_nothing_and_is_not_believed() {
    let mut rig = Rig::new(1, "");
    let sent = rig.outbound(
        0,
        ":method: POST\n:path: /charge\n:authority: Pay.Example:8443\nx-event-id: e1\nx-event-type: t\nbaggage: event.id=e1",
        &Ended {
            response: Some(":status: 402\nx-event-reported: shop/bank\nx-event-status: failed"),
            code: Some(402),
            flags: 0,
        },
    );
    assert!(!sent.contains("event"), "{sent}");
    let report = &rig.flushed()[0];
    assert_eq!(
        report.call.to.as_ref().unwrap().as_str(),
        "host:pay.example:8443"
    );
    assert_eq!((report.event.as_str(), report.ending.word), ("e1", None));
}

#[test]
fn outcomes_are_judged_at_the_end() {
    let mut rig = Rig::new(1, "");
    for (ended, outcome) in [
        (
            Ended {
                response: Some(":status: 200"),
                code: Some(200),
                flags: 0x80_0000,
            },
            Outcome::Unknown,
        ),
        (
            Ended {
                response: None,
                code: None,
                flags: 0x4000,
            },
            Outcome::Unknown,
        ),
        (
            Ended {
                response: Some(":status: 503"),
                code: Some(503),
                flags: 0x20,
            },
            Outcome::Rejected,
        ),
        (
            Ended {
                response: Some(":status: 500"),
                code: Some(500),
                flags: 0,
            },
            Outcome::Failed,
        ),
    ] {
        rig.inbound(0, &format!("{POST}x-event-id: e1"), &ended);
        assert_eq!(rig.flushed()[0].ending.outcome(), outcome);
    }
    rig.host(0).set_number("response.grpc_status", Some(13));
    rig.inbound(
        0,
        &format!("{POST}x-event-id: e1\ncontent-type: application/grpc+proto"),
        &OK,
    );
    assert_eq!(rig.flushed()[0].ending.grpc, Some(13));
}

#[test]
fn what_stays_open_is_named_at_the_first_flush_and_at_each_heartbeat() {
    let mut rig = Rig::new(1, r#"{"heartbeat_interval_s":5}"#);
    let (open, _) = rig.begin(0, 1, &format!("{POST}x-event-id: e1"), true);
    let first = rig.flushed();
    assert_eq!(kinds(&first), [Kind::Running]);
    assert_eq!((first[0].opened, first[0].due_ms), (None, Some(7_000)));
    assert_eq!(rig.flushed(), [], "not at each flush");
    rig.pass(5_000);
    let second = rig.flushed();
    assert_eq!(kinds(&second), [Kind::Running]);
    assert!(second[0].opened.is_some() && second[0].duration_ms >= 5_000);
    rig.end(0, open, &OK);
    let last = rig.flushed();
    assert_eq!(
        (last[0].kind, last[0].opened),
        (Kind::Attempt, second[0].opened)
    );
}

#[test]
fn probes_upgrades_and_event_streams_are_no_steps() {
    let mut rig = Rig::new(1, "");
    rig.inbound(0, ":method: GET\n:path: /healthz\n:authority: web", &OK);
    rig.inbound(0, &format!("{POST}upgrade: websocket"), &OK);
    let stream = Ended {
        response: Some(":status: 200\ncontent-type: text/event-stream"),
        ..OK
    };
    rig.inbound(0, POST, &stream);
    assert_eq!(rig.flushed(), []);
    assert_eq!(rig.proxy.metric("kaeru_open_requests"), 0);
    let mut rig = Rig::new(1, r#"{"match":{"paths":["/orders/*"]}}"#);
    rig.inbound(0, POST, &stream);
    assert_eq!(rig.flushed().len(), 1);
}

#[test]
fn a_gateway_reports_its_own_step_and_believes_no_one() {
    let mut rig = Rig::new(
        1,
        r#"{"role":"gateway","trust_ids_from":["spiffe://mesh/ns/batch/*"]}"#,
    );
    let property = |rig: &Rig, path: &str, value: &str| {
        rig.host(0)
            .properties
            .borrow_mut()
            .insert(path.into(), value.into());
    };
    property(
        &rig,
        "xds.cluster_name",
        "outbound|80||web.shop.svc.cluster.local",
    );
    let request = ":method: POST\n:path: /orders\n:authority: shop.example.com\nx-event-id: e1\nx-request-id: r1";
    let reported = Ended {
        response: Some(":status: 200\nx-event-reported: shop/web"),
        ..OK
    };
    let sent = rig.outbound(0, request, &reported);
    assert!(
        sent.contains("x-event-id: r1") && sent.contains("x-event-from: shop/web;t="),
        "{sent}"
    );
    let report = &rig.flushed()[0];
    assert_eq!((report.kind, report.side), (Kind::Attempt, Side::Outbound));
    assert_eq!((report.call.from.as_ref(), report.attempt), (None, 1));
    property(
        &rig,
        "connection.uri_san_peer_certificate",
        "spiffe://mesh/ns/batch/sa/job",
    );
    assert!(
        rig.outbound(0, request, &reported)
            .contains("x-event-id: e1")
    );
    property(&rig, "xds.cluster_name", "outbound|443||api.example.org");
    assert!(!rig.outbound(0, request, &reported).contains("x-event"));
}

#[test]
fn open_requests_are_bounded_and_what_is_not_observed_is_counted() {
    let mut rig = Rig::new(1, r#"{"open_requests_max":1}"#);
    let (open, _) = rig.begin(0, 1, POST, true);
    rig.inbound(0, &format!("{POST}x-event-from: shop/a;t=1"), &OK);
    assert!(
        !rig.response_headers(0).contains("x-event-reported"),
        "the caller reports it"
    );
    rig.end(0, open, &OK);
    assert_eq!(rig.flushed().len(), 1);
    assert_eq!(rig.proxy.metric("kaeru_unobserved_total"), 1);
}

#[test]
fn a_job_asks_its_sidecar() {
    let mut rig = Rig::new(1, "");
    let api = "kaeru-aggregator.kaeru-system.svc.cluster.local:7170";
    let status = format!(
        ":method: POST\n:path: /v1/events/e1/status?status=running&progress=0.5\n:authority: {api}"
    );
    let verdict = format!(":method: GET\n:path: /v1/events/e1/verdict\n:authority: {api}");
    assert_eq!(rig.begin(0, 2, &status, true).1, Next::Answered);
    assert_eq!(rig.said(0).unwrap().status, 202);
    assert_eq!(
        rig.begin(0, 2, &status, false).1,
        Next::Continue,
        "a body goes on"
    );
    assert_eq!(
        rig.begin(0, 2, &verdict, true).1,
        Next::Continue,
        "nothing is known yet"
    );
    rig.doom("e1", "enforce");
    assert_eq!(rig.begin(0, 2, &verdict, true).1, Next::Answered);
    assert!(
        rig.said(0)
            .unwrap()
            .body
            .contains("\"verdict\":\"roll_back\"")
    );
    let reports = rig.flushed();
    assert_eq!(kinds(&reports), [Kind::Word]);
    assert_eq!(reports[0].progress, Some(0.5));
}

#[test]
fn beside_an_aggregator_the_filter_does_nothing() {
    let mut rig = Rig::new(1, r#"{"service":"kaeru-system/kaeru-aggregator"}"#);
    let seen = rig.inbound(0, POST, &OK);
    assert_eq!(seen.trim(), POST.trim());
    rig.pass(5_000);
    assert_eq!(rig.proxy.calls.borrow().len(), 0);
}
