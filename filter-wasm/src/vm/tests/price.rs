//! What a request costs: its hostcalls by kind, for the common cases, each within a mesh and without a verdict. One that
//! comes on top fails here: it has to earn its place. Their prices stand in docs/BENCHMARKS.md.

use super::rig::{Ended, OK, Rig};

const POST: &str = ":method: POST\n:path: /orders/17\n:authority: web.shop.svc.cluster.local\n";

/// The hostcalls of one such request, after a first one that warmed up.
fn price(direction: i64, request: &str, ended: &Ended<'_>) -> Vec<(&'static str, u32)> {
    let mut rig = Rig::new(1, "");
    // Verdicts on other events are known.
    rig.doom("other", "enforce");
    for _ in 0..2 {
        rig.host(0).hostcalls.borrow_mut().clear();
        let (stream, _) = rig.begin(0, direction, request, true);
        rig.end(0, stream, ended);
    }
    let hostcalls = rig.host(0).hostcalls.borrow();
    hostcalls.iter().map(|(kind, n)| (*kind, *n)).collect()
}

#[test]
fn an_inbound_success_of_the_mesh() {
    let request = format!(
        "{POST}x-event-id: e1\nbaggage: event.id=e1\nx-event-type: order.placed\nx-event-from: shop/a;t=1\n\
         traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\nx-request-id: r1"
    );
    assert_eq!(
        price(1, &request, &OK),
        [
            ("all headers", 2),
            ("gauge or counter moved", 2),
            // x-event-from.
            ("header off", 1),
            // x-event-reported.
            ("header set", 1),
            // Direction, certificate, flags.
            ("property", 3),
            // Whether the trace or the request id means another open event.
            ("shared read", 2),
            // The verdicts' version.
            ("shared read, empty", 1),
            // Three ids; their end; the roll.
            ("shared write", 5),
            ("time", 2),
        ]
    );
}

#[test]
fn an_inbound_request_that_says_nothing_of_events() {
    for method in ["POST", "GET"] {
        let request =
            format!(":method: {method}\n:path: /orders/17\n:authority: web\nx-request-id: r1");
        assert_eq!(
            price(1, &request, &OK),
            [
                ("all headers", 2),
                ("gauge or counter moved", 2),
                // x-event-id and baggage, for the application.
                ("header set", 2),
                // Direction, flags.
                ("property", 2),
                ("shared read, empty", 1),
                // The one id; the roll.
                ("shared write", 2),
                ("time", 2),
            ],
            "{method}"
        );
    }
}

#[test]
fn an_outbound_call_that_its_callee_reports() {
    let request = format!("{POST}x-event-id: e1\nx-event-type: order.placed");
    let reported = Ended {
        response: Some(":status: 200\nx-event-reported: shop/web"),
        ..OK
    };
    assert_eq!(
        price(2, &request, &reported),
        [
            ("all headers", 2),
            ("header off", 1),
            // x-event-from.
            ("header set", 1),
            // Direction.
            ("property", 1),
            // What is known of the event; the verdicts' version.
            ("shared read, empty", 2),
            ("time", 1),
        ]
    );
}

#[test]
fn a_request_that_is_no_step() {
    let probe = ":method: GET\n:path: /healthz\n:authority: web\nuser-agent: kube-probe/1.34";
    assert_eq!(price(1, probe, &OK), [("all headers", 1), ("property", 1)]);
}
