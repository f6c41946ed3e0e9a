//! A thousand schedules, each checked by the oracle; that they exercise what they claim; that a seed is one schedule; and
//! schedules that found something, by name.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use kaeru_sim::{Condition, Tally, Topology, run};

const SCHEDULES: u64 = 1_000;

/// What a thousand schedules must meet, each at least so often.
const MET: &[(&str, u64)] = &[
    ("fault: VM dies", 50),
    ("fault: aggregator dies", 20),
    ("fault: aggregator leaves", 20),
    ("fault: answer delayed", 50),
    ("fault: answer lost", 50),
    ("fault: callout delayed", 200),
    ("fault: callout doubled", 200),
    ("fault: callout lost", 200),
    ("fault: callout's answer lost", 200),
    ("fault: commit not heard of", 1),
    ("fault: connection reset", 50),
    ("fault: database away", 30),
    ("fault: notification lost", 20),
    ("fault: pod dies", 20),
    ("fault: proxy cut off", 20),
    ("fault: proxy dies", 20),
    ("fault: request delayed", 50),
    ("fault: request lost", 50),
    ("reports dropped by own count", 50),
    ("reports lost with a dead VM", 50),
    ("request unseen by a dead VM", 50),
    ("rule deadline", 10),
    ("rule entry", 100),
    ("rule fatal", 10),
    ("rule operator", 100),
    ("rule stalled", 10),
    ("rule word", 100),
    ("standing live", 500),
    ("standing contested", 20),
    ("standing withdrawn by kaeru", 20),
    ("standing withdrawn by an operator", 50),
    ("state abandoned", 10),
    ("state failed", 50),
    ("state rolling_back", 200),
    ("state succeeded", 500),
    ("spared: succeeded", 500),
    ("request refused", 100),
    ("harmless request of a doomed event passed", 1),
    ("refused before the withdrawal was heard", 1),
    ("verdict asked for", 50),
    ("job stops by its verdict", 5),
    ("application compensates", 50),
    ("branch handed over", 50),
    ("queue delivers again", 20),
    ("consumer gives up by word", 5),
    ("event without an entry", 50),
    ("client went away", 50),
    ("client tries again", 200),
    ("client gives a deadline", 100),
    ("order under a shared trace id", 200),
    ("Envoy tries again", 10),
    ("call timed out", 50),
    ("modes told again", 5),
    ("plan incomplete", 20),
    ("revision", 300),
    ("order: callee before caller", 200),
    ("order: later sibling before earlier", 50),
    ("effect found in the plan", 200),
    ("service says running", 100),
    ("service falls silent", 10),
    ("service hangs", 20),
    ("service crashes", 20),
];

#[test]
fn a_thousand_schedules_break_nothing_and_meet_everything() {
    let next = AtomicU64::new(0);
    let sum: Mutex<(Tally, Vec<String>)> = Mutex::default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let mut own = Tally::default();
                let mut failures = Vec::new();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SCHEDULES {
                        break;
                    }
                    let outcome = run(seed, false);
                    own.join(&outcome.tally);
                    failures.extend(
                        outcome
                            .failure
                            .map(|failure| format!("seed {seed}: {failure}")),
                    );
                }
                let mut sum = sum.lock().unwrap();
                sum.0.join(&own);
                sum.1.extend(failures);
            });
        }
    });
    let (tally, failures) = sum.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{failures:#?}\nThe story of one: torture --seed N"
    );
    for topology in Topology::ALL {
        let what = format!("topology {topology:?}");
        assert!(tally.of(&what) >= 50, "{what}: {}", tally.of(&what));
    }
    for (what, least) in MET {
        assert!(
            tally.of(what) >= *least,
            "{what}: {}\n{tally}",
            tally.of(what)
        );
    }
    let unquiet = tally.of("end: not quiet");
    assert!(
        unquiet * 20 < SCHEDULES,
        "{unquiet} schedules never came to rest"
    );
}

#[test]
fn a_seed_is_one_schedule() {
    for seed in [0, 7, 1_000_003] {
        let (one, two) = (run(seed, true), run(seed, true));
        assert_eq!(one.story, two.story);
        assert_eq!(one.tally, two.tally);
        assert!(one.story.lines().count() > 50);
    }
}

#[test]
fn every_condition_says_where_the_design_has_it() {
    for (name, rule, words) in Condition::ALL {
        assert!(!rule.is_empty() && words.len() > 15, "{name}");
    }
}

/// Each broke a condition once; what it was stands beside it.
const FOUND: &[(u64, &str)] = &[
    (
        8,
        "PlanIsStale: a loss that became known after the decision made no plan incomplete",
    ),
    (
        44,
        "BranchNotRequired: a consumer's word was heard before the entry",
    ),
    (
        673,
        "EntryNotFailed: after an outage a retry's report waited in its VM's back-off",
    ),
    (
        1_969,
        "EffectMissing: a reporter first heard of by a mark had lost what it said before",
    ),
    (
        4_779,
        "EntryNotFailed: an aggregator that died and came back within three seconds was no outage",
    ),
    (
        5_908,
        "DeadlineNotPassed: an end that was said while the database was away came after it",
    ),
    (
        8_087,
        "EntryNotFailed: the database was back, and its outage not yet written down",
    ),
    (
        8_516,
        "EffectMissing: an event all of whose reports came late was judged to have begun late",
    ),
    (
        29_642,
        "EntryNotFailed, by the oracle: a retry was in time only after an attempt that could not be heard of",
    ),
    (
        85_690,
        "SharedDoomed, by the oracle: the first order's success by word was not stored yet",
    ),
];

#[test]
fn what_was_found_stays_found() {
    for (seed, what) in FOUND {
        let failure = run(*seed, false).failure;
        assert!(failure.is_none(), "seed {seed}, once {what}: {failure:?}");
    }
}

#[test]
fn the_page_names_every_condition() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/SIMULATION.md");
    let page = std::fs::read_to_string(path).unwrap();
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let named: Vec<(&str, &str)> = rows
        .filter_map(|(name, rest)| Some((name, rest.split_once(" | ")?.0)))
        .filter(|(name, _)| name.chars().next().is_some_and(char::is_uppercase))
        .collect();
    let known: Vec<(&str, &str)> = Condition::ALL
        .iter()
        .map(|(name, rule, _)| (*name, *rule))
        .collect();
    assert_eq!(named, known);
}
