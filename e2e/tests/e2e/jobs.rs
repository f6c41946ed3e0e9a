//! Long jobs: running as long as a request is open or the service says so, silent as long as the policy lets it; a job
//! whose event is doomed hears of it through its sidecar and stops; and one whose pod dies is found out.

use anyhow::{Context, Result, anyhow};
use kaeru_e2e::api::{Event, Step};
use kaeru_e2e::shop::{Order, Role, Told};
use kaeru_e2e::world::World;
use reqwest::Method;
use tokio::task::JoinHandle;

use crate::stage::{arrived, ends, plan, play, says, sent, shop};

#[test]
fn a_request_that_stays_open_is_running() -> Result<()> {
    play(async {
        let world = shop().await?;
        let order = Order {
            hold: vec![Role::Backend],
            ..Order::default()
        };
        let (id, answer) = sent(world, "order.job", &order)?;
        // Named at three heartbeats or more.
        let heard = |event: &Event| {
            let step = backend(event);
            let open = step.and_then(|step| step.calls.first()?.attempts.last());
            open.is_some_and(|attempt| attempt.open && attempt.duration_ms > 2_500)
        };
        let api = world.api()?;
        let event = api.event_when(&id, "named at every heartbeat", heard);
        let event = event.await?;
        assert_eq!(event.summary.state, "running");
        assert!(event.decision.is_none(), "{:#?}", event.decision);
        assert_eq!(backend(&event).map(|s| &*s.outcome), Some("running"));
        world.release(Role::Backend, &order.number).await?;
        assert_eq!(answer.await??.status, 201);
        ends(world, &id, "succeeded").await?;
        Ok(())
    })
}

#[test]
fn a_job_is_running_until_its_service_says_otherwise() -> Result<()> {
    play(async {
        let world = shop().await?;
        let api = world.api()?;
        let order = job();
        let id = begun(world, "order.job", &order).await?;
        let quarter = |event: &Event| is_at(event, 0.25);
        api.event_when(&id, "a quarter of it", quarter).await?;
        // Another order of the type is over and settled; this one is answered too, and still runs.
        let (other, answer) = sent(world, "order.job", &Order::default())?;
        assert_eq!(answer.await??.status, 201);
        ends(world, &other, "succeeded").await?;
        says(world, Role::Backend, &id, "running&progress=3/5").await?;
        let later = |event: &Event| is_at(event, 0.6);
        let event = api.event_when(&id, "three fifths of it", later).await?;
        assert_eq!(event.summary.state, "running");
        let why = event.why("stalled");
        assert!(why.ends_with("the policy lets it be silent"), "{why}");
        world.release(Role::Backend, &order.number).await?;
        let event = ends(world, &id, "succeeded").await?;
        assert_eq!(said(&event), Some("succeeded"));
        assert_eq!(confirmations(world, &order).await?, 1);
        Ok(())
    })
}

#[test]
fn a_job_asks_for_its_verdict_and_stops() -> Result<()> {
    play(async {
        let world = shop().await?;
        let api = world.api()?;
        let order = job();
        let id = begun(world, "order.job", &order).await?;
        api.roll_back(&id, "alice", "the customer called").await?;
        let stopped = |event: &Event| said(event) == Some("failed");
        let event = api.event_when(&id, "the job's last word", stopped).await?;
        assert_eq!(event.summary.state, "rolling_back");
        // What would have let it go on comes too late.
        world.release(Role::Backend, &order.number).await?;
        assert_eq!(confirmations(world, &order).await?, 0);
        let decision = event.decision.context("in force")?;
        assert_eq!(decision.reason.rule, "operator");
        Ok(())
    })
}

#[test]
fn a_job_whose_pod_dies_is_found_out_by_what_is_known() -> Result<()> {
    play(async {
        let mut world = World::start(plan("pods")).await?;
        let api = world.api()?;
        // Two jobs of the backend, of which one owes words, and a request that is open there.
        let owing = Order {
            talks: true,
            ..job()
        };
        let (silent, open) = (job(), held(Role::Backend));
        let silent_id = begun(&world, "order.job", &silent).await?;
        let owing_id = begun(&world, "order.owed", &owing).await?;
        let (open_id, answer) = sent(&world, "order.open", &open)?;
        arrived(&world, Role::Backend, &open).await?;
        // Two requests that are open at the database, whose policies differ.
        let (shown, watched) = (held(Role::Db), held(Role::Db));
        let shown_id = opened(&world, "order.shown", &shown)?.0;
        let watched_id = opened(&world, "order.watched", &watched)?.0;
        for id in [&shown_id, &watched_id] {
            let runs = |event: &Event| event.step(&Role::Db.peer()).is_some();
            api.event_when(id, "running", runs).await?;
        }
        world.kill_service(Role::Backend)?;
        world.kill_sidecar(Role::Db)?;

        // The backend's sidecar lives: it says that the open request broke off, and so the entry fails.
        assert_eq!(answer.await??.status, 500);
        let decision = api.decision_of(&open_id).await?;
        assert_eq!(decision.reason.rule, "entry", "{decision:#?}");
        let decision = api.decision_of(&owing_id).await?;
        assert_eq!(decision.reason.rule, "stalled", "{decision:#?}");
        assert_eq!(decision.reason.peer, Some(Role::Backend.peer()));
        let decision = api.decision_of(&watched_id).await?;
        assert_eq!(decision.reason.rule, "stalled", "{decision:#?}");
        assert_eq!(decision.reason.peer, Some(Role::Db.peer()));

        // As long as these two are silent, so are those that may be.
        let event = still_running(&world, &silent_id).await?;
        let why = event.why("stalled");
        assert!(why.ends_with("the policy lets it be silent"), "{why}");
        let event = still_running(&world, &shown_id).await?;
        let why = event.why("stalled");
        assert!(why.contains("is out of touch"), "{why}");
        let service = api.service(&Role::Db.peer()).await?.context("known")?;
        let silent = service.proxies.iter().all(|proxy| proxy.out_of_touch);
        assert!(silent, "{service:#?}");
        Ok(())
    })
}

fn job() -> Order {
    Order {
        as_job: true,
        ..Order::default()
    }
}

fn held(role: Role) -> Order {
    Order {
        hold: vec![role],
        ..Order::default()
    }
}

/// A job that is answered and goes on; its event, when it is known to.
async fn begun(world: &World, event_type: &str, order: &Order) -> Result<String> {
    let (id, answer) = sent(world, event_type, order)?;
    assert_eq!(answer.await??.status, 201);
    let runs =
        |event: &Event| said(event) == Some("running") && event.step(&Role::Web.peer()).is_some();
    let event = world.api()?.event_when(&id, "the job's word", runs).await?;
    assert_eq!(event.summary.state, "running");
    Ok(id)
}

/// An order straight to the database.
fn opened(
    world: &World,
    event_type: &str,
    order: &Order,
) -> Result<(String, JoinHandle<Result<Told>>)> {
    let chosen = format!("order-{}", order.number);
    let (peer, to) = (world.peer.clone(), world.inbound(Role::Db)?);
    let (event, event_type) = (chosen.clone(), event_type.to_owned());
    let body = Some(serde_json::to_string(order)?);
    let answer = tokio::spawn(async move {
        let headers = [("x-event-type", &*event_type), ("x-event-id", &*event)];
        peer.send(Method::POST, to, "/rows", &headers, body).await
    });
    Ok((chosen, answer))
}

async fn still_running(world: &World, id: &str) -> Result<Event> {
    let event = world.api()?.event(id).await?;
    let event = event.ok_or_else(|| anyhow!("{id} is gone"))?;
    assert_eq!(event.summary.state, "running", "{event:#?}");
    assert!(event.decision.is_none(), "{:#?}", event.decision);
    Ok(event)
}

fn backend(event: &Event) -> Option<&Step> {
    event.step(&Role::Backend.peer())
}

/// The job's last word.
fn said(event: &Event) -> Option<&str> {
    backend(event)?.word.as_deref()
}

fn is_at(event: &Event, progress: f32) -> bool {
    let told = backend(event).and_then(|step| step.progress);
    told.is_some_and(|told| (told - progress).abs() < 0.01)
}

async fn confirmations(world: &World, order: &Order) -> Result<usize> {
    let arrivals = world.arrivals(Role::DbApi, &order.number).await?;
    let confirmed = arrivals.iter().filter(|a| a.path == "/confirmations");
    Ok(confirmed.count())
}
