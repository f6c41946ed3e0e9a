//! What is measured at one size.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kaeru_e2e::aggregator::Aggregator;
use kaeru_e2e::postgres::Postgres;
use kaeru_e2e::wait::{self, Seen};

use super::{FLOW, quantiles, seed, spread};
use crate::spread::Spread;
use crate::talk::Talk;
use crate::{clock, ingest, process, sql};

const ROUNDS: u64 = 3;
/// Events that are looked up.
const LOOKUPS: u64 = 1_500;
/// Times that each page is asked for.
const LOOKS: usize = 300;
const SENDERS: u64 = 4;

/// Pages of events, as people and scripts ask for them; those of before today, for today has what was sent to measure ingest.
pub(super) const PAGES: [(&str, &str); 7] = [
    ("newest events", ""),
    ("failed events", "&state=failed"),
    (
        "events being rolled back, one type",
        "&state=rolling_back&type=order.1",
    ),
    (
        "failed events of a service",
        "&state=failed&service=shop/s7",
    ),
    ("events of a service", "&service=shop/s7"),
    (
        "events of a service that one in 125 goes through",
        "&service=shop/rare",
    ),
    (
        "failed events of a service that has none",
        "&state=failed&service=shop/rare",
    ),
];

/// The figures of one size; times in ms, p50 and p99.
pub(super) struct Size {
    pub(super) reports: u64,
    pub(super) event_ms: (f64, f64),
    pub(super) pages_ms: Vec<(f64, f64)>,
    pub(super) flow_ms: (f64, f64),
    pub(super) ingest_per_s: Spread,
    pub(super) behind_s: Spread,
    /// Of reports and their indexes, per report.
    pub(super) bytes: f64,
    /// Of everything else, per event.
    pub(super) bytes_beside: f64,
    pub(super) start_ms: Spread,
    pub(super) memory_mib: f64,
}

impl Size {
    pub(super) async fn measure(
        aggregator: &mut Aggregator,
        postgres: &Postgres,
        place: i32,
    ) -> Result<Self> {
        let number = |what: &str| -> Result<f64> { Ok(sql::ask(postgres, what)?.parse()?) };
        let reports: u64 = sql::ask(postgres, "SELECT count(*) FROM reports")?.parse()?;
        let of_reports = number(
            "SELECT sum(pg_total_relation_size(inhrelid))::float8 FROM pg_inherits
             WHERE inhparent = 'reports'::regclass",
        )?;
        let beside = number(
            "SELECT sum(pg_total_relation_size(oid))::float8 FROM pg_class
             WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND NOT relispartition",
        )?;
        let mut starts = Vec::new();
        for _ in 0..ROUNDS {
            aggregator.kill()?;
            let began = clock::now();
            aggregator.start_again().await?;
            starts.push(began.elapsed().as_secs_f64() * 1e3);
        }
        let to = aggregator.settings.listen;
        nothing_is_due(postgres).await?;
        let events = events(postgres, reports)?;
        let event_ms = ask_for(to, events.iter().map(|e| format!("/v1/events/{e}"))).await?;
        let mut pages_ms = Vec::new();
        let today = sql::ask(postgres, "SELECT (now() AT TIME ZONE 'UTC')::date")?;
        for (name, query) in PAGES {
            let query = format!("until={today}T00:00:00Z{query}");
            let found = aggregator.api()?.events(&query).await?.len();
            let expected = if name.ends_with("none") { 0 } else { 50 };
            ensure!(found == expected, "{name}: {found} events");
            let path = format!("/v1/events?{query}");
            pages_ms.push(ask_for(to, (0..LOOKS).map(|_| path.clone())).await?);
        }
        let flow_ms = ask_for(to, (0..LOOKS).map(|_| FLOW.to_owned())).await?;
        let mut rounds = Vec::new();
        for round in 0..ROUNDS {
            let run = u64::try_from(place)? * ROUNDS + round + 1;
            rounds.push(ingest::round(aggregator, postgres, run, SENDERS).await?);
        }
        Ok(Self {
            reports,
            event_ms,
            pages_ms,
            flow_ms,
            ingest_per_s: spread(rounds.iter().map(|round| round.per_s)),
            behind_s: spread(rounds.iter().map(|round| round.behind.as_secs_f64())),
            bytes: of_reports / reports as f64,
            bytes_beside: beside / (reports / seed::STEPS) as f64,
            start_ms: spread(starts),
            memory_mib: process::resident_mib(aggregator.pid().context("it runs")?)?,
        })
    }
}

/// Waits until the decider has nothing to look at for a while: what was sent to measure ingest at the size before is looked at
/// again when it settles, and after the outage that the restarts were.
async fn nothing_is_due(postgres: &Postgres) -> Result<()> {
    wait::within(Duration::from_mins(2), "an idle decider", || async {
        let due = "SELECT count(*) FROM intake WHERE due_at < now() + interval '8 s'";
        let due = sql::ask(postgres, due)?;
        Ok(Seen::when(due == "0", due))
    })
    .await
    .map(drop)
}

/// Events from everywhere in the table, in no order.
fn events(postgres: &Postgres, reports: u64) -> Result<Vec<String>> {
    let share = 200.0 * LOOKUPS as f64 / (reports / seed::STEPS) as f64;
    let found = sql::ask(
        postgres,
        &format!(
            "SELECT event FROM events TABLESAMPLE bernoulli ({}) REPEATABLE (1) ORDER BY md5(event) LIMIT {LOOKUPS}",
            share.min(100.0)
        ),
    )?;
    Ok(found.lines().map(str::to_owned).collect())
}

/// How long each of these takes, one after the other over one connection, p50 and p99 in ms.
async fn ask_for(to: SocketAddr, paths: impl Iterator<Item = String>) -> Result<(f64, f64)> {
    let mut talk = Talk::with(to).await?;
    let mut times = Vec::new();
    for path in paths {
        let request = format!("GET {path} HTTP/1.1\r\nhost: kaeru\r\n\r\n");
        let began = clock::now();
        let status =
            tokio::time::timeout(Duration::from_mins(1), talk.ask(request.as_bytes())).await??;
        ensure!(status == 200, "{path} was answered {status}");
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(quantiles(times))
}
