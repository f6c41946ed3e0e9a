//! Beside the rules a person decides: demands a rollback, and takes it back. And what becomes of a decision that the
//! entry's success contradicts: a person or the policy decides.

use anyhow::{Context, Result};
use kaeru_e2e::api::Event;
use kaeru_e2e::shop::{Order, Role};
use kaeru_e2e::world::World;

use crate::stage::{known, play, post, sent, shop, told, typed_order};

#[test]
fn an_operator_rolls_back_and_withdraws() -> Result<()> {
    play(async {
        let world = shop().await?;
        let api = world.api()?;
        let id = typed_order(world, "order.by-hand", &Order::default()).await?;
        let succeeded = |event: &Event| event.summary.state == "succeeded";
        api.event_when(&id, "succeeded", succeeded).await?;

        api.roll_back(&id, "alice", "the customer called").await?;
        let decision = api.decision_of(&id).await?;
        assert_eq!(decision.reason.rule, "operator");
        assert!(
            decision.reason.text.contains("the customer called"),
            "{decision:?}"
        );
        assert_eq!(
            decision.plan.entries.len(),
            Role::MESH.len(),
            "{:#?}",
            decision.plan
        );
        told(world, &Role::MESH, &id, "roll_back").await?;
        for role in Role::MESH {
            assert_eq!(post(world, role, &id).await?.status, 424, "{}", role.name());
        }

        api.withdraw(&decision.id, "alice", "she called again")
            .await?;
        let withdrawn = api.decision(&decision.id).await?;
        assert_eq!(withdrawn.state, "withdrawn");
        told(world, &Role::MESH, &id, "proceed").await?;
        for role in Role::MESH {
            assert_eq!(post(world, role, &id).await?.status, 201, "{}", role.name());
        }
        Ok(())
    })
}

#[test]
fn an_entry_that_succeeds_after_the_decision_contests_it() -> Result<()> {
    play(async {
        let world = shop().await?;
        let id = excused(world, "order.contested", "contested").await?;
        told(world, &Role::MESH, &id, "roll_back").await?;
        assert_eq!(post(world, Role::Web, &id).await?.status, 424);
        Ok(())
    })
}

#[test]
fn the_policy_may_insist_though_the_entry_succeeded() -> Result<()> {
    play(async {
        let world = shop().await?;
        let id = excused(world, "order.insisted", "live").await?;
        told(world, &Role::MESH, &id, "roll_back").await?;
        assert_eq!(post(world, Role::Web, &id).await?.status, 424);
        Ok(())
    })
}

#[test]
fn the_policy_may_withdraw_what_the_entry_contradicts() -> Result<()> {
    play(async {
        let world = shop().await?;
        let id = excused(world, "order.excused", "withdrawn").await?;
        told(world, &Role::MESH, &id, "proceed").await?;
        for role in Role::MESH {
            assert_eq!(post(world, role, &id).await?.status, 201, "{}", role.name());
        }
        Ok(())
    })
}

/// Dooms an order by the backend's word, which the web does without: it answers 201 all the same. The event, when its
/// decision is in this state.
async fn excused(world: &World, event_type: &str, state: &str) -> Result<String> {
    let order = Order {
        declined: true,
        says_failed: true,
        answers: [(Role::Web, 201)].into(),
        hold_answer: vec![Role::Web],
        ..Order::default()
    };
    let (id, answer) = sent(world, event_type, &order)?;
    let decision = world.api()?.decision_of(&id).await?;
    known(world, &Role::MESH, &id).await?;
    world.release(Role::Web, &order.number).await?;
    assert_eq!(answer.await??.status, 201);
    let succeeded = |event: &Event| {
        let decision = event.decision.as_ref();
        event
            .step(&Role::Web.peer())
            .is_some_and(|web| web.outcome == "succeeded")
            && decision.is_some_and(|decision| decision.state == state)
    };
    let event = world.api()?.event_when(&id, state, succeeded).await?;
    let now = event.decision.context("it is there")?;
    assert_eq!((now.id, now.reason), (decision.id, decision.reason));
    Ok(id)
}
