//! One sidecar: an Envoy with the bootstrap that Istio's pilot and agent would give it, as one static file.
//!
//! The same for an ingress gateway, which has one listener of its own kind.
//!
//! What differs from a real sidecar: traffic is led to its listeners by address instead of iptables, endpoints stand in
//! the file instead of coming by EDS, and Istio's own filters (statistics, ALPN, peer metadata) are left out, since the
//! standard Envoy binary does not have them.

mod clock;
mod cluster;
mod filter;
mod gateway;
mod listener;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::process::Pid;
use serde_json::{Value, json};

use crate::certs::Identity;
use crate::process::{Ending, Process, Program};
use crate::wait::{self, Seen};

pub use clock::ClockShift;
pub use gateway::public_host;

/// Istio's default retry policy of outbound routes (1.30).
pub const ISTIO_RETRY_ON: &str =
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";

/// What one sidecar is for and where everything is.
#[derive(Debug, Clone)]
pub struct Sidecar {
    /// The mesh namespace.
    pub namespace: String,
    /// The workload's name; also its service account.
    pub workload: String,
    /// Its service's port in the mesh.
    pub port: u16,
    /// Its certificate.
    pub identity: Identity,
    /// Where it takes requests for its service.
    pub inbound: SocketAddr,
    /// Where its service sends requests to.
    pub outbound: SocketAddr,
    /// Envoy's own pages.
    pub admin: SocketAddr,
    /// Where its service listens.
    pub app: SocketAddr,
    /// The services it can reach.
    pub upstreams: Vec<Upstream>,
    /// The filter; `None` is a bare Envoy.
    pub filter: Option<Filter>,
    /// What outbound routes retry on, and the statuses for `retriable-status-codes`.
    pub retry_on: (String, Vec<u16>),
    /// It is the way into the mesh: `inbound` takes what comes from outside, and no service stands behind it.
    pub gateway: bool,
    /// How many workers it has.
    pub workers: u16,
    /// How far its clock is ahead of this machine's, s, and by what means.
    pub clock: Option<(i64, ClockShift)>,
}

/// A service that a sidecar can reach.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its fully qualified name.
    pub host: String,
    /// Its port in the mesh.
    pub port: u16,
    /// Where it really is: its sidecar's inbound listener, or itself where it has none.
    pub endpoint: SocketAddr,
    /// The SPIFFE id its sidecar must show; `None` is plain text.
    pub spiffe: Option<String>,
}

/// The filter in a sidecar.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The compiled module.
    pub wasm: PathBuf,
    /// The plugin configuration; `Null` is none.
    pub config: Value,
    /// What Envoy does when a VM dies.
    pub on_failure: OnFailure,
    /// It comes by extension discovery, as at Istio, out of this file, so that it can be pushed anew.
    pub pushed_by: Option<PathBuf>,
}

/// Envoy's failure policies, those that Istio knows and the one that it does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// A new VM after a back-off; requests are answered 503 until then.
    #[default]
    Reload,
    /// Requests of that worker pass without a filter.
    Open,
    /// Requests of that worker are answered 503.
    Closed,
}

/// A running sidecar.
#[derive(Debug)]
pub struct Envoy {
    /// What it was made from.
    pub sidecar: Sidecar,
    process: Process,
    program: Program,
    logs: PathBuf,
    http: reqwest::Client,
}

impl Sidecar {
    /// The node id, as the agent composes it.
    pub fn node_id(&self) -> String {
        let (ns, name) = (&self.namespace, &self.workload);
        let kind = if self.gateway { "router" } else { "sidecar" };
        format!("{kind}~10.0.0.7~{name}-abc.{ns}~{ns}.svc.cluster.local")
    }

    /// Envoy's bootstrap.
    pub fn bootstrap(&self) -> Value {
        let (ns, name) = (&self.namespace, &self.workload);
        let mut clusters: Vec<Value> = (self.upstreams.iter())
            .map(|upstream| cluster::outbound(upstream, &self.identity))
            .collect();
        let listeners = if self.gateway {
            vec![gateway::gateway(self)]
        } else {
            clusters.push(cluster::inbound(self.port, self.app));
            vec![listener::inbound(self), listener::outbound(self)]
        };
        json!({
            "node": {
                "id": self.node_id(),
                "cluster": format!("{name}.{ns}"),
                "metadata": {
                    "NAMESPACE": ns,
                    "WORKLOAD_NAME": name,
                    "NAME": format!("{name}-abc"),
                    "CLUSTER_ID": "Kubernetes",
                    "MESH_ID": "cluster.local",
                    "SERVICE_ACCOUNT": name,
                    "LABELS": {
                        "app": name,
                        "service.istio.io/canonical-name": name,
                        "service.istio.io/canonical-revision": "latest",
                    },
                },
            },
            "admin": { "address": address(self.admin) },
            "static_resources": {
                "listeners": listeners,
                "clusters": clusters,
            },
        })
    }

    /// Starts it and waits until it takes requests.
    pub async fn start(self, binary: &Path, folder: &Path) -> Result<Envoy> {
        let bootstrap = self.bootstrap();
        self.start_as(&bootstrap, None, binary, folder).await
    }

    /// Starts it with another bootstrap than its own, on one core only where one is named.
    pub async fn start_as(
        self,
        bootstrap: &Value,
        core: Option<usize>,
        binary: &Path,
        folder: &Path,
    ) -> Result<Envoy> {
        if let Some(filter) = &self.filter {
            filter.push(0, 1)?;
        }
        let name = format!("{}-envoy", self.workload);
        let config = folder.join(format!("{name}.json"));
        fs::write(&config, serde_json::to_vec_pretty(bootstrap)?)?;
        let mut args = Vec::new();
        if let Some((ahead_s, shift)) = &self.clock {
            args.extend(shift.variables(*ahead_s));
        }
        if let Some(core) = core {
            args.extend(["taskset".to_owned(), "-c".to_owned(), core.to_string()]);
        }
        args.push(binary.to_string_lossy().into_owned());
        args.extend(
            [
                "--config-path",
                &config.to_string_lossy(),
                "--concurrency",
                &self.workers.to_string(),
                // No shared memory, so that Envoys of one machine need no base ids.
                "--disable-hot-restart",
                "--log-level",
                "warning",
            ]
            .map(str::to_owned),
        );
        let program = Program {
            name,
            // `env` sets the variables, then becomes Envoy.
            binary: "env".into(),
            args,
            user: None,
            ending: Ending::Kill,
        };
        let mut envoy = Envoy {
            process: program.start(folder)?,
            program,
            logs: folder.into(),
            http: reqwest::Client::builder().no_proxy().build()?,
            sidecar: self,
        };
        envoy.ready().await?;
        Ok(envoy)
    }
}

impl Envoy {
    async fn ready(&mut self) -> Result<()> {
        let url = format!("http://{}/ready", self.sidecar.admin);
        let (process, http) = (&mut self.process, &self.http);
        let what = format!("Envoy of {}", self.sidecar.workload);
        wait::until(&what, || {
            let alive = process.check();
            let ask = http.get(&url).send();
            async move {
                if let Err(end) = alive {
                    return Ok(Seen::Yes(Err(end)));
                }
                let answer = ask.await?.text().await?;
                Ok(if answer.trim() == "LIVE" {
                    Seen::Yes(Ok(()))
                } else {
                    Seen::NotYet(answer)
                })
            }
        })
        .await?
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// The value of one statistic; absent ones are 0.
    pub async fn stat(&self, name: &str) -> Result<u64> {
        let name_only = name.replace('.', "\\.").replace('|', "\\|");
        self.stats(&format!("^{name_only}$")).await
    }

    /// The sum of the statistics whose names match this regular expression.
    pub async fn stats(&self, names: &str) -> Result<u64> {
        let url = format!("http://{}/stats", self.sidecar.admin);
        let text = self.http.get(url).query(&[("filter", names)]);
        let text = text.send().await?.error_for_status()?.text().await?;
        let value = |line: &str| {
            let (_, value) = line.rsplit_once(": ").context("no value")?;
            value
                .trim()
                .parse::<u64>()
                .with_context(|| format!("a statistic: {line}"))
        };
        text.lines().map(value).sum()
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it with the same settings, after it was killed, and waits until it takes requests.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process = self.program.start(&self.logs)?;
        self.ready().await
    }

    /// What it holds of this machine's memory now, KiB.
    pub fn memory_kib(&self) -> Result<u64> {
        self.process.memory_kib()
    }

    /// How far its clock is ahead of this machine's, s, as its own page is dated.
    pub async fn clock_ahead_s(&self) -> Result<i64> {
        let url = format!("http://{}/ready", self.sidecar.admin);
        let answer = self.http.get(url).send().await?;
        let date = answer.headers().get("date").context("a page has a date")?;
        let date = chrono::DateTime::parse_from_rfc2822(date.to_str()?)?;
        Ok(date.timestamp() - i64::try_from(crate::clock::now_ms() / 1_000)?)
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        self.process.tail()
    }
}

fn address(at: SocketAddr) -> Value {
    json!({ "socket_address": { "address": at.ip().to_string(), "port_value": at.port() } })
}
