use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;

use kaeru_protocol::{
    Batch, BatchBuilder, Ending, EventReport, ProxyStatus, ReporterId, ReporterMark,
};

use super::*;
use crate::report::{Facts, More};

fn reporter(gateway: bool) -> Reporter {
    Reporter {
        id: ReporterId(0x9f),
        proxy: "sidecar~10.0.0.7~\"web\"".into(),
        service: "shop/web".parse().unwrap(),
        gateway,
    }
}

fn full(kind: Kind) -> Event {
    let call = Call {
        event_type: Some("order.placed".parse().unwrap()),
        from: Some("shop/web".parse().unwrap()),
        to: Some("host:pay.example:8443".parse().unwrap()),
        method: "POST".into(),
        path: "/a/{id}".into(),
        ..Call::default()
    };
    let facts = Facts {
        call: Rc::new(call),
        sent_ms: NonZeroU64::new(900),
        deadline_s: NonZeroU32::new(30),
        attempt: 2,
        side: Side::Outbound,
        borrowed: true,
        handed_over: true,
        ..Facts::of("e1", Rc::default())
    };
    let more = More {
        progress: Some(0.4),
        cost: Some(2.5e-7),
        decision: Some("d-1".parse().unwrap()),
    };
    Event {
        opened: NonZeroU64::new(3),
        ending: Ending {
            status: Some(503),
            grpc: Some(14),
            flags: 0x8020,
            word: Some(Word::Rejected),
        },
        duration_ms: 7,
        due_ms: NonZeroU32::new(62_000),
        more: Some(Box::new(more)),
        ..Event::new(Rc::new(facts), kind)
    }
}

/// The report as the protocol has it.
fn told(report: &Report) -> kaeru_protocol::Report {
    let body = match &report.body {
        Body::Event(event) => kaeru_protocol::Body::Event(Box::new(told_event(event))),
        Body::Proxy(status) => kaeru_protocol::Body::Proxy(Box::new(ProxyStatus {
            due_ms: status.due_ms,
            in_flight: status.in_flight,
            oldest_ms: status.oldest_ms,
            counts: status.counts,
            load: status.load.iter().cloned().collect(),
            reporters: status.reporters.clone(),
        })),
    };
    kaeru_protocol::Report {
        seq: report.seq,
        at_ms: report.at_ms,
        body,
    }
}

fn told_event(event: &Event) -> EventReport {
    let facts = &event.facts;
    let more = event.more.as_deref().cloned().unwrap_or_default();
    EventReport {
        borrowed: facts.borrowed,
        side: facts.side,
        call: Arc::new(kaeru_protocol::Call {
            event_type: facts.call.event_type.clone(),
            from: facts.call.from.clone(),
            to: facts.call.to.clone(),
            method: facts.call.method.clone(),
            path: facts.call.path.clone(),
        }),
        sent_ms: facts.sent_ms.map(NonZeroU64::get),
        handed_over: facts.handed_over,
        opened: event.opened.map(NonZeroU64::get),
        attempt: facts.attempt,
        ending: event.ending,
        duration_ms: event.duration_ms,
        due_ms: event.due_ms.map(NonZeroU32::get),
        progress: more.progress,
        cost: more.cost,
        deadline_s: facts.deadline_s.map(NonZeroU32::get),
        decision: more.decision,
        ..EventReport::new(facts.event.clone(), event.kind)
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
    let mut bodies: Vec<_> = kinds.map(|kind| Body::Event(full(kind))).into();
    for word in [Word::Running, Word::Succeeded, Word::Rejected, Word::Failed] {
        let mut said = Event::new(Rc::new(Facts::of("e2", Rc::default())), Kind::Word);
        said.ending.word = Some(word);
        bodies.push(Body::Event(said));
    }
    let plain = Facts {
        call: Rc::new(Call {
            method: "GET".into(),
            path: "/\"".into(),
            ..Call::default()
        }),
        ..Facts::of("e3", Rc::default())
    };
    bodies.push(Body::Event(Event::new(Rc::new(plain), Kind::Attempt)));
    bodies.push(Body::Proxy(Box::default()));
    bodies.push(Body::Proxy(Box::new(Status {
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
            theirs.push(&told(report));
        }
        let ours: Batch =
            serde_json::from_str(&encode(&reporter(gateway), 1_005, &reports)).unwrap();
        assert_eq!(ours, theirs.finish());
    }
}

#[test]
fn a_quick_request_costs_about_a_hundred_bytes() {
    let mut event = full(Kind::Attempt);
    event = Event {
        facts: Rc::new(Facts {
            call: event.facts.call.clone(),
            sent_ms: NonZeroU64::new(999),
            ..Facts::of("0198c3a2-1111-7222-8333-444455556666", Rc::default())
        }),
        ending: Ending {
            status: Some(200),
            ..Ending::default()
        },
        duration_ms: 12,
        ..Event::new(event.facts, Kind::Attempt)
    };
    let reports: Vec<_> = (1_000..1_500)
        .map(|seq| Report {
            seq,
            at_ms: 1_000,
            body: Body::Event(event.clone()),
        })
        .collect();
    let bytes = encode(&reporter(false), 1_200, &reports).len() / reports.len();
    assert!(bytes <= 120, "{bytes} bytes per report");
}
