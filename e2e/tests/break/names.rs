//! A client that makes everything up: an event id, a type and a path for each report, then a proxy and a reporter, at last a
//! service for each batch. It uses up its own share and nobody else's, and the page says who does it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kaeru_e2e::clock;
use kaeru_e2e::config::Attack;
use kaeru_e2e::wait::{self, Seen};
use kaeru_protocol::{BatchBuilder, Body, Call, EventReport, Kind, Report, Reporter, ReporterId};
use reqwest::{Client, StatusCode};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::rig::{Plan, Rig, attack};

/// Paths and types in a round, above the share of one service; as many event ids in the long form, a quarter in the quick one.
const NAMES: u64 = 24_000;
/// Proxies in the quick form, each with a request of its own: below every share.
const PROXIES: u64 = 2_000;
/// Of so many proxies every second is of the client's own service, to use up its share; all others are of a service each.
const OWN: u64 = 40_000;
const BATCH: u64 = 4_000;
/// Senders at once.
const SENDERS: u64 = 32;
/// What the aggregator may hold above its rest, MiB: 60 of calls twice, 40 of names, the rest as under overload.
const MEMORY_MIB_MAX: u64 = 400;

#[test]
fn who_makes_names_up_uses_up_its_own_share_alone() -> Result<()> {
    attack(async {
        let rounds = Attack::find(1, 43).rounds;
        let is_long = rounds > 1;
        let events = if is_long { 1 } else { 4 };
        let rig = Rig::start(Plan {
            name: "names",
            ..Plan::default()
        })
        .await?;
        let api = rig.aggregators[0].api()?;
        let to = rig.listening()[0];
        let load = rig.load(1)?;
        let rest_mib = rig.aggregators[0].memory_peak_kib()? / 1024;
        let metrics = api.metrics().await?.lines().count();
        let http = Client::builder().no_proxy().build()?;
        for round in 0..u64::from(rounds) {
            for batch in 0..NAMES / BATCH {
                let first = round * NAMES + batch * BATCH;
                let status = calls(&http, to, first, events).await?;
                ensure!(status == StatusCode::OK, "calls were answered {status}");
            }
        }
        let all = u64::from(rounds) * NAMES;
        let made_up = if is_long { all } else { PROXIES };
        let refused = proxies(&http, to, made_up).await?;
        let of = |what: &str, table: &str, condition: &str| -> Result<u64> {
            let found = rig.postgres.query(&format!(
                "SELECT {what} FROM {table} WHERE {condition} LIKE 'flood/%'"
            ))?;
            Ok(found.parse()?)
        };
        let held = [
            of("count(*)", "calls", "service")?,
            of("count(*)", "proxies", "service")?,
            of("count(*)", "reporters", "service")?,
        ];
        // Beside the shares of one service there are calls without a path, and those that one transaction adds: of proxies
        // as many as there are senders.
        ensure!(held[0] <= 20_010 && held[1] <= 50_000 + SENDERS, "{held:?}");
        ensure!(
            held[2] <= held[1] + 1 && is_long == (refused > 0),
            "{held:?}, {refused} refused"
        );
        // The other sender goes on, so there is always news that is not due yet.
        wait::within(Duration::from_mins(20), "every event looked at", || async {
            let left = rig
                .postgres
                .query("SELECT count(*) FROM intake WHERE news AND due_at < now()")?;
            Ok(Seen::when(left == "0", left))
        })
        .await?;
        let flows = wait::until("types learned, as many as a service may have", || async {
            let flows = of("count(*)", "flows", "entry")?;
            Ok(Seen::when(flows >= 100, flows))
        })
        .await?;
        ensure!(flows <= 100, "{flows} flows");
        let limits = wait::until("who does it", || async {
            let limits: Value = api.get("/v1/limits").await?;
            let blamed = |what: &str| {
                let all = limits["excesses"].as_array();
                all.is_some_and(|all| {
                    (all.iter()).any(|e| e["what"] == what && e["who"] == "flood/web")
                })
            };
            let seen = blamed("calls") && blamed("types") && is_long == blamed("proxies");
            Ok(Seen::when(seen, limits.clone()))
        })
        .await?;
        let excesses = limits["excesses"].as_array().context("a list")?;
        ensure!(
            excesses.iter().all(|e| e["who"]
                .as_str()
                .is_some_and(|who| who.starts_with("flood/"))),
            "{excesses:?}"
        );
        newcomer(&http, to, &rig).await?;
        let now = api.metrics().await?.lines().count();
        // A kind of excess is a line, with two of help; so is what became of batches.
        ensure!(
            now <= metrics + 20,
            "{metrics} lines of metrics became {now}"
        );
        let peak_mib = rig.aggregators[0].memory_peak_kib()? / 1024;
        ensure!(
            peak_mib - rest_mib < MEMORY_MIB_MAX,
            "{rest_mib} MiB at rest, {peak_mib} MiB at most"
        );
        println!(
            "names: {all} paths and types, {} event ids, {made_up} proxies, {} services made up; calls, proxies, reporters held {held:?}, {flows} flows; \
             {refused} batches refused; {rest_mib} MiB at rest, {peak_mib} MiB at most; meanwhile: {}",
            all / events,
            made_up - made_up.min(OWN) / 2,
            load.books.account()?
        );
        load.told.check()
    })
}

/// Reports of `flood/web`, each with a path and a type of its own, and as many of an event as this says.
async fn calls(http: &Client, to: SocketAddr, first: u64, of_event: u64) -> Result<StatusCode> {
    let reports = (first..first + BATCH).map(|n| {
        let mut report = report(&format!("flood-{}", n / of_event))?;
        let call = Arc::make_mut(&mut report.call);
        call.path = format!("/made/up/{n}").into();
        call.event_type = Some(format!("made.up.{n}").parse()?);
        Ok(report)
    });
    let reports = reports.collect::<Result<Vec<_>>>()?;
    state(http, to, ("flood/web", 1, first), reports).await
}

/// So many proxies, each with a reporter: some of `flood/web`, the others of a service each. How many were refused.
async fn proxies(http: &Client, to: SocketAddr, count: u64) -> Result<u64> {
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let http = http.clone();
        senders.spawn(async move {
            let mut refused = 0;
            for n in (sender..count).step_by(usize::try_from(SENDERS)?) {
                let service = match n {
                    ..OWN if n % 2 == 0 => "flood/web".to_owned(),
                    _ => format!("flood/s{n}"),
                };
                let reports = vec![report("flood-0")?];
                match state(&http, to, (&service, n + 2, 1), reports).await? {
                    StatusCode::OK => {}
                    StatusCode::TOO_MANY_REQUESTS => refused += 1,
                    status => anyhow::bail!("a new proxy was answered {status}"),
                }
            }
            Ok(refused)
        });
    }
    let mut refused = 0;
    while let Some(done) = senders.join_next().await {
        refused += done??;
    }
    Ok(refused)
}

/// Somebody new in another namespace is taken in, with a path and a type of its own.
async fn newcomer(http: &Client, to: SocketAddr, rig: &Rig) -> Result<()> {
    let mut report = report("newcomer-1")?;
    let call = Arc::make_mut(&mut report.call);
    call.path = "/new".into();
    call.event_type = Some("new.type".parse()?);
    let status = state(http, to, ("break/new", 1 << 40, 1), vec![report]).await?;
    ensure!(
        status == StatusCode::OK,
        "somebody new was answered {status}"
    );
    let path = "SELECT count(*) FROM calls WHERE path = '/new' AND event_type = 'new.type'";
    ensure!(rig.postgres.query(path)? == "1", "its path was folded");
    wait::until("its flow", || async {
        let flow = "SELECT events FROM flows WHERE type = 'new.type'";
        let events = rig.postgres.query(flow)?;
        Ok(Seen::when(events == "1", events))
    })
    .await?;
    Ok(())
}

fn report(event: &str) -> Result<EventReport> {
    let mut report = EventReport::new(event.parse()?, Kind::Attempt);
    report.call = Call {
        method: "POST".into(),
        path: "/".into(),
        ..Call::default()
    }
    .into();
    report.ending.status = Some(200);
    Ok(report)
}

/// States these reports in the name of a service by the reporter of this id, from this sequence on.
async fn state(
    http: &Client,
    to: SocketAddr,
    (service, id, seq): (&str, u64, u64),
    reports: Vec<EventReport>,
) -> Result<StatusCode> {
    let at_ms = clock::now_ms();
    let reporter = Reporter {
        id: ReporterId(id),
        proxy: format!("made-up-{id}").into(),
        service: service.parse()?,
        gateway: false,
    };
    let mut batch = BatchBuilder::new(reporter, at_ms);
    for (seq, report) in (seq..).zip(reports) {
        let body = Body::Event(Box::new(report));
        batch.push(&Report { seq, at_ms, body });
    }
    let request = http.post(format!("http://{to}/v1/reports"));
    Ok(request.json(&batch.finish()).send().await?.status())
}
