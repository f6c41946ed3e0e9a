//! How many reports a second become durable, through HTTP into Postgres, beside `COPY` of the same rows into a table with the
//! same columns and indexes. CPU of aggregator and Postgres apart, until the decider has looked at every event.

pub(crate) mod batch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kaeru_e2e::aggregator::Aggregator;
use kaeru_e2e::postgres::Postgres;
use kaeru_e2e::wait::{self, Seen};
use tokio::task::JoinSet;

use self::batch::Reporter;
use crate::paper::{Line, Section};
use crate::spread::{Spread, quantile};
use crate::stage::Stage;
use crate::talk::Talk;
use crate::{clock, process, sql};

pub(crate) const TITLE: &str = "Ingest";
const NOTES: &str = include_str!("../notes/ingest.md");
const SENDERS: [u64; 4] = [1, 4, 16, 64];
const ROUNDS: u64 = 3;
const ROUND: Duration = Duration::from_secs(1);
/// Rows of one `COPY`, at most.
const COPIED: u64 = 200_000;

/// What one round measured.
pub(crate) struct Round {
    pub(crate) per_s: f64,
    /// CPU of aggregator and Postgres per report until the last receipt, then until every event was looked at, µs.
    taking_us: (f64, f64),
    settled_us: f64,
    /// From the last receipt until every event was looked at.
    pub(crate) behind: Duration,
}

pub(crate) async fn measure(stage: &Stage) -> Result<Section> {
    let (aggregator, postgres) = stage.aggregator("mode: enforce\n").await?;
    let mut lines = Vec::new();
    let mut rounds: Vec<Vec<(Round, f64)>> = SENDERS.iter().map(|_| Vec::new()).collect();
    let (mut copies, mut copies_us, mut bounds) = (Vec::new(), Vec::new(), Vec::new());
    let mut run = 0;
    for _ in 0..ROUNDS {
        for (place, senders) in SENDERS.iter().enumerate() {
            run += 1;
            let round = round(&aggregator, &postgres, run, *senders).await?;
            let (per_s, cpu_us) = copy(stage, &postgres, COPIED)?;
            rounds[place].push((round, cpu_us));
            copies.push(per_s);
            copies_us.push(cpu_us);
        }
        let (_, at_once_us) = copy(stage, &postgres, COPIED)?;
        let (_, batches_us) = copy(stage, &postgres, batch::REPORTS)?;
        bounds.push(at_once_us / batches_us);
    }
    let copy_us = Spread::of(copies_us);
    lines.push(Line::plain(
        "`COPY`: rows/s",
        Spread::of(copies).to_string(),
    ));
    lines.push(Line::plain(
        "`COPY`: CPU of Postgres, µs/row",
        copy_us.to_string(),
    ));
    lines.push(Line::plain(
        format!(
            "`COPY` in transactions of {} rows: rows per second and core, × `COPY`",
            batch::REPORTS
        ),
        Spread::of(bounds).to_string(),
    ));
    let mut sustained = 0.0_f64;
    for (senders, rounds) in SENDERS.iter().zip(&rounds) {
        let of = |figure: fn(&Round) -> f64| Spread::of(rounds.iter().map(|(r, _)| figure(r)));
        let per_s = of(|r| r.per_s);
        // What both cores can take and look at, too.
        let each_us = of(|r| r.settled_us).median;
        sustained = sustained.max(crate::machine::cores()? * 1e6 / each_us);
        lines.push(Line::plain(
            format!("{senders} senders: reports/s"),
            per_s.to_string(),
        ));
        lines.push(Line::plain(
            format!(
                "{senders} senders: CPU of aggregator + Postgres until the last receipt, µs/report"
            ),
            format!("{} + {}", of(|r| r.taking_us.0), of(|r| r.taking_us.1)),
        ));
        lines.push(Line::plain(
            format!("{senders} senders: CPU of both until every event was looked at, µs/report"),
            of(|r| r.settled_us).to_string(),
        ));
        let ratio = Spread::of(
            rounds
                .iter()
                .map(|(r, copy)| copy / (r.taking_us.0 + r.taking_us.1)),
        );
        lines.push(Line::against(
            format!("{senders} senders: reports per second and core, × `COPY`"),
            ratio.to_string(),
            "at least 0.6",
            ratio.median >= 0.6,
        ));
    }
    let mut acks = at_rate(&aggregator, run + 1, sustained / 2.0).await?;
    acks.sort_unstable();
    let p99 = quantile(&acks, 0.99) as f64 / 1e3;
    lines.push(Line::against(
        format!(
            "acknowledgement of 512 reports at half load ({:.0}/s): p50 / p99 / most, ms",
            sustained / 2.0
        ),
        format!(
            "{:.1} / {p99:.1} / {:.1}",
            quantile(&acks, 0.5) as f64 / 1e3,
            quantile(&acks, 1.0) as f64 / 1e3
        ),
        "p99 at most 20",
        p99 <= 20.0,
    ));
    lines.push(Line::plain(
        "memory of aggregator / Postgres at the end, MiB",
        format!(
            "{:.0} / {:.0}",
            process::resident_mib(aggregator.pid().context("it runs")?)?,
            process::tree_mib(postgres.pid().context("it runs")?)?
        ),
    ));
    let bytes: f64 = sql::ask(
        &postgres,
        "SELECT sum(pg_total_relation_size(inhrelid))::float8 / (SELECT count(*) FROM reports)
         FROM pg_inherits WHERE inhparent = 'reports'::regclass",
    )?
    .parse()?;
    lines.push(Line::against(
        "disk per report with indexes, bytes",
        format!("{bytes:.0}"),
        "at most 200",
        bytes <= 200.0,
    ));
    Ok(Section {
        title: TITLE,
        notes: NOTES,
        how: format!(
            "{ROUNDS} interleaved rounds of {ROUND:?}, batches of {} reports, a `COPY` beside each; load average {}.",
            batch::REPORTS,
            crate::machine::load_average()
        ),
        lines,
    })
}

/// Sends for a second, and waits until the decider has looked at everything.
pub(crate) async fn round(
    aggregator: &Aggregator,
    postgres: &Postgres,
    run: u64,
    senders: u64,
) -> Result<Round> {
    let (aggregator_pid, postgres_pid) = (aggregator.pid(), postgres.pid());
    let pids = (
        aggregator_pid.context("it runs")?,
        postgres_pid.context("it runs")?,
    );
    let cpu = || Ok::<_, anyhow::Error>((process::tree_cpu(pids.0)?, process::tree_cpu(pids.1)?));
    let stored = stored(aggregator).await?;
    let (began, before) = (clock::now(), cpu()?);
    let mut tasks = JoinSet::new();
    for number in 0..senders {
        let reporter = Reporter::new(run, number);
        tasks.spawn(send_for(aggregator.settings.listen, reporter, ROUND));
    }
    let mut sent = 0;
    while let Some(done) = tasks.join_next().await {
        sent += done?? * batch::REPORTS;
    }
    let took = began.elapsed();
    let taken = cpu()?;
    let now_stored = self::stored(aggregator).await?;
    ensure!(
        now_stored - stored == sent,
        "{sent} sent, {} stored",
        now_stored - stored
    );
    wait::within(Duration::from_mins(1), "an empty intake", || async {
        let waiting = sql::ask(postgres, "SELECT count(*) FROM intake WHERE news")?;
        Ok(Seen::when(waiting == "0", waiting))
    })
    .await?;
    let settled = cpu()?;
    let each =
        |from: Duration, to: Duration| (to.saturating_sub(from)).as_secs_f64() * 1e6 / sent as f64;
    Ok(Round {
        per_s: sent as f64 / took.as_secs_f64(),
        taking_us: (each(before.0, taken.0), each(before.1, taken.1)),
        settled_us: each(before.0, settled.0) + each(before.1, settled.1),
        behind: began.elapsed().saturating_sub(took),
    })
}

/// Sends events of one open request each for so long, and waits until the decider has looked at all of them; the most memory that
/// the aggregator was seen to hold meanwhile, MiB.
pub(crate) async fn events(
    aggregator: &Aggregator,
    postgres: &Postgres,
    run: u64,
    lasts: Duration,
) -> Result<f64> {
    let pid = aggregator.pid().context("it runs")?;
    let mut tasks = JoinSet::new();
    // Only every fourth of neighbours is an entry.
    for number in [0, 4, 8, 12] {
        let reporter = Reporter::of_open_requests(run, number);
        tasks.spawn(send_for(aggregator.settings.listen, reporter, lasts));
    }
    let mut most = 0.0_f64;
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            done = tasks.join_next() => match done {
                None => break,
                Some(done) => drop(done??),
            },
            _ = looks.tick() => most = most.max(process::resident_mib(pid)?),
        }
    }
    wait::within(Duration::from_mins(5), "an empty intake", || {
        most = process::resident_mib(pid).map_or(most, |now| most.max(now));
        let waiting = sql::ask(postgres, "SELECT count(*) FROM intake WHERE news");
        async move {
            let waiting = waiting?;
            Ok(Seen::when(waiting == "0", waiting))
        }
    })
    .await?;
    Ok(most)
}

async fn send_for(to: SocketAddr, mut reporter: Reporter, lasts: Duration) -> Result<u64> {
    let mut talk = Talk::with(to).await?;
    let until = clock::now() + lasts;
    let mut sent = 0;
    while clock::now() < until {
        let status = talk.ask(&reporter.next()).await?;
        ensure!(status == 200, "a batch was answered {status}");
        sent += 1;
    }
    Ok(sent)
}

/// Acknowledgement times, µs from the scheduled time, at so many reports a second.
pub(crate) async fn at_rate(
    aggregator: &Aggregator,
    run: u64,
    reports_per_s: f64,
) -> Result<Vec<u64>> {
    let interval = Duration::from_secs_f64(batch::REPORTS as f64 / reports_per_s);
    let began = clock::now();
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for number in 0..64 {
        let (to, next) = (aggregator.settings.listen, next.clone());
        tasks.spawn(async move {
            let mut reporter = Reporter::new(run, number);
            let mut talk = Talk::with(to).await?;
            let mut took = Vec::new();
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                let at = interval * u32::try_from(place)?;
                if at > 2 * ROUND {
                    return Ok::<_, anyhow::Error>(took);
                }
                let request = reporter.next();
                tokio::time::sleep_until((began + at).into()).await;
                ensure!(talk.ask(&request).await? == 200, "a batch was not taken");
                let late = clock::now().saturating_duration_since(began + at);
                took.push(u64::try_from(late.as_micros())?);
            }
        });
    }
    let mut all = Vec::new();
    while let Some(done) = tasks.join_next().await {
        all.extend(done??);
    }
    Ok(all)
}

async fn stored(aggregator: &Aggregator) -> Result<u64> {
    aggregator.api()?.metric("kaeru_reports_stored_total").await
}

/// Rows a second and µs of Postgres' CPU per row, by `COPY` of rows that are there, so many of them in each transaction.
fn copy(stage: &Stage, postgres: &Postgres, each: u64) -> Result<(f64, f64)> {
    let (rows, script) = (
        stage.folder.join("rows.copy"),
        stage.folder.join("copy.sql"),
    );
    let partition = sql::ask(
        postgres,
        "SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'reports'::regclass
         ORDER BY pg_relation_size(inhrelid) DESC LIMIT 1",
    )?;
    sql::ask(
        postgres,
        &format!(
            "DROP TABLE IF EXISTS copied; CREATE TABLE copied (LIKE {partition} INCLUDING ALL)"
        ),
    )?;
    sql::ask(
        postgres,
        &format!(
            "\\copy (SELECT * FROM {partition} ORDER BY received LIMIT {COPIED}) TO '{}'",
            rows.display()
        ),
    )?;
    let rows = std::fs::read_to_string(rows)?;
    let rows: Vec<&str> = rows.lines().collect();
    ensure!(!rows.is_empty(), "nothing to copy");
    let mut statements = String::new();
    for some in rows.chunks(usize::try_from(each)?) {
        statements += "COPY copied FROM STDIN;\n";
        for row in some {
            statements.push_str(row);
            statements.push('\n');
        }
        statements += "\\.\n";
    }
    std::fs::write(&script, statements)?;
    let pid = postgres.pid().context("it runs")?;
    let (began, before) = (clock::now(), process::tree_cpu(pid)?);
    sql::play(postgres, &script)?;
    let (took, cpu) = (
        began.elapsed(),
        process::tree_cpu(pid)?.saturating_sub(before),
    );
    let copied: usize = sql::ask(postgres, "SELECT count(*) FROM copied")?.parse()?;
    ensure!(
        copied == rows.len(),
        "{copied} of {} rows were copied",
        rows.len()
    );
    let copied = copied as f64;
    Ok((
        copied / took.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / copied,
    ))
}
