//! What single hostcalls cost: a filter makes one of them many times in each request, beside one that makes none.

use std::time::Duration;

use anyhow::{Result, ensure};
use kaeru_e2e::envoy::{Envoy, Filter};
use kaeru_e2e::ports;
use serde_json::json;

use super::variant;
use crate::load::{Connections, Schedule};
use crate::paper::Line;
use crate::process;
use crate::service;
use crate::spread::Spread;
use crate::stage::Stage;

const ROUNDS: usize = 11;
const LASTS: Duration = Duration::from_millis(250);
const CONNECTIONS: usize = 16;
const TIMES: u32 = 64;

/// A hostcall by the name that `filter-wasm/examples/hostcalls.rs` knows it by, and how often the measured request makes it
/// (`filter-wasm/src/vm/tests/price.rs`; without the certificate, which is not asked for here).
const CALLS: [(&str, u32); 10] = [
    ("headers", 2),
    ("property", 1),
    ("flags", 1),
    ("shared read, anywhere", 2),
    ("shared read, nothing there", 1),
    ("shared write, anywhere", 3),
    ("shared write, one key", 2),
    ("set header", 2),
    ("gauge", 2),
    ("time", 2),
];

struct Proxy {
    envoy: Envoy,
    connections: Connections,
}

/// A line for each hostcall, and one for all that a request makes.
pub(super) async fn measure(stage: &Stage) -> Result<Vec<Line>> {
    let mut envoys = vec![start(stage, "none", 0).await?];
    for (place, (call, _)) in CALLS.iter().enumerate() {
        envoys.push(start(stage, call, place + 1).await?);
    }
    // Only now: Envoy closes connections on which nothing comes.
    let mut proxies: Vec<Proxy> = envoys
        .into_iter()
        .map(Proxy::connected)
        .collect::<Result<_>>()?;
    let mut rounds: Vec<Vec<f64>> = Vec::new();
    // The first one warms up.
    for round in 0..=ROUNDS {
        let mut busy_us = Vec::new();
        for proxy in &mut proxies {
            busy_us.push(proxy.drive()?);
        }
        if round > 0 {
            rounds.push(busy_us);
        }
    }
    let mut lines = Vec::new();
    let mut all = vec![0.0; ROUNDS];
    for (place, (call, of_request)) in CALLS.iter().enumerate() {
        let prices: Vec<f64> = rounds
            .iter()
            .map(|round| (round[place + 1] - round[0]) / f64::from(TIMES))
            .collect();
        for (sum, price) in all.iter_mut().zip(&prices) {
            *sum += price * f64::from(*of_request);
        }
        lines.push(Line::plain(
            format!("hostcall \"{call}\", {of_request} in a request: one, µs"),
            Spread::of(prices).to_string(),
        ));
    }
    lines.push(Line::plain(
        "all hostcalls of a request by these prices, µs",
        Spread::of(all).to_string(),
    ));
    Ok(lines)
}

async fn start(stage: &Stage, call: &str, place: usize) -> Result<Envoy> {
    let app = ports::free()?;
    service::serve(app, std::sync::Arc::new(service::usual)).await?;
    let filter = Filter {
        wasm: stage.hostcalls.clone(),
        config: json!({ "call": call, "times": TIMES }),
        ..Filter::default()
    };
    let sidecar = stage.sidecar(&format!("price{place}"), app, Vec::new(), Some(filter))?;
    let bootstrap = sidecar.bootstrap();
    sidecar
        .start_as(&bootstrap, Some(0), &stage.parts.envoy, &stage.folder)
        .await
}

impl Proxy {
    fn connected(envoy: Envoy) -> Result<Self> {
        let connections = Connections::open(envoy.sidecar.inbound, CONNECTIONS)?;
        Ok(Self { envoy, connections })
    }

    /// CPU of a request at saturation, µs.
    fn drive(&mut self) -> Result<f64> {
        let schedule = Schedule {
            rate: None,
            lasts: LASTS,
            request: &variant::request,
        };
        let cpu = process::fine_cpu(self.envoy.pid())?;
        let load = tokio::task::block_in_place(|| self.connections.drive(&schedule))?;
        let cpu = process::fine_cpu(self.envoy.pid())?.saturating_sub(cpu);
        load.must_be_whole()?;
        ensure!(load.sent > 0, "nothing was sent");
        Ok(cpu.as_secs_f64() * 1e6 / load.sent as f64)
    }
}
