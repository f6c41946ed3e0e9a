//! What it keeps in memory: a VM beside an empty one, a proxy over an hour's worth of traffic, the aggregator over many
//! events.

mod linear;
mod open;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kaeru_e2e::envoy::{Envoy, Filter, Upstream};
use kaeru_e2e::ports;
use kaeru_e2e::wait::{self, Seen};
use kaeru_e2e::world::{KAERU_HOST, KAERU_PORT};
use serde_json::{Value, json};

use crate::filter::variant;
use crate::load::{Connections, Schedule};
use crate::paper::{self, Line, Section};
use crate::sink::Sink;
use crate::stage::Stage;
use crate::{ingest, process, service, sql};

pub(crate) const TITLE: &str = "Memory";
const NOTES: &str = include_str!("../notes/memory.md");
/// Requests that are open at once.
const OPEN: u64 = 10_000;
/// What a VM's outbox holds: of more that a flush finds open at once, some are told of at the next heartbeat.
const OUTBOX: u64 = 8_192;
const VERDICTS: u64 = 100_000;
/// An hour's worth at 100 requests a second.
const REQUESTS: u64 = 360_000;
const SAMPLES: u64 = 10;
/// Seconds for which the aggregator is sent events, in all, where nobody says otherwise.
pub(crate) const EVENTS_S: u64 = 10;

pub(crate) async fn measure(stage: &Stage, events_s: u64) -> Result<Section> {
    let mut lines = vm(stage).await?;
    lines.extend(traffic(stage).await?);
    lines.extend(aggregator(stage, events_s).await?);
    Ok(Section {
        title: TITLE,
        notes: NOTES,
        how: format!(
            "One worker in each proxy, {OPEN} requests open, {VERDICTS} verdicts; {REQUESTS} requests, {SAMPLES} samples; load average {}.",
            crate::machine::load_average()
        ),
        lines,
    })
}

/// A proxy with its worker, its VM's linear memory and its resident memory.
#[derive(Debug, Clone, Copy)]
struct Kept {
    vm_mib: f64,
    proxy_mib: f64,
}

/// An empty filter and ours, before and while requests are open.
async fn vm(stage: &Stage) -> Result<Vec<Line>> {
    let empty = held(stage, "empty", stage.empty.clone(), 0).await?;
    let without = held(stage, "without", stage.parts.wasm.clone(), 0).await?;
    let untold = held(stage, "untold", stage.parts.wasm.clone(), 0).await?;
    let ours = held(stage, "ours", stage.parts.wasm.clone(), VERDICTS).await?;
    let above = |of: fn(&Kept) -> f64, at: usize| of(&ours[at]) - of(&empty[at]);
    let vm = above(|kept| kept.vm_mib, 1);
    let each = |of: fn(&Kept) -> f64| {
        let text = |kept: &[Kept; 2]| format!("{:.1} → {:.1}", of(&kept[0]), of(&kept[1]));
        let all = [&empty, &untold, &without, &ours].map(text);
        all.join(", ")
    };
    Ok(vec![
        Line::plain(
            "largest VM of the empty filter, ours before a flush, ours, ours with verdicts: at rest → requests open, MiB",
            each(|kept| kept.vm_mib),
        ),
        Line::against(
            format!("a VM above an empty one, {OPEN} open events and {VERDICTS} verdicts, MiB"),
            format!("{vm:.1}"),
            "at most 4",
            vm <= 4.0,
        ),
        Line::plain(
            "the whole proxy, the same, MiB resident",
            each(|kept| kept.proxy_mib),
        ),
        Line::plain(
            "the whole proxy above one with an empty filter, the same requests open, MiB",
            format!("{:.1}", above(|kept| kept.proxy_mib, 1)),
        ),
    ])
}

/// At rest, and while so many requests are open.
async fn held(
    stage: &Stage,
    name: &str,
    wasm: std::path::PathBuf,
    verdicts: u64,
) -> Result<[Kept; 2]> {
    let app = open::Service::start(ports::free()?).await?;
    let (envoy, sink) = proxy(stage, name, wasm, app.at, verdicts).await?;
    if verdicts > 0 {
        has_verdicts(&envoy, verdicts).await?;
    }
    let kept = || -> Result<Kept> {
        Ok(Kept {
            vm_mib: linear::largest_mib(envoy.pid())?,
            proxy_mib: process::resident_mib(envoy.pid())?,
        })
    };
    let rest = kept()?;
    let asked = open::ask(envoy.sidecar.inbound, OPEN)?;
    wait::until("every request at the service", || async {
        let arrived = app.arrived();
        Ok(Seen::when(arrived == OPEN, arrived))
    })
    .await?;
    if name == "without" || name == "ours" {
        wait::until("every request reported as open", || async {
            let open = envoy.stat("wasmcustom.kaeru_open_requests").await?;
            let running = sink.running();
            Ok(Seen::when(
                open == OPEN && running >= OUTBOX,
                (open, running),
            ))
        })
        .await?;
    }
    let open = kept()?;
    drop(asked);
    paper::progress(&format!("memory: {name}: {rest:?}, {open:?}"));
    Ok([rest, open])
}

async fn has_verdicts(envoy: &Envoy, verdicts: u64) -> Result<()> {
    wait::until("the verdicts in the cache", || async {
        let held = envoy.stat("wasmcustom.kaeru_verdicts_total").await?;
        Ok(Seen::when(held >= verdicts, held))
    })
    .await
    .map(drop)
}

/// A proxy with no limits of its own on what is open.
async fn proxy(
    stage: &Stage,
    name: &str,
    wasm: std::path::PathBuf,
    app: std::net::SocketAddr,
    verdicts: u64,
) -> Result<(Envoy, Sink)> {
    let sink_at = ports::free()?;
    let sink = Sink::start(sink_at, verdicts).await?;
    let kaeru = Upstream {
        host: KAERU_HOST.into(),
        port: KAERU_PORT,
        endpoint: sink_at,
        spiffe: None,
    };
    let config = match name {
        "empty" => Value::Null,
        "untold" => {
            json!({ "mode": "enforce", "trust_plaintext": true, "flush_interval_ms": 60_000 })
        }
        _ => json!({ "mode": "enforce", "trust_plaintext": true }),
    };
    let filter = Filter {
        wasm,
        config,
        ..Filter::default()
    };
    let sidecar = stage.sidecar(name, app, vec![kaeru], Some(filter))?;
    let mut bootstrap = sidecar.bootstrap();
    let clusters = bootstrap["static_resources"]["clusters"].as_array_mut();
    for cluster in clusters.context("clusters")? {
        cluster["circuit_breakers"] = json!({ "thresholds": [{
            "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000,
        }] });
    }
    let (binary, folder) = (&stage.parts.envoy, &stage.folder);
    let envoy = sidecar.start_as(&bootstrap, None, binary, folder).await?;
    Ok((envoy, sink))
}

/// Our filter over many requests, each an event of its own.
async fn traffic(stage: &Stage) -> Result<Vec<Line>> {
    let app = ports::free()?;
    service::serve(app, std::sync::Arc::new(service::usual)).await?;
    let wasm = stage.parts.wasm.clone();
    let (envoy, _sink) = proxy(stage, "traffic", wasm, app, VERDICTS).await?;
    has_verdicts(&envoy, VERDICTS).await?;
    let mut connections = Connections::open(envoy.sidecar.inbound, 16)?;
    let mut kept = vec![process::resident_mib(envoy.pid())?];
    let mut vms = vec![linear::largest_mib(envoy.pid())?];
    let mut sent = 0;
    for sample in 1..=SAMPLES {
        while sent < sample * REQUESTS / SAMPLES {
            let schedule = Schedule {
                rate: None,
                lasts: Duration::from_millis(250),
                request: &variant::request,
            };
            let load = tokio::task::block_in_place(|| connections.drive(&schedule))?;
            load.must_be_whole()?;
            sent += load.sent;
        }
        paper::progress(&format!("memory: {sent} requests, {kept:.1?} MiB"));
        kept.push(process::resident_mib(envoy.pid())?);
        vms.push(linear::largest_mib(envoy.pid())?);
    }
    let (first, second) = (growth(&kept, 0, 5), growth(&kept, 5, 10));
    Ok(vec![
        Line::plain(
            format!("a proxy at rest and over {sent} requests, MiB resident"),
            listed(&kept),
        ),
        Line::plain("its largest VM, MiB", listed(&vms)),
        Line::against(
            "a proxy: grown in the first half, in the second, MiB",
            format!("{first:.1}, {second:.1}"),
            "flat: at most 1 in the second",
            second <= 1.0,
        ),
    ])
}

/// The aggregator over as many events as it takes, all of which stay live.
async fn aggregator(stage: &Stage, events_s: u64) -> Result<Vec<Line>> {
    let (aggregator, postgres) = stage.aggregator("mode: enforce\n").await?;
    let pid = aggregator.pid().context("it runs")?;
    let mut kept = vec![process::resident_mib(pid)?];
    let mut most = Vec::new();
    let each = Duration::from_secs(events_s) / u32::try_from(SAMPLES)?;
    for sample in 1..=SAMPLES {
        most.push(ingest::events(&aggregator, &postgres, sample, each).await?);
        kept.push(process::resident_mib(pid)?);
        paper::progress(&format!(
            "memory: the aggregator, {kept:.1?}, at most {most:.1?} MiB"
        ));
    }
    let live = "SELECT count(*) FROM events WHERE state = 'running'";
    let live: f64 = sql::ask(&postgres, live)?.parse()?;
    ensure!(live > 0.0, "no event is live");
    let grown = growth(&kept, 5, 10);
    let peak = most.iter().copied().fold(0.0, f64::max);
    let per_million = (peak - kept[0]).max(0.0) / (live / 1e6);
    Ok(vec![
        Line::plain(
            format!(
                "the aggregator at rest and until {:.2} M events are live, MiB resident",
                live / 1e6
            ),
            listed(&kept),
        ),
        Line::against(
            "the aggregator: grown in the first half, in the second, MiB",
            format!("{:.1}, {grown:.1}", growth(&kept, 0, 5)),
            "flat in stored events: at most 5 in the second",
            grown <= 5.0,
        ),
        Line::against(
            "the aggregator: the most above its rest, per million live events, MiB",
            format!("{per_million:.0}"),
            "at most 150",
            per_million <= 150.0,
        ),
    ])
}

fn growth(kept: &[f64], from: usize, to: usize) -> f64 {
    let at = |place: usize| kept.get(place).copied().unwrap_or(0.0);
    at(to) - at(from)
}

fn listed(all: &[f64]) -> String {
    let each: Vec<String> = all.iter().map(|mib| format!("{mib:.1}")).collect();
    each.join(", ")
}
