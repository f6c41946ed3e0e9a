//! The application compensates by itself in its catch block: it is let through and shown as clean-up, and nothing is
//! undone twice. In `shadow` the list shows exactly what would have been refused.

use anyhow::{Context, Result};
use kaeru_e2e::api::{Decision, Event, Refusal};
use kaeru_e2e::shop::{Arrival, Asked, Order, PORT, Role};
use kaeru_e2e::world::World;
use reqwest::Method;

use crate::stage::{known, play, sent, shop, told_all, typed_order};

#[test]
fn what_the_application_cancels_after_the_decision_is_not_undone_again() -> Result<()> {
    play(async {
        let world = shop().await?;
        let api = world.api()?;
        let order = Order {
            hold: vec![Role::Backend],
            ..compensated()
        };
        let (id, answer) = sent(world, "order.cancelled", &order)?;
        let reserved = |event: &Event| {
            let effects = event.decision.as_ref().map(both_effects);
            effects == Some(["yes".into(), "yes".into()])
        };
        let event = api.event_when(&id, "the reservation in the plan", reserved);
        let decision = event.await?.decision.context("decided")?;
        assert_eq!(decision.reason.rule, "fatal");
        known(world, &[Role::Backend, Role::DbApi, Role::Db], &id).await?;

        world.release(Role::Backend, &order.number).await?;
        assert_eq!(answer.await??.status, 500);
        cancelled_once(world, &order).await?;
        let cleared = |event: &Event| {
            let effects = event.decision.as_ref().map(both_effects);
            effects == Some(["no".into(), "no".into()])
        };
        let event = api.event_when(&id, "nothing left to undo there", cleared);
        let event = event.await?;
        shown_as_cleanup(&event);
        let revised = event.decision.context("it stays in force")?;
        assert_eq!(revised.id, decision.id);
        assert!(revised.revision > decision.revision, "{revised:#?}");
        assert_eq!(revised.effect(&Role::Backend.peer()), "maybe");
        Ok(())
    })
}

#[test]
fn what_the_application_cancels_before_the_decision_is_in_no_plan() -> Result<()> {
    play(async {
        let world = shop().await?;
        let order = compensated();
        let id = typed_order(world, "order.by-word", &order).await?;
        cancelled_once(world, &order).await?;
        let decision = world.api()?.decision_of(&id).await?;
        assert_eq!(decision.reason.rule, "entry");
        let planned = decision.plan.entries.iter().map(|e| e.service.as_str());
        let planned: Vec<_> = planned.collect();
        assert_eq!(planned, ["shop/backend", "shop/web"]);
        told_all(world, &Role::MESH).await?;
        let event = world.api()?.event(&id).await?.context("it was there")?;
        shown_as_cleanup(&event);
        assert_eq!(event.decision.map(|d| d.plan), Some(decision.plan));
        Ok(())
    })
}

#[test]
fn shadow_lists_exactly_what_would_have_been_refused() -> Result<()> {
    play(async {
        let world = shop().await?;
        // After the doom the backend notes it, and the web tries the order again: all of it again, twice.
        let order = Order {
            declined: true,
            retries: 2,
            hold: vec![Role::Backend],
            ..Order::default()
        };
        let (id, answer) = sent(world, "order.shadow", &order)?;
        let decision = world.api()?.decision_of(&id).await?;
        known(world, &Role::MESH, &id).await?;
        let mut before = Vec::new();
        for role in CALLED {
            before.push(world.arrivals(role, &order.number).await?.len());
        }

        // What passes a doomed event is not in the list: reads, undo calls, clean-up.
        let (web, headers) = (world.inbound(Role::Web)?, [("x-event-id", &*id)]);
        let path = format!("/orders/{}", order.number);
        let read = world.peer.send(Method::GET, web, &path, &headers, None);
        assert_eq!(read.await?.status, 200);
        for (path, undo) in [("/undo", Some(&*decision.id)), ("/cancellations", None)] {
            let told = world
                .call_from(Role::Backend, &call(Role::Db, path, undo, &id, &order)?)
                .await?;
            assert_eq!(told.status, 201, "{told:?}");
        }
        let told = world
            .call_from(Role::Web, &call(Role::Db, &path, None, &id, &order)?)
            .await?;
        assert_eq!(told.status, 201, "{told:?}");
        world.release(Role::Backend, &order.number).await?;
        assert_eq!(answer.await??.status, 500);

        let (mut sent_out, mut let_in) = (Vec::new(), Vec::new());
        for (role, before) in CALLED.into_iter().zip(before) {
            for arrival in &world.arrivals(role, &order.number).await?[before..] {
                if passes(arrival) {
                    continue;
                }
                let request = request(arrival, role, &order);
                sent_out.extend(request[0].is_some().then(|| request.clone()));
                let_in.extend((role != Role::Payment).then_some(request));
            }
        }
        // At least: three tries of the order at the backend, its note, and what they made it do.
        assert!(let_in.len() > 10, "{let_in:#?}");
        told_all(world, &Role::MESH).await?;
        let event = world.api()?.event(&id).await?.context("it was there")?;
        assert!(event.refusals.iter().all(|refusal| !refusal.enforced));
        let listed = |side: &str| {
            let at = event.refusals.iter().filter(|r| r.side == side);
            sorted(at.map(listed).collect())
        };
        assert_eq!(listed("outbound"), sorted(sent_out));
        assert_eq!(listed("inbound"), sorted(let_in));
        Ok(())
    })
}

/// Caller, callee, method, folded path.
type Request = [Option<String>; 4];

/// Those whose ledgers tell what reached them.
const CALLED: [Role; 5] = [
    Role::Web,
    Role::Backend,
    Role::DbApi,
    Role::Db,
    Role::Payment,
];

fn compensated() -> Order {
    Order {
        declined: true,
        compensates: true,
        ..Order::default()
    }
}

/// What the plan says of the two services that keep the reservation.
fn both_effects(decision: &Decision) -> [String; 2] {
    [Role::DbApi, Role::Db].map(|role| decision.effect(&role.peer()).to_owned())
}

/// The reservation and its cancellation reached both services that keep it, and nothing else did.
async fn cancelled_once(world: &World, order: &Order) -> Result<()> {
    for (role, within) in [(Role::DbApi, ""), (Role::Db, "/rows")] {
        let arrivals = world.arrivals(role, &order.number).await?;
        let paths: Vec<_> = arrivals.into_iter().map(|a| a.path).collect();
        let expected = ["/reservations", "/cancellations"].map(|path| format!("{within}{path}"));
        assert_eq!(paths, expected, "{}", role.name());
    }
    Ok(())
}

fn shown_as_cleanup(event: &Event) {
    assert!(event.refusals.is_empty(), "{:#?}", event.refusals);
    for (role, path) in [
        (Role::DbApi, "/cancellations"),
        (Role::Db, "/rows/cancellations"),
    ] {
        let mut shown = event.cleanups.iter().filter(|c| c.service == role.peer());
        let shown = shown.any(|c| c.method == "POST" && c.path == path);
        assert!(shown, "{path} of {}: {:#?}", role.name(), event.cleanups);
        let step = event.step(&role.peer()).map(|step| &*step.effect);
        assert_eq!(step, Some("no"), "{}", role.name());
    }
}

fn call(to: Role, path: &str, undo: Option<&str>, id: &str, order: &Order) -> Result<Asked> {
    let undo = undo.map(|decision| ("x-event-undo", decision));
    Ok(Asked {
        method: "POST".into(),
        host: to.host(),
        path: path.into(),
        headers: (undo.into_iter().chain([("x-event-id", id)]))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        body: Some(serde_json::to_string(order)?),
    })
}

fn passes(arrival: &Arrival) -> bool {
    arrival.method == "GET"
        || arrival.path.ends_with("/cancellations")
        || arrival.headers.contains_key("x-event-undo")
}

/// As the service's own ledger has it: callers by their user agents.
fn request(arrival: &Arrival, to: Role, order: &Order) -> Request {
    let from = arrival.headers.get("user-agent");
    [
        from.map(|name| format!("shop/{name}")),
        Some(to.peer()),
        Some(arrival.method.clone()),
        Some(arrival.path.replace(&order.number, "{id}")),
    ]
}

/// As the list has it. A worker that has not heard of a host before knows it by its name alone.
fn listed(refusal: &Refusal) -> Request {
    let by_host = |to: &String| {
        let roles = CALLED.into_iter();
        let of_host = roles.filter(|role| *to == format!("host:{}:{PORT}", role.name()));
        of_host.map(Role::peer).next().unwrap_or_else(|| to.clone())
    };
    let (from, to) = match &refusal.to {
        Some(to) => (Some(refusal.service.clone()), by_host(to)),
        None => (refusal.from.clone(), refusal.service.clone()),
    };
    [
        from,
        Some(to),
        Some(refusal.method.clone()),
        Some(refusal.path.clone()),
    ]
}

fn sorted(mut requests: Vec<Request>) -> Vec<Request> {
    requests.sort();
    requests
}
