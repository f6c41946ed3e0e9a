//! Scenario 6: two aggregators on one database, one of them behind a sidecar with the filter.

use anyhow::{Context, Result};
use kaeru_e2e::api::Event;
use kaeru_e2e::shop::{Order, Role};
use kaeru_e2e::wait::{self, Seen};
use kaeru_e2e::world::{KAERU_NAMESPACE, KAERU_WORKLOAD, Plan, World};

use crate::stage::{plan, play, post, typed_order};

#[test]
fn two_aggregators_decide_once_and_tell_the_same() -> Result<()> {
    play(async {
        let pair = plan("pair");
        let world = World::start(Plan { pair: true, ..pair }).await?;
        let [first, second] = &world.aggregators[..] else {
            anyhow::bail!("a pair is two");
        };
        let (first, second) = (first.api()?, second.api()?);

        // Reported to both: web and backend tell the first, db-api and db the second.
        let order = Order {
            declined: true,
            says_failed: true,
            ..Order::default()
        };
        let id = typed_order(&world, "order.by-word", &order).await?;
        let whole = |event: &Event| event.decision.is_some() && event.steps.len() == 5;
        let at_first = first.event_when(&id, "decided and whole", whole).await?;
        let decision = at_first.decision.context("decided")?;
        for role in Role::MESH {
            wait::until(&format!("the refusal at {}", role.name()), || async {
                let told = post(&world, role, &id).await?;
                Ok(Seen::when(told.status == 424, told))
            })
            .await?;
        }

        let decisions = wait::until("one decision on both pages", || async {
            let (one, other) = (first.decisions("").await?, second.decisions("").await?);
            Ok(Seen::when(one == other, one))
        });
        let decisions = decisions.await?;
        let of_event = decisions.iter().filter(|d| d.event == id);
        assert_eq!(of_event.count(), 1, "{decisions:#?}");
        wait::until("both feeds agree", || async {
            let (one, other) = (first.feed().await?, second.feed().await?);
            let told = one
                .verdicts
                .iter()
                .any(|v| v.decision.as_str() == decision.id);
            let same = one.cursor == other.cursor
                && (one
                    .verdicts
                    .iter()
                    .map(|v| (&v.event, &v.decision, v.verdict)))
                .eq(other
                    .verdicts
                    .iter()
                    .map(|v| (&v.event, &v.decision, v.verdict)));
            Ok(Seen::when(told && same, (one, other)))
        })
        .await?;

        // The second aggregator's sidecar passed reports, polls and status calls; none of them made an event.
        let passed = world.aggregator_sidecar()?;
        let passed = passed
            .stat("http.inbound_0.0.0.0_7170.downstream_rq_total")
            .await?;
        assert!(passed > 0, "nobody reported through the sidecar");
        let kaeru = format!("{KAERU_NAMESPACE}/{KAERU_WORKLOAD}");
        let events = first.events("limit=500").await?;
        assert!(!events.is_empty());
        let own: Vec<_> = events
            .iter()
            .filter(|e| e.services.contains(&kaeru))
            .collect();
        assert!(own.is_empty(), "{own:#?}");
        Ok(())
    })
}
