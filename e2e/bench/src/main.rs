//! `make bench`: measures the numbers of DESIGN.md side by side, prints them with their goals, and writes
//! docs/BENCHMARKS.md. How each part measures stands at the head of its file.

mod clock;
mod filter;
mod ingest;
mod load;
mod machine;
mod memory;
mod paper;
mod process;
mod scale;
mod service;
mod sink;
mod spread;
mod sql;
mod stage;
mod talk;
mod verdict;
mod waste;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::runtime::Builder;

use crate::paper::Section;
use crate::stage::Stage;

const HEAD: &str = include_str!("../notes/head.md");
const ORDER: [&str; 6] = [
    filter::TITLE,
    ingest::TITLE,
    verdict::TITLE,
    waste::TITLE,
    memory::TITLE,
    scale::TITLE,
];

/// Measures, prints a table, and writes it down.
#[derive(Debug, Parser)]
struct Cli {
    /// Only these parts; all by default.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Reports that the part `scale` fills the store with.
    #[arg(long, default_value_t = scale::REPORTS, value_parser = clap::value_parser!(u64).range(400_000..))]
    reports: u64,
    /// Seconds for which the part `memory` sends events that stay live, as many as are taken.
    #[arg(long, default_value_t = memory::EVENTS_S, value_parser = clap::value_parser!(u64).range(10..))]
    events_s: u64,
    /// The page that is written.
    #[arg(long, default_value = "docs/BENCHMARKS.md")]
    page: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Filter,
    Ingest,
    Verdict,
    Waste,
    Memory,
    Scale,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let mut sections = Vec::new();
    for part in Part::value_variants() {
        if cli.only.is_empty() || cli.only.contains(part) {
            let began = clock::now();
            let section = measured(*part, (cli.reports, cli.events_s))?;
            let took = began.elapsed().as_secs();
            paper::progress(&format!("{} took {took} s", section.title));
            say(&section.plain());
            sections.push(section);
        }
    }
    let parts = kaeru_e2e::config::Parts::find()?;
    let head = HEAD
        .replace("{machine}", &machine::describe())
        .replace("{envoy}", &machine::version(&parts.envoy.to_string_lossy()))
        .replace("{postgres}", &machine::version("psql"))
        .replace("{rust}", &machine::version("rustc"));
    paper::write(&cli.page, &head, &ORDER, &sections)
}

/// Each part on threads and in a folder of its own.
fn measured(part: Part, (reports, events_s): (u64, u64)) -> Result<Section> {
    let work = move || -> Result<Section> {
        if part == Part::Filter {
            // What is measured has core 0 for itself.
            let mut cores = CpuSet::new();
            cores.set(1);
            sched_setaffinity(None, &cores)?;
        }
        // A process dies with the thread that started it: no thread may end early.
        let runtime = Builder::new_multi_thread()
            .thread_keep_alive(Duration::from_hours(1))
            .enable_all()
            .build()?;
        let section = runtime.spawn(async move {
            let stage = Stage::new(&format!("{part:?}").to_lowercase())?;
            match part {
                Part::Filter => filter::measure(&stage).await,
                Part::Ingest => ingest::measure(&stage).await,
                Part::Verdict => verdict::measure(&stage).await,
                Part::Waste => waste::measure().await,
                Part::Memory => memory::measure(&stage, events_s).await,
                Part::Scale => scale::measure(&stage, reports).await,
            }
        });
        runtime.block_on(section)?
    };
    let done = std::thread::spawn(work).join();
    done.ok().context("a part panicked")?
}

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn say(text: &str) {
    println!("{text}");
}
