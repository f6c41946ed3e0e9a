//! Scenario 3: services forward only what their tracing library forwards, and the event is found all the same; where
//! they forward nothing, that is seen, and nothing wrong is decided.

use anyhow::{Context, Result};
use kaeru_e2e::api::Event;
use kaeru_e2e::customer::{Customer, event_of};
use kaeru_e2e::shop::{Forward, Order, Role};
use kaeru_e2e::wait::{self, Seen};
use kaeru_e2e::world::World;

use crate::stage::{play, shop};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn only_traceparent() -> Result<()> {
    let headers = &[("traceparent", TRACEPARENT)];
    found(
        Forward::Traceparent,
        headers,
        Some("4bf92f3577b34da6a3ce929d0e0e4736"),
    )
}

#[test]
fn only_b3_in_one_header() -> Result<()> {
    let headers = &[("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1")];
    found(
        Forward::B3,
        headers,
        Some("80f198ee56343ba864fe8b2a57d3eff7"),
    )
}

#[test]
fn only_b3_in_many_headers() -> Result<()> {
    let headers = &[
        ("x-b3-traceid", "463ac35c9f6413ad48485a3953bb6124"),
        ("x-b3-spanid", "a2fb4a1d1a96d312"),
        ("x-b3-sampled", "1"),
    ];
    found(
        Forward::B3,
        headers,
        Some("463ac35c9f6413ad48485a3953bb6124"),
    )
}

#[test]
fn only_the_request_id() -> Result<()> {
    found(Forward::RequestId, &[], None)
}

#[test]
fn only_baggage() -> Result<()> {
    found(Forward::Baggage, &[], None)
}

#[test]
fn a_chosen_id_from_a_trusted_caller_though_only_traceparent_is_forwarded() -> Result<()> {
    play(async {
        let world = shop().await?;
        let chosen = format!("order-{}", uuid::Uuid::new_v4());
        let trace = format!("00-{}-00f067aa0ba902b7-01", uuid::Uuid::new_v4().simple());
        let headers = [
            ("x-event-id", chosen.as_str()),
            ("traceparent", trace.as_str()),
        ];
        let event = sent(world, &world.peer, Forward::Traceparent, &headers).await?;
        assert_eq!(event.summary.event, chosen);
        assert!(!event.summary.borrowed);
        Ok(())
    })
}

#[test]
fn a_service_that_forwards_nothing_is_seen_and_nothing_wrong_is_decided() -> Result<()> {
    play(async {
        let world = shop().await?;
        let api = world.api()?;
        let splits = || async {
            let services = api.services().await?;
            let web = services.into_iter().find(|s| s.service == Role::Web.peer());
            anyhow::Ok(web.map_or(0, |web| web.possible_splits))
        };
        let before = splits().await?;
        let order = Order {
            forward: Vec::new(),
            ..Order::default()
        };
        let told = world
            .outside
            .order(world.inbound(Role::Web)?, &order, &[])
            .await?;
        assert_eq!(told.status, 201, "{told:?}");
        wait::until("the split at the web", || async {
            let seen = splits().await?;
            Ok(Seen::when(seen > before, seen))
        })
        .await?;

        // What each service was told is an event of its own, whole in itself and left alone.
        let mut events = Vec::new();
        for role in Role::MESH {
            for arrival in world.arrivals(role, &order.number).await? {
                let id = arrival.headers.get("x-event-id");
                events.push(id.context("every service is told an event id")?.clone());
            }
        }
        for id in events {
            let settled = |event: &Event| event.summary.state == "succeeded";
            let event = api.event_when(&id, "settled", settled).await?;
            assert!(event.decision.is_none(), "{:#?}", event.decision);
        }
        Ok(())
    })
}

/// An order from outside whose services forward only one kind of header is one event, by this id where one is given.
fn found(
    forward: Forward,
    headers: &'static [(&'static str, &'static str)],
    id: Option<&'static str>,
) -> Result<()> {
    play(async move {
        let world = shop().await?;
        let event = sent(world, &world.outside, forward, headers).await?;
        if let Some(id) = id {
            assert_eq!(event.summary.event, id);
        }
        assert!(event.summary.borrowed);
        Ok(())
    })
}

/// Sends an order and waits until all five parts of it are one event.
async fn sent(
    world: &World,
    customer: &Customer,
    forward: Forward,
    headers: &[(&str, &str)],
) -> Result<Event> {
    let order = Order {
        forward: vec![forward],
        ..Order::default()
    };
    let told = customer
        .order(world.inbound(Role::Web)?, &order, headers)
        .await?;
    assert_eq!(told.status, 201, "{told:?}");
    let id = event_of(&told)?;
    let whole = |event: &Event| event.summary.state == "succeeded" && event.steps.len() == 5;
    let event = world
        .api()?
        .event_when(&id, "whole and succeeded", whole)
        .await?;
    for (service, parents) in [
        (Role::Web, None),
        (Role::Backend, Some(Role::Web)),
        (Role::DbApi, Some(Role::Backend)),
        (Role::Db, Some(Role::DbApi)),
        (Role::Payment, Some(Role::Backend)),
    ] {
        let step = event
            .steps
            .iter()
            .find(|step| step.service == service.peer());
        let step = step.with_context(|| format!("no step of {}", service.name()))?;
        let parents: Vec<_> = parents.into_iter().map(Role::peer).collect();
        assert_eq!(step.parents, parents, "{}", service.name());
    }
    Ok(event)
}
