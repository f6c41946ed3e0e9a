//! What happens after an event failed, with Kaeru and without: how many unsafe requests still reach services, how long, and
//! what the run takes. One shop whose policy enforces and one where Kaeru is off; services try again three times,
//! 50 ms apart, and 5 % of the orders fail.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kaeru_e2e::shop::{Order, Role};
use kaeru_e2e::world::{Plan, World};
use serde_json::json;
use tokio::task::JoinSet;

use crate::paper::{Line, Section};
use crate::spread::Spread;
use crate::{clock, process};

pub(crate) const TITLE: &str = "Waste";
const NOTES: &str = include_str!("../notes/waste.md");
const ROUNDS: u64 = 5;
const ORDERS: u64 = 200;
/// One in so many fails.
const FAILING: u64 = 20;
const AT_ONCE: u64 = 4;

/// What one round measured.
#[derive(Debug, Default)]
struct Round {
    took_s: f64,
    cpu_s: f64,
    /// Unsafe requests after the failing answer.
    after: f64,
    /// Until the last of them, ms.
    last_ms: f64,
}

pub(crate) async fn measure() -> Result<Section> {
    let with = world("with", "enforce").await?;
    let without = world("without", "off").await?;
    let (mut with_it, mut without_it, mut best) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without_it.push(round(&without, Some(3)).await?);
        with_it.push(round(&with, Some(3)).await?);
        best.push(round(&without, None).await?);
    }
    let of = |rounds: &[Round], figure: fn(&Round) -> f64| Spread::of(rounds.iter().map(figure));
    let ratio = |ours: &[Round], theirs: &[Round], figure: fn(&Round) -> f64| {
        let pairs = ours.iter().zip(theirs);
        Spread::of(pairs.map(|(ours, theirs)| figure(ours) / figure(theirs)))
    };
    // What the failing run sends before anyone can know is no waste: the run without retries sends it too.
    let beyond = with_it.iter().zip(&without_it).zip(&best);
    let wasted = Spread::of(beyond.map(|((with, without), best)| {
        (with.after - best.after).max(0.0) / (without.after - best.after)
    }));
    let all = ratio(&with_it, &without_it, |r| r.after);
    let whole = ratio(&with_it, &best, |r| r.took_s);
    let mut lines = Vec::new();
    for (name, rounds) in [
        ("without Kaeru", &without_it),
        ("with Kaeru", &with_it),
        ("no retries, no Kaeru", &best),
    ] {
        lines.push(Line::plain(
            format!("{name}: unsafe requests after a failure, per failed order"),
            of(rounds, |r| r.after).to_string(),
        ));
        lines.push(Line::plain(
            format!("{name}: until the last of them, ms"),
            of(rounds, |r| r.last_ms).to_string(),
        ));
        lines.push(Line::plain(
            format!("{name}: whole run, s / CPU of services, s"),
            format!("{} / {}", of(rounds, |r| r.took_s), of(rounds, |r| r.cpu_s)),
        ));
    }
    lines.push(Line::against(
        "unsafe requests after a failure, all of them, × without Kaeru",
        all.to_string(),
        "at most 0.05",
        all.median <= 0.05,
    ));
    lines.push(Line::against(
        "unsafe requests beyond those of a run without retries, × without Kaeru",
        wasted.to_string(),
        "at most 0.05",
        wasted.median <= 0.05,
    ));
    lines.push(Line::against(
        "whole run, × one whose services never try again",
        whole.to_string(),
        "at most 1.1",
        whole.median <= 1.1,
    ));
    Ok(Section {
        title: TITLE,
        notes: NOTES,
        how: format!(
            "{ROUNDS} interleaved rounds of {ORDERS} orders, {AT_ONCE} at a time, one in {FAILING} fails; load average {}.",
            crate::machine::load_average()
        ),
        lines,
    })
}

async fn world(name: &str, mode: &str) -> Result<World> {
    World::start(Plan {
        name: format!("bench-waste-{name}"),
        policy: format!(
            "mode: {mode}\ndoomed_max: 100%\nservices:\n  host:payments.example.com:\n    fatal: [402]\n"
        ),
        filter: json!({ "mode": mode }),
        ..Plan::default()
    })
    .await
}

/// One run; `None` retries is the best that there can be: what failed is not tried again.
async fn round(world: &World, retries: Option<u32>) -> Result<Round> {
    let services = || -> Result<f64> {
        let cpus = Role::ALL.iter().map(|role| {
            let cpu = process::tree_cpu(world.service_pid(*role)?)?;
            Ok::<f64, anyhow::Error>(cpu.as_secs_f64())
        });
        cpus.sum()
    };
    let (began, before) = (clock::now(), services()?);
    let mut failed = Vec::new();
    let mut tasks = JoinSet::new();
    for customer in 0..AT_ONCE {
        let (peer, to) = (world.peer.clone(), world.inbound(Role::Web)?);
        tasks.spawn(async move {
            let mut failed = Vec::new();
            for number in (customer..ORDERS).step_by(usize::try_from(AT_ONCE)?) {
                let declined = number % FAILING == 0;
                let order = Order {
                    declined,
                    says_failed: declined,
                    retries: retries.unwrap_or(0),
                    ..Order::default()
                };
                let event = format!("order-{}", order.number);
                let told = peer.order(to, &order, &[("x-event-id", &event)]).await?;
                ensure!(
                    declined || told.status == 201,
                    "an order was answered {}",
                    told.status
                );
                if declined {
                    failed.push(order.number);
                }
            }
            Ok::<_, anyhow::Error>(failed)
        });
    }
    while let Some(done) = tasks.join_next().await {
        failed.extend(done??);
    }
    let mut round = Round {
        took_s: began.elapsed().as_secs_f64(),
        cpu_s: services()? - before,
        ..Round::default()
    };
    let orders = failed.len() as f64;
    for order in failed {
        let (requests, lasted) = after_failure(world, &order).await?;
        round.after += requests as f64 / orders;
        round.last_ms = round.last_ms.max(lasted.as_secs_f64() * 1e3);
    }
    Ok(round)
}

/// Unsafe requests that reached services after the payment was declined, and how long after it the last came.
async fn after_failure(world: &World, order: &str) -> Result<(usize, Duration)> {
    let mut arrivals = Vec::new();
    for role in Role::ALL {
        for arrival in world.arrivals(role, order).await? {
            arrivals.push((arrival.at_ms, role));
        }
    }
    let declined = arrivals.iter().filter(|(_, role)| *role == Role::Payment);
    let declined_ms = declined.map(|(at_ms, _)| *at_ms).min();
    let declined_ms = declined_ms.context("the payment API was asked")?;
    let later: Vec<u64> = (arrivals.iter())
        .map(|(at_ms, _)| at_ms.saturating_sub(declined_ms))
        .filter(|late_ms| *late_ms > 0)
        .collect();
    let last_ms = later.iter().copied().max().unwrap_or(0);
    Ok((later.len(), Duration::from_millis(last_ms)))
}
