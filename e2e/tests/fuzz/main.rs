//! Every parser of outside bytes under bytes that nobody sends in good faith. None may panic, none may break what its
//! target promises of its answer, none may take more than its length in time.
//!
//! | file | what |
//! | --- | --- |
//! | `targets.rs` | the parsers: seeds, words, what each answer must keep |
//! | `corpus.rs` | inputs that fuzzing led by coverage has found |
//! | `mutate.rs` | inputs out of both, the same for the same number |
//!
//! Each parser gets its seeds, what `make fuzz` has kept, and some 10,000s of mutations of them; with `KAERU_TORTURE` set 10,000,000 each
//! (`KAERU_TORTURE=1 cargo test --release -p kaeru-e2e --test fuzz -- --nocapture`). An input that broke a promise becomes
//! a seed of its target when the parser is mended.

mod corpus;
mod mutate;
mod targets;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use kaeru_e2e::clock;
use kaeru_e2e::config::Attack;
use mutate::{BYTES_MAX, Mutator};
use targets::{TARGETS, Target};
use tokio::time::Instant;

/// Executions of each parser in the long form.
const TORTURE_RUNS: u32 = 10_000_000;
/// Streams of inputs that were searched before; `KAERU_BREAK_SEED` counts on from them.
const STREAMS_BEFORE: u64 = 3;

/// Runs one parser over its seeds and their mutations; what to say of it.
fn fuzz(target: &Target) -> io::Result<String> {
    let Attack { rounds: runs, seed } = Attack::find(target.quick_runs, TORTURE_RUNS);
    let begun = Instant::now();
    let kept = corpus::read(target.name)?;
    let kept = kept.iter().map(Vec::as_slice);
    let seeds: Vec<&[u8]> = target.seeds.iter().copied().chain(kept).collect();
    for seed in &seeds {
        run(target, seed);
    }
    let mut input = Vec::new();
    let mut mutator = Mutator::new(&seeds, target.words, STREAMS_BEFORE + seed);
    for _ in 0..runs {
        mutator.next(&mut input);
        run(target, &input);
    }
    let (name, seconds) = (target.name, begun.elapsed().as_secs_f64());
    Ok(format!(
        "{name}: {runs} inputs in {seconds:.1} s, none broke a promise"
    ))
}

fn run(target: &Target, input: &[u8]) {
    let kept = catch_unwind(AssertUnwindSafe(|| (target.parse)(input)));
    let start = || input[..input.len().min(400)].escape_ascii();
    let (name, len) = (target.name, input.len());
    assert!(kept.is_ok(), "{name}: {len} bytes: {}", start());
}

macro_rules! fuzzed {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() {
            let name = stringify!($name);
            let target = TARGETS.iter().find(|target| target.name == name);
            println!("{}", fuzz(target.unwrap()).unwrap());
        })*

        #[test]
        fn every_target_is_run() {
            let named: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(named, [$(stringify!($name)),*]);
        }
    };
}

fuzzed!(
    ids,
    traceparent,
    b3,
    baggage,
    orca,
    orca_bin,
    event_from,
    said,
    request,
    path,
    question,
    configuration,
    receipt,
    verdict_page,
    report_batch,
    policy,
    client_certificate,
);

#[test]
fn what_is_kept_is_read_as_it_was() {
    let all: Vec<u8> = (0..=u8::MAX).collect();
    assert_eq!(corpus::unescaped(&all.escape_ascii().to_string()), all);
}

/// Sixteen times the bytes take about sixteen times as long, in one run side by side; 256 times as long is quadratic.
#[test]
fn no_parser_takes_more_than_its_length() {
    for target in TARGETS {
        for seed in target
            .seeds
            .iter()
            .chain(target.words)
            .filter(|s| !s.is_empty())
        {
            let long = seed.repeat(BYTES_MAX / seed.len() + 1);
            let short = &long[..long.len() / 16];
            let least = |input: &[u8]| {
                let once = || {
                    let begun = clock::thread_cpu();
                    run(target, input);
                    clock::thread_cpu().saturating_sub(begun)
                };
                (0..3).map(|_| once()).min().unwrap_or_default()
            };
            // What is this quick harms nobody, and its measure is noise.
            let floor = Duration::from_micros(200);
            let (few, many) = (least(short).max(floor), least(&long));
            assert!(
                many < few * 100,
                "{}: {few:?} become {many:?}: {}",
                target.name,
                seed[..seed.len().min(80)].escape_ascii()
            );
        }
    }
}
