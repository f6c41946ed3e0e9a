use kaeru_protocol::{Mode, Verdict, VerdictPage};

use super::*;
use crate::host::simulated::{Proxy, Simulated};

fn entry(event: &str, verdict: Verdict, ttl_ms: u64) -> VerdictEntry {
    VerdictEntry {
        event: event.parse().unwrap(),
        verdict,
        decision: "0198c3a2-9999-7222-8333-444455556666".parse().unwrap(),
        failed: Some("shop/payment".parse().unwrap()),
        mode: Mode::Enforce,
        ttl_ms,
    }
}

fn page(seq: u64, verdicts: Vec<VerdictEntry>) -> VerdictPage {
    VerdictPage {
        cursor: format!("e:{seq}").parse().unwrap(),
        reset: false,
        more: false,
        verdicts,
    }
}

fn many(from: u32, to: u32, ttl_ms: u64) -> Vec<VerdictEntry> {
    (from..to)
        .map(|n| entry(&format!("event-{n}"), Verdict::RollBack, ttl_ms))
        .collect()
}

#[test]
fn what_the_leader_writes_every_worker_finds() {
    let proxy = Proxy::at(1_000);
    let (leader, worker) = (Simulated::new(&proxy, 1), Simulated::new(&proxy, 2));
    let mut verdicts = Verdicts::default();
    let id = "event-1".parse().unwrap();
    assert_eq!(
        (cursor(&leader), verdicts.find(&worker, 0, &id)),
        (None, None)
    );

    let told = entry("event-1", Verdict::RollBack, 500);
    write(&leader, 1_000, &page(7, vec![told.clone()]), 10).unwrap();
    assert_eq!(cursor(&leader), Some("e:7".parse().unwrap()));
    assert_eq!(verdicts.find(&worker, 1_000, &id), Some(told));
    assert_eq!(verdicts.find(&worker, 1_499, &id).unwrap().ttl_ms, 1);
    assert_eq!(verdicts.find(&worker, 1_500, &id), None, "its life is over");

    let withdrawn = entry("event-1", Verdict::Proceed, 500);
    write(&leader, 1_400, &page(8, vec![withdrawn]), 10).unwrap();
    assert_eq!(
        verdicts.find(&worker, 1_401, &id).unwrap().verdict,
        Verdict::Proceed
    );
}

#[test]
fn without_a_verdict_a_request_costs_one_hostcall() {
    let proxy = Proxy::at(0);
    let host = Simulated::new(&proxy, 1);
    let mut verdicts = Verdicts::default();
    write(&host, 0, &page(1, many(0, 1_000, 9)), 10_000).unwrap();
    verdicts.refresh(&host);
    host.hostcalls.borrow_mut().clear();
    assert_eq!(verdicts.find(&host, 0, &"other".parse().unwrap()), None);
    assert_eq!(host.hostcalls.borrow().values().sum::<u32>(), 1);
}

#[test]
fn the_ring_holds_its_maximum_and_the_oldest_go_counted() {
    let proxy = Proxy::at(0);
    let (leader, worker) = (Simulated::new(&proxy, 1), Simulated::new(&proxy, 2));
    let mut verdicts = Verdicts::default();
    let (mut taken, mut evicted) = (0, 0);
    for batch in 0..20 {
        let from = batch * 1_000;
        let told = page(u64::from(batch), many(from, from + 1_000, 60_000));
        let written = write(&leader, 0, &told, 5_000).unwrap();
        taken += written.taken;
        evicted += written.evicted;
        verdicts.refresh(&worker);
    }
    assert_eq!(taken, 20_000);
    assert_eq!(
        taken - evicted,
        verdicts.len() as u64,
        "all are known or counted"
    );
    assert!((4_000..=5_000).contains(&verdicts.len()));
    assert!(
        verdicts
            .find(&worker, 1, &"event-19999".parse().unwrap())
            .is_some()
    );
    assert!(
        verdicts
            .find(&worker, 1, &"event-0".parse().unwrap())
            .is_none()
    );
    assert!(proxy.shared_bytes() < 5_500 * 160);
    let mut late = Verdicts::default();
    late.refresh(&worker);
    assert_eq!(late.len(), verdicts.len(), "a new worker knows the same");
}

#[test]
fn what_has_ended_is_swept_and_what_was_said_again_stays() {
    let proxy = Proxy::at(0);
    let host = Simulated::new(&proxy, 1);
    let mut verdicts = Verdicts::default();
    write(&host, 0, &page(1, many(0, 2_000, 100)), 100_000).unwrap();
    write(&host, 50, &page(2, many(0, 1, 60_000)), 100_000).unwrap();
    verdicts.refresh(&host);
    assert_eq!(verdicts.len(), 2_000);
    sweep(&host, 200).unwrap();
    assert!(
        verdicts
            .find(&host, 200, &"event-0".parse().unwrap())
            .is_some()
    );
    assert!(verdicts.len() < 500, "{}", verdicts.len());
    sweep(&host, 200).unwrap();
}

#[test]
fn a_reset_forgets_everything_before() {
    let proxy = Proxy::at(0);
    let host = Simulated::new(&proxy, 1);
    let mut verdicts = Verdicts::default();
    write(&host, 0, &page(1, many(0, 2_000, 100)), 100_000).unwrap();
    verdicts.refresh(&host);
    let snapshot = VerdictPage {
        reset: true,
        ..page(1, many(5_000, 5_001, 100))
    };
    write(&host, 0, &snapshot, 100_000).unwrap();
    assert!(
        verdicts
            .find(&host, 0, &"event-1".parse().unwrap())
            .is_none()
    );
    assert!(
        verdicts
            .find(&host, 0, &"event-5000".parse().unwrap())
            .is_some()
    );
    assert_eq!(verdicts.len(), 1);
    assert!(proxy.shared_bytes() < 1_000);
}

#[test]
fn of_two_writers_one_loses() {
    let proxy = Proxy::at(0);
    let host = Simulated::new(&proxy, 1);
    write(&host, 0, &page(1, many(0, 1, 100)), 10).unwrap();
    let empty = page(2, Vec::new());
    assert_eq!(write(&host, 0, &empty, 10), Ok(Written::default()));
    assert_eq!(cursor(&host), Some("e:2".parse().unwrap()));
}
