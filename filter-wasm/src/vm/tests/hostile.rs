//! Requests that nobody sends in good faith: whatever the bytes, requests pass and nothing panics. (The simulated proxy
//! also checks that no header is written with bytes that no header may have.)

use super::rig::{Ended, Rig};
use crate::host::Host;
use crate::host::simulated::{Proxy, Simulated};
use crate::vm::Next;

const NAMES: &[&str] = &[
    ":method",
    ":path",
    ":authority",
    "content-type",
    "user-agent",
    "x-event-id",
    "x-event-from",
    "x-event-type",
    "x-event-deadline",
    "x-event-undo",
    "x-event-x",
    "ce-correlationid",
    "ce-type",
    "baggage",
    "traceparent",
    "b3",
    "x-b3-traceid",
    "x-request-id",
    "x-envoy-attempt-count",
    "x-event-status",
    "x-event-progress",
    "x-event-reported",
    "endpoint-load-metrics",
    "endpoint-load-metrics-bin",
    ":status",
];
const SEEDS: &[&str] = &[
    "",
    "/",
    "e1",
    "shop/a;t=1",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "a=b,event.id=%e2;p",
    "TEXT eps=1",
    "JSON {\"eps\":1}",
    "BIN CQAAAAAAAOA/",
    "2/5",
    "9999999999999999999999",
    "-1",
    "NaN",
    "[::1]:80",
];

#[test]
fn any_bytes_pass() {
    let random = Simulated::new(&Proxy::at(0), 7);
    let below = |n: usize| usize::try_from(random.random() % n as u64).unwrap();
    let value = || {
        let mut value = SEEDS[below(SEEDS.len())]
            .as_bytes()
            .repeat(1 + below(40) / 39 * 300);
        for _ in 0..below(4) {
            let at = below(value.len() + 1);
            let byte = u8::try_from(below(256)).unwrap();
            // Envoy's own parser lets no control character in.
            if !byte.is_ascii_control() {
                value.insert(at, byte);
            }
        }
        value
    };
    let mut rig = Rig::new(1, "");
    for round in 0..5_000 {
        let headers: Vec<_> = (0..below(20))
            .map(|_| (NAMES[below(NAMES.len())].into(), value()))
            .collect();
        let (stream, next) = {
            let (stream, _) = rig.begin(0, 3, "", true);
            let host = rig.host(0);
            *host.request.borrow_mut() = headers.clone();
            host.set_number("xds.listener_direction", Some(1 + round % 2));
            *host.response.borrow_mut() = headers;
            (stream, rig.vms[0].request_headers(stream, round % 3 == 0))
        };
        assert_eq!(next, Next::Continue);
        rig.vms[0].response_headers(stream);
        let ended = Ended {
            response: None,
            code: Some(round),
            flags: round,
        };
        rig.end(0, stream, &ended);
        if round % 100 == 0 {
            rig.pass(1_200);
            rig.answer_reports(200);
        }
    }
    rig.pass(1_200);
    rig.answer_reports(200);
    assert!(rig.reports.len() > 1_000);
    assert_eq!(rig.proxy.metric("kaeru_open_requests"), 0);
    assert!(rig.proxy.metric("kaeru_invalid_ids_total") > 100);
}
