//! Beside the rules a person decides: demands a rollback, and takes it back.

use anyhow::Result;
use kaeru_e2e::api::Event;
use kaeru_e2e::shop::{Order, Role};

use crate::stage::{play, post, shop, told, typed_order};

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
