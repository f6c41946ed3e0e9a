use kaeru_protocol::Mode;

use super::{Closed, close, events_for};
use crate::app::App;
use crate::clock::{self, timestamp};
use crate::store::policies;
use crate::testing::{self, Side, attempt, failed, number};
use crate::tick::Tick;

#[test]
fn a_share_is_exceeded_only_above_it() {
    assert_eq!(events_for(20, 20), Some(100));
    assert_eq!(events_for(21, 20), Some(105));
    assert_eq!(events_for(20, 30), Some(67));
    assert_eq!(events_for(20, 100), None);
    assert_eq!(events_for(20, 0), Some(i64::MAX));
}

/// An aggregator that enforces.
async fn enforcing() -> (App, Tick) {
    let app = testing::app().await;
    let mut tick = Tick::new(app.parts(), None);
    put_policy(&app, &mut tick, "mode: enforce\n").await;
    (app, tick)
}

async fn put_policy(app: &App, tick: &mut Tick, yaml: &str) {
    let mut transaction = app.store.begin().await.unwrap();
    policies::put(&mut transaction, yaml, timestamp(clock::now_ms()))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    tick.tick(false).await.unwrap();
}

/// So many events of a type, all of them doomed.
async fn doom(app: &App, name: &str, events: usize) {
    let mut web = Side::new(1, "shop/web");
    let mut reports = Vec::new();
    for n in 0..events {
        let mut one = failed(&format!("{name}-{n}"), None);
        one.call_mut().event_type = Some("order.placed".parse().unwrap());
        reports.push(web.next(one));
    }
    // Sequences of their own for each call.
    let first = u64::try_from(number(app, "SELECT count(*) FROM reports").await).unwrap();
    for report in &mut reports {
        report.seq += first;
    }
    app.ingest.store(web.batch(reports)).await.unwrap();
    app.decider.decide_once(clock::now_ms()).await;
}

/// The modes in which verdicts stand in the feed, each once.
async fn modes(app: &App) -> Vec<Mode> {
    app.feed.refresh(&app.store, &app.metrics).await.unwrap();
    let page = app.feed.page(None, clock::now_ms()).unwrap();
    let mut modes: Vec<Mode> = page.verdicts.into_iter().map(|v| v.mode).collect();
    modes.sort();
    modes.dedup();
    modes
}

#[tokio::test]
async fn a_closed_breaker_trips_again_only_on_what_happens_after() {
    let (app, mut tick) = enforcing().await;
    doom(&app, "a", 30).await;
    tick.tick(false).await.unwrap();
    assert_eq!(modes(&app).await, [Mode::Shadow]);
    assert_eq!(app.metrics.breakers_open.get(), 1);

    let closing_ms = clock::now_ms();
    let closed = close(&app, "order.placed", "alice", "a bad deploy", closing_ms).await;
    let Closed::Done(breaker) = closed.unwrap() else {
        panic!("it was open");
    };
    assert_eq!(breaker.doomed, 30);
    assert_eq!(
        (breaker.closed_by.as_deref(), breaker.closed_for.as_deref()),
        (Some("alice"), Some("a bad deploy"))
    );
    assert_eq!(breaker.closed_at, Some(timestamp(closing_ms)));
    tick.tick(false).await.unwrap();
    assert_eq!(modes(&app).await, [Mode::Enforce], "told again");
    assert_eq!(app.metrics.breakers_open.get(), 0);

    // What was decided before the closing is not counted again, and 19 more are too few.
    doom(&app, "b", 19).await;
    tick.tick(false).await.unwrap();
    assert_eq!(modes(&app).await, [Mode::Enforce]);

    doom(&app, "c", 2).await;
    tick.tick(false).await.unwrap();
    assert_eq!(modes(&app).await, [Mode::Shadow]);
    assert_eq!(app.metrics.breaker_trips.get(), 2);
    let rows = "SELECT count(*) FROM breakers WHERE policy_version = 1";
    assert_eq!(number(&app, rows).await, 2, "both are on record");
    assert_eq!(number(&app, "SELECT min(doomed) FROM breakers").await, 21);
}

#[tokio::test]
async fn events_count_under_the_type_that_is_learned_after_their_decision() {
    let (app, mut tick) = enforcing().await;
    let (mut web, mut backend) = (Side::new(1, "shop/web"), Side::new(2, "shop/backend"));
    for n in 0..30 {
        let event = format!("e-{n}");
        let doomed = backend.state(&app, failed(&event, Some("shop/web")));
        doomed.await.unwrap();
        web.state(&app, attempt(&event, None, 404)).await.unwrap();
    }
    app.decider.decide_once(clock::now_ms()).await;
    tick.tick(false).await.unwrap();
    let tripped: Vec<String> = sqlx::query_scalar("SELECT type FROM breakers")
        .fetch_all(app.store.pool())
        .await
        .unwrap();
    assert_eq!(tripped, ["POST shop/web /orders"]);
    // The next one may be of that type: nothing of it is refused before it is known.
    let doomed = backend.state(&app, failed("e-30", Some("shop/web")));
    doomed.await.unwrap();
    assert_eq!(modes(&app).await, [Mode::Shadow]);
}

#[tokio::test]
async fn what_was_counted_before_a_closing_opens_nothing() {
    use crate::store::breakers;
    let (app, mut tick) = enforcing().await;
    doom(&app, "a", 30).await;
    let since = timestamp(clock::now_ms() - 60_000);
    let mut connection = app.store.pool().acquire().await.unwrap();
    let suspects = breakers::doomed_since(&mut connection, since, 20)
        .await
        .unwrap();
    tick.tick(false).await.unwrap();
    let closed = close(&app, "order.placed", "alice", "x", clock::now_ms()).await;
    assert!(matches!(closed.unwrap(), Closed::Done(_)));
    // Another aggregator had counted before the closing, and comes to trip after it.
    let mut transaction = app.store.begin().await.unwrap();
    let now = timestamp(clock::now_ms() + 1);
    let tripped = breakers::trip(&mut transaction, &suspects[0], 1, now).await;
    assert!(!tripped.unwrap());
}

#[tokio::test]
async fn only_an_open_breaker_can_be_closed() {
    let (app, mut tick) = enforcing().await;
    let again = || close(&app, "order.placed", "bob", "y", clock::now_ms());
    assert!(matches!(again().await.unwrap(), Closed::Unknown));
    doom(&app, "a", 30).await;
    tick.tick(false).await.unwrap();
    assert!(matches!(again().await.unwrap(), Closed::Done(_)));
    let Closed::Before(breaker) = again().await.unwrap() else {
        panic!("it was closed");
    };
    assert_eq!(breaker.closed_by.as_deref(), Some("bob"));
    // Those of an older policy are history.
    put_policy(&app, &mut tick, "mode: enforce\ndoomed_max: 30%\n").await;
    assert!(matches!(again().await.unwrap(), Closed::Unknown));
}

#[tokio::test]
async fn breakers_are_let_go_when_they_are_old_and_hold_no_more() {
    use crate::store::breakers;
    let app = testing::app().await;
    sqlx::query(
        "INSERT INTO breakers (type, policy_version, tripped_at, doomed, closed_at) VALUES
             ('old.policy', 1, now() - interval '40 d', 20, NULL),
             ('closed', 2, now() - interval '40 d', 20, now() - interval '39 d'),
             ('closed.lately', 2, now() - interval '40 d', 20, now()),
             ('open', 2, now() - interval '40 d', 20, NULL)",
    )
    .execute(app.store.pool())
    .await
    .unwrap();
    let mut connection = app.store.pool().acquire().await.unwrap();
    let first = timestamp(clock::now_ms() - 30 * 86_400_000);
    breakers::forget(&mut connection, first, 2).await.unwrap();
    let left: Vec<String> = sqlx::query_scalar("SELECT type FROM breakers ORDER BY type")
        .fetch_all(app.store.pool())
        .await
        .unwrap();
    assert_eq!(left, ["closed.lately", "open"]);
}
