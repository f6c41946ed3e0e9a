//! Whether it stays as quick when much is stored: one event, pages, ingest, start-up, dropping a day, at four sizes.
//!
//! The rows are the aggregator's own: some traffic through HTTP (`scale/seed.rs`), multiplied in SQL over the days that are
//! kept by default (`scale/multiply.sql`). What is measured at one size is in `scale/size.rs`.

mod fill;
mod seed;
mod size;

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};
use kaeru_e2e::aggregator::Aggregator;
use kaeru_e2e::postgres::Postgres;

use self::fill::Fill;
use self::size::{PAGES, Size};
use crate::paper::{self, Line, Section};
use crate::spread::Spread;
use crate::stage::Stage;
use crate::{clock, ingest, sql};

pub(crate) const TITLE: &str = "Scale";
const NOTES: &str = include_str!("../notes/scale.md");
/// Reports at the end, by default: all parts together take about a quarter of an hour (16.7 minutes were measured).
pub(crate) const REPORTS: u64 = 2_400_000;
const SIZES: i32 = 4;
/// A quarter of a small database machine's memory, and checkpoints by time.
const POSTGRES: [&str; 4] = [
    "shared_buffers=1GB",
    "max_wal_size=8GB",
    "checkpoint_timeout=15min",
    "log_parameter_max_length=0",
];
/// The flow page of the type that was multiplied.
const FLOW: &str = "/v1/flows/order.1";

pub(crate) async fn measure(stage: &Stage, reports: u64) -> Result<Section> {
    let (mut aggregator, postgres) = stage
        .aggregator_on("mode: enforce\ndoomed_max: 100%\n", &POSTGRES, &[])
        .await?;
    let mut fill = Fill::seed(&aggregator, &postgres).await?;
    let mut sizes = Vec::new();
    for place in 0..SIZES {
        fill.up_to(&postgres, size_of(place, reports))?;
        paper::progress(&format!("scale: measuring at {} reports", fill.reports()));
        sizes.push(Size::measure(&mut aggregator, &postgres, place).await?);
    }
    paper::progress("scale: waiting for a day to be dropped");
    let dropping = dropped(stage, aggregator, &postgres).await?;
    let at = |size: &Size| format!("{:.2} M", size.reports as f64 / 1e6);
    Ok(Section {
        title: TITLE,
        notes: NOTES,
        how: format!(
            "At {} reports, in this order in each line; Postgres with {}; load average {}.",
            listed(sizes.iter().map(at)),
            listed(POSTGRES[..2].iter().map(|set| format!("`{set}`"))),
            crate::machine::load_average()
        ),
        lines: lines(&sizes, &dropping),
    })
}

/// From small to large in equal ratios.
fn size_of(place: i32, most: u64) -> u64 {
    let first = (most / 8).min(1_000_000) as f64;
    let ratio = (most as f64 / first).powf(f64::from(place) / f64::from(SIZES - 1));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of reports is positive and far below 2^53"
    )]
    let size = (first * ratio).round() as u64;
    size
}

/// What became of the oldest day.
struct Dropped {
    reports: u64,
    took_ms: f64,
    slowest_ms: f64,
}

/// Starts the aggregator anew with a day less to keep, and sends until that day is gone.
async fn dropped(stage: &Stage, before: Aggregator, postgres: &Postgres) -> Result<Dropped> {
    let settings = before.settings.clone();
    drop(before);
    let oldest = sql::ask(
        postgres,
        "SELECT min(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'reports'::regclass",
    )?;
    let reports = sql::ask(postgres, &format!("SELECT count(*) FROM {oldest}"))?.parse()?;
    sql::ask(postgres, "ALTER SYSTEM SET log_min_duration_statement = 0")?;
    sql::ask(postgres, "SELECT pg_reload_conf()")?;
    let days = format!("KAERU_RETENTION_DAYS={}", fill::DAYS - 2);
    let (kaeru, logs) = (&stage.parts.kaeru, &stage.folder);
    let aggregator = Aggregator::start_with(settings, kaeru, logs, &[days]).await?;
    let mut slowest_us = 0;
    let since = clock::now();
    for run in 200.. {
        let acks = ingest::at_rate(&aggregator, run, 10_000.0).await?;
        slowest_us = slowest_us.max(acks.into_iter().max().unwrap_or(0));
        let there = sql::ask(postgres, &format!("SELECT to_regclass('{oldest}') IS NULL"))?;
        if there == "t" {
            break;
        }
        // It lets go of what is old once a minute.
        anyhow::ensure!(since.elapsed() < Duration::from_mins(3), "{oldest} stayed");
    }
    let log = std::fs::read_to_string(stage.folder.join("postgres.log"))?;
    let line = log
        .lines()
        .find(|line| line.contains("execute") && line.contains(&format!("DROP TABLE {oldest}")));
    let words = line.and_then(|line| line.split_once("duration: "));
    let took = words.and_then(|(_, rest)| rest.split_once(" ms"));
    Ok(Dropped {
        reports,
        took_ms: took.context("the log tells of no drop")?.0.parse()?,
        slowest_ms: slowest_us as f64 / 1e3,
    })
}

fn lines(sizes: &[Size], dropped: &Dropped) -> Vec<Line> {
    let first = sizes.first();
    let mut lines = vec![flat("one event", sizes, |s| s.event_ms, 5.0)];
    for (place, (name, _)) in PAGES.iter().enumerate() {
        let page = |s: &Size| s.pages_ms.get(place).copied().unwrap_or_default();
        lines.push(flat(name, sizes, page, 50.0));
    }
    lines.push(flat("one flow", sizes, |s| s.flow_ms, 50.0));
    let rates = listed(sizes.iter().map(|s| s.ingest_per_s.to_string()));
    let share = sizes.last().zip(first).map_or(0.0, |(last, first)| {
        last.ingest_per_s.median / first.ingest_per_s.median
    });
    lines.push(Line::against(
        "ingest, 4 senders: reports/s",
        format!("{rates}; the last is {share:.2} × the first"),
        "at least 0.9 × the first",
        share >= 0.9,
    ));
    lines.push(Line::plain(
        "after the last receipt, until every event was looked at, s",
        listed(sizes.iter().map(|s| s.behind_s.to_string())),
    ));
    let per_report = sizes.last().map_or(0.0, |size| size.bytes);
    lines.push(Line::against(
        "disk per report with indexes, bytes",
        listed(sizes.iter().map(|s| format!("{:.0}", s.bytes))),
        "at most 200",
        per_report <= 200.0,
    ));
    lines.push(Line::plain(
        "disk per event (a report of four each) beside its reports, bytes",
        listed(sizes.iter().map(|s| format!("{:.0}", s.bytes_beside))),
    ));
    let start_ms = sizes.last().map_or(0.0, |size| size.start_ms.median);
    lines.push(Line::against(
        "`kaeru serve` after `kill -9` until ready, ms",
        listed(sizes.iter().map(|s| s.start_ms.to_string())),
        "at most 300, 2,000 at the most",
        start_ms <= 300.0,
    ));
    lines.push(Line::plain(
        "memory of the aggregator, MiB",
        listed(sizes.iter().map(|s| format!("{:.0}", s.memory_mib))),
    ));
    lines.push(Line::against(
        format!("dropping a day of {} reports, ms", dropped.reports),
        format!("{:.0}", dropped.took_ms),
        "instant: at most 1,000",
        dropped.took_ms <= 1_000.0,
    ));
    lines.push(Line::plain(
        "slowest acknowledgement around it, at 10,000 reports/s, ms",
        format!("{:.0}", dropped.slowest_ms),
    ));
    lines
}

/// A line of times, p50 and p99. The median may not grow by more than 20 %, or by what a clock of 1 ms cannot tell: the p99 of so
/// few is nearly the slowest.
fn flat(what: &str, sizes: &[Size], of: impl Fn(&Size) -> (f64, f64), most_ms: f64) -> Line {
    let ends = sizes.first().map(&of).zip(sizes.last().map(&of));
    let (first, last) = ends.unwrap_or_default();
    let all = |of: &dyn Fn(&Size) -> f64| listed(sizes.iter().map(|s| format!("{:.2}", of(s))));
    Line::against(
        format!("{what}: p50; p99, ms"),
        format!("{}; {}", all(&|s| of(s).0), all(&|s| of(s).1)),
        format!("p50 flat within 20 % or 1 ms; p99 at most {most_ms:.0}"),
        last.0 <= (first.0 * 1.2).max(first.0 + 1.0) && last.1 <= most_ms,
    )
}

fn listed(all: impl Iterator<Item = String>) -> String {
    let mut text = String::new();
    for (place, one) in all.enumerate() {
        let _ = write!(text, "{}{one}", if place == 0 { "" } else { ", " });
    }
    text
}

/// Median and 99th percentile of times in ms.
fn quantiles(mut times_ms: Vec<f64>) -> (f64, f64) {
    times_ms.sort_by(f64::total_cmp);
    let at = |share| crate::spread::quantile(&times_ms, share);
    (at(0.5), at(0.99))
}

/// Many values as one.
fn spread(values: impl IntoIterator<Item = f64>) -> Spread {
    Spread::of(values)
}

#[cfg(test)]
mod tests {
    use super::size_of;

    #[test]
    fn sizes_grow_in_equal_ratios() {
        let sizes = |most| [0, 1, 2, 3].map(|place| size_of(place, most));
        assert_eq!(sizes(4_000_000), [500_000, 1_000_000, 2_000_000, 4_000_000]);
        assert_eq!(sizes(27_000_000)[0], 1_000_000);
        assert_eq!(sizes(27_000_000)[3], 27_000_000);
    }
}
