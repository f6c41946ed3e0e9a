//! The policy changes while events run: decisions name the version that they used, and a wrong one changes nothing.

use std::fs;

use anyhow::{Context, Result};
use kaeru_e2e::api::Api;
use kaeru_e2e::shop::{Order, Role};
use kaeru_e2e::wait::{self, Seen};
use kaeru_e2e::world::World;

use crate::stage::{POLICY, arrived, doomed, ends, known, plan, play, post, sent, told_in};

#[test]
fn decisions_name_the_policy_that_they_used_and_a_wrong_one_changes_nothing() -> Result<()> {
    play(async {
        let world = World::start(plan("policy")).await?;
        let api = world.api()?;
        let (first, decision) = doomed(&world, "order.placed").await?;
        assert_eq!(decision.policy_version, 1);
        known(&world, &Role::MESH, &first).await?;
        assert_eq!(post(&world, Role::Web, &first).await?.status, 424);

        // An order that is on its way while the policy changes: its payment is declined, which is fatal by the first
        // version and not by the second, and held before that is so.
        let running = Order {
            declined: true,
            hold: vec![Role::DbApi],
            answers: [(Role::Web, 201)].into(),
            ..Order::default()
        };
        let (running_id, answer) = sent(&world, "order.placed", &running)?;
        arrived(&world, Role::DbApi, &running).await?;
        let shadow = POLICY.replace("fatal: [402]", "fatal: [409]");
        let shadow = shadow.replacen("mode: enforce", "mode: shadow", 1);
        change(&world, &shadow)?;
        in_force(&api, 2).await?;
        world.release(Role::DbApi, &running.number).await?;
        assert_eq!(answer.await??.status, 201);
        let event = ends(&world, &running_id, "succeeded").await?;
        assert!(
            event.why("fatal").starts_with("no answer has"),
            "{event:#?}"
        );

        // What was decided before names what it was decided by, and is told in the new mode.
        let (second, decision) = doomed(&world, "order.placed").await?;
        assert_eq!((decision.policy_version, &*decision.mode), (2, "shadow"));
        known(&world, &Role::MESH, &second).await?;
        told_in(&world, &first, "shadow").await?;
        let earlier = api.event(&first).await?.context("it is kept")?;
        let earlier = earlier.decision.context("in force")?;
        assert_eq!(earlier.policy_version, 1);
        assert_eq!(post(&world, Role::Web, &first).await?.status, 201);

        // A wrong one is refused in words.
        let wrong = POLICY.replace("out_of_touch: doom", "out_of_touch: shout");
        change(&world, &wrong)?;
        let refused = "kaeru_policies_refused_total";
        wait::until("the refusal", || async {
            let count = api.metric(refused).await?;
            Ok(Seen::when(count == 1, count))
        })
        .await?;
        let log = world.aggregator()?.log()?;
        let said = log.lines().find(|line| line.contains("is refused"));
        let said = said.context("it is said")?;
        for word in [
            "the old one stays in force",
            "out_of_touch",
            "shout",
            "show",
        ] {
            assert!(said.contains(word), "{word}: {said}");
        }
        let (_, decision) = doomed(&world, "order.placed").await?;
        assert_eq!((decision.policy_version, &*decision.mode), (2, "shadow"));

        // And the next good one holds at once, for what was decided before too.
        change(&world, POLICY)?;
        in_force(&api, 3).await?;
        told_in(&world, &second, "enforce").await?;
        assert_eq!(post(&world, Role::Web, &second).await?.status, 424);
        let (_, decision) = doomed(&world, "order.placed").await?;
        assert_eq!((decision.policy_version, &*decision.mode), (3, "enforce"));
        Ok(())
    })
}

/// Changes the file that the aggregator watches, at once and whole.
fn change(world: &World, policy: &str) -> Result<()> {
    let (file, next) = (
        &world.aggregator()?.settings.policy,
        world.folder.join("next.yaml"),
    );
    fs::write(&next, policy)?;
    Ok(fs::rename(next, file)?)
}

async fn in_force(api: &Api, version: u64) -> Result<()> {
    wait::until("the policy", || async {
        let now = api.metric("kaeru_policy_version").await?;
        Ok(Seen::when(now == version, now))
    })
    .await?;
    Ok(())
}
