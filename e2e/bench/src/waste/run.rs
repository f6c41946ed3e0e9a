//! One run: customers take the next order as soon as their last is answered; then the services' own ledgers are read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kaeru_e2e::shop::{Order, Role};
use kaeru_e2e::world::World;
use tokio::task::JoinSet;

use super::Shop;
use super::meters::{Cost, Meters};
use crate::clock;

pub(super) const ORDERS: u64 = 400;
pub(super) const AT_ONCE: u64 = 4;
/// One in so many fails.
pub(super) const FAILING: u64 = 20;
/// A flush, a look at what it brought, and the looks that its events wait for: Kaeru's work counts until it is done.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// What one run measured.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) took_s: f64,
    /// Mean response of orders that succeed, and of those that fail, ms.
    pub(super) well_ms: f64,
    pub(super) failed_ms: f64,
    /// Unsafe requests after the failing answer, per failed order.
    pub(super) after: f64,
    /// Until the last of them, ms.
    pub(super) last_ms: f64,
    pub(super) cost: Cost,
}

/// An order that was answered.
struct Answered {
    number: String,
    declined: bool,
    took: Duration,
}

/// One run of services that try again so often.
pub(super) async fn run(shop: &Shop, retries: u32) -> Result<Run> {
    let world = &shop.world;
    let (before, began) = (Meters::read(shop).await?, clock::now());
    let next = Arc::new(AtomicU64::new(0));
    let mut customers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (peer, to, next) = (world.peer.clone(), world.inbound(Role::Web)?, next.clone());
        customers.spawn(async move {
            let mut answered = Vec::new();
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                if place >= ORDERS {
                    return Ok::<_, anyhow::Error>(answered);
                }
                let declined = place % FAILING == FAILING / 2;
                let order = Order {
                    declined,
                    says_failed: declined,
                    retries,
                    ..Order::default()
                };
                let (event, sent) = (format!("order-{}", order.number), clock::now());
                let told = peer.order(to, &order, &[("x-event-id", &event)]).await?;
                let (number, took, status) = (order.number, sent.elapsed(), told.status);
                ensure!(declined || status == 201, "an order was answered {status}");
                answered.push(Answered {
                    number,
                    declined,
                    took,
                });
            }
        });
    }
    let mut answered = Vec::new();
    while let Some(done) = customers.join_next().await {
        answered.extend(done??);
    }
    let took = began.elapsed();
    if shop.kaeru.is_some() {
        tokio::time::sleep(AFTERWARDS).await;
    }
    let after = Meters::read(shop).await?;
    let (failed, well): (Vec<_>, Vec<_>) = answered.iter().partition(|order| order.declined);
    let cost = before.until(&after, ORDERS as f64, well.len() as f64)?;

    let (mut after, mut last) = (0, Duration::ZERO);
    for order in &failed {
        let (requests, lasted) = after_failure(world, &order.number).await?;
        after += requests;
        last = last.max(lasted);
    }
    Ok(Run {
        took_s: took.as_secs_f64(),
        well_ms: mean_ms(&well),
        failed_ms: mean_ms(&failed),
        after: after as f64 / failed.len() as f64,
        last_ms: last.as_secs_f64() * 1e3,
        cost,
    })
}

fn mean_ms(orders: &[&Answered]) -> f64 {
    let sum: Duration = orders.iter().map(|order| order.took).sum();
    sum.as_secs_f64() * 1e3 / orders.len() as f64
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
