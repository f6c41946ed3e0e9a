//! Scenario: a gateway in the topology. It is the entry of what comes through it and never in a plan; what comes from
//! outside is bared of everything of ours there, unless the configuration names the peer that sends it.

use anyhow::{Context, Result};
use kaeru_e2e::api::Event;
use kaeru_e2e::customer::{Customer, event_of};
use kaeru_e2e::graph::{Graph, Work, at, gateway_peer};
use kaeru_e2e::wait::{self, Seen};

use crate::pool::{heard, lines, new_id, planned, pool, spared, text};
use crate::stage::play;

const ENTRY: &str = "istio-system/istio-ingressgateway < : POST /work";

#[test]
fn what_comes_from_outside_is_bared_at_the_gateway_which_is_the_entry() -> Result<()> {
    play(async {
        let graph = pool().await?;
        comes_in_bared(graph, &graph.outside).await
    })
}

#[test]
fn a_peer_that_the_gateway_does_not_name_is_outside() -> Result<()> {
    play(async {
        let graph = pool().await?;
        comes_in_bared(graph, &graph.stranger).await
    })
}

#[test]
fn a_peer_that_the_gateway_names_chooses_the_event() -> Result<()> {
    play(async {
        let graph = pool().await?;
        let id = new_id("named");
        let headers = [("x-event-id", id.as_str()), ("x-event-type", "order.named")];
        let work = Work::new(at("a").calls(at("b")));
        let told = graph.send_in(&graph.peer, &work, &headers).await?;
        assert_eq!((told.status, event_of(&told)?), (201, id.clone()));
        heard(graph, &id, 3).await?;
        let event = spared(graph, &id, "succeeded").await?;
        assert_eq!(
            lines(&event),
            [
                "a < istio-system/istio-ingressgateway: POST /work",
                "b < a: POST /work",
                ENTRY
            ]
        );
        assert_eq!(event.summary.entry, Some(gateway_peer()));
        assert_eq!(event.summary.event_type.as_deref(), Some("order.named"));
        assert!(!event.summary.borrowed);
        Ok(())
    })
}

#[test]
fn a_failure_behind_the_gateway_is_planned_without_it_and_refused_at_it() -> Result<()> {
    play(async {
        let graph = pool().await?;
        let trace = uuid::Uuid::new_v4().simple().to_string();
        let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
        let headers = [("traceparent", traceparent.as_str())];
        // The last link of the chain answers 500, and nobody does without.
        let work = at("a").calls(at("b").calls(at("c")).calls(at("d").answers(&[500])));
        let told = graph
            .send_in(&graph.outside, &Work::new(work), &headers)
            .await?;
        assert_eq!((told.status, event_of(&told)?), (500, trace.clone()));

        heard(graph, &trace, 5).await?;
        let plan = text(["d", "c after d", "b after c", "a after b"]);
        let decision = planned(graph, &trace, &plan).await?;
        assert_eq!(decision.reason.rule, "entry");
        assert_eq!(decision.reason.peer, Some(gateway_peer()));

        // The client goes on with its trace: no further than the gateway.
        let again = Work::new(at("a").on("/again"));
        wait::until("the refusal", || async {
            let told = graph.send_in(&graph.outside, &again, &headers).await?;
            Ok(Seen::when(told.status == 424, told))
        })
        .await?;
        let before = graph.arrivals("a", &again.run)?.len();
        let told = graph.send_in(&graph.outside, &again, &headers).await?;
        assert_eq!(told.status, 424);
        assert_eq!(graph.arrivals("a", &again.run)?.len(), before);
        let refused = |event: &Event| {
            event
                .refusals
                .iter()
                .any(|r| r.service == gateway_peer() && r.enforced)
        };
        graph
            .api()?
            .event_when(&trace, "the refusal", refused)
            .await?;
        Ok(())
    })
}

/// Work that this customer sends with a forged header of each kind goes through, as the gateway's own.
async fn comes_in_bared(graph: &Graph, customer: &Customer) -> Result<()> {
    let forged = new_id("forged");
    let baggage = format!("user=42,event.id={forged}");
    let headers = [
        ("x-event-id", forged.as_str()),
        ("ce-correlationid", &forged),
        ("x-event-from", "graph/b;t=1"),
        ("x-event-type", "forged"),
        ("x-event-deadline", "1"),
        ("x-event-undo", &forged),
        ("x-event-anything", &forged),
        ("baggage", &baggage),
    ];
    let work = Work::new(at("a").calls(at("b")));
    let told = graph.send_in(customer, &work, &headers).await?;
    assert_eq!(told.status, 201, "{told:?}");
    assert_eq!(told.header("x-event-reported"), None);
    let id = event_of(&told)?;
    for service in ["a", "b"] {
        let arrivals = graph.arrivals(service, &work.run)?;
        let arrival = arrivals.first().context("it arrived")?;
        let forged = arrival
            .headers
            .values()
            .filter(|value| value.contains("forged"));
        assert_eq!(forged.count(), 0, "{:#?}", arrival.headers);
        let baggage = arrival.headers.get("baggage").context("baggage")?;
        assert!(
            baggage.contains("user=42") && baggage.contains(&id),
            "{baggage}"
        );
    }

    heard(graph, &id, 3).await?;
    let event = spared(graph, &id, "succeeded").await?;
    assert_eq!(
        lines(&event),
        [
            "a < istio-system/istio-ingressgateway: POST /work",
            "b < a: POST /work",
            ENTRY
        ]
    );
    assert_eq!(event.summary.entry, Some(gateway_peer()));
    let learned = format!("POST {} /work", gateway_peer());
    assert_eq!(event.summary.event_type, Some(learned));
    assert!(event.summary.borrowed);
    let deadline = event.considered.iter().find(|c| c.rule == "deadline");
    let deadline = deadline.context("each rule is considered")?;
    assert!(deadline.why.contains("no deadline"), "{deadline:?}");
    assert!(graph.api()?.event(&forged).await?.is_none());
    // It may be undone, but the gateway has nothing to undo.
    graph
        .api()?
        .roll_back(&id, "alice", "the customer called")
        .await?;
    planned(graph, &id, &text(["b", "a after b"])).await?;
    Ok(())
}
