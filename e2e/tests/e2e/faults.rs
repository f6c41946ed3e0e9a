//! The network between the sidecars and the aggregator misbehaves in every way: requests pass, nobody knocks in a hurry,
//! verdicts are heard again as soon as it behaves, and every report that was given out is acknowledged, and then stored, or
//! counted as dropped. With `KAERU_TORTURE` set this is so after each fault, for 20 rounds.

use std::time::Duration;

use anyhow::{Context, Result};
use kaeru_e2e::config::{self, Attack};
use kaeru_e2e::faults::Fault;
use kaeru_e2e::shop::{Order, Role};
use kaeru_e2e::wait::{self, Seen};
use kaeru_e2e::world::{Plan, World};
use serde_json::json;
use tokio::time::Instant;

use crate::stage::{plan, play, with};

const ORDERS: usize = 8;
const TORTURE_ROUNDS: u32 = 20;
/// Reports that a worker keeps: fewer than the orders make, so that some are dropped.
const OUTBOX_REPORTS: u32 = 4;
/// How long a poll for verdicts is held.
const POLL_WAIT: Duration = Duration::from_secs(1);

/// Reports of all proxies.
#[derive(Debug, Default)]
struct Sums {
    given: u64,
    acknowledged: u64,
    dropped: u64,
    stored: u64,
}

#[test]
fn whatever_the_network_does_traffic_passes_and_no_report_goes_uncounted() -> Result<()> {
    play(async {
        let base = plan("faults");
        let filter = with(&base.filter, "outbox_reports_max", json!(OUTBOX_REPORTS));
        let filter = with(&filter, "report_timeout_ms", json!(2_000));
        let filter = with(&filter, "poll_wait_ms", json!(POLL_WAIT.as_millis()));
        let faults = true;
        let world = World::start(Plan {
            filter,
            faults,
            ..base
        })
        .await?;
        let healthy = orders(&world).await?;
        let rounds = Attack::find(1, TORTURE_ROUNDS).rounds;
        for _ in 0..rounds {
            for fault in Fault::ALL {
                println!("{}", misbehaves(&world, fault, healthy).await?);
                world.faults()?.turn(Fault::None);
                recovers(&world).await?;
                if config::is_torture() {
                    every_report_is_accounted_for(&world).await?;
                }
            }
        }
        let sums = every_report_is_accounted_for(&world).await?;
        // What is stored and not acknowledged lost its answer, and was dropped before it was sent again.
        println!(
            "{rounds} rounds of {} faults: given out = acknowledged + dropped, and what is acknowledged is stored: {sums:?}",
            Fault::ALL.len()
        );
        assert!(sums.dropped > 0, "the outboxes were never full");
        Ok(())
    })
}

async fn misbehaves(world: &World, fault: Fault, healthy: Duration) -> Result<String> {
    let faults = world.faults()?;
    faults.turn(fault);
    let (begun, before) = (Instant::now(), faults.connects());
    let median = orders(world).await?;
    let within = Duration::from_mins(1);
    wait::within(within, &format!("somebody meets {fault:?}"), || async {
        let connects = faults.connects() - before;
        Ok(Seen::when(connects > 0, connects))
    })
    .await?;
    let (lasted, connects) = (begun.elapsed().as_secs() + 1, faults.connects() - before);
    let told = format!(
        "{fault:?}: median of an order {median:?} (healthy: {healthy:?}), {connects} connects in {lasted} s"
    );
    // One that waited for the aggregator would wait for its half-open connection, and fail.
    assert!(
        median < healthy * 5 + Duration::from_secs(2),
        "{fault:?}: {median:?}"
    );
    // Two a second, and at once one of each of a proxy's three VMs and its poll, twice.
    let most = Role::MESH.len() as u64 * (2 * lasted + 8);
    assert!(
        !fault.is_away() || connects <= most,
        "{fault:?}: {connects} connects in {lasted} s"
    );
    Ok(told)
}

/// Every proxy listens for verdicts again, by itself, and is answered. One whose poll still waits when the next fault comes has
/// failed twice in a row, and pauses for longer after each.
async fn recovers(world: &World) -> Result<()> {
    let api = world.api()?;
    let within = Duration::from_mins(2);
    for (what, held) in [
        ("every proxy's poll for verdicts", Duration::ZERO),
        ("every proxy's next poll", POLL_WAIT),
    ] {
        let since = Instant::now();
        wait::within(within, what, || async {
            let polls = api.metric("kaeru_polls").await?;
            let all_poll = polls == Role::MESH.len() as u64 && since.elapsed() > held;
            Ok(Seen::when(all_poll, polls))
        })
        .await?;
    }
    Ok(())
}

/// Sends orders one after the other, all of which succeed: the median time of one.
async fn orders(world: &World) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..ORDERS {
        let begun = Instant::now();
        let told = world
            .outside
            .order(world.inbound(Role::Web)?, &Order::default(), &[])
            .await?;
        times.push(begun.elapsed());
        assert_eq!(told.status, 201, "{told:?}");
    }
    times.sort_unstable();
    Ok(times[ORDERS / 2])
}

/// Waits until every report that a proxy gave out is acknowledged or counted as dropped; sums over all proxies, and how many
/// reports are stored.
async fn every_report_is_accounted_for(world: &World) -> Result<Sums> {
    let api = world.api()?;
    let mut sums = Sums::default();
    for role in Role::MESH {
        let sidecar = world.sidecar(role)?;
        let what = format!("given out = acknowledged + dropped at {}", role.name());
        // The back-off doubles up to half a minute, and a status comes after it.
        let of_proxy = wait::within(Duration::from_mins(2), &what, || async {
            let service = api.service(&role.peer()).await?.context("never heard of")?;
            let reporters = service.proxies.iter().flat_map(|proxy| &proxy.reporters);
            let (mut given, mut dropped) = (0, 0);
            for reporter in reporters {
                given += reporter.seq;
                dropped += reporter.dropped;
            }
            let count = |name: &str| {
                let name = format!("wasmcustom.kaeru_reports_{name}_total");
                async move { sidecar.stat(&name).await }
            };
            let (acknowledged, counted) = (count("delivered").await?, count("dropped").await?);
            let adds_up = given == acknowledged + dropped && dropped == counted;
            Ok(Seen::when(adds_up, (given, acknowledged, dropped, counted)))
        });
        let (given, acknowledged, dropped, _) = of_proxy.await?;
        sums.given += given;
        sums.acknowledged += acknowledged;
        sums.dropped += dropped;
    }
    sums.stored = api.metric("kaeru_reports_stored_total").await?;
    assert!(
        sums.stored >= sums.acknowledged,
        "acknowledged, not stored: {sums:?}"
    );
    Ok(sums)
}
