//! From a failing answer to the refusal at every proxy of 1, 5 and 20, each with one worker, under background load.
//!
//! A proxy is asked again and again whether it refuses. The time lies between the last request that it let through and the
//! first that it refused; what is told is the end of that (and, beside it, its beginning): no proxy was later.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kaeru_e2e::envoy::{Envoy, Filter, Upstream};
use kaeru_e2e::ports;
use kaeru_e2e::postgres::Postgres;
use kaeru_e2e::wait::{self, Seen};
use kaeru_e2e::world::{KAERU_HOST, KAERU_PORT};
use serde_json::json;
use tokio::task::{AbortHandle, JoinSet};

use crate::paper::{self, Line, Section};
use crate::spread::quantile;
use crate::stage::Stage;
use crate::talk::Talk;
use crate::{clock, service, sql};

pub(crate) const TITLE: &str = "Verdict";
const NOTES: &str = include_str!("../notes/verdict.md");
const PROXIES: [usize; 3] = [1, 5, 20];
const FAILURES: u64 = 1_000;
/// Requests a second beside the failures, over all proxies.
const BACKGROUND_PER_S: u64 = 200;
const POLICY: &str = "mode: enforce\ndoomed_max: 100%\n";

type Failed = Arc<Mutex<Option<Instant>>>;

pub(crate) async fn measure(stage: &Stage) -> Result<Section> {
    let (aggregator, postgres) = stage.aggregator(POLICY).await?;
    let failed = Failed::default();
    let app = ports::free()?;
    let noted = failed.clone();
    let answer = move |head: &str| {
        if !head.contains("x-fail: yes") {
            return service::usual(head);
        }
        *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::now());
        b"HTTP/1.1 500 Failed\r\nx-event-status: failed\r\ncontent-length: 0\r\n\r\n".to_vec()
    };
    service::serve(app, Arc::new(answer)).await?;
    let mut envoys: Vec<Envoy> = Vec::new();
    let mut lines = Vec::new();
    for proxies in PROXIES {
        while envoys.len() < proxies {
            envoys.push(proxy(stage, envoys.len(), app, aggregator.settings.listen).await?);
        }
        wait::until("every proxy's poll", || async {
            let polls = aggregator.api()?.metric("kaeru_polls").await?;
            Ok(Seen::when(polls == proxies as u64, polls))
        })
        .await?;
        let at: Vec<SocketAddr> = envoys.iter().map(|e| e.sidecar.inbound).collect();
        let background = Background::over(&at);
        let commit_ms = commit_ms(&postgres)?;
        let (mut least, mut most) = (Vec::new(), Vec::new());
        paper::progress(&format!("verdict: {FAILURES} failures, {proxies} proxies"));
        for number in 0..FAILURES {
            let (after, until) = fail(&at, proxies as u64 * 10_000 + number, &failed).await?;
            least.push(after.as_secs_f64() * 1e3);
            most.push(until.as_secs_f64() * 1e3);
        }
        background.stop()?;
        least.sort_by(f64::total_cmp);
        most.sort_by(f64::total_cmp);
        lines.push(Line::plain(
            format!("{proxies} proxies: one row and its commit beside it, ms (median of 100)"),
            format!("{commit_ms:.2}"),
        ));
        for (share, name, fixed, commits) in [(0.5, "p50", 3.0, 1.0), (0.99, "p99", 10.0, 2.0)] {
            let goal = fixed + commits * commit_ms;
            let (from, until) = (quantile(&least, share), quantile(&most, share));
            lines.push(Line::against(
                format!(
                    "{proxies} proxies: failing answer to the last proxy's refusal, {name}, ms"
                ),
                format!("{until:.1} (after {from:.1})"),
                format!("at most {fixed} + {commits} commits = {goal:.1}"),
                until <= goal,
            ));
        }
        lines.push(Line::plain(
            format!("{proxies} proxies: the longest, ms"),
            format!("{:.1}", quantile(&most, 1.0)),
        ));
    }
    Ok(Section {
        title: TITLE,
        notes: NOTES,
        how: format!(
            "{FAILURES} failures one after another at each number of proxies, {BACKGROUND_PER_S} other requests/s; load average {}.",
            crate::machine::load_average()
        ),
        lines,
    })
}

async fn proxy(
    stage: &Stage,
    number: usize,
    app: SocketAddr,
    aggregator: SocketAddr,
) -> Result<Envoy> {
    let kaeru = Upstream {
        host: KAERU_HOST.into(),
        port: KAERU_PORT,
        endpoint: aggregator,
        spiffe: None,
    };
    let filter = Filter {
        wasm: stage.parts.wasm.clone(),
        config: json!({ "trust_plaintext": true }),
        ..Filter::default()
    };
    let sidecar = stage.sidecar(&format!("s{number}"), app, vec![kaeru], Some(filter))?;
    let bootstrap = sidecar.bootstrap();
    sidecar
        .start_as(&bootstrap, None, &stage.parts.envoy, &stage.folder)
        .await
}

fn request(event: &str, fails: bool) -> Vec<u8> {
    let fails = if fails { "x-fail: yes\r\n" } else { "" };
    format!(
        "POST /work HTTP/1.1\r\nhost: s\r\ncontent-length: 0\r\nx-event-id: {event}\r\n{fails}\r\n"
    )
    .into_bytes()
}

/// Fails one event at the first proxy; how long after its answer every proxy refused it: more than, at most.
async fn fail(at: &[SocketAddr], number: u64, failed: &Failed) -> Result<(Duration, Duration)> {
    let event = format!("doomed-{number}");
    let mut probes = Vec::new();
    for proxy in at {
        probes.push(Talk::with(*proxy).await?);
    }
    let mut first = Talk::with(*at.first().context("a proxy")?).await?;
    let status = first.ask(&request(&event, true)).await?;
    ensure!(status == 500, "the failing request was answered {status}");
    let began = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
    let began = began.context("the service failed it")?;
    // All proxies together are asked about 7 times a millisecond at most: asking costs what is measured, too.
    let pause = Duration::from_micros(150 * at.len() as u64).max(Duration::from_millis(1));
    let mut tasks = JoinSet::new();
    for (place, mut probe) in probes.into_iter().enumerate() {
        let (request, start) = (
            request(&event, false),
            began + pause.mul_f64(place as f64 / at.len() as f64),
        );
        tasks.spawn(async move {
            let mut passed = began;
            let mut next = start;
            while clock::now() < began + Duration::from_secs(5) {
                tokio::time::sleep_until(next.into()).await;
                let sent = clock::now();
                match probe.ask(&request).await? {
                    424 => return Ok((passed - began, clock::now() - began)),
                    200 => passed = sent,
                    other => bail!("a probe was answered {other}"),
                }
                next = sent + pause;
            }
            bail!("event {number} was not refused within 5 s")
        });
    }
    let (mut least, mut most) = (Duration::ZERO, Duration::ZERO);
    while let Some(done) = tasks.join_next().await {
        let (after, until) = done??;
        least = least.max(after);
        most = most.max(until);
    }
    Ok((least, most))
}

/// Other requests, until it is stopped.
struct Background {
    tasks: Vec<AbortHandle>,
    wrong: Arc<Mutex<Option<anyhow::Error>>>,
}

impl Background {
    fn over(at: &[SocketAddr]) -> Self {
        let pause =
            Duration::from_secs(at.len() as u64) / u32::try_from(BACKGROUND_PER_S).unwrap_or(1);
        let wrong = Arc::new(Mutex::new(None));
        let spawn = |(place, to): (usize, &SocketAddr)| {
            let (to, wrong) = (*to, wrong.clone());
            tokio::spawn(async move {
                if let Err(error) = go_on(place, to, pause).await {
                    *wrong.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            })
            .abort_handle()
        };
        let tasks = at.iter().enumerate().map(spawn).collect();
        Self { tasks, wrong }
    }

    fn stop(self) -> Result<()> {
        self.tasks.iter().for_each(AbortHandle::abort);
        let wrong = self
            .wrong
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        wrong.map_or(Ok(()), Err)
    }
}

async fn go_on(place: usize, to: SocketAddr, pause: Duration) -> Result<()> {
    let mut talk = Talk::with(to).await?;
    let mut ticks = tokio::time::interval(pause);
    for number in 0_u64.. {
        ticks.tick().await;
        let event = format!("well-{place}-{number}-{}", kaeru_e2e::clock::now_ms());
        let status = talk.ask(&request(&event, false)).await?;
        ensure!(status == 200, "a request beside was answered {status}");
    }
    Ok(())
}

/// What a commit of one row takes, ms.
fn commit_ms(postgres: &Postgres) -> Result<f64> {
    let script = postgres.folder().with_file_name("commits.sql");
    let insert = "INSERT INTO commits VALUES (1);\n".repeat(100);
    std::fs::write(
        &script,
        format!("CREATE TABLE IF NOT EXISTS commits (n int);\n\\timing on\n{insert}"),
    )?;
    let told = sql::play(postgres, &script)?;
    let times = told
        .lines()
        .filter_map(|line| line.strip_prefix("Time: ")?.split(' ').next()?.parse().ok());
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    ensure!(times.len() == 100, "psql told {} times", times.len());
    Ok(quantile(&times, 0.5))
}
