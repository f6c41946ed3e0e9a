//! Scenario 5: `off`, `shadow`, `enforce`; gRPC; undo calls; and what comes from outside is not believed.

use anyhow::{Context, Result};
use kaeru_e2e::api::Event;
use kaeru_e2e::customer::{Customer, event_of};
use kaeru_e2e::shop::{Arrival, Asked, Order, Role, Told};
use kaeru_e2e::world::{KAERU_HOST, KAERU_PORT};
use reqwest::Method;

use crate::stage::{doomed, known, play, post, says, shop};

#[test]
fn off_passes_and_says_nothing() -> Result<()> {
    play(async {
        let world = shop().await?;
        let (id, _) = doomed(world, "order.off").await?;
        // The verdict of a later event comes after this one's, so this one's had its chance.
        let (later, _) = doomed(world, "order.enforced").await?;
        known(world, &[Role::Web], &later).await?;
        assert_eq!(post(world, Role::Web, &id).await?.status, 201);
        let seen = |event: &Event| has_call(event, Role::Web, "/late");
        let event = world
            .api()?
            .event_when(&id, "the late request", seen)
            .await?;
        assert!(event.refusals.is_empty(), "{:#?}", event.refusals);
        Ok(())
    })
}

#[test]
fn shadow_passes_and_lists_what_it_would_refuse() -> Result<()> {
    play(async {
        let world = shop().await?;
        let (id, _) = doomed(world, "order.shadow").await?;
        let listed = |event: &Event| {
            let listed = event.refusals.iter().find(|r| r.path == "/late");
            listed
                .is_some_and(|r| !r.enforced && r.service == Role::Db.peer() && r.method == "POST")
        };
        known(world, &[Role::Db], &id).await?;
        let told = post(world, Role::Db, &id).await?;
        assert_eq!(told.status, 201, "shadow refuses nothing: {told:?}");
        let api = world.api()?;
        api.event_when(&id, "the late request in the list", listed)
            .await?;
        Ok(())
    })
}

#[test]
fn a_grpc_call_is_refused_in_its_own_words() -> Result<()> {
    play(async {
        let world = shop().await?;
        // From outside, by its trace id, which is all that an outsider may say.
        let trace = format!("00-{}-00f067aa0ba902b7-01", uuid::Uuid::new_v4().simple());
        let headers = [("traceparent", trace.as_str())];
        let order = Order {
            declined: true,
            ..Order::default()
        };
        let told = world
            .outside
            .order(world.inbound(Role::Web)?, &order, &headers)
            .await?;
        let id = event_of(&told)?;
        known(world, &[Role::Db], &id).await?;

        let grpc = Customer::outside_grpc()?;
        let headers = [
            ("traceparent", trace.as_str()),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        let to = world.inbound(Role::Db)?;
        let told = grpc
            .send(Method::POST, to, "/shop.Rows/Insert", &headers, None)
            .await?;
        assert_eq!(told.header("grpc-status"), Some("9"), "{told:?}");
        // Trailers only: everything stands in the one header block.
        assert_eq!(told.status, 200, "{told:?}");
        assert_eq!(
            told.header("content-type"),
            Some("application/grpc"),
            "{told:?}"
        );
        assert_eq!(
            told.header("grpc-retry-pushback-ms"),
            Some("-1"),
            "{told:?}"
        );
        assert!(
            told.header("grpc-message")
                .is_some_and(|m| m.contains("rolled")),
            "{told:?}"
        );
        assert!(told.body.is_empty(), "{told:?}");
        Ok(())
    })
}

#[test]
fn an_undo_call_passes_with_the_right_decision_and_no_other() -> Result<()> {
    play(async {
        let world = shop().await?;
        let (id, decision) = doomed(world, "order.enforced").await?;
        known(world, &[Role::Web, Role::Backend], &id).await?;
        let api = world.api()?;

        // From the web through both sidecars to the backend.
        let undo = |decision: &str| Asked {
            method: "POST".into(),
            host: Role::Backend.host(),
            path: "/undo".into(),
            headers: [("x-event-id", id.as_str()), ("x-event-undo", decision)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            body: Some(serde_json::to_string(&Order::default()).unwrap_or_default()),
        };
        let wrong = world
            .call_from(Role::Web, &undo("0198c3a2-0000-7000-8000-000000000000"))
            .await?;
        assert_eq!(wrong.status, 424, "{wrong:?}");
        let right = world.call_from(Role::Web, &undo(&decision.id)).await?;
        assert_eq!(right.status, 201, "{right:?}");

        let listed = |event: &Event| {
            let undo = event
                .undos
                .iter()
                .find(|undo| undo.service == Role::Backend.peer());
            undo.is_some_and(|undo| undo.method == "POST" && undo.path == "/undo")
        };
        let event = api.event_when(&id, "the undo call", listed).await?;
        assert!(
            !has_call(&event, Role::Backend, "/undo"),
            "an undo call is no attempt"
        );
        Ok(())
    })
}

#[test]
fn what_comes_from_outside_is_taken_off() -> Result<()> {
    play(async {
        let world = shop().await?;
        let order = Order::default();
        let headers = [
            ("x-event-id", "forged"),
            ("ce-correlationid", "forged"),
            ("x-event-from", "shop/backend;t=1"),
            ("x-event-type", "forged"),
            ("x-event-undo", "forged"),
            ("x-event-anything", "forged"),
            ("baggage", "user=42,event.id=forged"),
        ];
        let told = world
            .outside
            .order(world.inbound(Role::Web)?, &order, &headers)
            .await?;
        let id = event_of(&told)?;
        assert_ne!(id, "forged");
        let web = only(world.arrivals(Role::Web, &order.number).await?)?;
        let forged = web
            .headers
            .values()
            .filter(|value| value.contains("forged"));
        assert_eq!(forged.count(), 0, "{:#?}", web.headers);
        let baggage = web.headers.get("baggage").context("baggage")?;
        assert!(
            baggage.contains("user=42") && baggage.contains(&id),
            "{baggage}"
        );
        assert!(
            !web.headers.contains_key("x-event-from"),
            "{:#?}",
            web.headers
        );

        // And nothing of ours goes out.
        let payment = only(world.arrivals(Role::Payment, &order.number).await?)?;
        let ours = payment
            .headers
            .keys()
            .filter(|name| name.starts_with("x-event-"));
        assert_eq!(ours.count(), 0, "{:#?}", payment.headers);

        let api = world.api()?;
        let succeeded = |event: &Event| event.summary.state == "succeeded";
        let event = api.event_when(&id, "succeeded", succeeded).await?;
        assert_eq!(event.summary.entry, Some(Role::Web.peer()));
        assert!(api.event("forged").await?.is_none());
        Ok(())
    })
}

#[test]
fn a_status_call_without_a_body_is_a_word_from_the_sidecar() -> Result<()> {
    play(async {
        let world = shop().await?;
        let id = uuid::Uuid::new_v4().to_string();
        assert_eq!(post(world, Role::Backend, &id).await?.status, 201);
        says(world, Role::Backend, &id, "failed").await?;
        let decision = world.api()?.decision_of(&id).await?;
        assert_eq!(decision.reason.rule, "word");
        assert_eq!(decision.reason.peer, Some(Role::Backend.peer()));
        known(world, &[Role::Backend], &id).await?;

        let verdict = Asked {
            method: "GET".into(),
            host: format!("{KAERU_HOST}:{KAERU_PORT}"),
            path: format!("/v1/events/{id}/verdict"),
            ..Asked::default()
        };
        let told: Told = world.call_from(Role::Backend, &verdict).await?;
        let in_sidecar: serde_json::Value = serde_json::from_str(&told.body)?;
        let at_aggregator: serde_json::Value = world
            .api()?
            .get(&format!("/v1/events/{id}/verdict"))
            .await?;
        assert_eq!(in_sidecar, at_aggregator);
        assert_eq!(in_sidecar["verdict"], "roll_back");
        Ok(())
    })
}

fn has_call(event: &Event, role: Role, path: &str) -> bool {
    let step = event.steps.iter().find(|step| step.service == role.peer());
    step.is_some_and(|step| step.calls.iter().any(|call| call.path == path))
}

fn only(mut arrivals: Vec<Arrival>) -> Result<Arrival> {
    assert_eq!(arrivals.len(), 1, "{arrivals:#?}");
    arrivals.pop().context("one arrival")
}
