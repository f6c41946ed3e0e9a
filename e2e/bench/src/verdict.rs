//! From a failing answer to the refusal at every proxy of 1, 5 and 20, each with one worker, under background load.
//!
//! Nobody asks while it is measured: asking costs the cores that the verdict needs. A proxy polls on as soon as every worker
//! of it can see the verdict, and the aggregator logs when that poll comes, and from where it goes on: so each proxy says
//! itself when it knew. Then each is asked once, and must refuse at the first time; how long that took is added.
//!
//! Afterwards the same is measured with an aggregator that does nothing in between.

mod floor;
mod polls;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kaeru_e2e::aggregator::Aggregator;
use kaeru_e2e::envoy::{Envoy, Filter, Upstream};
use kaeru_e2e::ports;
use kaeru_e2e::postgres::Postgres;
use kaeru_e2e::wait::{self, Seen};
use kaeru_e2e::world::{KAERU_HOST, KAERU_PORT};
use serde_json::json;
use tokio::task::AbortHandle;

use crate::paper::{self, Line, Section};
use crate::process::tree_cpu;
use crate::spread::{brief, quantile};
use crate::stage::Stage;
use crate::talk::Talk;
use crate::{clock, service, sql};
use floor::Floor;
use polls::Polls;

pub(crate) const TITLE: &str = "Verdict";
const NOTES: &str = include_str!("../notes/verdict.md");
const PROXIES: [usize; 3] = [1, 5, 20];
const FAILURES: u64 = 1_000;
/// The same, beside the floor.
const FLOOR_FAILURES: u64 = 300;
/// Requests a second beside the failures, over all proxies.
const BACKGROUND_PER_S: u64 = 200;
/// What asks whether it is refused changes nothing: else each such request would join the plan and be told of, too.
const POLICY: &str = "mode: enforce\ndoomed_max: 100%\nread_only: [POST /probe]\n";
/// How long a verdict has to be everywhere before we look whether it is, ms.
const UNDISTURBED: Duration = Duration::from_millis(15);
/// How long the machine is watched without failures, s.
const WITHOUT: Duration = Duration::from_secs(3);

/// When the service handed its failing answer over, µs since 1970.
type Failed = Arc<Mutex<Option<u64>>>;

/// What is measured, and by what.
struct Scene {
    aggregator: Aggregator,
    postgres: Postgres,
    envoys: Vec<Envoy>,
    failed: Failed,
}

/// What came of the failures at one number of proxies.
#[derive(Default)]
struct Times {
    /// From the failing answer until the last proxy knew, ms.
    known: Vec<f64>,
    /// The same until it had refused.
    refused: Vec<f64>,
}

pub(crate) async fn measure(stage: &Stage) -> Result<Section> {
    let (aggregator, postgres) = stage
        .aggregator_on(POLICY, &[], &[polls::LOGGED.to_owned()])
        .await?;
    let failed = Failed::default();
    let app = ports::free()?;
    let noted = failed.clone();
    let answer = move |head: &str| {
        if !head.contains("x-fail: yes") {
            return service::usual(head);
        }
        *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::now_us());
        b"HTTP/1.1 500 Failed\r\nx-event-status: failed\r\ncontent-length: 0\r\n\r\n".to_vec()
    };
    service::serve(app, Arc::new(answer)).await?;
    let mut polls = Polls::of(&aggregator.log_file())?;
    let mut scene = Scene {
        aggregator,
        postgres,
        envoys: Vec::new(),
        failed,
    };
    let mut lines = Vec::new();
    for proxies in PROXIES {
        while scene.envoys.len() < proxies {
            let number = scene.envoys.len();
            let listen = scene.aggregator.settings.listen;
            scene.envoys.push(proxy(stage, number, app, listen).await?);
        }
        wait::until("every proxy's poll", || async {
            let polls = scene.aggregator.api()?.metric("kaeru_polls").await?;
            Ok(Seen::when(polls == proxies as u64, polls))
        })
        .await?;
        lines.extend(with(&scene, &mut polls, proxies).await?);
    }
    lines.extend(at_the_floor(scene).await?);
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

/// Measures with as many proxies as there are now.
async fn with(scene: &Scene, polls: &mut Polls, proxies: usize) -> Result<Vec<Line>> {
    let at: Vec<SocketAddr> = scene.envoys.iter().map(|e| e.sidecar.inbound).collect();
    let commit_ms = commit_ms(&scene.postgres)?;
    let background = Background::over(&at);
    let before = scene.cpu_ms()?;
    tokio::time::sleep(WITHOUT).await;
    let between = scene.cpu_ms()?;
    let began = clock::now();
    let times = Times::of(FAILURES, &at, polls, &scene.failed).await?;
    let (took, after) = (began.elapsed(), scene.cpu_ms()?);
    background.stop()?;
    let of_proxies = |what: &str| format!("{proxies} proxies: {what}");
    let mut lines = vec![Line::plain(
        of_proxies("one row and its commit beside it, ms (median of 100)"),
        format!("{commit_ms:.2}"),
    )];
    for (share, name, fixed, commits) in [(0.5, "p50", 3.0, 1.0), (0.99, "p99", 10.0, 2.0)] {
        let goal = fixed + commits * commit_ms;
        let (known, refused) = (
            quantile(&times.known, share),
            quantile(&times.refused, share),
        );
        lines.push(Line::against(
            of_proxies(&format!(
                "failing answer to the last proxy's refusal, {name}, ms"
            )),
            format!("{refused:.1} (known {known:.1})"),
            format!("at most {fixed} + {commits} commits = {goal:.1}"),
            refused <= goal,
        ));
    }
    lines.push(Line::plain(
        of_proxies("the longest, ms"),
        format!("{:.1}", quantile(&times.refused, 1.0)),
    ));
    let cost = |part: usize| {
        let beside = (between[part] - before[part]) * took.div_duration_f64(WITHOUT);
        brief((after[part] - between[part] - beside) / FAILURES as f64)
    };
    lines.push(Line::plain(
        of_proxies("CPU of proxies + aggregator + Postgres for one failure, ms"),
        format!("{} + {} + {}", cost(0), cost(1), cost(2)),
    ));
    Ok(lines)
}

/// The same failures beside an aggregator that neither stores nor decides, at the other's address: with all proxies, then
/// with fewer.
async fn at_the_floor(mut scene: Scene) -> Result<Vec<Line>> {
    scene.aggregator.kill()?;
    let mut polls = Polls::of_floor(Floor::start(scene.aggregator.settings.listen).await?);
    let mut lines = Vec::new();
    for proxies in PROXIES.into_iter().rev() {
        scene.envoys.truncate(proxies);
        let at: Vec<SocketAddr> = scene.envoys.iter().map(|e| e.sidecar.inbound).collect();
        let there: Vec<String> = (0..proxies)
            .map(|number| format!("shop/s{number}"))
            .collect();
        polls.keep(|service| there.iter().any(|one| one == service));
        let background = Background::over(&at);
        let times = Times::of(FLOOR_FAILURES, &at, &mut polls, &scene.failed).await?;
        background.stop()?;
        let at = |share| quantile(&times.refused, share);
        lines.push(Line::plain(
            format!(
                "{proxies} proxies, an aggregator that neither stores nor decides: p50 / p99, ms"
            ),
            format!("{:.1} / {:.1}", at(0.5), at(0.99)),
        ));
    }
    lines.reverse();
    Ok(lines)
}

impl Times {
    /// Of so many failures, one after the other, sorted.
    async fn of(
        failures: u64,
        at: &[SocketAddr],
        polls: &mut Polls,
        failed: &Failed,
    ) -> Result<Self> {
        let proxies = at.len();
        paper::progress(&format!("verdict: {failures} failures, {proxies} proxies"));
        let mut talks = Vec::new();
        for proxy in at {
            talks.push(Talk::with(*proxy).await?);
        }
        let mut times = Self::default();
        for number in 0..failures {
            let event = format!("doomed-{proxies}-{number}");
            let (known, refused) = fail(&event, &mut talks, polls, failed).await?;
            times.known.push(known);
            times.refused.push(refused);
        }
        times.known.sort_by(f64::total_cmp);
        times.refused.sort_by(f64::total_cmp);
        Ok(times)
    }
}

impl Scene {
    /// CPU that proxies, aggregator and Postgres have used, ms.
    fn cpu_ms(&self) -> Result<[f64; 3]> {
        let mut of_proxies = 0.0;
        for envoy in &self.envoys {
            of_proxies += tree_cpu(envoy.pid())?.as_secs_f64() * 1e3;
        }
        let aggregator = self.aggregator.pid().context("the aggregator runs")?;
        let postgres = self.postgres.pid().context("Postgres runs")?;
        Ok([
            of_proxies,
            tree_cpu(aggregator)?.as_secs_f64() * 1e3,
            tree_cpu(postgres)?.as_secs_f64() * 1e3,
        ])
    }
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

fn request(event: &str, path: &str, more: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: s\r\ncontent-length: 0\r\nx-event-id: {event}\r\n{more}\r\n"
    )
    .into_bytes()
}

/// Fails one event at the first proxy; how long after its answer every proxy knew it, and had refused it, ms.
async fn fail(
    event: &str,
    talks: &mut [Talk],
    polls: &mut Polls,
    failed: &Failed,
) -> Result<(f64, f64)> {
    let told = polls.settled(talks.len()).await?;
    let first = talks.first_mut().context("a proxy")?;
    let status = first
        .ask(&request(event, "/work", "x-fail: yes\r\n"))
        .await?;
    ensure!(status == 500, "the failing request was answered {status}");
    let began = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
    let began = began.context("the service failed it")?;
    tokio::time::sleep(UNDISTURBED).await;
    let heard = polls.after(told, talks.len()).await?;
    let (mut known, mut refused) = (0.0_f64, 0.0_f64);
    for (place, talk) in talks.iter_mut().enumerate() {
        let asked = clock::now();
        let status = talk.ask(&request(event, "/probe", "")).await?;
        if status != 424 {
            bail!("proxy {place} knew of {event} and answered {status}");
        }
        let at = heard.get(&format!("shop/s{place}")).context("its poll")?;
        let after = at.saturating_sub(began) as f64 / 1e3;
        known = known.max(after);
        refused = refused.max(after + asked.elapsed().as_secs_f64() * 1e3);
    }
    Ok((known, refused))
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
        let status = talk.ask(&request(&event, "/work", "")).await?;
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
