//! What is sent to the aggregator, by whom, and what happens while it is away.

use kaeru_protocol::{Body, ProxyStatus};

use super::rig::{Ended, OK, ROOT, Rig};
use crate::host::Refused;

const POST: &str = ":method: POST\n:path: /x\n:authority: web\nx-event-id: e1\n";
const FAILED: Ended<'static> = Ended {
    response: Some(":status: 200\nx-event-status: failed"),
    code: Some(200),
    flags: 0,
};

fn statuses(rig: &mut Rig) -> Vec<ProxyStatus> {
    rig.deliver();
    let told = std::mem::take(&mut rig.reports).into_iter();
    told.filter_map(|report| match report.body {
        Body::Proxy(status) => Some(*status),
        Body::Event(_) => None,
    })
    .collect()
}

#[test]
fn one_vm_leads_and_another_takes_over() {
    let mut rig = Rig::new(3, "");
    rig.pass(5_000);
    assert_eq!(rig.polls(), 1);
    let leader = rig.vms.iter().position(|vm| vm.leads).unwrap();
    rig.vms.remove(leader);
    rig.proxy.calls.borrow_mut().clear();
    rig.pass(2_000);
    assert_eq!(
        (rig.polls(), rig.vms.iter().filter(|vm| vm.leads).count()),
        (1, 1)
    );
}

#[test]
fn the_poll_goes_on_where_the_proxy_stands() {
    let mut rig = Rig::new(2, "");
    rig.doom("e1", "enforce");
    let next = rig.proxy.calls.borrow().last().unwrap().1.clone();
    assert_eq!(
        next,
        "/v1/verdicts?service=shop/web&wait_ms=25000&after=e:1"
    );
    rig.answer_poll(r#"{"cursor":"e:1","verdicts":[]}"#);
    assert_eq!(
        rig.polls(),
        0,
        "an answer that was not held is not asked for again at once"
    );
    rig.pass(1_200);
    assert_eq!(rig.polls(), 1);
}

#[test]
fn a_failure_leaves_at_once_and_a_thousand_do_not_storm() {
    let mut rig = Rig::new(1, r#"{"status_interval_s":3600}"#);
    rig.pass(2_000);
    statuses(&mut rig);
    rig.inbound(0, POST, &OK);
    assert_eq!(rig.answer_reports(200), 0);
    rig.inbound(0, POST, &FAILED);
    assert_eq!(
        (rig.answer_reports(200), rig.host(0).tick_ms.get()),
        (1, 200),
        "without a tick"
    );
    rig.inbound(0, POST, &FAILED);
    assert_eq!(
        (rig.answer_reports(200), rig.host(0).tick_ms.get()),
        (0, 10),
        "not before the gap"
    );
    rig.vms[0].tick(ROOT);
    assert_eq!(rig.answer_reports(200), 1);
}

#[test]
fn a_failure_while_a_batch_is_on_its_way_leaves_with_its_answer() {
    let mut rig = Rig::new(1, "");
    rig.inbound(0, POST, &FAILED);
    rig.inbound(0, POST, &FAILED);
    assert_eq!((rig.answer_reports(200), rig.answer_reports(200)), (1, 1));
    assert_eq!(rig.reports.len(), 2);
}

#[test]
fn while_the_aggregator_is_away_reports_wait_and_arrive_later() {
    let mut rig = Rig::new(1, "");
    rig.inbound(0, POST, &FAILED);
    let mut tries = 0;
    for _ in 0..60 {
        rig.pass(1_000);
        tries += rig.answer_reports(503);
        rig.inbound(0, POST, &FAILED);
    }
    assert!((4..12).contains(&tries), "{tries} tries in a minute");
    rig.pass(30_000);
    assert_eq!(rig.flushed().len(), 61);
    assert_eq!(rig.proxy.metric("kaeru_reports_dropped_total"), 0);
    let log = rig.host(0).log.borrow().join("\n");
    assert_eq!(log.matches("cannot be delivered").count(), 1, "{log}");
    assert_eq!(log.matches("delivered again").count(), 1, "{log}");
}

#[test]
fn a_missing_cluster_is_counted_apart() {
    let mut rig = Rig::new(1, "");
    rig.proxy.refuses_calls.set(Some(Refused::BAD_ARGUMENT));
    rig.inbound(0, POST, &OK);
    rig.pass(3_000);
    assert!(rig.proxy.metric("kaeru_no_cluster_total") >= 2);
    rig.proxy.refuses_calls.set(None);
    rig.pass(5_000);
    assert_eq!(rig.answer_reports(200), 1);
}

#[test]
fn calls_of_a_root_that_is_gone_are_made_again() {
    let mut rig = Rig::new(1, "");
    rig.inbound(0, POST, &OK);
    rig.pass(1_200);
    rig.proxy.calls.borrow_mut().clear();
    rig.vms[0].delete(ROOT);
    rig.pass(3_000);
    assert_eq!((rig.polls(), rig.answer_reports(200)), (1, 1));
}

#[test]
fn what_a_vm_leaves_is_sent_by_the_leader() {
    let mut rig = Rig::new(2, "");
    rig.pass(1_000);
    for _ in 0..600 {
        rig.inbound(1, POST, &OK);
    }
    // A batch of it is on its way.
    assert!(rig.vms[1].seen().kept == 600);
    let logged = rig.host(1).log.borrow().len();
    let mut gone = rig.vms.remove(1);
    gone.delete(ROOT);
    assert_eq!(
        (gone.seen().kept, gone.host().log.borrow().len()),
        (0, logged)
    );
    rig.proxy
        .calls
        .borrow_mut()
        .retain(|(_, path, _)| path != "/v1/reports");
    // While the aggregator is away it waits.
    rig.pass(400);
    assert!(rig.answer_reports(503) > 0);
    for _ in 0..2 {
        rig.pass(3_000);
        while rig.answer_reports(200) > 0 {}
    }
    let events = rig
        .reports
        .iter()
        .filter(|r| matches!(r.body, Body::Event(_)));
    let left: Vec<_> = events.map(|report| report.seq).collect();
    assert_eq!(left, (1..=600).collect::<Vec<_>>(), "once, in order");
    assert!(rig.proxy.metric("kaeru_reports_delivered_total") >= 600);
}

#[test]
fn a_root_that_is_replaced_ends_nothing() {
    let mut rig = Rig::new(1, "");
    rig.inbound(0, POST, &OK);
    rig.pass(1_200);
    rig.vms[0].configure(ROOT + 1, 0);
    rig.proxy.calls.borrow_mut().clear();
    let kept = rig.vms[0].seen().kept;
    rig.vms[0].delete(ROOT);
    assert_eq!(rig.vms[0].seen().kept, kept);
    rig.proxy.now_ms.set(rig.proxy.now_ms.get() + 1_000);
    rig.vms[0].tick(ROOT + 1);
    assert_eq!(rig.answer_reports(200), 1);
    assert_eq!(rig.vms[0].seen().kept, 0);
    let log = rig.host(0).log.borrow().join("\n");
    assert!(!log.contains("cannot be delivered"), "{log}");
}

#[test]
fn a_proxy_states_its_status_once_for_all_its_vms() {
    let mut rig = Rig::new(3, r#"{"status_interval_s":10}"#);
    rig.inbound(1, POST, &OK);
    rig.inbound(2, POST, &FAILED);
    let (_open, _) = rig.begin(2, 1, POST, true);
    rig.pass(1_000);
    statuses(&mut rig);
    rig.pass(10_000);
    let told = statuses(&mut rig);
    assert_eq!(told.len(), 1);
    let status = &told[0];
    assert_eq!((status.in_flight, status.due_ms), (1, 15_000));
    assert!(
        (9_000..=11_500).contains(&status.oldest_ms),
        "{}",
        status.oldest_ms
    );
    assert_eq!(status.reporters.len(), 3);
    rig.pass(10_000);
    let again = statuses(&mut rig);
    assert_eq!(
        again[0].counts,
        kaeru_protocol::Counts::default(),
        "counted since the last"
    );
}

#[test]
fn the_tail_of_a_dead_vm_is_seen() {
    let mut rig = Rig::new(3, r#"{"status_interval_s":10}"#);
    rig.pass(1_000);
    rig.inbound(2, POST, &OK);
    rig.inbound(2, POST, &OK);
    let dead = rig.vms.pop().unwrap().me;
    rig.pass(11_000);
    let status = statuses(&mut rig).pop().unwrap();
    let mark = status
        .reporters
        .iter()
        .find(|mark| mark.id == dead)
        .unwrap();
    assert_eq!(mark.seq, 2, "given out and never sent");
}

#[test]
fn load_is_stated_by_the_leader_whoever_heard_it() {
    let mut rig = Rig::new(3, r#"{"status_interval_s":10}"#);
    rig.pass(1_000);
    let loaded = Ended {
        response: Some(":status: 200\nendpoint-load-metrics: TEXT named_metrics.queue_depth=12"),
        ..OK
    };
    rig.inbound(2, POST, &loaded);
    rig.pass(11_000);
    let status = statuses(&mut rig).pop().unwrap();
    assert_eq!(status.load.get("named_metrics.queue_depth"), Some(&12.0));
}
