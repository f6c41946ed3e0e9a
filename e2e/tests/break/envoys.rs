//! `kill -9` at random moments under load, of all that there is: the sidecars of a shop, that of an aggregator, two
//! aggregators, the postmaster, a backend of it. What a sidecar held dies with it, and nobody can count it: it is told as a
//! time in which something of its service may be missing.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kaeru_e2e::config::Attack;
use kaeru_e2e::postgres::Postgres;
use kaeru_e2e::shop::{Order, Role};
use kaeru_e2e::wait::{self, Seen};
use kaeru_e2e::world::{Plan, World};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::kills::next;
use crate::poller::{self, Seen as Told};
use crate::proxies::account_for_all;
use crate::rig::attack;

/// The sidecars of the shop, that of the second aggregator, both aggregators, the postmaster, a backend.
const VICTIMS: u32 = 9;
const CUSTOMERS: usize = 3;
/// One order in so many is declined, and the backend says that it failed.
const FAILS_EVERY: u64 = 5;
/// Until a sidecar that was killed is there again.
const BACK_OFF: Duration = Duration::from_millis(50);

/// An order that was sent.
#[derive(Debug)]
struct Sent {
    number: String,
    event: String,
    /// What the customer heard, if anything.
    status: Option<u16>,
}

/// What customers remember.
#[derive(Debug, Default)]
struct Orders {
    sent: Mutex<Vec<Sent>>,
    served: AtomicU64,
}

#[test]
fn proxies_that_are_killed_lose_nothing_that_was_acknowledged_and_the_rest_is_told() -> Result<()> {
    attack(async {
        let Attack { rounds, seed } = Attack::find(VICTIMS, 100);
        let mut world = World::start(Plan {
            name: "break-envoys".into(),
            policy: "mode: enforce\ndoomed_max: 100%\n".into(),
            filter: json!({ "status_interval_s": 1, "heartbeat_interval_s": 1 }),
            pair: true,
            ..Plan::default()
        })
        .await?;
        let told = Arc::<Told>::default();
        let (stop_poller, poller_stopping) = watch::channel(false);
        let asked = world.aggregators.iter().map(|a| a.settings.listen);
        let polling = poller::work(asked.collect(), told.clone(), poller_stopping)?;
        let polling = tokio::spawn(polling);
        let orders = Arc::<Orders>::default();
        let (stop, stopping) = watch::channel(false);
        let mut customers = JoinSet::new();
        for number in 0..CUSTOMERS {
            let place = (world.peer.clone(), world.inbound(Role::Web)?);
            customers.spawn(order(place, number, orders.clone(), stopping.clone()));
        }
        let mut chance = seed;
        let mut killed = [0_u32; VICTIMS as usize];
        let mut acknowledged = [0; Role::MESH.len()];
        for round in 0..rounds {
            let until = orders.served.load(Ordering::Relaxed) + next(&mut chance) % 20;
            wait::within(
                Duration::from_mins(1),
                "orders between two kills",
                || async {
                    let served = orders.served.load(Ordering::Relaxed);
                    Ok(Seen::when(served >= until, served))
                },
            )
            .await?;
            let victim = if round < VICTIMS {
                usize::try_from(round)?
            } else {
                usize::try_from(next(&mut chance) % u64::from(VICTIMS))?
            };
            kill(&mut world, victim, &mut acknowledged, next(&mut chance)).await?;
            killed[victim] += 1;
        }
        stop.send_replace(true);
        while let Some(ended) = customers.join_next().await {
            ended??;
        }
        let account = account_for_all(world.postgres()?).await?;
        for (role, before) in Role::MESH.into_iter().zip(&mut acknowledged) {
            *before += delivered(&world, role).await?;
            let stored = stored_of(world.postgres()?, role)?;
            ensure!(
                stored >= *before,
                "{}: {stored} stored, {before} acknowledged",
                role.name()
            );
        }
        let sent = std::mem::take(&mut *orders.lock());
        let decided = every_failure_is_decided_once(world.postgres()?, &sent).await?;
        wait::until("every decision told", || async {
            let missing = decided.difference(&told.events()).count();
            Ok(Seen::when(missing == 0, missing))
        })
        .await?;
        stop_poller.send_replace(true);
        polling.await?;
        told.check()?;
        let unheard = nothing_is_missing_silently(&mut world, &sent).await?;
        let heard = sent.iter().filter(|sent| sent.status.is_some()).count();
        println!(
            "envoys, seed {seed}: {rounds} rounds, sidecars of web, backend, db-api, db, of an aggregator, aggregators, postmaster, backend \
             {killed:?}: {} orders, {heard} answered; {account}; {} decisions; {unheard} arrivals in times that are told as lost; {told}",
            sent.len(),
            decided.len()
        );
        Ok(())
    })
}

/// Sends orders until it is told to stop.
async fn order(
    (peer, web): (kaeru_e2e::customer::Customer, std::net::SocketAddr),
    number: usize,
    orders: Arc<Orders>,
    stopping: watch::Receiver<bool>,
) -> Result<()> {
    for nth in 0_u64.. {
        if *stopping.borrow() {
            break;
        }
        let fails = (nth + number as u64).is_multiple_of(FAILS_EVERY);
        let order = Order {
            declined: fails,
            says_failed: fails,
            ..Order::default()
        };
        let event = format!("e-{}", order.number);
        let told = peer.order(web, &order, &[("x-event-id", &event)]).await;
        let status = told.ok().map(|told| told.status);
        match status {
            Some(status) if status < 500 => {
                orders.served.fetch_add(1, Ordering::Relaxed);
            }
            _ => tokio::time::sleep(BACK_OFF).await,
        }
        let number = order.number;
        orders.lock().push(Sent {
            number,
            event,
            status,
        });
    }
    Ok(())
}

async fn kill(
    world: &mut World,
    victim: usize,
    acknowledged: &mut [u64; Role::MESH.len()],
    pick: u64,
) -> Result<()> {
    match victim {
        0..4 => {
            acknowledged[victim] += delivered(world, Role::MESH[victim]).await?;
            let sidecar = world.sidecar_mut(Role::MESH[victim])?;
            sidecar.kill()?;
            sidecar.start_again().await
        }
        4 => {
            let sidecar = world.aggregator_sidecar_mut()?;
            sidecar.kill()?;
            sidecar.start_again().await
        }
        5 | 6 => {
            let aggregator = &mut world.aggregators[victim - 5];
            aggregator.kill()?;
            aggregator.start_again().await
        }
        7 => {
            world.postgres()?.kill()?;
            world.postgres()?.supervise().await
        }
        _ => {
            world.postgres()?.kill_backend(pick)?;
            world.postgres()?.supervise().await
        }
    }
}

/// How many reports a sidecar was told to be stored, since it was started.
async fn delivered(world: &World, role: Role) -> Result<u64> {
    let name = "wasmcustom.kaeru_reports_delivered_total";
    world.sidecar(role)?.stat(name).await
}

fn stored_of(postgres: &Postgres, role: Role) -> Result<u64> {
    let stored = format!(
        "SELECT count(*) FROM reports r JOIN reporters p ON p.id = r.reporter WHERE p.service = '{}'",
        role.peer()
    );
    Ok(postgres.query(&stored)?.parse()?)
}

/// No report is stored twice; every event of which a failure is stored has one decision, and no event has one whose customer
/// heard that it went well. Gives the events that have.
async fn every_failure_is_decided_once(
    postgres: &Postgres,
    sent: &[Sent],
) -> Result<BTreeSet<String>> {
    // 3 is the word `failed`.
    let undecided = "SELECT count(DISTINCT event) FROM reports r WHERE word = 3
        AND NOT EXISTS (SELECT FROM decisions d WHERE d.event = r.event)";
    wait::within(Duration::from_mins(1), "every failure decided", || async {
        let left = postgres.query(undecided)?;
        let intake = postgres.query("SELECT count(*) FROM intake WHERE news")?;
        Ok(Seen::when(left == "0" && intake == "0", (left, intake)))
    })
    .await?;
    for (what, of) in [("(reporter, seq)", "reports"), ("event", "decisions")] {
        let twice = format!("SELECT count(*) - count(DISTINCT {what}) FROM {of}");
        ensure!(postgres.query(&twice)? == "0", "{of}: some are there twice");
    }
    let decided = postgres.query("SELECT event FROM decisions")?;
    let decided: BTreeSet<String> = decided.lines().map(str::to_owned).collect();
    let wrong: Vec<&Sent> = (sent.iter())
        .filter(|sent| sent.status == Some(201) && decided.contains(&sent.event))
        .collect();
    ensure!(
        wrong.is_empty(),
        "rolled back though all went well: {wrong:?}"
    );
    let unknown = decided
        .iter()
        .filter(|event| !sent.iter().any(|sent| sent.event == **event));
    let unknown: Vec<_> = unknown.collect();
    ensure!(unknown.is_empty(), "nobody sent {unknown:?}");
    Ok(decided)
}

/// What reached a service is stored, or falls into a time in which something of that service is told to be missing; gives how
/// many do.
async fn nothing_is_missing_silently(world: &mut World, sent: &[Sent]) -> Result<u64> {
    let stored = "SELECT DISTINCT p.service || ' ' || event FROM reports r JOIN reporters p ON p.id = r.reporter
        WHERE event IS NOT NULL";
    let stored = world.postgres()?.query(stored)?;
    let stored: BTreeSet<&str> = stored.lines().collect();
    let losses = "SELECT service, (extract(epoch FROM since) * 1000)::bigint, (extract(epoch FROM until) * 1000)::bigint
        FROM losses";
    let losses = world.postgres()?.query(losses)?;
    let mut spans = Vec::new();
    for line in losses.lines() {
        let mut fields = line.split('|');
        let (service, since, until) = (fields.next(), fields.next(), fields.next());
        let ms = |field: Option<&str>| anyhow::Ok(field.context("a time")?.parse::<u64>()?);
        spans.push((service.context("a service")?, ms(since)?, ms(until)?));
    }
    let mut unheard = 0;
    for order in sent {
        for role in Role::MESH {
            let peer = role.peer();
            if stored.contains(&*format!("{peer} {}", order.event)) {
                continue;
            }
            for arrival in world.arrivals(role, &order.number).await? {
                let at = arrival.at_ms;
                let is_told = (spans.iter())
                    .any(|(of, since, until)| *of == peer && (since..=until).contains(&&at));
                ensure!(
                    is_told,
                    "{} of {} reached {peer} at {at}, is not stored, and no loss is told: {spans:?}",
                    arrival.method,
                    order.event
                );
                unheard += 1;
            }
        }
    }
    Ok(unheard)
}

impl Orders {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Sent>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
