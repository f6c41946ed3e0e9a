//! The filter's configuration is pushed anew, again and again, under load: requests pass, no report is lost, memory
//! stays flat, and one VM leads afterwards. Every tenth push is another module to Envoy, so that all VMs are replaced.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kaeru_e2e::config::Attack;
use kaeru_e2e::customer::Customer;
use kaeru_e2e::graph::{Graph, Work, at};
use kaeru_e2e::wait::{self, Seen};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::proxies::{Proxies, plan};
use crate::rig::attack;

const SERVICE: &str = "pushed";
const RELOADS: &str = "extension_config_discovery.http_filter.extensions.istio.io/wasmplugin/kaeru-system.kaeru.config_reload";
const VMS: &str = "wasm.envoy.wasm.runtime.v8.active";
/// Every so many pushes the module is another one.
const CODE_EVERY: u32 = 10;
/// After so many pushes memory is what it will be.
const SETTLED_AFTER: u32 = 10;
/// How much more an Envoy may hold at the end, MiB: what its allocator keeps for a generation of VMs (three of about 8 MiB).
const GROWTH_MIB_MAX: u64 = 32;
/// Side by side, each on connections of its own.
const CUSTOMERS: usize = 3;

/// Customers at work, and how many of their requests were served.
struct Load {
    served: Arc<AtomicU64>,
    stop: watch::Sender<bool>,
    customers: JoinSet<Result<()>>,
}

#[test]
fn a_configuration_that_is_pushed_again_and_again_loses_nothing() -> Result<()> {
    attack(async {
        let pushes = Attack::find(12, 100).rounds;
        let mut plan = plan("pushes");
        plan.services = vec![(SERVICE.into(), 0)];
        plan.workers = 2;
        plan.pushed = true;
        let mut proxies = Proxies::start(plan).await?;
        let load = work(&proxies.graph)?;
        let mut memory_kib = Vec::new();
        for push in 1..=pushes {
            let until = load.served.load(Ordering::Relaxed) + 20;
            push_anew(&mut proxies.graph, push)?;
            let envoy = proxies.graph.sidecar(SERVICE)?;
            wait::until("the push taken, and work after it", || async {
                let taken = envoy.stat(RELOADS).await?;
                let served = load.served.load(Ordering::Relaxed);
                Ok(Seen::when(
                    taken > u64::from(push) && served >= until,
                    (taken, served),
                ))
            })
            .await?;
            memory_kib.push(envoy.memory_kib()?);
        }
        load.stop.send_replace(true);
        let mut customers = load.customers;
        while let Some(ended) = customers.join_next().await {
            ended??;
        }
        let served = load.served.load(Ordering::Relaxed);
        let account = proxies.account_for_all().await?;
        proxies.one_leads().await?;
        let events: u64 = proxies
            .postgres
            .query("SELECT count(DISTINCT event) FROM reports")?
            .parse()?;
        let lost: u64 = account.lost.values().sum();
        ensure!(
            events >= served && lost == 0,
            "{served} served, {events} heard of, {lost} counted as lost"
        );
        nothing_is_missing(&proxies)?;
        let envoy = proxies.graph.sidecar(SERVICE)?;
        let vms = envoy.stat(VMS).await?;
        let at_rest = memory_kib.get(usize::try_from(SETTLED_AFTER)?).copied();
        let at_rest = at_rest.context("too few pushes to say that memory is flat")?;
        let at_end = memory_kib.last().copied().unwrap_or(at_rest);
        println!(
            "{pushes} pushes: {served} requests, all served; {account}; one of {vms} VMs polls; {} MiB after {SETTLED_AFTER}, {} MiB at the end",
            at_rest / 1024,
            at_end / 1024
        );
        ensure!(
            at_end.saturating_sub(at_rest) < GROWTH_MIB_MAX * 1024,
            "memory after each push, KiB: {memory_kib:?}"
        );
        Ok(())
    })
}

/// Of each VM all is stored, to its last report: the configuration alone keeps it, and of another module the leader sends what
/// the old VMs left.
fn nothing_is_missing(proxies: &Proxies) -> Result<()> {
    let gaps = "SELECT count(*) FROM (SELECT FROM reports GROUP BY reporter HAVING max(seq) <> count(*)) g";
    let gaps = proxies.postgres.query(gaps)?;
    ensure!(gaps == "0", "{gaps} VMs lost some");
    Ok(())
}

/// Another configuration, and now and then another module.
fn push_anew(graph: &mut Graph, push: u32) -> Result<()> {
    let sidecar = &mut graph.sidecar_mut(SERVICE)?.sidecar;
    let filter = sidecar.filter.as_mut().context("it has a filter")?;
    filter.config["flush_interval_ms"] = (1_000 + push % 2).into();
    filter.push(push, 1 + push / CODE_EVERY)
}

fn work(graph: &Graph) -> Result<Load> {
    let served = Arc::<AtomicU64>::default();
    let (stop, stopping) = watch::channel(false);
    let to = graph.sidecar(SERVICE)?.sidecar.inbound;
    let mut customers = JoinSet::new();
    for _ in 0..CUSTOMERS {
        let (served, stopping) = (served.clone(), stopping.clone());
        customers.spawn(async move {
            while !*stopping.borrow() {
                // Another connection each time, so that every worker has some.
                let customer = Customer::outside()?;
                let body = Some(serde_json::to_string(&Work::new(at(SERVICE)))?);
                let sent = customer.send(reqwest::Method::POST, to, "/work", &[], body);
                let told = tokio::time::timeout(Duration::from_secs(30), sent).await??;
                ensure!(told.status == 201, "{told:?}");
                served.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
    }
    Ok(Load {
        served,
        stop,
        customers,
    })
}
