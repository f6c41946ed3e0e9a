//! A graph: a world of any number of services without a part of their own, beside the shop with its five roles. Each
//! request's body carries what is to be done, so that many topologies go through one running graph side by side.
//!
//! Every service has a sidecar of its own, a real Envoy with the filter (0.6 s of one core to start, nearly all of it for
//! compiling the filter, and 35 MB that it does not share with others), whose clock may be wrong by minutes.

mod act;
mod mesh;
mod service;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::mesh::Mesh;
use self::service::Service;
use crate::aggregator::{Aggregator, Database, Settings};
use crate::api::Api;
use crate::certs::Authority;
use crate::config::Parts;
use crate::customer::Customer;
use crate::envoy::{ClockShift, Envoy, OnFailure, Sidecar, public_host};
use crate::ports;
use crate::shop::{Arrival, Told};
use crate::wait::{self, Seen};
use crate::world::{all, folder};

pub use act::{Act, Work, at};

/// The mesh namespace of the services.
pub const NAMESPACE: &str = "graph";
/// The gateway's mesh namespace.
pub const GATEWAY_NAMESPACE: &str = "istio-system";
/// The gateway's workload.
pub const GATEWAY: &str = "istio-ingressgateway";

/// Envoys that start at a time: more would only take turns on few cores, and let their neighbours wait.
const STARTS_MAX: usize = 3;
/// An Envoy's clock is asked for by whole seconds, on a busy machine.
const CLOCK_SLACK_S: i64 = 30;

/// `namespace/name` of a service.
pub fn peer(service: &str) -> String {
    format!("{NAMESPACE}/{service}")
}

/// `namespace/name` of the gateway.
pub fn gateway_peer() -> String {
    format!("{GATEWAY_NAMESPACE}/{GATEWAY}")
}

/// What a graph is like.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// For its folder.
    pub name: String,
    /// The aggregator's policy, YAML.
    pub policy: String,
    /// The plugin configuration of all sidecars.
    pub filter: Value,
    /// The services, and how far the clocks of their proxies are ahead, s.
    pub services: Vec<(String, i64)>,
    /// The plugin configuration of a gateway, where there is one.
    pub gateway: Option<Value>,
    /// The filter that dies when it is asked to.
    pub can_crash: bool,
    /// What the Envoys of these do when a VM dies.
    pub on_failure: BTreeMap<String, OnFailure>,
    /// The aggregator's database where it is not one of its own.
    pub database: Option<String>,
    /// Workers of an Envoy; 0 is one.
    pub workers: u16,
    /// The filters can be pushed anew.
    pub pushed: bool,
}

/// A running graph. Its parts stop in the order of the fields.
#[derive(Debug)]
pub struct Graph {
    sidecars: BTreeMap<String, Envoy>,
    gateway: Option<Envoy>,
    services: BTreeMap<String, Service>,
    /// The aggregator.
    pub aggregator: Aggregator,
    /// Its configurations, logs and data.
    pub folder: PathBuf,
    /// Anyone, from outside the mesh.
    pub outside: Customer,
    /// A peer of the mesh, `spiffe://cluster.local/ns/graph/sa/till`.
    pub peer: Customer,
    /// Another one, that no configuration names.
    pub stranger: Customer,
}

impl Graph {
    /// Starts everything and waits until it is ready.
    pub async fn start(plan: Plan) -> Result<Self> {
        // reqwest wants a provider of cryptography chosen; a second choice is no harm.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let parts = Parts::find()?;
        let folder = folder::make(&parts.folder, &plan.name)?;
        let authority = Authority::new(&folder.join("certs"))?;
        let policy = folder.join("policy.yaml");
        fs::write(&policy, &plan.policy)?;
        let settings = Settings {
            name: "aggregator".into(),
            listen: ports::free()?,
            ops_listen: ports::free()?,
            database: (plan.database.clone())
                .map_or_else(|| Database::Embedded(folder.join("data")), Database::Url),
            policy,
        };
        let mesh = Mesh::new(&plan, &folder, settings.listen)?;
        let wasm = if plan.can_crash {
            parts.wasm_that_can_crash()?
        } else {
            parts.wasm.clone()
        };
        let shift = ClockShift::compile(&folder)?;
        let proxies = mesh.proxies(&authority, &wasm, &shift)?;
        let mut services = BTreeMap::new();
        for (service, place) in &mesh.places {
            let started = Service::start(place.app, place.outbound).await?;
            services.insert((*service).to_owned(), started);
        }
        let (aggregator, proxies) = tokio::try_join!(
            Aggregator::start(settings, &parts.kaeru, &folder),
            start(proxies, &parts, &folder)
        )?;
        let (gateways, sidecars): (Vec<Envoy>, Vec<Envoy>) =
            proxies.into_iter().partition(|envoy| envoy.sidecar.gateway);
        let by_name = |envoy: Envoy| (envoy.sidecar.workload.clone(), envoy);
        let graph = Self {
            sidecars: sidecars.into_iter().map(by_name).collect(),
            gateway: gateways.into_iter().next(),
            services,
            aggregator,
            folder,
            outside: Customer::outside()?,
            peer: Customer::peer(&authority.issue(NAMESPACE, "till")?)?,
            stranger: Customer::peer(&authority.issue(NAMESPACE, "stranger")?)?,
        };
        graph.clocks_are_wrong(&plan).await?;
        graph.proxies_listen().await?;
        Ok(graph)
    }

    /// Its API.
    pub fn api(&self) -> Result<Api> {
        self.aggregator.api()
    }

    /// The sidecar of a service.
    pub fn sidecar(&self, service: &str) -> Result<&Envoy> {
        let sidecar = self.sidecars.get(service);
        sidecar.with_context(|| format!("there is no {service}"))
    }

    /// The sidecar of a service, to kill it or push to it.
    pub fn sidecar_mut(&mut self, service: &str) -> Result<&mut Envoy> {
        let sidecar = self.sidecars.get_mut(service);
        sidecar.with_context(|| format!("there is no {service}"))
    }

    /// Where the gateway takes requests.
    pub fn gateway(&self) -> Result<SocketAddr> {
        let gateway = self.gateway.as_ref().context("there is no gateway")?;
        Ok(gateway.sidecar.inbound)
    }

    /// Has the till, a peer of the mesh, send work to the service that it begins at.
    pub async fn send(&self, work: &Work, headers: &[(&str, &str)]) -> Result<Told> {
        self.send_as(&self.peer, work, headers).await
    }

    /// Has somebody send work to the service that it begins at.
    pub async fn send_as(
        &self,
        customer: &Customer,
        work: &Work,
        headers: &[(&str, &str)],
    ) -> Result<Told> {
        let to = self.sidecar(&work.act.at)?.sidecar.inbound;
        let body = Some(serde_json::to_string(work)?);
        let method = Method::from_bytes(work.act.method.as_bytes())?;
        customer
            .send(method, to, &work.act.path, headers, body)
            .await
    }

    /// Has a customer send work through the gateway.
    pub async fn send_in(
        &self,
        customer: &Customer,
        work: &Work,
        headers: &[(&str, &str)],
    ) -> Result<Told> {
        let to = format!("{}:{}", public_host(&work.act.at), self.gateway()?.port());
        let body = Some(serde_json::to_string(work)?);
        let method = Method::from_bytes(work.act.method.as_bytes())?;
        customer
            .send(method, to, &work.act.path, headers, body)
            .await
    }

    /// What really reached a service in a run.
    pub fn arrivals(&self, service: &str, run: &str) -> Result<Vec<Arrival>> {
        Ok(self.service(service)?.ledger.arrivals(run))
    }

    /// Waits until so many requests of a run have reached a service.
    pub async fn arrived(&self, service: &str, run: &str, count: usize) -> Result<()> {
        wait::until(&format!("{count} requests at {service}"), || async {
            let arrivals = self.arrivals(service, run)?;
            Ok(Seen::when(arrivals.len() >= count, arrivals))
        })
        .await?;
        Ok(())
    }

    /// Lets a run go on where a service holds it.
    pub fn release(&self, service: &str, run: &str) -> Result<()> {
        self.service(service)?.ledger.release(run);
        Ok(())
    }

    fn service(&self, name: &str) -> Result<&Service> {
        let service = self.services.get(name);
        service.with_context(|| format!("there is no {name}"))
    }

    /// Each proxy's clock is wrong by as much as was planned.
    async fn clocks_are_wrong(&self, plan: &Plan) -> Result<()> {
        for (service, planned_s) in &plan.services {
            let ahead_s = self.sidecar(service)?.clock_ahead_s().await?;
            ensure!(
                ahead_s.abs_diff(*planned_s) <= CLOCK_SLACK_S.unsigned_abs(),
                "the clock of {service}'s proxy is ahead by {ahead_s} s, not {planned_s} s"
            );
        }
        Ok(())
    }

    /// Every proxy waits for verdicts: what is decided from now on, all hear at once.
    async fn proxies_listen(&self) -> Result<()> {
        let api = self.api()?;
        let proxies = self.sidecars.len() + usize::from(self.gateway.is_some());
        wait::until("every proxy's poll for verdicts", || async {
            let polls = api.metric("kaeru_polls").await?;
            Ok(Seen::when(usize::try_from(polls)? == proxies, polls))
        })
        .await?;
        Ok(())
    }
}

/// Starts the proxies, a few at a time.
async fn start(proxies: Vec<Sidecar>, parts: &Parts, folder: &Path) -> Result<Vec<Envoy>> {
    let turns = Arc::new(Semaphore::new(STARTS_MAX));
    let mut starting = JoinSet::new();
    for proxy in proxies {
        let (binary, folder, turns) = (parts.envoy.clone(), folder.to_owned(), turns.clone());
        starting.spawn(async move {
            let _turn = turns.acquire().await?;
            proxy.start(&binary, &folder).await
        });
    }
    all(starting).await
}
