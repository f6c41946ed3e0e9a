//! Scenario 1: an order goes through, sent by a client without any trace header.

use anyhow::{Context, Result};
use kaeru_e2e::api::{Event, Step};
use kaeru_e2e::customer::event_of;
use kaeru_e2e::shop::{Order, Role};
use kaeru_e2e::wait::{self, Seen};

use crate::stage::{LEARNED_TYPE, play, shop};

#[test]
fn an_order_becomes_one_whole_trace_and_its_flow_is_learned() -> Result<()> {
    play(async {
        let world = shop().await?;
        let api = world.api()?;
        let told = world
            .outside
            .order(world.inbound(Role::Web)?, &Order::default(), &[])
            .await?;
        assert_eq!(told.status, 201, "{told:?}");
        let id = event_of(&told)?;

        let succeeded = |event: &Event| event.summary.state == "succeeded";
        let event = api.event_when(&id, "succeeded", succeeded).await?;
        assert!(event.summary.borrowed, "the id is Envoy's request id");
        assert_eq!(event.summary.event_type.as_deref(), Some(LEARNED_TYPE));
        assert_eq!(event.summary.entry, Some(Role::Web.peer()));
        assert!(event.decision.is_none() && event.refusals.is_empty());

        let parents: Vec<_> = (event.steps.iter())
            .map(|step| (step.service.as_str(), step.parents.join(" ")))
            .collect();
        let expected = [
            ("host:payments.example.com", "shop/backend".to_owned()),
            ("shop/backend", "shop/web".to_owned()),
            ("shop/db", "shop/db-api".to_owned()),
            ("shop/db-api", "shop/backend".to_owned()),
            ("shop/web", String::new()),
        ];
        let mut sorted = parents.clone();
        sorted.sort();
        assert_eq!(sorted, expected);
        assert!(
            event.steps.iter().all(|s| s.outcome == "succeeded"),
            "{:#?}",
            event.steps
        );
        assert_eq!(calls(&event, Role::Backend)?, ["POST /orders"]);
        assert_eq!(
            calls(&event, Role::DbApi)?,
            ["POST /reservations", "POST /confirmations"]
        );
        assert_eq!(calls(&event, Role::Payment)?, ["POST /charges"]);
        // One attempt per hop: web, backend, and twice db-api and db, each told by its own proxy; the external call by
        // its caller's. (On a slow machine one may have been open at a flush, and so have been told twice.)
        let attempts =
            || (event.steps.iter().flat_map(|s| &s.calls)).flat_map(|call| &call.attempts);
        assert_eq!(attempts().count(), 7);
        let by_caller = attempts().filter(|attempt| attempt.seen_by == "caller");
        assert_eq!(by_caller.count(), 1);

        let flow = wait::until("the learned flow", || async {
            let flow = api.flow(LEARNED_TYPE).await?.context("no flow yet")?;
            Ok(Seen::when(flow.succeeded > 0, flow))
        });
        let edges: Vec<_> = (flow.await?.edges.into_iter())
            .map(|edge| (edge.from.unwrap_or_default(), edge.to, edge.path))
            .collect();
        for (from, to, path) in [
            ("", "shop/web", "/orders"),
            ("shop/web", "shop/backend", "/orders"),
            ("shop/backend", "shop/db-api", "/reservations"),
            ("shop/db-api", "shop/db", "/rows/reservations"),
            ("shop/backend", "host:payments.example.com", "/charges"),
            ("shop/backend", "shop/db-api", "/confirmations"),
        ] {
            let edge = (from.to_owned(), to.to_owned(), path.to_owned());
            assert!(edges.contains(&edge), "{edge:?} is not in {edges:#?}");
        }
        Ok(())
    })
}

/// Method and path of a step's calls, in the order in which its caller made them.
fn calls(event: &Event, role: Role) -> Result<Vec<String>> {
    let step = step(event, role)?;
    let mut calls: Vec<_> = step.calls.iter().collect();
    calls.sort_by_key(|call| call.attempts.first().and_then(|a| a.sent.clone()));
    Ok(calls
        .into_iter()
        .map(|c| format!("{} {}", c.method, c.path))
        .collect())
}

fn step(event: &Event, role: Role) -> Result<&Step> {
    let found = event.steps.iter().find(|step| step.service == role.peer());
    found.with_context(|| format!("no step of {}", role.peer()))
}
