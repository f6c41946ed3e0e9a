//! Many aggregators, one policy.

use kaeru_protocol::Mode;
use sqlx::{Postgres, Transaction};

use super::Policies;
use crate::app::Parts;
use crate::clock::{self, timestamp};
use crate::decider::Due;
use crate::store::breakers::{self, Suspect};
use crate::store::{Error, Result, Store, policies};
use crate::testing::{self, Side, failed, number};

async fn put(parts: &Parts, yaml: &str) -> Result<Option<i64>> {
    let mut transaction = parts.store.begin().await?;
    let version = policies::put(&mut transaction, yaml, timestamp(clock::now_ms())).await?;
    transaction.commit().await?;
    Ok(version)
}

/// Decides about an event in a transaction that stays open.
async fn decide(parts: &Parts, event: &str) -> Transaction<'static, Postgres> {
    let mut transaction = parts.store.begin().await.unwrap();
    let due = Due {
        names: vec![event.to_owned()],
        since: None,
    };
    let decide = parts
        .decider
        .decide(&mut transaction, &due, clock::now_ms());
    assert!(decide.await.unwrap().is_some(), "{event} is decided");
    transaction
}

#[tokio::test]
async fn no_decision_by_an_old_policy_is_committed_after_one_by_a_newer() {
    let database = testing::database().await;
    let app = || testing::app_over(Store::new(database.clone()));
    let (app, old, new) = (app(), app().parts(), app().parts());
    // This one never said that it is alive, so it stores and decides nothing.
    let mut web = Side::new(1, "shop/web");
    for event in ["e-1", "e-2"] {
        web.state(&app, failed(event, None)).await.unwrap();
    }
    assert_eq!(put(&new, "mode: enforce\n").await.unwrap(), Some(1));
    let until_waiting = async |count: i64| {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while number(&app, waiting).await != count {
            tokio::task::yield_now().await;
        }
    };

    // While one decides by the first version there is no second, and no breaker trips.
    let deciding = decide(&old, "e-1").await;
    let mut tripping = new.store.begin().await.unwrap();
    let now = timestamp(clock::now_ms());
    let suspect = Suspect {
        r#type: "order.placed".into(),
        doomed: 20,
        counted_since: now,
    };
    let refused = breakers::trip(&mut tripping, &suspect, 1, now).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    drop(tripping);
    let refused = put(&new, "mode: shadow\n").await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");

    // Who comes to decide while the second version waits decides by it.
    let parts = new.clone();
    let putting = tokio::spawn(async move { put(&parts, "mode: shadow\n").await });
    until_waiting(1).await;
    let next = tokio::spawn(async move { decide(&new, "e-2").await.commit().await });
    until_waiting(2).await;
    deciding.commit().await.unwrap();
    assert_eq!(putting.await.unwrap().unwrap(), Some(2));
    next.await.unwrap().unwrap();
    let by = "SELECT event, policy_version FROM decisions ORDER BY event";
    let by: Vec<(String, i64)> = sqlx::query_as(by)
        .fetch_all(app.store.pool())
        .await
        .unwrap();
    assert_eq!(by, [("e-1".to_owned(), 1), ("e-2".to_owned(), 2)]);
}

#[tokio::test]
async fn who_starts_reads_the_newest_policy_that_it_can() {
    let app = testing::app().await;
    for yaml in ["mode: off\n", "mode: enforce\n", "mode: loudly\n"] {
        put(&app.parts(), yaml).await.unwrap();
    }
    let mut connection = app.store.pool().acquire().await.unwrap();
    let in_force = Policies::default();
    let in_force = in_force.current(&mut connection, &app.metrics).await;
    let in_force = in_force.unwrap();
    assert_eq!(
        (in_force.version(), in_force.mode(None, None)),
        (2, Mode::Enforce)
    );
}
