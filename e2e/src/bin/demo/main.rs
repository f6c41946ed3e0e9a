//! The demo: starts the whole shop with Kaeru, declines some payments, and tells the story of one failed order.
//!
//! It stays up until Ctrl-C; with `--once` it checks that the story went as it should and ends.

mod page;
mod story;
mod tree;
mod undo;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;
use kaeru_e2e::api::Event;
use kaeru_e2e::customer::event_of;
use kaeru_e2e::shop::{Order, Role};
use kaeru_e2e::world::{Plan, World};
use serde_json::json;
use tokio::time::Instant;

use page::Page;

/// What the demo's aggregator is told about the shop.
const POLICY: &str = "\
# Refuse further work of events that must be rolled back.
mode: enforce
services:
  # The payment API has no proxy of ours; when it declines a payment, no retry helps.
  host:payments.example.com:
    fatal: [402]
";
const ORDERS: usize = 12;
/// Every fourth payment is declined.
const DECLINED: usize = 4;
/// While it stays up, an order a second; every tenth is declined.
const PACE: Duration = Duration::from_secs(1);
const DECLINED_LATER: u64 = 10;

/// Starts a small shop in a mesh with Kaeru and tells the story of one failed order.
#[derive(Debug, Parser)]
struct Args {
    /// Check the story and end.
    #[arg(long)]
    once: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let mut page = Page::on_stdout();
    match run(&args, &mut page).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where even standard error is gone, the exit code remains.
            let _ = writeln!(std::io::stderr(), "demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args, page: &mut Page) -> Result<()> {
    let begun = Instant::now();
    page.step("starting Postgres, the aggregator, four Envoys with the filter and the shop")?;
    let plan = Plan {
        name: "demo".into(),
        policy: POLICY.into(),
        filter: json!({}),
        ..Plan::default()
    };
    let start = World::start(plan);
    let world = tokio::select! {
        world = start => world?,
        stopped = tokio::signal::ctrl_c() => return Ok(stopped?),
    };
    page.step(&format!(
        "ready after {:.1} s",
        begun.elapsed().as_secs_f64()
    ))?;

    page.step(&format!(
        "sending {ORDERS} orders; every {DECLINED}th payment is declined"
    ))?;
    let (mut failed, mut succeeded) = (Vec::new(), Vec::new());
    for number in 1..=ORDERS {
        let declined = number % DECLINED == 0;
        let event = order(&world, declined).await?;
        if declined {
            &mut failed
        } else {
            &mut succeeded
        }
        .push(event);
    }
    page.step("waiting until every order is told whole")?;
    let api = world.api()?;
    for id in &succeeded {
        let whole = |event: &Event| event.summary.state == "succeeded";
        api.event_when(id, "succeeded", whole).await?;
    }
    let mut told = Vec::new();
    for id in &failed {
        told.push(
            api.event_when(id, "decided, refused, and told whole", story::is_whole)
                .await?,
        );
    }

    let [event, ..] = &told[..] else {
        bail!("no order failed");
    };
    let (good, bad) = (succeeded.len(), failed.len());
    page.line("")?;
    page.line(&format!(
        "{good} orders succeeded, {bad} failed. The story of one that failed:"
    ))?;
    story::tell(page, event)?;
    addresses(page, &world, event)?;
    if args.once {
        for event in &told {
            story::check(event)?;
        }
        page.line("")?;
        return page.line("The story went as it should.");
    }
    page.line("")?;
    page.line("It goes on with an order a second until Ctrl-C.")?;
    go_on(&world).await
}

/// Sends one order; its event.
async fn order(world: &World, declined: bool) -> Result<String> {
    let order = Order {
        declined,
        retries: 8,
        ..Order::default()
    };
    event_of(
        &world
            .outside
            .order(world.inbound(Role::Web)?, &order, &[])
            .await?,
    )
}

async fn go_on(world: &World) -> Result<()> {
    let mut pace = tokio::time::interval(PACE);
    for number in 1_u64.. {
        tokio::select! {
            _ = pace.tick() => order(world, number % DECLINED_LATER == 0).await?,
            stopped = tokio::signal::ctrl_c() => return Ok(stopped?),
        };
    }
    Ok(())
}

fn addresses(page: &mut Page, world: &World, event: &Event) -> Result<()> {
    let settings = &world.aggregator()?.settings;
    let (api, ops) = (settings.listen, settings.ops_listen);
    let id = &event.summary.event;
    page.heading("Addresses to open")?;
    for (what, address) in [
        ("page for people", format!("http://{api}/")),
        ("this order", format!("http://{api}/v1/events/{id}")),
        (
            "failed orders",
            format!("http://{api}/v1/events?state=rolling_back"),
        ),
        ("decisions", format!("http://{api}/v1/decisions")),
        ("services", format!("http://{api}/v1/services")),
        ("learned flows", format!("http://{api}/v1/flows")),
        ("the whole API", format!("http://{api}/openapi.json")),
        ("Kaeru's metrics", format!("http://{ops}/metrics")),
    ] {
        page.line(&format!("  {what:<18}{address}"))?;
    }
    for role in Role::MESH {
        let admin = world.sidecar(role)?.sidecar.admin;
        let what = format!("{}'s Envoy", role.name());
        page.line(&format!("  {what:<18}http://{admin}"))?;
    }
    page.line(&format!("  {:<18}{}", "logs", world.folder.display()))
}
