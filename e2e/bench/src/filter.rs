//! What the filter costs a proxy, beside an empty one, a Lua filter that reads the same headers, and Envoy's own tracer and
//! access log; at the same rate and at saturation, and with nobody there to tell.
//!
//! One Envoy per variant, all there at once, each on core 0 with one worker; the generator, the service and the sinks on
//! core 1. Rounds go through all variants in turn.

mod price;
pub(crate) mod variant;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kaeru_e2e::wait::{self, Seen};

use self::variant::{Kind, Running};
use crate::load::{Connections, Load, Schedule};
use crate::paper::{Line, Section};
use crate::process;
use crate::spread::Spread;
use crate::stage::Stage;

pub(crate) const TITLE: &str = "Filter";
const NOTES: &str = include_str!("../notes/filter.md");
const ROUNDS: usize = 11;
/// So many rounds on one side of a goal are no chance: of 11 tosses of a coin one in thirty has 9 heads or more.
const ROUNDS_THAT_TELL: usize = 9;
/// Of one round of one variant, at the common rate: some five batches of 512.
const PACED: Duration = Duration::from_millis(700);
/// Of the same round, as fast as the connections go.
const FLAT_OUT: Duration = Duration::from_millis(300);
const CONNECTIONS: usize = 16;

/// What one round of one variant measured.
#[derive(Debug, Clone, Copy)]
struct Round {
    cpu_us: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// CPU of a request where no core is ever idle: less noise, for nothing is woken up.
    busy_us: f64,
    /// Requests a second there.
    most_per_s: f64,
}

pub(crate) async fn measure(stage: &Stage) -> Result<Section> {
    let mut running = BTreeMap::new();
    for kind in Kind::ALL {
        running.insert(kind, variant::start(kind, stage).await?);
    }
    wait::until("100,000 verdicts in the cache", || async {
        let full = running.get(&Kind::Full).context("it runs")?;
        let held = full.envoy.stat("wasmcustom.kaeru_verdicts_total").await?;
        Ok(Seen::when(held >= variant::VERDICTS, held))
    })
    .await?;
    let mut slowest = f64::MAX;
    for variant in running.values_mut() {
        // The first look warms up.
        for _ in 0..2 {
            let load = drive(variant, None)?;
            slowest = slowest.min(load.good as f64 / load.took.as_secs_f64());
        }
    }
    // Below a thousand a second a proxy's ticks would be counted as its requests' cost.
    let rate = (slowest / 2.0).clamp(1_000.0, 4_000.0);
    let mut rounds: BTreeMap<Kind, Vec<Round>> = BTreeMap::new();
    let mut totals: BTreeMap<Kind, u64> = BTreeMap::new();
    let before: BTreeMap<Kind, (u64, u64)> = told_by_all(&running).await?;
    let (connected, since) = (connects(&running).await?, crate::clock::now());
    for _ in 0..ROUNDS {
        for (kind, variant) in &mut running {
            let (paced, cpu_us) = observed(variant, Some(rate))?;
            let (flat_out, busy_us) = observed(variant, None)?;
            *totals.entry(*kind).or_default() += paced.sent + flat_out.sent;
            rounds.entry(*kind).or_default().push(Round {
                cpu_us,
                p50_ms: paced.quantile_ms(0.5),
                p99_ms: paced.quantile_ms(0.99),
                busy_us,
                most_per_s: flat_out.good as f64 / flat_out.took.as_secs_f64(),
            });
        }
    }
    let connects_per_s =
        (connects(&running).await? - connected) as f64 / since.elapsed().as_secs_f64();
    let after = told_by_all(&running).await?;
    let mut bytes = BTreeMap::new();
    for kind in Kind::ALL.into_iter().filter(|kind| kind.tells()) {
        let told = after[&kind].1 - before[&kind].1;
        let sent = totals[&kind];
        ensure!(
            told == sent,
            "{}: {sent} requests, {told} told",
            kind.name()
        );
        bytes.insert(
            kind,
            (after[&kind].0 - before[&kind].0) as f64 / told as f64,
        );
    }
    for (kind, variant) in &running {
        ensure!(
            variant
                .envoy
                .stat("wasmcustom.kaeru_host_faults_total")
                .await?
                == 0,
            "{}: hostcalls failed",
            kind.name()
        );
    }
    let mut lines = lines(&rounds, connects_per_s, &bytes);
    drop(running);
    lines.extend(price::measure(stage).await?);
    let wasm_bytes = std::fs::metadata(&stage.parts.wasm)?.len();
    lines.push(Line::against(
        "the filter's size, bytes",
        wasm_bytes.to_string(),
        "at most 200000",
        wasm_bytes <= 200_000,
    ));
    Ok(Section {
        title: TITLE,
        notes: NOTES,
        how: format!(
            "{ROUNDS} interleaved rounds, in each {PACED:?} at {rate:.0} requests/s to each variant and {FLAT_OUT:?} at saturation; load average {}.",
            crate::machine::load_average()
        ),
        lines,
    })
}

/// Drives one variant; the CPU of its proxy for each request, µs.
fn observed(variant: &mut Running, rate: Option<f64>) -> Result<(Load, f64)> {
    let cpu = process::fine_cpu(variant.envoy.pid())?;
    let load = drive(variant, rate)?;
    let cpu = process::fine_cpu(variant.envoy.pid())?.saturating_sub(cpu);
    load.must_be_whole()?;
    let cpu_us = cpu.as_secs_f64() * 1e6 / load.sent as f64;
    Ok((load, cpu_us))
}

/// Connections that the proxy began towards an aggregator that is away.
async fn connects(running: &BTreeMap<Kind, Running>) -> Result<u64> {
    let away = running.get(&Kind::Away).context("it runs")?;
    let name = format!("cluster.{}.upstream_cx_total", variant::cluster());
    away.envoy.stat(&name).await
}

fn drive(variant: &mut Running, rate: Option<f64>) -> Result<Load> {
    let schedule = Schedule {
        rate,
        lasts: if rate.is_some() { PACED } else { FLAT_OUT },
        request: &variant::request,
    };
    if variant.connections.is_none() {
        let to = variant.envoy.sidecar.inbound;
        variant.connections = Some(Connections::open(to, CONNECTIONS)?);
    }
    let connections = variant.connections.as_mut().context("opened")?;
    tokio::task::block_in_place(|| connections.drive(&schedule))
}

/// What the sinks heard, once nobody has anything left to tell.
async fn told_by_all(running: &BTreeMap<Kind, Running>) -> Result<BTreeMap<Kind, (u64, u64)>> {
    let counts = || {
        running
            .iter()
            .map(|(kind, of)| (*kind, of.sink.counts()))
            .collect()
    };
    let mut last: BTreeMap<Kind, (u64, u64)> = counts();
    let mut quiet_since = crate::clock::now();
    // The tracer flushes every 5 s by default.
    wait::within(Duration::from_secs(40), "silence", || {
        let now = counts();
        if now.iter().any(|(kind, count)| count.1 != last[kind].1) {
            quiet_since = crate::clock::now();
        }
        last = now;
        let quiet = quiet_since.elapsed() > Duration::from_millis(5_500);
        async move { Ok(Seen::when(quiet, ())) }
    })
    .await?;
    Ok(counts())
}

fn lines(
    rounds: &BTreeMap<Kind, Vec<Round>>,
    connects_per_s: f64,
    bytes: &BTreeMap<Kind, f64>,
) -> Vec<Line> {
    let of = |kind: Kind, figure: fn(&Round) -> f64| {
        rounds[&kind].iter().map(figure).collect::<Vec<f64>>()
    };
    let added = |kind: Kind, figure: fn(&Round) -> f64| -> Vec<f64> {
        let pairs = of(kind, figure).into_iter().zip(of(Kind::Bare, figure));
        pairs.map(|(with, bare)| with - bare).collect()
    };
    let text = |values: Vec<f64>| Spread::of(values).to_string();
    let paced: fn(&Round) -> f64 = |r| r.cpu_us;
    let busy: fn(&Round) -> f64 = |r| r.busy_us;
    let p99: fn(&Round) -> f64 = |r| r.p99_ms;
    let mut lines = vec![Line::plain(
        "bare Envoy: CPU, µs/request (the same at saturation)",
        format!(
            "{} ({})",
            text(of(Kind::Bare, paced)),
            text(of(Kind::Bare, busy))
        ),
    )];
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Bare) {
        lines.push(Line::plain(
            format!("{}: CPU added, µs/request (at saturation)", kind.name()),
            format!("{} ({})", text(added(kind, paced)), text(added(kind, busy))),
        ));
    }
    for (load, figure) in [("", paced), (" at saturation", busy)] {
        for ours in [Kind::Enforce, Kind::Full] {
            for (than, most, of) in [
                (Kind::Empty, 1.5, "an empty filter's"),
                (Kind::Tuned, 0.5, "the tuned tracer's"),
                (Kind::Tracer, 0.25, "the default tracer's"),
                (Kind::GrpcTuned, 0.5, "the tuned tracer's over gRPC"),
                (Kind::GrpcTracer, 0.25, "the default tracer's over gRPC"),
            ] {
                lines.push(compared(
                    format!("{}: CPU added{load}, × {of}", ours.name()),
                    &added(ours, figure),
                    &added(than, figure),
                    most,
                ));
            }
        }
    }
    for kind in Kind::ALL {
        lines.push(Line::plain(
            format!("{}: p50 / p99, ms", kind.name()),
            format!("{} / {}", text(of(kind, |r| r.p50_ms)), text(of(kind, p99))),
        ));
    }
    let of_bare: Vec<f64> = (added(Kind::Full, p99).into_iter().zip(of(Kind::Bare, p99)))
        .map(|(added, bare)| added / bare)
        .collect();
    lines.push(compared(
        "enforce, 100,000 verdicts: p99 added, × the tuned tracer's".into(),
        &added(Kind::Full, p99),
        &added(Kind::Tuned, p99),
        0.5,
    ));
    let (what, goal) = (
        "enforce, 100,000 verdicts: p99 added, share of bare Envoy's",
        "at most 0.10",
    );
    lines.push(judged(
        what,
        &Spread::of(of_bare.iter().copied()).to_string(),
        goal,
        of_bare.iter().map(|share| *share <= 0.1),
    ));
    for (what, figure) in [("p99", p99), ("CPU", paced), ("CPU at saturation", busy)] {
        let pairs = of(Kind::Away, figure)
            .into_iter()
            .zip(of(Kind::Enforce, figure));
        let ratios: Vec<f64> = pairs.map(|(away, there)| away / there).collect();
        lines.push(judged(
            format!("aggregator away: {what}, × with it there"),
            &Spread::of(ratios.iter().copied()).to_string(),
            "at most 1.02",
            ratios.iter().map(|ratio| *ratio <= 1.02),
        ));
    }
    lines.push(Line::against(
        "aggregator away: connects/s of one proxy",
        format!("{connects_per_s:.2}"),
        "at most 2",
        connects_per_s <= 2.0,
    ));
    for kind in Kind::ALL {
        lines.push(Line::plain(
            format!("{}: requests/s at saturation", kind.name()),
            text(of(kind, |r| r.most_per_s)),
        ));
    }
    for (kind, bytes) in bytes {
        lines.push(Line::plain(
            format!("{}: bytes that leave the proxy per request", kind.name()),
            format!("{bytes:.0}"),
        ));
    }
    let ratio = bytes[&Kind::Full] / bytes[&Kind::Tuned];
    lines.push(Line::against(
        "bytes per report, × bytes per span (tuned: large batches)",
        format!("{ratio:.2}"),
        "at most 0.8",
        ratio <= 0.8,
    ));
    lines
}

/// What ours adds beside what theirs adds: the ratio of the medians, judged round by round, so that noise, in which now and
/// then a filter seems to cost less than nothing, is never divided by noise.
fn compared(what: String, ours: &[f64], theirs: &[f64], most: f64) -> Line {
    let median = |of: &[f64]| Spread::of(of.iter().copied()).median;
    let ratio = format!("{:.2}", median(ours) / median(theirs));
    let kept = ours
        .iter()
        .zip(theirs)
        .map(|(ours, theirs)| *ours <= most * theirs);
    judged(what, &ratio, &format!("at most {most}"), kept)
}

/// A line that holds, or does not, where enough rounds say so.
fn judged(
    what: impl Into<String>,
    measured: &str,
    goal: &str,
    kept: impl IntoIterator<Item = bool>,
) -> Line {
    let kept: Vec<bool> = kept.into_iter().collect();
    let (all, good) = (kept.len(), kept.iter().filter(|kept| **kept).count());
    let measured = format!("{measured}; kept in {good} rounds of {all}");
    if good.max(all - good) < ROUNDS_THAT_TELL {
        return Line::unclear(what, measured, goal);
    }
    Line::against(what, measured, goal, good >= ROUNDS_THAT_TELL)
}
