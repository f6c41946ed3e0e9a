//! Many at once: an id that a thousand orders share is no event; an event type that fails as a whole is taken back to
//! `shadow`, for then more likely the policy is wrong than all of them.

use anyhow::{Result, bail};
use kaeru_e2e::api::Event;
use kaeru_e2e::customer::event_of;
use kaeru_e2e::shop::{Order, Role, Told};
use kaeru_e2e::wait::{self, Seen};
use kaeru_e2e::world::World;
use tokio::task::JoinSet;

use crate::stage::{doomed, known, play, post, sent, shop, told_all, told_in};

const ORDERS: usize = 1_000;
/// Orders on their way at a time: enough for both workers of each Envoy.
const AT_ONCE: usize = 8;
/// Fewer doomed events trip no breaker.
const STORM: usize = 24;

#[test]
fn a_thousand_orders_under_one_trace_are_no_event() -> Result<()> {
    play(async {
        let world = shop().await?;
        let trace = uuid::Uuid::new_v4().simple().to_string();
        let half = orders(world, &trace, ORDERS / 2).await?;
        assert!(half.iter().all(|told| told.status == 201));
        let api = world.api()?;
        let shared = |event: &Event| event.summary.shared;
        api.event_when(&trace, "known to be shared", shared).await?;
        let failed = Order {
            declined: true,
            says_failed: true,
            ..Order::default()
        };
        let told = order(world, &trace, &failed).await?;
        assert_eq!((told.status, event_of(&told)?), (500, trace.clone()));
        let rest = orders(world, &trace, ORDERS / 2 - 1).await?;
        assert!(rest.iter().all(|told| told.status == 201));

        told_all(world, &Role::MESH).await?;
        // Seven requests of each are reported, once or (open at a flush) twice.
        let whole = |event: &Event| event.summary.reports >= 7 * 999;
        let event = api.event_when(&trace, "seen whole", whole).await?;
        assert!(event.summary.shared && event.refusals.is_empty());
        assert!(event.decision.is_none(), "{:#?}", event.decision);
        let why = event.why("word");
        assert!(why.starts_with("the id is shared"), "{why}");
        assert_eq!(order(world, &trace, &Order::default()).await?.status, 201);
        Ok(())
    })
}

#[test]
fn a_type_that_fails_as_a_whole_falls_back_to_shadow_and_no_other_does() -> Result<()> {
    play(async {
        let world = shop().await?;
        let api = world.api()?;
        let trips = "kaeru_breaker_trips_total";
        let before = api.metric(trips).await?;
        let (spared, _) = doomed(world, "order.enforced").await?;
        let order = || Order {
            declined: true,
            says_failed: true,
            ..Order::default()
        };
        let mut storm = Vec::new();
        for _ in 0..STORM {
            let (id, answer) = sent(world, "order.storm", &order())?;
            answer.await??;
            storm.push(id);
        }
        let tripped = wait::until("the breaker", || async {
            let now = api.metric(trips).await?;
            Ok(Seen::when(now == before + 1, now))
        });
        tripped.await?;
        let said = world.aggregator()?.log()?;
        let said = said
            .lines()
            .filter(|line| line.contains("falls back to shadow"));
        let said: Vec<_> = said.filter(|line| line.contains("order.storm")).collect();
        assert_eq!(said.len(), 1, "{said:#?}");

        // All its verdicts are told again in the lower mode, and its requests pass; others' do not.
        for id in &storm {
            told_in(world, id, "shadow").await?;
        }
        let (later, _) = doomed(world, "order.enforced").await?;
        known(world, &[Role::Web], &later).await?;
        for id in &storm[..2] {
            assert_eq!(post(world, Role::Web, id).await?.status, 201);
        }
        for id in [&spared, &later] {
            assert_eq!(post(world, Role::Web, id).await?.status, 424);
        }
        let counted = |event: &Event| {
            let mut refusals = event.refusals.iter();
            refusals.any(|r| r.path == "/late" && !r.enforced)
        };
        api.event_when(&storm[0], "only counted", counted).await?;
        Ok(())
    })
}

/// Sends so many orders under one trace id, a few at a time; the answers.
async fn orders(world: &'static World, trace: &str, count: usize) -> Result<Vec<Told>> {
    let (mut sending, mut answers) = (JoinSet::new(), Vec::new());
    for _ in 0..count {
        if sending.len() == AT_ONCE {
            answers.push(next(&mut sending).await?);
        }
        let trace = trace.to_owned();
        sending.spawn(async move { order(world, &trace, &Order::default()).await });
    }
    while !sending.is_empty() {
        answers.push(next(&mut sending).await?);
    }
    Ok(answers)
}

async fn next(sending: &mut JoinSet<Result<Told>>) -> Result<Told> {
    match sending.join_next().await {
        Some(answer) => answer?,
        None => bail!("nothing is on its way"),
    }
}

async fn order(world: &World, trace: &str, order: &Order) -> Result<Told> {
    let trace = format!("00-{trace}-00f067aa0ba902b7-01");
    let web = world.inbound(Role::Web)?;
    let headers = [("traceparent", &*trace)];
    world.outside.order(web, order, &headers).await
}
