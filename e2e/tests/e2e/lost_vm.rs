//! Scenario: a VM of the filter dies with reports that it has not sent. They are missed, counted, and the plans of the
//! events of that time say that they are incomplete, and of which service.

use anyhow::{Context, Result};
use kaeru_e2e::api::Decision;
use kaeru_e2e::graph::{Graph, Plan, Work, at, peer};
use kaeru_e2e::wait::{self, Seen};
use serde_json::json;

use crate::pool::{entries, heard, lines, new_id, pool, whole};
use crate::stage::play;

/// Kills the VM that it reaches, in the variant of the filter that is built for it.
const CRASH: (&str, &str) = ("x-kaeru-crash", "now");
const RELOADS: &str = "wasm.kaeru-system.kaeru.vm_reload_success";

#[test]
fn what_a_dead_vm_did_not_send_is_missed_and_named_in_plans() -> Result<()> {
    play(async {
        let mut graph = Graph::start(Plan {
            name: "lost-vm".into(),
            policy: "mode: enforce\ndoomed_max: 100%\n".into(),
            filter: json!({ "status_interval_s": 1 }),
            services: vec![("front".into(), 0), ("back".into(), 0)],
            can_crash: true,
            ..Plan::default()
        })
        .await?;
        let api = graph.api()?;
        // One event was heard of at both services before, one will be only at the first; their flow is learned.
        let order = || Work::new(at("front").calls(at("back")));
        let (known, half) = (new_id("known"), new_id("half"));
        whole(&graph, &order(), &known, 2).await?;
        let flow = wait::until("the learned flow", || async {
            let flow = api.flow("POST graph/front /work").await?;
            let edges = flow.context("no flow yet")?.edges;
            Ok(Seen::when(edges.len() == 2, edges))
        });
        flow.await?;
        assert_eq!(lost(&graph).await?, 0);

        // Nothing can be sent while there is no aggregator: what is done now is only in the memory of VMs, and that of one
        // is lost.
        graph.aggregator.kill()?;
        for event in [&known, &half] {
            let told = graph.send(&order(), &[("x-event-id", event)]).await?;
            assert_eq!(told.status, 201, "{told:?}");
        }
        let told = graph.send(&Work::new(at("back")), &[CRASH]).await?;
        assert_eq!(told.status, 503, "{told:?}");
        wait::until("a new VM", || async {
            let told = graph.send(&Work::new(at("back")), &[]).await?;
            Ok(Seen::when(told.status == 201, told))
        })
        .await?;
        assert_eq!(graph.sidecar("back")?.stat(RELOADS).await?, 1);
        graph.aggregator.start_again().await?;

        wait::until("the loss", || async {
            let lost = lost(&graph).await?;
            Ok(Seen::when(lost >= 2, lost))
        })
        .await?;
        assert!(api.metric("kaeru_reports_lost_total").await? >= 2);
        heard(&graph, &known, 3).await?;
        let event = heard(&graph, &half, 1).await?;
        assert_eq!(lines(&event), ["front < : POST /work"]);
        let incomplete = |decision: &Decision| {
            let plan = &decision.plan;
            assert_eq!(
                (plan.complete, &plan.missing),
                (false, &vec![peer("back")]),
                "{plan:#?}"
            );
        };
        for (event, plan) in [
            (known, vec!["back", "front after back"]),
            (half, vec!["front"]),
        ] {
            api.roll_back(&event, "alice", "what is known of it?")
                .await?;
            let decision = api.decision_of(&event).await?;
            assert_eq!(entries(&decision), plan);
            incomplete(&decision);
        }
        Ok(())
    })
}

#[test]
fn what_is_shipped_cannot_be_killed_by_a_request() -> Result<()> {
    play(async {
        let graph = pool().await?;
        let told = graph.send(&Work::new(at("a")), &[CRASH]).await?;
        assert_eq!(told.status, 201, "{told:?}");
        Ok(())
    })
}

/// How many reports of the second service are known to be lost.
async fn lost(graph: &Graph) -> Result<u64> {
    let services = graph.api()?.services().await?;
    let back = services.into_iter().find(|s| s.service == peer("back"));
    Ok(back.context("never heard of")?.lost)
}
