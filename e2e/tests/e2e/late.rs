//! What is heard after the decision makes revisions: a step that ends late joins the plan, what was only possible becomes
//! certain or is cleared; and each is told.

use anyhow::{Context, Result};
use kaeru_e2e::api::{Decision, Event};
use kaeru_e2e::shop::{Order, Role, Told};
use kaeru_e2e::wait::{self, Seen};
use kaeru_e2e::world::World;
use kaeru_protocol::VerdictPage;
use tokio::task::JoinHandle;

use crate::stage::{play, sent, shop, told};

#[test]
fn a_step_that_succeeds_late_joins_the_plan() -> Result<()> {
    play(async {
        let late = Late::held_before_the_database(Order::default()).await?;
        late.ends_with("yes").await
    })
}

#[test]
fn a_step_that_gives_no_answer_joins_as_possible() -> Result<()> {
    play(async {
        let order = Order {
            answers: [(Role::Db, 504)].into(),
            ..Order::default()
        };
        let late = Late::held_before_the_database(order).await?;
        late.ends_with("maybe").await
    })
}

#[test]
fn what_was_possible_and_did_not_happen_is_cleared_and_stays_in_the_plan() -> Result<()> {
    play(async {
        let order = Order {
            answers: [(Role::Db, 409)].into(),
            ..Order::default()
        };
        let late = Late::held(order, Role::Db, &Role::MESH).await?;
        assert_eq!(late.decision.effect(&Role::Db.peer()), "maybe");
        late.ends_with("no").await
    })
}

/// An order that an operator doomed while a service holds it.
struct Late {
    world: &'static World,
    order: Order,
    holds: Role,
    id: String,
    answer: JoinHandle<Result<Told>>,
    decision: Decision,
    told: VerdictPage,
}

impl Late {
    /// Held by the database's API, so that the database has no part in it yet. What it does then is not refused: `shadow`.
    async fn held_before_the_database(order: Order) -> Result<Self> {
        let late = Self::held(order, Role::DbApi, &Role::MESH[..3]).await?;
        assert_eq!(late.decision.effect(&Role::Db.peer()), "");
        Ok(late)
    }

    async fn held(order: Order, holds: Role, running: &[Role]) -> Result<Self> {
        let world = shop().await?;
        let api = world.api()?;
        let mut order = Order {
            hold: vec![holds],
            ..order
        };
        order.answers.insert(Role::Web, 500);
        let (id, answer) = sent(world, "order.shadow", &order)?;
        let all_run = |event: &Event| {
            let step = |role: &Role| event.step(&role.peer());
            let runs = |role| step(role).is_some_and(|step| step.outcome == "running");
            running.iter().all(runs)
        };
        api.event_when(&id, "running there", all_run).await?;
        api.roll_back(&id, "alice", "it takes too long").await?;
        let decision = api.decision_of(&id).await?;
        assert_eq!(decision.revision, 1);
        let told = wait::until("the verdict on the feed", || async {
            let told = api.feed().await?;
            let mut verdicts = told.verdicts.iter();
            let is_told = verdicts.any(|verdict| verdict.event.as_str() == id);
            Ok(Seen::when(is_told, told))
        });
        let told = told.await?;
        Ok(Self {
            world,
            order,
            holds,
            id,
            answer,
            decision,
            told,
        })
    }

    /// Released, the database leaves this in the plan.
    async fn ends_with(self, effect: &str) -> Result<()> {
        let api = self.world.api()?;
        self.world.release(self.holds, &self.order.number).await?;
        assert_eq!(self.answer.await??.status, 500);
        let joined = |event: &Event| {
            let decision = event.decision.as_ref();
            decision.is_some_and(|decision| decision.effect(&Role::Db.peer()) == effect)
        };
        let event = api.event_when(&self.id, effect, joined).await?;
        let revised = event.decision.context("it stays in force")?;
        assert_eq!(revised.id, self.decision.id);
        assert!(revised.revision > 1, "{revised:#?}");
        for earlier in &self.decision.plan.entries {
            assert_ne!(revised.effect(&earlier.service), "", "{}", earlier.service);
        }
        let again = api.feed_after(&self.told).await?;
        let mut again = again
            .verdicts
            .iter()
            .filter(|v| v.event.as_str() == self.id);
        let decision = again.next().map(|verdict| verdict.decision.to_string());
        assert_eq!(decision, Some(revised.id), "it is told again");
        told(self.world, &Role::MESH, &self.id, "roll_back").await
    }
}
