use std::sync::Arc;

use kaeru_protocol::{Batch, BatchBuilder, Ending, ReporterId, ReporterMark};

use super::*;

fn reporter(gateway: bool) -> Reporter {
    Reporter {
        id: ReporterId(0x9f),
        proxy: "sidecar~10.0.0.7~\"web\"".into(),
        service: "shop/web".parse().unwrap(),
        gateway,
    }
}

fn full(kind: Kind) -> EventReport {
    EventReport {
        borrowed: true,
        kind,
        side: Side::Outbound,
        call: Arc::new(Call {
            event_type: Some("order.placed".parse().unwrap()),
            from: Some("shop/web".parse().unwrap()),
            to: Some("host:pay.example:8443".parse().unwrap()),
            method: "POST".into(),
            path: "/a/{id}".into(),
        }),
        sent_ms: Some(900),
        opened: Some(3),
        attempt: 2,
        ending: Ending {
            status: Some(503),
            grpc: Some(14),
            flags: 0x8020,
            word: Some(Word::Rejected),
        },
        duration_ms: 7,
        due_ms: Some(62_000),
        progress: Some(0.4),
        cost: Some(2.5e-7),
        deadline_s: Some(30),
        decision: Some("d-1".parse().unwrap()),
        detail: Some("said\n\"so\"".into()),
        ..EventReport::new("e1".parse().unwrap(), kind)
    }
}

#[test]
fn the_batch_is_the_one_that_the_protocol_builds() {
    let kinds = [
        Kind::Attempt,
        Kind::Running,
        Kind::Call,
        Kind::Refused,
        Kind::WouldRefuse,
        Kind::Cleanup,
        Kind::Undo,
        Kind::Word,
        Kind::Operator,
    ];
    let mut bodies: Vec<_> = kinds.map(|k| Body::Event(Box::new(full(k)))).into();
    for word in [Word::Running, Word::Succeeded, Word::Rejected, Word::Failed] {
        let mut said = EventReport::new("e2".parse().unwrap(), Kind::Word);
        said.ending.word = Some(word);
        bodies.push(Body::Event(Box::new(said)));
    }
    let mut plain = EventReport::new("e3".parse().unwrap(), Kind::Attempt);
    plain.call_mut().method = "GET".into();
    plain.call_mut().path = "/".into();
    bodies.push(Body::Event(Box::new(plain)));
    bodies.push(Body::Proxy(Box::default()));
    bodies.push(Body::Proxy(Box::new(ProxyStatus {
        due_ms: 1,
        in_flight: 2,
        oldest_ms: 3,
        counts: Counts {
            succeeded: 4,
            rejected: 5,
            failed: 6,
            unknown: 7,
            refused: 8,
            possible_splits: 9,
            invalid_ids: 10,
            dropped: 11,
        },
        load: [("named_metrics.\"q\"".into(), 0.5), ("eps".into(), 1e9)].into(),
        reporters: vec![
            ReporterMark {
                id: ReporterId(1),
                seq: 12,
                dropped: 13,
                gone: true,
            },
            ReporterMark {
                id: ReporterId(2),
                seq: 14,
                dropped: 0,
                gone: false,
            },
        ],
    })));
    let reports: Vec<_> = (1..)
        .zip(bodies)
        .map(|(seq, body)| Report {
            seq,
            at_ms: 1_000 + seq,
            body,
        })
        .collect();
    for gateway in [false, true] {
        let mut theirs = BatchBuilder::new(reporter(gateway), 1_005);
        for report in &reports {
            theirs.push(report);
        }
        let ours: Batch =
            serde_json::from_str(&encode(&reporter(gateway), 1_005, &reports)).unwrap();
        assert_eq!(ours, theirs.finish());
    }
}

#[test]
fn a_quick_request_costs_about_a_hundred_bytes() {
    let mut event = full(Kind::Attempt);
    event = EventReport {
        call: event.call,
        sent_ms: Some(999),
        ending: Ending {
            status: Some(200),
            ..Ending::default()
        },
        duration_ms: 12,
        ..EventReport::new(
            "0198c3a2-1111-7222-8333-444455556666".parse().unwrap(),
            Kind::Attempt,
        )
    };
    let reports: Vec<_> = (1_000..1_500)
        .map(|seq| Report {
            seq,
            at_ms: 1_000,
            body: Body::Event(Box::new(event.clone())),
        })
        .collect();
    let bytes = encode(&reporter(false), 1_200, &reports).len() / reports.len();
    assert!(bytes <= 120, "{bytes} bytes per report");
}
