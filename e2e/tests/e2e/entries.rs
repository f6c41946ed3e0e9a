//! Scenario: more than one way into an event, and events within events, each with an id that was chosen for it. The clocks
//! of the proxies differ by minutes: that of `a` is 5 minutes ahead, that of `b` 7 minutes behind, that of `c` is right. They
//! are set right up to a second, so what comes second here comes when what came first has settled.

use anyhow::Result;
use kaeru_e2e::graph::{Act, Graph, Work, at, peer};
use kaeru_e2e::shop::Forward;
use kaeru_e2e::wait::{self, Seen};

use crate::pool::{heard, lines, new_id, planned, pool, spared, text, whole};
use crate::stage::play;

#[test]
fn two_entries_under_one_chosen_id_are_one_event() -> Result<()> {
    play(async {
        let graph = pool().await?;
        let id = new_id("twice");
        let first = Work::new(at("a").on("/first").calls(at("c")));
        let second = Work::new(at("b").on("/second").calls(at("d")));
        whole(graph, &first, &id, 2).await?;
        spared(graph, &id, "succeeded").await?;
        whole(graph, &second, &id, 4).await?;
        let event = spared(graph, &id, "succeeded").await?;
        let steps = [
            "a < : POST /first",
            "b < : POST /second",
            "c < a: POST /work",
            "d < b: POST /work",
        ];
        assert_eq!(lines(&event), steps);
        assert!(!event.summary.shared && !event.summary.borrowed);
        assert_eq!(event.summary.entry, Some(peer("a")), "what began it");

        graph
            .api()?
            .roll_back(&id, "alice", "it was a test")
            .await?;
        let plan = text(["c", "d", "a after c", "b after d"]);
        planned(graph, &id, &plan).await?;
        Ok(())
    })
}

/// Only the entry that began the event may doom it by its failure; by the wrong clocks it would be the other one.
#[test]
fn the_entry_that_began_it_is_told_though_its_clock_is_ahead() -> Result<()> {
    play(async {
        let graph = pool().await?;
        let id = new_id("later-fails");
        let begins = Work::new(at("a").on("/first").calls(at("c")));
        let fails = Work::new(at("b").on("/second").calls(at("d")).answers(&[500]));
        whole(graph, &begins, &id, 2).await?;
        spared(graph, &id, "succeeded").await?;
        whole(graph, &fails, &id, 4).await?;
        let event = spared(graph, &id, "succeeded").await?;
        assert_eq!(event.summary.entry, Some(peer("a")));
        Ok(())
    })
}

#[test]
fn the_entry_that_began_it_dooms_though_a_later_one_succeeds() -> Result<()> {
    play(async {
        let graph = pool().await?;
        let id = new_id("first-fails");
        let fails = at("a").on("/first").calls(at("c")).answers(&[500]);
        let fails = Work::new(fails.holds());
        let succeeds = Work::new(at("b").on("/second").calls(at("d")));
        let headers = [("x-event-id", id.as_str())];
        let meanwhile = async {
            graph.arrived("a", &fails.run, 1).await?;
            // Another event has come and gone.
            let other = new_id("other");
            whole(graph, &Work::new(at("c")), &other, 1).await?;
            spared(graph, &other, "succeeded").await?;
            graph.send(&succeeds, &headers).await?;
            graph.release("a", &fails.run)
        };
        tokio::try_join!(graph.send(&fails, &headers), meanwhile)?;
        heard(graph, &id, 4).await?;
        let plan = text(["c", "d", "a after c", "b after d"]);
        let decision = planned(graph, &id, &plan).await?;
        assert_eq!(decision.reason.rule, "entry");
        assert_eq!(decision.reason.peer, Some(peer("a")));
        Ok(())
    })
}

/// The policy gives events of this type a minute, so that the second try is in time however busy the machine is.
#[test]
fn an_entry_that_is_tried_again_in_time_is_healed() -> Result<()> {
    for entry in ["a", "b"] {
        play(async move {
            let graph = pool().await?;
            let id = new_id("again");
            let headers = [
                ("x-event-id", id.as_str()),
                ("x-event-type", "order.patient"),
            ];
            let work = Work::new(at(entry).calls(at("c")).answers(&[500, 201]));
            assert_eq!(graph.send(&work, &headers).await?.status, 500);
            heard(graph, &id, 2).await?;
            assert_eq!(graph.send(&work, &headers).await?.status, 201);
            heard(graph, &id, 4).await?;
            let event = spared(graph, &id, "succeeded").await?;
            assert_eq!(event.summary.entry, Some(peer(entry)));
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_failed_inner_event_leaves_the_outer_one_alone() -> Result<()> {
    play(async {
        let graph = pool().await?;
        let (outer, inner) = (new_id("outer"), new_id("inner"));
        let fails = at("c")
            .under(&inner)
            .calls(at("d"))
            .answers(&[500])
            .says("failed");
        send_nested(
            graph,
            &outer,
            at("a").calls(at("b").calls(fails).calls(at("d")).answers(&[201])),
        )
        .await?;

        heard(graph, &inner, 2).await?;
        let decision = planned(graph, &inner, &text(["d", "c after d"])).await?;
        assert_eq!(decision.reason.peer, Some(peer("c")));
        let event = heard(graph, &outer, 3).await?;
        assert_eq!(
            lines(&event),
            ["a < : POST /work", "b < a: POST /work", "d < b: POST /work"]
        );
        spared(graph, &outer, "succeeded").await?;
        refused(graph, &inner, &outer).await
    })
}

#[test]
fn a_failed_outer_event_leaves_the_inner_one_alone() -> Result<()> {
    play(async {
        let graph = pool().await?;
        let (outer, inner) = (new_id("outer"), new_id("inner"));
        let succeeds = at("c").under(&inner).calls(at("d"));
        let fails = at("a").calls(at("b").calls(succeeds).calls(at("d")));
        send_nested(graph, &outer, fails.answers(&[500]).says("failed")).await?;

        heard(graph, &outer, 3).await?;
        planned(graph, &outer, &text(["d", "b after d", "a after b"])).await?;
        let event = heard(graph, &inner, 2).await?;
        assert_eq!(lines(&event), ["c < b: POST /work", "d < c: POST /work"]);
        assert_eq!(
            event.summary.entry, None,
            "it was begun by a service, not from outside"
        );
        spared(graph, &inner, "succeeded").await?;
        refused(graph, &outer, &inner).await
    })
}

/// Services that forward nothing but a trace context cannot say which of two open events of one trace they mean. Then
/// neither is taken, which is seen; what is open alone is found.
#[test]
fn two_events_of_one_trace_are_not_taken_for_each_other() -> Result<()> {
    play(async {
        let graph = pool().await?;
        let traceparent = format!("00-{}-00f067aa0ba902b7-01", uuid::Uuid::new_v4().simple());
        let mut ids = Vec::new();
        let mut works = Vec::new();
        for what in ["one", "other"] {
            ids.push(new_id(what));
            let mut work = Work::new(at("a").holds().calls(at("b")));
            work.forward = vec![Forward::Traceparent];
            works.push(work);
        }
        let headers = |n: usize| {
            [
                ("x-event-id", ids[n].as_str()),
                ("traceparent", &traceparent),
            ]
        };
        let in_turn = async {
            for work in &works {
                graph.arrived("a", &work.run, 1).await?;
            }
            // The one that came last is the first to go on.
            for work in works.iter().rev() {
                graph.release("a", &work.run)?;
                graph.arrived("b", &work.run, 1).await?;
            }
            Ok(())
        };
        let (one, other) = (headers(0), headers(1));
        let sent = async {
            let one = graph.send(&works[0], &one);
            let other = async {
                graph.arrived("a", &works[0].run, 1).await?;
                graph.send(&works[1], &other).await
            };
            tokio::try_join!(one, other)
        };
        tokio::try_join!(sent, in_turn)?;
        for (work, other) in works.iter().zip(ids.iter().rev()) {
            let arrivals = graph.arrivals("b", &work.run)?;
            let told: Vec<_> = arrivals
                .iter()
                .map(|a| a.headers.get("x-event-id"))
                .collect();
            assert!(!told.contains(&Some(other)), "{told:?} are not of {other}");
        }
        Ok(())
    })
}

async fn send_nested(graph: &Graph, outer: &str, act: Act) -> Result<()> {
    // A trace id beside the chosen one, and the same for both events: it must not lead from one into the other.
    let trace = format!("00-{}-00f067aa0ba902b7-01", uuid::Uuid::new_v4().simple());
    let headers = [("x-event-id", outer), ("traceparent", trace.as_str())];
    graph.send(&Work::new(act), &headers).await?;
    Ok(())
}

/// What is refused of one event passes of the other, at a service that knows both.
async fn refused(graph: &Graph, doomed: &str, spared: &str) -> Result<()> {
    let send = async |id: &str| {
        let told = graph
            .send(&Work::new(at("d").on("/late")), &[("x-event-id", id)])
            .await?;
        anyhow::Ok(told.status)
    };
    wait::until("the refusal", || async {
        let status = send(doomed).await?;
        Ok(Seen::when(status == 424, status))
    })
    .await?;
    assert_eq!(send(spared).await?, 201);
    Ok(())
}
