//! What always holds, over random histories.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kaeru_protocol::{Call, Ending, EventReport, Kind, Peer, ReporterId, Side, Word, flags};
use proptest::prelude::*;

use crate::notation::{Setting, event, peer, service};
use crate::{Decision, Effect, EventState, Fact, ReportKey, Standing, Trace, judge};

const SERVICES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// One random report; sequences are given by position.
fn report() -> impl Strategy<Value = Fact> {
    let who = 0..SERVICES.len();
    let from = prop_oneof![1 => Just(None), 3 => (0..SERVICES.len()).prop_map(Some)];
    let kind = prop_oneof![
        6 => Just(Kind::Attempt),
        2 => Just(Kind::Running),
        2 => Just(Kind::Call),
        1 => Just(Kind::Word),
        1 => Just(Kind::Refused),
        1 => Just(Kind::Cleanup),
    ];
    let ending = (
        prop_oneof![4 => Just(Some(200)), 1 => Just(Some(409)), 1 => Just(Some(500)), 1 => Just(None)],
        prop_oneof![4 => Just(0), 1 => Just(flags::CLIENT_GONE), 1 => Just(flags::UPSTREAM_CONNECTION_FAILURE)],
        prop_oneof![8 => Just(None), 1 => Just(Some(Word::Failed)), 1 => Just(Some(Word::Running)), 1 => Just(Some(Word::Succeeded))],
    );
    let method = prop_oneof![4 => Just("POST"), 1 => Just("GET")];
    (
        who,
        from,
        kind,
        ending,
        method,
        0u64..2_000,
        0u32..50,
        any::<bool>(),
    )
        .prop_map(
            |(who, from, kind, (status, flags, word), method, at_ms, duration_ms, borrowed)| {
                let mut report = EventReport::new(event(), kind);
                report.borrowed = borrowed;
                report.duration_ms = duration_ms;
                report.ending = Ending {
                    status,
                    grpc: None,
                    flags,
                    word,
                };
                report.call = Arc::new(Call {
                    method: method.into(),
                    path: "/x".into(),
                    ..Call::default()
                });
                match (kind, from) {
                    (Kind::Word, _) => report.ending.word = word.or(Some(Word::Running)),
                    (Kind::Call, callee) => {
                        report.side = Side::Outbound;
                        report.call_mut().to =
                            Some(callee.map_or(peer("pay.example"), |i| peer(SERVICES[i])));
                    }
                    (_, caller) => report.call_mut().from = caller.map(|i| service(SERVICES[i])),
                }
                report.sent_ms = (report.call.from.is_some() || kind == Kind::Call)
                    .then(|| at_ms.saturating_sub(u64::from(duration_ms)));
                report.due_ms = (kind == Kind::Running).then_some(500);
                Fact {
                    key: ReportKey {
                        reporter: ReporterId(who as u64),
                        seq: 0,
                    },
                    service: service(SERVICES[who]),
                    gateway: false,
                    at_ms,
                    received_ms: at_ms + 5,
                    report,
                }
            },
        )
}

fn history() -> impl Strategy<Value = Vec<Fact>> {
    prop::collection::vec(report(), 1..14).prop_map(|mut facts| {
        for (seq, fact) in facts.iter_mut().enumerate() {
            fact.key.seq = seq as u64;
            // Some ends belong to an earlier running report of the same reporter.
            if fact.report.kind == Kind::Attempt && seq % 3 == 2 {
                fact.report.opened = Some(seq as u64 - 1);
            }
        }
        facts
    })
}

/// A history, and the same with some reports twice and all in another order.
fn shuffled() -> impl Strategy<Value = (Vec<Fact>, Vec<Fact>)> {
    history().prop_flat_map(|facts| {
        let doubled = prop::sample::subsequence(facts.clone(), 0..=facts.len());
        doubled
            .prop_map({
                let facts = facts.clone();
                move |more| [facts.clone(), more].concat()
            })
            .prop_shuffle()
            .prop_map(move |other| (facts.clone(), other))
    })
}

fn fold(facts: &[Fact]) -> Trace {
    Trace::fold(event(), facts.to_vec(), &Setting::default().policy)
}

/// Feeds the facts one by one, judging after each; gives every decision on the way and the last judgement.
fn live(facts: &[Fact]) -> (Vec<Decision>, crate::Judgement) {
    let setting = Setting::default();
    let mut decisions: Vec<Decision> = Vec::new();
    // Only what was heard of last moves the clock; the end of time comes last.
    for heard in 1..=facts.len() {
        let trace = fold(&facts[..heard]);
        let at_ms = trace.last_received_ms;
        decisions.extend(
            judge(
                &trace,
                decisions.last(),
                None,
                &setting.policy,
                &setting.now(at_ms),
            )
            .decision,
        );
    }
    let trace = fold(facts);
    let end = judge(
        &trace,
        decisions.last(),
        None,
        &setting.policy,
        &setting.now(trace.last_received_ms + 10_000_000),
    );
    decisions.extend(end.decision.clone());
    (decisions, end)
}

fn effects(decision: &Decision) -> BTreeMap<Peer, Effect> {
    let entries = decision
        .plan
        .entries
        .iter()
        .filter(|e| e.effect != Effect::No);
    entries.map(|e| (e.service.clone(), e.effect)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Order and number of reports change nothing.
    #[test]
    fn any_order_any_number_the_same_trace((facts, other) in shuffled()) {
        prop_assert_eq!(fold(&facts), fold(&other));
    }

    /// Once everything is heard, the plan holds the same services with the same effects.
    #[test]
    fn any_order_the_same_plan((facts, other) in shuffled()) {
        let (one, _) = live(&facts);
        let (two, _) = live(&other);
        if let (Some(one), Some(two)) = (one.last(), two.last())
            && one.standing == Standing::Live && two.standing == Standing::Live
        {
            prop_assert_eq!(effects(one), effects(two));
        }
    }

    /// A plan never loses an entry, and revisions count up by one.
    #[test]
    fn a_plan_never_loses_an_entry(facts in history()) {
        let (decisions, _) = live(&facts);
        for pair in decisions.windows(2) {
            if pair[1].revision == 1 { continue }
            prop_assert_eq!(pair[1].revision, pair[0].revision + 1);
            let names = |d: &Decision| d.plan.entries.iter().map(|e| e.service.clone()).collect::<BTreeSet<_>>();
            prop_assert!(names(&pair[0]).is_subset(&names(&pair[1])));
        }
    }

    /// A callee is undone before its caller unless they are in one circle, and the entries stand in an order
    /// that respects what they say.
    #[test]
    fn the_order_respects_causality(facts in history()) {
        let (decisions, _) = live(&facts);
        for decision in &decisions {
            let mut done: BTreeSet<&Peer> = BTreeSet::new();
            for entry in &decision.plan.entries {
                prop_assert!(entry.after.iter().all(|p| done.contains(p)), "{decision}");
                prop_assert!(entry.together.iter().all(|p| !entry.after.contains(p)));
                done.insert(&entry.service);
            }
        }
        let in_force = |d: &&Decision| !matches!(d.standing, Standing::Withdrawn(_));
        if let Some(decision) = decisions.last().filter(in_force) {
            let trace = fold(&facts);
            let place = |p: &Peer| decision.plan.entries.iter().position(|e| e.service == *p);
            for (callee, step) in &trace.steps {
                for caller in &step.parents {
                    let (Some(down), Some(up)) = (place(callee), place(caller)) else { continue };
                    let together = decision.plan.entries[up].together.contains(callee);
                    prop_assert!(down <= up || together, "{callee} called by {caller}: {decision}");
                }
            }
        }
    }

    /// A shared id has no live decision.
    #[test]
    fn shared_ids_are_never_doomed(facts in history()) {
        let facts: Vec<Fact> = facts
            .into_iter()
            .map(|mut f| { f.report.borrowed = true; f })
            .collect();
        let trace = fold(&facts);
        let (decisions, end) = live(&facts);
        if trace.shared.is_some() {
            prop_assert!(decisions.last().is_none_or(|d| matches!(d.standing, Standing::Withdrawn(_))));
            prop_assert!(end.state != EventState::RollingBack);
        }
    }

    /// Every event whose steps have all ended settles, and then nothing changes by time alone.
    #[test]
    fn every_event_settles(facts in history()) {
        let trace = fold(&facts);
        let (decisions, end) = live(&facts);
        if !trace.is_open() {
            prop_assert!(end.state != EventState::Running, "{end:?}");
            // A new plan is looked at once more.
            let rests = end.wake_ms.is_none() || end.decision.is_some();
            prop_assert!(end.settled && rests, "{end:?}");
            let setting = Setting::default();
            let later = setting.now(trace.last_received_ms + 20_000_000);
            let again = judge(&trace, decisions.last(), None, &setting.policy, &later);
            prop_assert_eq!(again.decision, None);
        }
    }
}
