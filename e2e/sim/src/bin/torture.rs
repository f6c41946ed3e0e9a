//! `make schedules`: many schedules, on every core, or the story of one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use clap::Parser;
use kaeru_sim::{Outcome, Tally, run};

/// Runs schedules of the simulation.
#[derive(Debug, Parser)]
struct Torture {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many schedules.
    #[arg(long, default_value_t = 100_000)]
    count: u64,
    /// Tell the story of this one.
    #[arg(long)]
    seed: Option<u64>,
    /// Go on after a failure, and say how often each condition was broken.
    #[arg(long)]
    all: bool,
}

#[expect(
    clippy::print_stdout,
    reason = "this program is for a person at a terminal"
)]
fn main() -> std::process::ExitCode {
    let torture = Torture::parse();
    if let Some(seed) = torture.seed {
        let outcome = run(seed, true);
        println!("{}\n{}", outcome.story, outcome.tally);
        return verdict(outcome.failure.is_none());
    }
    let next = AtomicU64::new(torture.from);
    let until = torture.from + torture.count;
    let tally = Mutex::new(Tally::default());
    let failures: Mutex<Vec<(u64, String)>> = Mutex::default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let mut own = Tally::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let has_failed = !failures
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .is_empty();
                    if seed >= until || (has_failed && !torture.all) {
                        break;
                    }
                    let outcome: Outcome = run(seed, false);
                    own.join(&outcome.tally);
                    if let Some(failure) = outcome.failure {
                        println!("seed {seed}: {failure}");
                        let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                        failures.push((seed, failure.to_string()));
                    }
                    let done = seed - torture.from + 1;
                    if done.is_multiple_of(5_000) {
                        println!("{done} schedules");
                    }
                }
                tally
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .join(&own);
            });
        }
    });
    println!("{}", tally.lock().unwrap_or_else(PoisonError::into_inner));
    let mut failures = failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    failures.sort();
    if torture.all {
        summarize(&failures);
    } else if let Some((seed, _)) = failures.first() {
        println!("{}", run(*seed, true).story);
        println!("Again: torture --seed {seed}");
    }
    verdict(failures.is_empty())
}

/// How often each condition was broken, and the first seeds of each.
#[expect(
    clippy::print_stdout,
    reason = "this program is for a person at a terminal"
)]
fn summarize(failures: &[(u64, String)]) {
    let mut by_name: std::collections::BTreeMap<&str, Vec<u64>> = std::collections::BTreeMap::new();
    for (seed, words) in failures {
        let name = words.split(' ').next().unwrap_or_default();
        by_name.entry(name).or_default().push(*seed);
    }
    for (name, seeds) in by_name {
        println!(
            "{:>6}  {name}: seeds {:?}",
            seeds.len(),
            &seeds[..seeds.len().min(6)]
        );
    }
}

fn verdict(is_good: bool) -> std::process::ExitCode {
    if is_good {
        std::process::ExitCode::SUCCESS
    } else {
        std::process::ExitCode::FAILURE
    }
}
