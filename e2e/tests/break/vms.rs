//! A VM that dies because a request makes it, among one worker and among four, under each failure policy of Envoy: what
//! becomes of requests, that what it held is counted to the last report, that one VM leads, and that verdicts are obeyed
//! wherever a VM lives.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use kaeru_e2e::config::Attack;
use kaeru_e2e::customer::Customer;
use kaeru_e2e::envoy::OnFailure;
use kaeru_e2e::graph::{Graph, Work, at, peer};
use kaeru_e2e::wait::{self, Seen};
use tokio::time::Instant;

use crate::proxies::{Proxies, plan};
use crate::rig::attack;

/// Kills the VM that it reaches, in the variant of the filter that is built for it.
const CRASH: (&str, &str) = ("x-kaeru-crash", "now");
/// One service under each policy.
const UNDER: [(&str, OnFailure); 3] = [
    ("reload", OnFailure::Reload),
    ("open", OnFailure::Open),
    ("closed", OnFailure::Closed),
];
/// Connections that are tried, each of its own: of four workers none is left out but once in 30 million times.
const CONNECTIONS: usize = 60;

#[test]
fn the_only_worker_of_a_proxy_dies() -> Result<()> {
    attack(async {
        println!("{}", dies(1).await?);
        Ok(())
    })
}

#[test]
fn one_worker_of_four_dies() -> Result<()> {
    attack(async {
        println!("{}", dies(4).await?);
        Ok(())
    })
}

/// What was seen.
async fn dies(workers: u16) -> Result<String> {
    let mut story = vec![format!("{workers} workers:")];
    let rounds = Attack::find(1, 5).rounds;
    let mut plan = plan(&format!("dies-{workers}"));
    plan.services = UNDER.map(|(name, _)| (name.into(), 0)).into();
    plan.on_failure = UNDER.map(|(name, policy)| (name.into(), policy)).into();
    plan.workers = workers;
    plan.can_crash = true;
    let mut proxies = Proxies::start(plan).await?;
    let doomed = doom(&proxies.graph, workers).await?;
    for round in 0..rounds {
        // What is done without an aggregator is in the memory of VMs only.
        proxies.graph.aggregator.kill()?;
        for (service, _) in UNDER {
            if round == 0 || service == "reload" {
                answers(&proxies.graph, service, None).await?;
                let told = send(&proxies.graph, service, &[CRASH]).await?;
                ensure!(told == 503, "{service}: the request that kills: {told}");
            }
        }
        let begun = Instant::now();
        wait::until("a new VM", || async {
            let seen = answers(&proxies.graph, "reload", None).await?;
            Ok(Seen::when(only(&seen, &[201]), seen))
        })
        .await?;
        story.push(format!("all served again after {:.1?};", begun.elapsed()));
        proxies.graph.aggregator.start_again().await?;
    }
    for (service, policy) in UNDER {
        let seen = answers(&proxies.graph, service, None).await?;
        let obeyed = answers(&proxies.graph, service, Some(&doomed)).await?;
        story.push(format!(
            "{policy:?}: {seen:?}, of a doomed event {obeyed:?};"
        ));
        let (without, doomed_without) = match policy {
            OnFailure::Reload => (201, 424),
            OnFailure::Open => (201, 201),
            OnFailure::Closed => (503, 503),
        };
        // The dead worker's, and those of the workers that live.
        let (live, live_doomed) = if workers > 1 {
            (201, 424)
        } else {
            (without, doomed_without)
        };
        ensure!(
            exactly(&seen, &[without, live]),
            "{service}: {seen:?}, not {without} and {live}"
        );
        ensure!(
            exactly(&obeyed, &[doomed_without, live_doomed]),
            "{service}: of a doomed event {obeyed:?}"
        );
        let envoy = proxies.graph.sidecar(service)?;
        let stat = |name| format!("wasm.kaeru-system.kaeru.vm_reload_{name}");
        let reloads = envoy.stat(&stat("success")).await?;
        let expected = u64::from(rounds) * u64::from(policy == OnFailure::Reload);
        ensure!(reloads == expected, "{service}: {reloads} new VMs");
        ensure!(envoy.stat(&stat("failure")).await? == 0);
    }
    let account = proxies.account_for_all().await?;
    let lost = UNDER.map(|(service, _)| account.lost.get(&peer(service)).copied().unwrap_or(0));
    ensure!(
        lost.iter().all(|lost| *lost > 0),
        "dead VMs held nothing: {account:?}"
    );
    proxies.one_leads().await?;
    story.push(format!("{account}; under reload, open, closed {lost:?}"));
    Ok(story.join(" "))
}

/// Dooms an event by a word at the first service, and waits until every worker of all of them knows.
async fn doom(graph: &Graph, workers: u16) -> Result<String> {
    let event = format!("doomed-{workers}");
    let failing = Work::new(at(UNDER[0].0).says("failed"));
    graph.send(&failing, &[("x-event-id", &event)]).await?;
    for (service, _) in UNDER {
        wait::within(
            Duration::from_mins(1),
            &format!("the verdict at {service}"),
            || async {
                let seen = answers(graph, service, Some(&event)).await?;
                Ok(Seen::when(only(&seen, &[424]), seen))
            },
        )
        .await?;
    }
    Ok(event)
}

/// How often which status was the answer to requests of this event, or of one each, on as many connections.
async fn answers(
    graph: &Graph,
    service: &str,
    event: Option<&str>,
) -> Result<BTreeMap<u16, usize>> {
    let mut seen = BTreeMap::new();
    for _ in 0..CONNECTIONS {
        let headers: Vec<_> = event
            .map(|event| ("x-event-id", event))
            .into_iter()
            .collect();
        *seen
            .entry(send(graph, service, &headers).await?)
            .or_default() += 1;
    }
    Ok(seen)
}

/// The answer to a request on a connection of its own.
async fn send(graph: &Graph, service: &str, headers: &[(&str, &str)]) -> Result<u16> {
    let work = Work::new(at(service));
    let told = graph.send_as(&Customer::outside()?, &work, headers).await?;
    Ok(told.status)
}

fn only(seen: &BTreeMap<u16, usize>, statuses: &[u16]) -> bool {
    seen.keys().all(|status| statuses.contains(status))
}

/// Only these, and each of them.
fn exactly(seen: &BTreeMap<u16, usize>, statuses: &[u16]) -> bool {
    only(seen, statuses) && statuses.iter().all(|status| seen.contains_key(status))
}
