//! A branch that a queue handed over: a service that nobody calls takes the order off a queue when it is long paid and
//! answered, and calls out for it. What fails there the queue delivers again, unless the policy calls the branch required.

use anyhow::{Context, Result};
use kaeru_e2e::api::Event;
use kaeru_e2e::shop::{Asked, Order, Role, Told};
use kaeru_e2e::world::World;

use crate::stage::{ends, play, post, says, sent, shop, told, told_all};

#[test]
fn a_mail_that_fails_and_is_delivered_again_rolls_nothing_back() -> Result<()> {
    play(async {
        let world = shop().await?;
        let order = mail_fails_once();
        let id = paid(world, "order.with-mail", &order).await?;
        assert_eq!(mailed(world, &order).await?.status, 500);
        // 500 is fatal for the mail API, but not in this branch.
        let heard = |event: &Event| event.why("fatal").contains("a queue handed over");
        world.api()?.event_when(&id, "the failure", heard).await?;
        assert_eq!(mailed(world, &order).await?.status, 201);
        let mails = |event: &Event| {
            let mail = event.step(&Role::Mail.peer());
            mail.is_some_and(|mail| mail.calls.iter().any(|call| call.attempts.len() == 2))
        };
        world.api()?.event_when(&id, "both tries", mails).await?;
        let event = ends(world, &id, "succeeded").await?;
        let mail = event.step(&Role::Mail.peer()).context("a step")?;
        assert_eq!(mail.parents, [Role::Mailer.peer()]);
        assert_eq!(mail.outcome, "succeeded");
        assert!(event.refusals.is_empty(), "{:#?}", event.refusals);
        Ok(())
    })
}

#[test]
fn a_mailer_that_gives_up_rolls_nothing_back_either() -> Result<()> {
    play(async {
        let world = shop().await?;
        let order = mail_fails_once();
        let id = paid(world, "order.with-mail", &order).await?;
        assert_eq!(mailed(world, &order).await?.status, 500);
        says(world, Role::Mailer, &id, "failed").await?;
        told_all(world, &[Role::Mailer]).await?;
        let event = ends(world, &id, "succeeded").await?;
        let why = event.why("word");
        assert!(why.contains("the policy does not require"), "{why}");
        Ok(())
    })
}

#[test]
fn a_required_branch_that_gives_up_rolls_the_order_back() -> Result<()> {
    play(async {
        let world = shop().await?;
        let order = Order {
            first_answers: [(Role::Mail, 503)].into(),
            ..Order::default()
        };
        let id = paid(world, "order.mailed", &order).await?;
        assert_eq!(mailed(world, &order).await?.status, 503);
        says(world, Role::Mailer, &id, "failed").await?;
        let decision = world.api()?.decision_of(&id).await?;
        assert_eq!(decision.reason.rule, "word");
        assert_eq!(decision.reason.peer, Some(Role::Mailer.peer()));
        for role in Role::MESH {
            assert_eq!(decision.effect(&role.peer()), "yes", "{decision:#?}");
        }
        let everywhere = [&Role::MESH[..], &[Role::Mailer]].concat();
        told(world, &everywhere, &id, "roll_back").await?;
        for role in Role::MESH {
            assert_eq!(post(world, role, &id).await?.status, 424, "{}", role.name());
        }
        assert_eq!(mailed(world, &order).await?.status, 424);
        Ok(())
    })
}

fn mail_fails_once() -> Order {
    Order {
        first_answers: [(Role::Mail, 500)].into(),
        ..Order::default()
    }
}

/// An order that is paid, answered and over; its event.
async fn paid(world: &World, event_type: &str, order: &Order) -> Result<String> {
    let (id, answer) = sent(world, event_type, order)?;
    assert_eq!(answer.await??.status, 201);
    ends(world, &id, "succeeded").await?;
    Ok(id)
}

/// The mailer takes the order off the queue, with the headers that came with it to the backend, and has it mailed.
async fn mailed(world: &World, order: &Order) -> Result<Told> {
    let arrivals = world.arrivals(Role::Backend, &order.number).await?;
    let message = arrivals.into_iter().next().context("it came there")?;
    let carried = ["traceparent", "tracestate", "baggage", "x-request-id"];
    let mail = Asked {
        method: "POST".into(),
        host: Role::Mail.host(),
        path: "/mails".into(),
        headers: (message.headers.into_iter())
            .filter(|(name, _)| carried.contains(&name.as_str()))
            .collect(),
        body: Some(serde_json::to_string(order)?),
    };
    world.call_from(Role::Mailer, &mail).await
}
