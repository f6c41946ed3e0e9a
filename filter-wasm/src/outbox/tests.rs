use std::rc::Rc;

use kaeru_protocol::{Batch, Ending, ReporterId};

use super::*;
use crate::calls::Call;
use crate::report::{Event, Facts};

fn reporter() -> Reporter {
    Reporter {
        id: ReporterId(1),
        proxy: "p".into(),
        service: "shop/web".parse().unwrap(),
        gateway: false,
    }
}

fn report(kind: Kind, method: &str, status: u16) -> Body {
    let call = Call {
        method: method.into(),
        ..Call::default()
    };
    let facts = Facts::of("e1", Rc::new(call));
    Body::Event(Event {
        ending: Ending {
            status: Some(status),
            ..Ending::default()
        },
        ..Event::new(Rc::new(facts), kind)
    })
}

fn seqs(json: &str) -> Vec<u64> {
    let batch: Batch = serde_json::from_str(json).unwrap();
    batch.reports.iter().map(|r| r.seq).collect()
}

fn filled(max: usize, reports: usize) -> Outbox {
    let mut outbox = Outbox::new(max);
    for _ in 0..reports {
        outbox.push(0, report(Kind::Attempt, "POST", 200));
    }
    outbox
}

#[test]
fn when_full_the_least_missed_leave_first() {
    let mut outbox = Outbox::new(3);
    outbox.push(0, report(Kind::Attempt, "POST", 200)); // 1
    outbox.push(0, report(Kind::Attempt, "GET", 200)); // 2
    outbox.push(0, report(Kind::Running, "POST", 200)); // 3
    assert_eq!(outbox.push(0, report(Kind::Attempt, "GET", 500)), 1); // 4 for 3
    assert_eq!(outbox.push(0, report(Kind::Word, "POST", 200)), 1); // 5 for 2
    assert_eq!(outbox.push(0, Body::Proxy(Box::default())), 1); // 6 not even taken
    assert_eq!(outbox.push(0, report(Kind::Attempt, "POST", 200)), 1); // 7 for 1
    assert_eq!(seqs(&outbox.next_batch(&reporter(), 0).unwrap()), [4, 5, 7]);
    assert_eq!((outbox.dropped(), outbox.last_seq()), (4, 7));
}

#[test]
fn one_batch_at_a_time_until_it_is_acknowledged() {
    let mut outbox = filled(100, 3);
    let first = outbox.next_batch(&reporter(), 0).unwrap();
    assert_eq!(outbox.next_batch(&reporter(), 0), None);
    outbox.push(0, report(Kind::Attempt, "POST", 200));
    let settled = outbox.settle(&Answer::Later(Some(9_000)), 0, 0);
    assert!(settled.again && !outbox.backoff.is_over(8_999));
    let again = outbox.next_batch(&reporter(), 9_000).unwrap();
    assert_eq!(
        (seqs(&first), seqs(&again)),
        (vec![1, 2, 3], vec![1, 2, 3, 4])
    );
    let settled = outbox.settle(&Answer::Taken(1), 0, 0);
    assert_eq!((settled.delivered, settled.dropped), (3, 1));
    assert_eq!((outbox.waiting(), outbox.dropped()), (0, 1));
}

#[test]
fn too_large_halves_down_to_one_which_is_dropped() {
    let mut outbox = filled(100, 5);
    let mut sizes = Vec::new();
    while let Some(batch) = outbox.next_batch(&reporter(), 0) {
        sizes.push(seqs(&batch).len());
        outbox.settle(&Answer::TooLarge, 0, 0);
    }
    assert_eq!(sizes, [5, 2, 1, 1, 1, 1, 1]);
    assert_eq!(outbox.dropped(), 5);
}

#[test]
fn batches_grow_again_after_they_were_halved() {
    let mut outbox = filled(10_000, 2_000);
    let mut sizes = Vec::new();
    outbox.next_batch(&reporter(), 0).unwrap();
    outbox.settle(&Answer::TooLarge, 0, 0);
    while let Some(batch) = outbox.next_batch(&reporter(), 0) {
        sizes.push(seqs(&batch).len());
        outbox.settle(&Answer::Taken(0), 0, 0);
    }
    assert_eq!(sizes, [256, 512, 512, 512, 208]);
}

#[test]
fn never_is_dropped_and_counted() {
    let mut outbox = filled(100, 2);
    outbox.next_batch(&reporter(), 0).unwrap();
    let settled = outbox.settle(&Answer::Never, 0, 0);
    assert_eq!(
        (settled.dropped, settled.again, outbox.waiting()),
        (2, false, 0)
    );
}

#[test]
fn what_is_on_its_way_counts_against_the_limit() {
    let mut outbox = filled(3, 3);
    outbox.next_batch(&reporter(), 0).unwrap();
    assert_eq!(outbox.push(0, report(Kind::Attempt, "POST", 200)), 1);
    outbox.settle(&Answer::Later(None), 0, 0);
    assert_eq!(outbox.waiting(), 3);
}

#[test]
fn a_proxy_status_is_a_report_too() {
    let mut outbox = Outbox::new(3);
    outbox.push(5, Body::Proxy(Box::default()));
    let json = outbox.next_batch(&reporter(), 7).unwrap();
    let batch: Batch = serde_json::from_str(&json).unwrap();
    assert_eq!(batch.reports[0].at, -2);
}
