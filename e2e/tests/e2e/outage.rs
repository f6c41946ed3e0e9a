//! Scenario 4: the aggregator is killed, answers 500, hangs, and comes back. Requests pass with no added wait, what was
//! decided still holds, and what happened meanwhile arrives later. And its database is away for longer than any job may
//! be silent: no job is doomed for it.

use std::time::Duration;

use anyhow::{Context, Result};
use kaeru_e2e::aggregator::{Aggregator, Broken};
use kaeru_e2e::api::Event;
use kaeru_e2e::customer::event_of;
use kaeru_e2e::shop::{Asked, Order, Role};
use kaeru_e2e::wait::{self, Seen};
use kaeru_e2e::world::{KAERU_HOST, Plan, World};
use tokio::time::Instant;

use crate::stage::{doomed, ends, filters_are_well, known, plan, play, play_alone, post, sent};

const ORDERS: usize = 20;

#[test]
fn the_mesh_works_without_an_aggregator_and_catches_up() -> Result<()> {
    play_alone(async {
        let mut world = World::start(plan("outage")).await?;
        let (doomed, _) = doomed(&world, "order.by-word").await?;
        known(&world, &Role::MESH, &doomed).await?;
        let (healthy, _) = orders(&world).await?;

        aggregator(&mut world)?.kill()?;
        let (killed, mut events) = orders(&world).await?;
        verdict_holds(&world, &doomed).await?;
        let spoken = said_in_the_sidecar(&world).await?;

        let broken = Broken::start(world.aggregator()?.settings.listen).await?;
        let (failing, meanwhile) = orders(&world).await?;
        events.extend(meanwhile);
        verdict_holds(&world, &doomed).await?;
        broken.stop().await;

        aggregator(&mut world)?.start_again().await?;
        all_arrive(&world, &events).await?;
        let said = |event: &Event| {
            event
                .steps
                .iter()
                .any(|s| s.word.as_deref() == Some("running"))
        };
        world
            .api()?
            .event_when(&spoken, "the word said meanwhile", said)
            .await?;

        world.aggregator()?.hang()?;
        let (hanging, events) = orders(&world).await?;
        verdict_holds(&world, &doomed).await?;
        world.aggregator()?.go_on()?;
        all_arrive(&world, &events).await?;

        println!(
            "median of an order: {healthy:?} healthy, {killed:?} killed, {failing:?} answering 500, {hanging:?} hanging"
        );
        let slack = Duration::from_millis(30);
        for (median, what) in [
            (killed, "killed"),
            (failing, "answering 500"),
            (hanging, "hanging"),
        ] {
            assert!(
                median < healthy * 2 + slack,
                "{what}: {median:?}, healthy: {healthy:?}"
            );
        }
        let decided = world
            .api()?
            .event(&doomed)
            .await?
            .context("the doomed event")?;
        assert!(decided.decision.is_some(), "the decision outlived the kill");
        filters_are_well(&world).await?;
        Ok(())
    })
}

#[test]
fn no_job_is_doomed_while_the_database_is_away() -> Result<()> {
    play(async {
        let jobs = plan("database");
        let mut world = World::start(Plan {
            postgres: true,
            ..jobs
        })
        .await?;
        let api = world.api()?;
        let job = |talks| Order {
            as_job: true,
            talks,
            ..Order::default()
        };
        let open = || Order {
            hold: vec![Role::Backend],
            ..Order::default()
        };
        // By word or by open request; the second of each is not spared for long: it may be silent for seven seconds, or
        // three. That is more than the sidecars wait before they try again when it is over.
        let kinds = [
            ("order.job", job(false)),
            ("order.patient", job(true)),
            ("order.open", open()),
            ("order.watched", open()),
        ];
        let mut running = Vec::new();
        for (event_type, order) in &kinds {
            let (id, _) = sent(&world, event_type, order)?;
            let runs = |event: &Event| {
                let backend = event.step(&Role::Backend.peer());
                backend.is_some_and(|backend| backend.outcome == "running")
            };
            api.event_when(&id, "running", runs).await?;
            running.push(id);
        }

        world.postgres()?.stop_at_once()?;
        let missed = "kaeru_beats_missed_total";
        // One a second.
        wait::until("a long time without a database", || async {
            let beats = api.metric(missed).await?;
            Ok(Seen::when(beats >= 10, beats))
        })
        .await?;
        world.postgres()?.start_again().await?;

        // It decides again: about an order that fails now, and waits as long as silence does.
        let failed = Order {
            answers: [(Role::Web, 500)].into(),
            ..Order::default()
        };
        let (failed, _) = sent(&world, "order.placed", &failed)?;
        wait::within(Duration::from_mins(2), "a decision", || async {
            let event = api.event(&failed).await?;
            let decided = event.as_ref().is_some_and(|event| event.decision.is_some());
            Ok(Seen::when(decided, event))
        })
        .await?;
        for (id, (_, order)) in running.iter().zip(&kinds) {
            let event = api.event(id).await?.context("it is kept")?;
            assert!(event.decision.is_none(), "{event:#?}");
            world.release(Role::Backend, &order.number).await?;
        }
        for id in &running {
            ends(&world, id, "succeeded").await?;
        }
        filters_are_well(&world).await?;
        Ok(())
    })
}

fn aggregator(world: &mut World) -> Result<&mut Aggregator> {
    world
        .aggregators
        .first_mut()
        .context("a world has an aggregator")
}

async fn verdict_holds(world: &World, doomed: &str) -> Result<()> {
    for role in Role::MESH {
        let told = post(world, role, doomed).await?;
        assert_eq!(told.status, 424, "{}: {told:?}", role.name());
    }
    Ok(())
}

/// Sends orders one after the other: the median time of one, and their events.
async fn orders(world: &World) -> Result<(Duration, Vec<String>)> {
    let (mut times, mut events) = (Vec::new(), Vec::new());
    let web = world.inbound(Role::Web)?;
    for _ in 0..ORDERS {
        let begun = Instant::now();
        let told = world.outside.order(web, &Order::default(), &[]).await?;
        times.push(begun.elapsed());
        assert_eq!(told.status, 201, "{told:?}");
        events.push(event_of(&told)?);
    }
    times.sort_unstable();
    Ok((times[ORDERS / 2], events))
}

/// The status call and the verdict are answered in the sidecar: the aggregator is away.
async fn said_in_the_sidecar(world: &World) -> Result<String> {
    let event = uuid::Uuid::new_v4().to_string();
    let call = |method: &str, path: String| Asked {
        method: method.into(),
        host: format!("{KAERU_HOST}:7170"),
        path,
        ..Asked::default()
    };
    let status = call(
        "POST",
        format!("/v1/events/{event}/status?status=running&progress=0.4"),
    );
    let told = world.call_from(Role::Backend, &status).await?;
    assert_eq!(told.status, 202, "{told:?}");
    let verdict = call("GET", format!("/v1/events/{event}/verdict"));
    let told = world.call_from(Role::Backend, &verdict).await?;
    assert_eq!(told.status, 200, "{told:?}");
    assert!(told.body.contains("\"proceed\""), "{told:?}");
    Ok(event)
}

/// Every order sent meanwhile is reported whole.
async fn all_arrive(world: &World, events: &[String]) -> Result<()> {
    let api = world.api()?;
    for id in events {
        let whole = |event: &Event| event.summary.state == "succeeded" && event.steps.len() == 5;
        // Reports wait for the filters' back-off, which doubles up to half a minute.
        let what = format!("event {id} whole");
        wait::within(Duration::from_mins(2), &what, || async {
            Ok(match api.event(id).await? {
                None => Seen::NotYet("no such event".into()),
                Some(event) => Seen::when(whole(&event), event),
            })
        })
        .await?;
    }
    Ok(())
}
