//! Scenario: whatever form a flow has, it is seen as it is: parents, the order of calls, and from them the order in which
//! things are undone, though the proxies' clocks differ by minutes.

use anyhow::{Context, Result};
use chrono::DateTime;
use kaeru_e2e::api::Event;
use kaeru_e2e::graph::{Work, at, peer};

use crate::pool::{
    SERVICES, clock_s, entries, heard, lines, name, new_id, planned, pool, side_by_side, spared,
    text, whole,
};
use crate::stage::play;

#[test]
fn a_diamond_one_side_after_the_other() -> Result<()> {
    play(async {
        let graph = pool().await?;
        let id = new_id("diamond");
        let work = at("a")
            .calls(at("b").calls(at("d").on("/left")))
            .calls(at("c").calls(at("d").on("/right")));
        let work = Work::new(work.answers(&[500]).says("failed"));
        let event = whole(graph, &work, &id, 5).await?;
        let steps = [
            "a < : POST /work",
            "b < a: POST /work",
            "c < a: POST /work",
            "d < b c: POST /left, POST /right",
        ];
        assert_eq!(lines(&event), steps);
        let plan = text(["d", "c after d", "b after c", "a after b"]);
        let decision = planned(graph, &id, &plan).await?;
        assert_eq!(decision.reason.rule, "word");
        assert!(decision.plan.complete, "{:#?}", decision.plan);
        Ok(())
    })
}

#[test]
fn a_diamond_both_sides_at_once() -> Result<()> {
    play(async {
        let graph = pool().await?;
        let id = new_id("diamond");
        let side = |service, path| at(service).holds().calls(at("d").on(path));
        let work = at("a").calls_together([side("b", "/left"), side("c", "/right")]);
        let work = Work::new(work.answers(&[500]).says("failed"));
        side_by_side(graph, &work, &id, &text(["b", "c"])).await?;
        heard(graph, &id, 5).await?;
        let plan = text(["d", "b after d", "c after d", "a after b c"]);
        planned(graph, &id, &plan).await?;
        Ok(())
    })
}

#[test]
fn a_loop_is_undone_as_one() -> Result<()> {
    play(async {
        let graph = pool().await?;
        let id = new_id("loop");
        let back = at("a").on("/back").calls(at("c"));
        let work = Work::new(
            at("a")
                .calls(at("b").calls(back))
                .answers(&[500])
                .says("failed"),
        );
        let event = whole(graph, &work, &id, 4).await?;
        let steps = [
            "a < b: POST /work, POST /back",
            "b < a: POST /work",
            "c < a: POST /work",
        ];
        assert_eq!(lines(&event), steps);
        assert_eq!(event.summary.entry, Some(peer("a")));
        assert_eq!(entry_steps(&event), [peer("a")]);
        let plan = text(["c", "a after c with b", "b after c with a"]);
        planned(graph, &id, &plan).await?;
        Ok(())
    })
}

#[test]
fn fifty_calls_one_after_the_other() -> Result<()> {
    play(async {
        let graph = pool().await?;
        let id = new_id("row");
        let work = (1..SERVICES).fold(at("a"), |work, index| work.calls(at(&name(index))));
        let work = Work::new(work.answers(&[500]).says("failed"));
        let event = whole(graph, &work, &id, SERVICES).await?;
        let called = |event: &Event| {
            let steps = event.steps.iter();
            steps.map(|s| s.service.clone()).collect::<Vec<_>>()
        };
        let expected: Vec<_> = (0..SERVICES).map(|index| peer(&name(index))).collect();
        assert_eq!(called(&event), expected, "in the order of the calls");
        let later_first = (1..SERVICES).rev().map(|index| match name(index + 1) {
            _ if index + 1 == SERVICES => name(index),
            later => format!("{} after {later}", name(index)),
        });
        let plan: Vec<_> = later_first.chain(["a after b".to_owned()]).collect();
        planned(graph, &id, &plan).await?;
        Ok(())
    })
}

#[test]
fn fifty_calls_side_by_side() -> Result<()> {
    play(async {
        let graph = pool().await?;
        let id = new_id("fan");
        let leaves: Vec<_> = (1..SERVICES).map(name).collect();
        let work = at("a").calls_together(leaves.iter().map(|leaf| at(leaf).holds()));
        let work = Work::new(work.answers(&[500]).says("failed"));
        side_by_side(graph, &work, &id, &leaves).await?;
        heard(graph, &id, SERVICES).await?;
        let mut plan = leaves.clone();
        plan.sort();
        let all = plan.join(" ");
        plan.push(format!("a after {all}"));
        let decision = planned(graph, &id, &plan).await?;
        assert!(decision.plan.complete, "{:#?}", decision.plan);
        Ok(())
    })
}

#[test]
fn a_chain_of_twenty_whose_clocks_differ_by_minutes() -> Result<()> {
    const LENGTH: usize = 20;
    play(async {
        let graph = pool().await?;
        let id = new_id("chain");
        let last = at(&name(LENGTH - 1));
        let work = (0..LENGTH - 1)
            .rev()
            .fold(last, |below, index| at(&name(index)).calls(below));
        let work = Work::new(work);
        let event = whole(graph, &work, &id, LENGTH).await?;
        for (index, step) in event.steps.iter().enumerate() {
            let parents: Vec<_> = (index.checked_sub(1).into_iter())
                .map(|caller| peer(&name(caller)))
                .collect();
            assert_eq!(
                (&step.service, &step.parents),
                (&peer(&name(index)), &parents)
            );
        }
        for index in 0..LENGTH {
            let told = graph.arrivals(&name(index), &work.run)?;
            let told: Vec<_> = told.iter().map(|a| a.headers.get("x-event-id")).collect();
            assert_eq!(told, [Some(&id)], "{} was told", name(index));
        }
        clocks_differ(&event)?;

        // An operator may doom what has succeeded: here the last word is not the entry's.
        graph
            .api()?
            .roll_back(&id, "alice", "the customer called")
            .await?;
        let callee_first = (0..LENGTH).rev().map(|index| match name(index + 1) {
            _ if index + 1 == LENGTH => name(index),
            callee => format!("{} after {callee}", name(index)),
        });
        let decision = planned(graph, &id, &callee_first.collect::<Vec<_>>()).await?;
        assert_eq!(entries(&decision).len(), LENGTH);
        Ok(())
    })
}

#[test]
fn a_call_that_is_tried_again_is_one_call() -> Result<()> {
    play(async {
        let graph = pool().await?;
        let id = new_id("tries");
        let heals = at("c").answers(&[503, 503, 201]).tried(3);
        let work = Work::new(at("a").calls(at("b").calls(heals)));
        let event = whole(graph, &work, &id, 5).await?;
        assert_eq!(
            lines(&event),
            ["a < : POST /work", "b < a: POST /work", "c < b: POST /work"]
        );
        let event = spared(graph, &id, "succeeded").await?;
        let step = event.steps.iter().find(|step| step.service == peer("c"));
        assert_eq!(step.context("its step")?.outcome, "succeeded");
        Ok(())
    })
}

/// What a step says of its beginning is set right, what its caller said of it stays as the caller's clock had it: of all
/// callers no two neighbours agree.
fn clocks_differ(event: &Event) -> Result<()> {
    let seconds = |time: &str| anyhow::Ok(DateTime::parse_from_rfc3339(time)?.timestamp());
    let mut begun_s = Vec::new();
    for (index, step) in event.steps.iter().enumerate() {
        let attempt = step.calls.first().and_then(|call| call.attempts.first());
        let attempt = attempt.context("an attempt")?;
        begun_s.push(seconds(&attempt.at)?);
        if let (Some(sent), Some(caller)) = (&attempt.sent, index.checked_sub(1)) {
            let (ahead, planned) = (seconds(sent)? - begun_s[index], clock_s(caller));
            assert!(ahead.abs_diff(planned) < 60, "{ahead} s, not {planned} s");
        }
    }
    assert!(
        begun_s
            .windows(2)
            .all(|pair| pair[0].abs_diff(pair[1]) < 60),
        "{begun_s:?}"
    );
    Ok(())
}

fn entry_steps(event: &Event) -> Vec<String> {
    let entries = event.steps.iter().filter(|step| step.entry);
    entries.map(|step| step.service.clone()).collect()
}
