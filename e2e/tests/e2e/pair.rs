//! Scenario 6: two aggregators on one database, one of them behind a sidecar with the filter.

use anyhow::{Context, Result};
use kaeru_e2e::api::Event;
use kaeru_e2e::shop::{Order, Role};
use kaeru_e2e::wait::{self, Seen};
use kaeru_e2e::world::{KAERU_NAMESPACE, KAERU_WORKLOAD, Plan, World};

use crate::stage::{doomed, filters_are_well, known, plan, play, typed_order};

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
        let (id, _) = doomed(&world, "order.by-word").await?;
        let whole = |event: &Event| event.decision.is_some() && event.steps.len() == 5;
        let at_second = second.event_when(&id, "decided and whole", whole).await?;
        let decision = at_second.decision.context("decided")?;
        known(&world, &Role::MESH, &id).await?;

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

        for (name, aggregator) in [("first", &first), ("second", &second)] {
            let stored = aggregator.metric("kaeru_reports_stored_total").await?;
            assert!(stored > 0, "nobody reported to the {name} aggregator");
        }

        // The second aggregator's sidecar passed reports and polls. An order later, which takes two flushes to settle,
        // none of them has made an event.
        let passed = world.aggregator_sidecar()?;
        let passed = passed
            .stat("http.inbound_0.0.0.0_7170.downstream_rq_total")
            .await?;
        assert!(passed > 0, "nobody reported through the sidecar");
        let order = Order::default();
        let event = typed_order(&world, "order.by-word", &order).await?;
        let succeeded = |event: &Event| event.summary.state == "succeeded";
        first.event_when(&event, "succeeded", succeeded).await?;
        let kaeru = format!("{KAERU_NAMESPACE}/{KAERU_WORKLOAD}");
        let mut events: Vec<_> = first.events("limit=500").await?;
        let own: Vec<_> = events
            .iter()
            .filter(|e| e.services.contains(&kaeru))
            .collect();
        assert!(own.is_empty(), "{own:#?}");
        events.retain(|of_shop| of_shop.event != event && of_shop.event != id);
        assert!(events.is_empty(), "{events:#?}");
        filters_are_well(&world).await?;
        Ok(())
    })
}
