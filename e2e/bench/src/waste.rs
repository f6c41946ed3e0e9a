//! What happens after an event failed, and what all events pay for it, with Kaeru and without: the paper's evaluation in
//! small. One shop whose policy enforces and one whose proxies have no filter, each under Istio's default retries alone and
//! under services that try again three times, 50 ms apart; 5 % of the orders fail.
//!
//! | file | what |
//! | --- | --- |
//! | `waste/run.rs` | one run: its orders, their ledgers |
//! | `waste/meters.rs` | what it cost processes and connections |

mod meters;
mod run;

use anyhow::{Context, Result};
use kaeru_e2e::shop::Role;
use kaeru_e2e::world::{Plan, World};
use rustix::process::Pid;
use serde_json::json;

use self::run::Run;
use crate::paper::{Line, Section};
use crate::process;
use crate::spread::{Spread, brief};

pub(crate) const TITLE: &str = "Waste";
const NOTES: &str = include_str!("../notes/waste.md");
const POLICY: &str =
    "mode: enforce\ndoomed_max: 100%\nservices:\n  host:payments.example.com:\n    fatal: [402]\n";
const ROUNDS: u64 = 5;
/// How often services try again, beside the default retries of Istio 1.30 (`kaeru_e2e::envoy::ISTIO_RETRY_ON`).
const RETRIES: [(u32, &str); 2] = [
    (0, "Istio's retries alone"),
    (3, "services try 3 times again"),
];

/// A shop, and the processes of Kaeru's aggregator and Postgres where it has Kaeru.
struct Shop {
    world: World,
    kaeru: Option<[Pid; 2]>,
}

/// The runs of one kind of services, round by round.
#[derive(Default)]
struct Pair {
    without: Vec<Run>,
    with: Vec<Run>,
}

pub(crate) async fn measure() -> Result<Section> {
    let with = Shop::start("with", true).await?;
    let without = Shop::start("without", false).await?;
    let [mut once, mut again] = [Pair::default(), Pair::default()];
    for _ in 0..ROUNDS {
        for (pair, (retries, _)) in [&mut once, &mut again].into_iter().zip(RETRIES) {
            pair.without.push(run::run(&without, retries).await?);
            pair.with.push(run::run(&with, retries).await?);
        }
    }
    let mut lines = Vec::new();
    for (pair, (_, name)) in [&once, &again].into_iter().zip(RETRIES) {
        lines.extend(pair.lines(name));
    }
    lines.push(memory(&without, &with)?);
    lines.extend(goals(&once, &again));
    Ok(Section {
        title: TITLE,
        notes: NOTES,
        how: format!(
            "{ROUNDS} interleaved rounds of {} orders, {} at a time, one in {} fails; without Kaeru → with Kaeru, and the ratio; load average {}.",
            run::ORDERS,
            run::AT_ONCE,
            run::FAILING,
            crate::machine::load_average()
        ),
        lines,
    })
}

impl Shop {
    async fn start(name: &str, with_kaeru: bool) -> Result<Self> {
        let mut world = World::start(Plan {
            name: format!("bench-waste-{name}"),
            policy: POLICY.into(),
            filter: json!({ "mode": "enforce" }),
            postgres: true,
            bare: !with_kaeru,
            ..Plan::default()
        })
        .await?;
        let postgres = world.postgres()?.pid().context("it runs")?;
        let aggregator = world.aggregator()?.pid().context("it runs")?;
        let kaeru = with_kaeru.then_some([aggregator, postgres]);
        Ok(Self { world, kaeru })
    }

    /// What the proxies hold, MiB.
    fn proxies_mib(&self) -> Result<f64> {
        let resident = |role| process::resident_mib(self.world.sidecar(role)?.pid());
        Role::MESH.into_iter().map(resident).sum()
    }
}

impl Pair {
    fn lines(&self, name: &str) -> Vec<Line> {
        let line = |what: &str, measured| Line::plain(format!("{name}: {what}"), measured);
        let told = |figure: fn(&Run) -> f64| median(&self.with, figure);
        vec![
            line(
                "unsafe requests after a failure, per failed order",
                self.both(|run| run.after),
            ),
            line("until the last of them, ms", self.both(|run| run.last_ms)),
            line(
                "mean response of an order that succeeds, ms",
                self.both(|run| run.well_ms),
            ),
            line(
                "mean response of one that fails, ms",
                self.both(|run| run.failed_ms),
            ),
            line("whole run, s", self.both(|run| run.took_s)),
            line(
                "CPU of services, ms/order",
                self.both(|run| run.cost.services_ms),
            ),
            line(
                "CPU of proxies, ms/order",
                self.both(|run| run.cost.proxies_ms),
            ),
            line(
                "CPU of aggregator and Postgres, ms/order",
                format!("0 → {}", brief(told(|run| run.cost.kaeru_ms))),
            ),
            line(
                "bytes between services, per order",
                self.both(|run| run.cost.between),
            ),
            line(
                "bytes from proxies to the aggregator (and back), per order",
                format!(
                    "0 → {} ({})",
                    brief(told(|run| run.cost.told)),
                    brief(told(|run| run.cost.heard))
                ),
            ),
        ]
    }

    fn both(&self, figure: fn(&Run) -> f64) -> String {
        let medians = [&self.without, &self.with].map(|runs| brief(median(runs, figure)));
        let ratio = ratio(&self.with, &self.without, figure);
        format!("{}, × {ratio}", medians.join(" → "))
    }
}

fn median(runs: &[Run], figure: fn(&Run) -> f64) -> f64 {
    Spread::of(runs.iter().map(figure)).median
}

/// Round by round.
fn ratio(ours: &[Run], theirs: &[Run], figure: fn(&Run) -> f64) -> Spread {
    let pairs = ours.iter().zip(theirs);
    Spread::of(pairs.map(|(ours, theirs)| figure(ours) / figure(theirs)))
}

/// Both shops have done the same work by now.
fn memory(without: &Shop, with: &Shop) -> Result<Line> {
    let [aggregator, postgres] = with.kaeru.context("it has Kaeru")?;
    Ok(Line::plain(
        "memory of the four proxies / the aggregator / its Postgres at the end, MiB",
        format!(
            "{:.0} → {:.0} / 0 → {:.0} / 0 → {:.0}",
            without.proxies_mib()?,
            with.proxies_mib()?,
            process::resident_mib(aggregator)?,
            process::tree_mib(postgres)?
        ),
    ))
}

fn goals(once: &Pair, again: &Pair) -> Vec<Line> {
    let all = ratio(&again.with, &again.without, |run| run.after);
    // What the failing run sends before anyone can know is no waste: the run without retries sends it too.
    let runs = again.with.iter().zip(&again.without).zip(&once.without);
    let beyond = Spread::of(runs.map(|((with, without), best)| {
        (with.after - best.after).max(0.0) / (without.after - best.after)
    }));
    let stopped = ratio(&again.with, &once.with, |run| run.took_s);
    let whole = ratio(&again.with, &once.without, |run| run.took_s);
    let waits = again.with.iter().zip(&once.with);
    let waits = Spread::of(waits.map(|(again, once)| again.failed_ms - once.failed_ms));
    vec![
        Line::against(
            "unsafe requests after a failure, all of them, × without Kaeru",
            all.to_string(),
            "at most 0.05",
            all.median <= 0.05,
        ),
        Line::against(
            "unsafe requests beyond those of services that do not try again, × without Kaeru",
            beyond.to_string(),
            "at most 0.05",
            beyond.median <= 0.05,
        ),
        Line::against(
            "whole run, × one in which failed orders stop where they fail",
            stopped.to_string(),
            "at most 1.1",
            stopped.median <= 1.1,
        ),
        Line::against(
            "whole run, × the same without Kaeru: its price on a busy machine is in it",
            whole.to_string(),
            "at most 1.1",
            whole.median <= 1.1,
        ),
        Line::plain(
            "what trying again costs a failing order, ms (its first pause is 50)",
            waits.to_string(),
        ),
    ]
}
