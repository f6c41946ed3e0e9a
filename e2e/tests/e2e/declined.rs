//! Scenario 2: a payment is declined. Kaeru decides, and every later unsafe request of that event is refused at whichever
//! hop it enters; everything else passes.

use anyhow::{Context, Result};
use kaeru_e2e::api::{Decision, Event};
use kaeru_e2e::shop::{Asked, Order, Role, Told};
use kaeru_e2e::wait::{self, Seen};
use kaeru_e2e::world::{Plan, World};
use kaeru_protocol::{ProblemType, Refusal};
use reqwest::Method;
use serde_json::json;

use crate::stage::{doomed, known, plan, play, play_alone, post, shop, typed_order, with};

#[test]
fn the_word_failed_dooms_the_event_at_every_hop() -> Result<()> {
    play(async {
        let world = shop().await?;
        let (id, decision) = doomed(world, "order.by-word").await?;
        assert_eq!(decision.reason.rule, "word");
        assert_eq!(decision.reason.peer, Some(Role::Backend.peer()));
        assert_eq!(
            (decision.state.as_str(), decision.mode.as_str()),
            ("live", "enforce")
        );
        assert!(!decision.evidence.is_empty(), "{decision:?}");
        // What ended well is told at the next flush, and joins the plan then.
        let planned = |event: &Event| {
            let decision = event.decision.as_ref();
            decision.is_some_and(|d| d.plan.entries.len() == Role::MESH.len())
        };
        let event = world
            .api()?
            .event_when(&id, "the whole plan", planned)
            .await?;
        plan_is_in_order(&event.decision.context("it stays in force")?);

        for role in Role::MESH {
            known(world, &[role], &id).await?;
            check_refusal(&post(world, role, &id).await?, &id, &decision)?;
            let path = format!("/orders/{id}");
            let (to, headers) = (world.inbound(role)?, [("x-event-id", id.as_str())]);
            let read = world
                .peer
                .send(Method::GET, to, &path, &headers, None)
                .await?;
            assert_eq!(read.status, 200, "{}: reads pass: {read:?}", role.name());
            let other = post(world, role, &uuid::Uuid::new_v4().to_string()).await?;
            assert_eq!(
                other.status,
                201,
                "{}: other events pass: {other:?}",
                role.name()
            );
        }
        for (from, to) in [(Role::Web, Role::Backend), (Role::Backend, Role::Payment)] {
            let told = world
                .call_from(from, &unsafe_call(&to.host(), "/late", &id))
                .await?;
            check_refusal(&told, &id, &decision)?;
        }

        let api = world.api()?;
        let listed = |event: &Event| {
            let at = |role: Role, side: &str| {
                let refusals = event.refusals.iter().filter(|r| r.enforced);
                refusals
                    .into_iter()
                    .any(|r| r.service == role.peer() && r.side == side)
            };
            Role::MESH.into_iter().all(|role| at(role, "inbound"))
                && at(Role::Web, "outbound")
                && at(Role::Backend, "outbound")
        };
        let event = api
            .event_when(&id, "every refusal is listed", listed)
            .await?;
        assert_eq!(event.summary.state, "rolling_back");
        let again = event.decision.context("it stays in force")?;
        assert_eq!(again.id, decision.id);
        Ok(())
    })
}

#[test]
fn a_fatal_status_dooms_the_event_though_nobody_says_a_word() -> Result<()> {
    play(async {
        let world = shop().await?;
        let order = Order {
            declined: true,
            hold: vec![Role::Backend],
            ..Order::default()
        };
        let web = world.inbound(Role::Web)?;
        let (customer, sent) = (world.outside.clone(), order.clone());
        let answer = tokio::spawn(async move { customer.order(web, &sent, &[]).await });

        // The backend holds the order after the declined payment; meanwhile its event is decided.
        let arrived = wait::until("the order at the backend", || async {
            let arrivals = world.arrivals(Role::Backend, &order.number).await?;
            let event = arrivals
                .first()
                .and_then(|a| a.headers.get("x-event-id").cloned());
            Ok(event.map_or_else(|| Seen::NotYet("nothing".into()), Seen::Yes))
        });
        let id = arrived.await?;
        let decision = world.api()?.decision_of(&id).await?;
        assert_eq!(decision.reason.rule, "fatal");
        assert_eq!(decision.reason.peer, Some(Role::Payment.peer()));
        known(world, &[Role::Web, Role::Backend], &id).await?;

        // Now it wants to note the failure in the database: later work, refused in its own sidecar.
        world.release(Role::Backend, &order.number).await?;
        assert_eq!(answer.await??.status, 500);
        let reached = world.arrivals(Role::DbApi, &order.number).await?;
        let paths: Vec<&str> = reached.iter().map(|a| a.path.as_str()).collect();
        assert_eq!(paths, ["/reservations"]);
        Ok(())
    })
}

#[test]
fn no_envoy_tries_a_refusal_again() -> Result<()> {
    play(async {
        let world = shop().await?;
        let (id, decision) = doomed(world, "order.by-word").await?;
        known(world, &[Role::Web, Role::Backend], &id).await?;
        // The web's filter passes this path, so the backend's refuses it; the web's route retries 424.
        let path = "/passed/no-retry";
        let told = world
            .call_from(Role::Web, &unsafe_call(&Role::Backend.host(), path, &id))
            .await?;
        check_refusal(&told, &id, &decision)?;
        // A second request is refused after the first one's retries would have been.
        let told = world
            .call_from(Role::Web, &unsafe_call(&Role::Backend.host(), path, &id))
            .await?;
        check_refusal(&told, &id, &decision)?;
        let count = |event: &Event| event.refusals.iter().filter(|r| r.path == path).count();
        let event = world
            .api()?
            .event_when(&id, "both refusals", |event| count(event) >= 2)
            .await?;
        assert_eq!(count(&event), 2, "{:#?}", event.refusals);
        Ok(())
    })
}

#[test]
fn the_services_are_spared_the_work_after_the_failure() -> Result<()> {
    play_alone(async {
        let with_kaeru = late_work(shop().await?).await?;
        let off = plan("off");
        let filter = with(&off.filter, "mode", json!("off"));
        let off = World::start(Plan { filter, ..off }).await?;
        let without = late_work(&off).await?;
        println!(
            "unsafe requests after the doom of {ORDERS} orders: {with_kaeru} enforced, {without} with the filter off"
        );
        // How many fewer depends on the machine: `make bench` measures it.
        assert!(with_kaeru < without, "{with_kaeru} of {without}");
        Ok(())
    })
}

const ORDERS: usize = 10;
const RETRIES: u32 = 8;
/// Unsafe requests of a declined order up to the backend's word: at the backend, twice at db-api and db each, at the
/// payment API.
const FIRST_PASS: usize = 6;

/// Declines orders whose services try failed calls again, 50 ms apart, and counts what their services got in vain.
async fn late_work(world: &World) -> Result<usize> {
    let mut late = 0;
    for _ in 0..ORDERS {
        let order = Order {
            declined: true,
            says_failed: true,
            retries: RETRIES,
            ..Order::default()
        };
        typed_order(world, "order.by-word", &order).await?;
        let mut arrived = 0;
        for role in [Role::Backend, Role::DbApi, Role::Db, Role::Payment] {
            arrived += world.arrivals(role, &order.number).await?.len();
        }
        assert!(arrived >= FIRST_PASS, "{arrived}");
        late += arrived - FIRST_PASS;
    }
    Ok(late)
}

fn unsafe_call(host: &str, path: &str, event: &str) -> Asked {
    Asked {
        method: "POST".into(),
        host: host.into(),
        path: path.into(),
        headers: [("x-event-id".to_owned(), event.to_owned())].into(),
        body: Some(json!({ "number": event }).to_string()),
    }
}

fn check_refusal(told: &Told, event: &str, decision: &Decision) -> Result<()> {
    assert_eq!(told.status, 424, "{told:?}");
    let expected = [
        ("content-type", "application/problem+json"),
        ("cache-control", "no-store"),
        ("x-event-verdict", "roll_back"),
    ];
    for (name, value) in expected {
        assert_eq!(told.header(name), Some(value), "{name}: {told:?}");
    }
    let refusal: Refusal = serde_json::from_str(&told.body)?;
    assert_eq!(&*refusal.problem_type, ProblemType::EventRolledBack.uri());
    assert_eq!(refusal.event.as_str(), event);
    assert_eq!(refusal.decision.as_str(), decision.id);
    assert_eq!(refusal.failed.map(|p| p.to_string()), decision.reason.peer);
    Ok(())
}

/// All four services have something to undo, each callee before its caller; the payment API is its caller's to undo.
fn plan_is_in_order(decision: &Decision) {
    let mut services: Vec<_> = decision
        .plan
        .entries
        .iter()
        .map(|e| e.service.clone())
        .collect();
    services.sort();
    let mut mesh = Role::MESH.map(Role::peer);
    mesh.sort();
    assert_eq!(services, mesh);
    for (caller, callee) in [
        (Role::Web, Role::Backend),
        (Role::Backend, Role::DbApi),
        (Role::DbApi, Role::Db),
    ] {
        let entries = &decision.plan.entries;
        let entry = entries.iter().find(|entry| entry.service == caller.peer());
        let after = entry.map(|entry| entry.after.contains(&callee.peer()));
        assert_eq!(
            after,
            Some(true),
            "{} after {}: {entries:#?}",
            caller.name(),
            callee.name()
        );
    }
}
