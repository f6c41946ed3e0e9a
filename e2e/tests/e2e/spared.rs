//! What fails and yet dooms nothing: a failure that the caller, its Envoy or the client heals by trying again; a client
//! that goes away; a request that was turned down before anything happened.

use anyhow::{Context, Result};
use kaeru_e2e::api::{Attempt, Event};
use kaeru_e2e::customer::event_of;
use kaeru_e2e::shop::{Order, Role, Told};
use kaeru_e2e::world::World;
use tokio::task::AbortHandle;

use crate::stage::{arrived, ends, play, sent, shop};

#[test]
fn a_failure_below_the_entry_that_its_caller_heals() -> Result<()> {
    play(async {
        let world = shop().await?;
        let order = Order {
            first_answers: [(Role::Db, 503)].into(),
            retries: 1,
            ..Order::default()
        };
        let tries = healed(world, &order).await?;
        let statuses: Vec<_> = tries.iter().map(|t| (t.status, t.attempt)).collect();
        assert_eq!(statuses, [(Some(503), 1), (Some(201), 1)]);
        Ok(())
    })
}

#[test]
fn a_failure_below_the_entry_that_an_envoy_heals() -> Result<()> {
    play(async {
        let world = shop().await?;
        let order = Order {
            first_answers: [(Role::Db, 502)].into(),
            ..Order::default()
        };
        let tries = healed(world, &order).await?;
        let statuses: Vec<_> = tries.iter().map(|t| (t.status, t.attempt)).collect();
        assert_eq!(statuses, [(Some(502), 1), (Some(201), 2)]);
        assert_eq!(tries[0].sent, tries[1].sent, "one request, two tries");
        Ok(())
    })
}

#[test]
fn an_entry_that_is_tried_again_in_time_however_long_that_takes() -> Result<()> {
    play(async {
        let world = shop().await?;
        let api = world.api()?;
        let quick = Order {
            first_answers: [(Role::Web, 503)].into(),
            ..Order::default()
        };
        let long = Order {
            hold: vec![Role::Web],
            number: Order::default().number,
            ..quick.clone()
        };
        assert_eq!(traced(world, &quick).await?.status, 503);
        let quick_id = event_of(&traced(world, &quick).await?)?;
        assert_eq!(traced(world, &long).await?.status, 503);
        let again = long.clone();
        let again = tokio::spawn(async move { traced(shop().await?, &again).await });

        // A third one is not tried again. When it is doomed, the time of the others is over, too.
        let given_up = Order {
            answers: [(Role::Web, 500)].into(),
            ..Order::default()
        };
        arrived(world, Role::Web, &long).await?;
        let (id, _) = sent(world, "order.retried", &given_up)?;
        assert_eq!(api.decision_of(&id).await?.reason.rule, "entry");

        let long_id = trace_id(&long);
        let event = api.event(&long_id).await?.context("it began")?;
        assert_eq!(event.summary.state, "running");
        assert!(event.decision.is_none(), "{:#?}", event.decision);
        let why = event.why("entry");
        assert!(why.ends_with("is still open"), "{why}");
        world.release(Role::Web, &long.number).await?;
        assert_eq!(again.await??.status, 201);
        for id in [&quick_id, &long_id] {
            let event = ends(world, id, "succeeded").await?;
            assert!(
                event.summary.borrowed && !event.summary.shared,
                "{event:#?}"
            );
            assert_eq!(tries(&event, Role::Web)?.len(), 2);
        }
        Ok(())
    })
}

#[test]
fn a_client_that_goes_away_and_closes_its_connection() -> Result<()> {
    play(async {
        let world = shop().await?;
        let order = held();
        let (outside, web) = (world.outside.clone(), world.inbound(Role::Web)?);
        let sent = order.clone();
        let answer = tokio::spawn(async move { outside.order(web, &sent, &[]).await });
        abandoned(world, &order, &answer.abort_handle()).await
    })
}

#[test]
fn a_client_that_goes_away_and_resets_its_stream() -> Result<()> {
    play(async {
        let world = shop().await?;
        let order = held();
        // Over TLS the peer speaks HTTP/2.
        let (_, answer) = sent(world, "order.abandoned", &order)?;
        abandoned(world, &order, &answer.abort_handle()).await
    })
}

#[test]
fn what_was_turned_down_before_anything_happened_is_told_to_nobody() -> Result<()> {
    play(async {
        let world = shop().await?;
        let order = Order {
            first_answers: [(Role::Web, 404)].into(),
            ..Order::default()
        };
        let (id, answer) = sent(world, "order.unknown", &order)?;
        assert_eq!(answer.await??.status, 404);
        let event = ends(world, &id, "failed").await?;
        let why = event.why("entry");
        assert!(why.ends_with("nothing is left to undo"), "{why}");
        let told = world.api()?.feed().await?.verdicts;
        assert!(told.iter().all(|verdict| verdict.event.as_str() != id));
        Ok(())
    })
}

fn held() -> Order {
    Order {
        hold: vec![Role::Db],
        ..Order::default()
    }
}

/// The client goes away while the database holds its order.
async fn abandoned(world: &World, order: &Order, client: &AbortHandle) -> Result<()> {
    let arrival = arrived(world, Role::Db, order).await?;
    let id = arrival.headers.get("x-event-id").context("it has one")?;
    client.abort();
    let event = ends(world, id, "abandoned").await?;
    let why = event.why("entry");
    assert!(why.starts_with("the client went away"), "{why}");
    Ok(())
}

/// Sends an order that fails once in the database and succeeds; the tries there.
async fn healed(world: &World, order: &Order) -> Result<Vec<Attempt>> {
    let told = world.outside.order(world.inbound(Role::Web)?, order, &[]);
    let told = told.await?;
    assert_eq!(told.status, 201, "{told:?}");
    let event = ends(world, &event_of(&told)?, "succeeded").await?;
    assert!(event.refusals.is_empty(), "{:#?}", event.refusals);
    tries(&event, Role::Db)
}

/// The tries of a service's first call.
fn tries(event: &Event, role: Role) -> Result<Vec<Attempt>> {
    let step = event.step(&role.peer()).context("no step")?;
    let call = step.calls.first().context("no call")?;
    assert_eq!(call.outcome, "succeeded");
    Ok(call.attempts.clone())
}

/// The order's number as a trace id: a borrowed id.
fn trace_id(order: &Order) -> String {
    order.number.replace('-', "")
}

async fn traced(world: &World, order: &Order) -> Result<Told> {
    let trace = format!("00-{}-00f067aa0ba902b7-01", trace_id(order));
    let headers = [("x-event-type", "order.retried"), ("traceparent", &*trace)];
    world
        .peer
        .order(world.inbound(Role::Web)?, order, &headers)
        .await
}
