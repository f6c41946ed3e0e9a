use std::sync::Arc;

use kaeru_protocol::{Body, Kind, Mode, Verdict};

use crate::app::App;
use crate::clock::{self, timestamp};
use crate::store::losses::{self, Lost};
use crate::store::{Store, decisions, events, policies};
use crate::testing::{self, Side, attempt, beat, failed, number, report};
use crate::withdrawal::{Withdrawn, withdraw};

const DECISIONS: &str = "SELECT count(*) FROM decisions";
const NEWS: &str = "SELECT count(*) FROM intake WHERE news";

async fn state_of(app: &App, event: &str) -> String {
    sqlx::query_scalar("SELECT state FROM events WHERE event = $1")
        .bind(event)
        .fetch_one(app.store.pool())
        .await
        .unwrap()
}

async fn enforce(app: &App) {
    put_policy(app, "mode: enforce\n").await;
}

async fn put_policy(app: &App, yaml: &str) {
    let mut transaction = app.store.begin().await.unwrap();
    policies::put(&mut transaction, yaml, timestamp(clock::now_ms()))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    beat(app).await;
}

/// The verdicts in the feed: event, verdict, mode.
async fn told(app: &App) -> Vec<(String, Verdict, Mode)> {
    app.feed.refresh(&app.store, &app.metrics).await.unwrap();
    let page = app.feed.page(None, clock::now_ms()).unwrap();
    page.verdicts
        .into_iter()
        .map(|v| (v.event.to_string(), v.verdict, v.mode))
        .collect()
}

#[tokio::test]
async fn a_failure_is_decided_in_few_round_trips() {
    let app = testing::app_written_down().await;
    let (mut web, mut backend) = (Side::new(1, "shop/web"), Side::new(2, "shop/backend"));
    let mut open = report("e-2", Kind::Running);
    open.due_ms = Some(60_000);
    open.opened = Some(1);
    // Nothing is said for the first time, and the event is known, of a type, and open.
    for report in [attempt("e-1", None, 200), open] {
        web.state(&app, report).await.unwrap();
    }
    let mut failure = failed("e-1", Some("shop/web"));
    failure.call_mut().event_type = Some("order.placed".parse().unwrap());
    backend.state(&app, failure.clone()).await.unwrap();
    app.decider.decide_once(clock::now_ms()).await;
    beat(&app).await;
    let before = testing::statements(&app).await.len();
    failure.event = "e-2".parse().unwrap();
    backend.state(&app, failure).await.unwrap();
    let spoken = testing::statements(&app).await.split_off(before);
    // One of them is the test's own.
    assert_eq!(spoken.len() - 1, 11, "{spoken:#?}");
    let page = app.feed.page(None, clock::now_ms()).unwrap();
    assert_eq!(page.verdicts.len(), 2, "it need not be read back");
}

#[tokio::test]
async fn a_decision_reads_no_more_than_it_rests_on() {
    let app = testing::app().await;
    let mut backend = Side::new(2, "shop/backend");
    // The plans of our statements are made while there is little, and must do when there is much.
    for round in 0..2 {
        let event = format!("e-{round}");
        let failure = failed(&event, Some("shop/web"));
        backend.state(&app, failure).await.unwrap();
        let others = (0..300).map(|n| backend.next(attempt(&format!("o-{round}-{n}"), None, 200)));
        let others = others.collect();
        app.ingest.store(backend.batch(others)).await.unwrap();
    }
    let failure = failed("e-2", Some("shop/web"));
    backend.state(&app, failure).await.unwrap();
    let mut transaction = app.store.begin().await.unwrap();
    let event = "e-2".parse().unwrap();
    let stored = decisions::last_of_event(&mut transaction, &event).await;
    let mut stored = stored.unwrap().unwrap();
    stored.decision.revision += 1;
    decisions::save(&mut transaction, &[stored]).await.unwrap();
    let read: i64 = sqlx::query_scalar(
        "SELECT sum(coalesce(idx_tup_fetch, 0) + coalesce(seq_tup_read, 0))::bigint FROM pg_stat_xact_user_tables
         WHERE relname LIKE 'reports%'",
    )
    .fetch_one(&mut *transaction)
    .await
    .unwrap();
    assert_eq!(read, 1, "of 603 reports of one reporter");
}

#[tokio::test]
async fn a_failure_is_decided_by_the_commit_that_stores_it() {
    let app = testing::app().await;
    let mut web = Side::new(1, "shop/web");
    web.state(&app, attempt("e-1", None, 200)).await.unwrap();
    let mut backend = Side::new(2, "shop/backend");
    backend
        .state(&app, failed("e-1", Some("shop/web")))
        .await
        .unwrap();
    assert_eq!(number(&app, DECISIONS).await, 1);
    assert_eq!(state_of(&app, "e-1").await, "rolling_back");
    assert_eq!(
        told(&app).await,
        [("e-1".to_owned(), Verdict::RollBack, Mode::Shadow)]
    );
    // What the decider does later changes nothing.
    app.decider.decide_once(clock::now_ms()).await;
    assert_eq!(
        (number(&app, DECISIONS).await, number(&app, NEWS).await),
        (1, 0)
    );
}

#[tokio::test]
async fn a_verdict_is_told_again_when_the_type_of_its_event_becomes_known() {
    let app = testing::app().await;
    put_policy(
        &app,
        "mode: enforce\nevent_types:\n  order.test:\n    mode: off\n",
    )
    .await;
    let mut backend = Side::new(2, "shop/backend");
    backend
        .state(&app, failed("e-1", Some("shop/web")))
        .await
        .unwrap();
    // It may yet turn out to be an `order.test`.
    assert_eq!(
        told(&app).await,
        [("e-1".to_owned(), Verdict::RollBack, Mode::Off)]
    );
    let mut entry = attempt("e-1", None, 500);
    entry.call_mut().method = "GET".into();
    let mut web = Side::new(1, "shop/web");
    web.state(&app, entry).await.unwrap();
    app.decider.decide_once(clock::now_ms()).await;
    assert_eq!(
        number(&app, "SELECT max(revision)::bigint FROM decisions").await,
        1
    );
    assert_eq!(
        told(&app).await,
        [("e-1".to_owned(), Verdict::RollBack, Mode::Enforce)]
    );
}

#[tokio::test]
async fn what_was_committed_undecided_is_decided_after_a_restart() {
    let database = testing::database().await;
    // It never said that it is alive, so it may not decide: as if it had been killed after the commit.
    let killed = testing::app_over(Store::new(database.clone()));
    let mut web = Side::new(1, "shop/web");
    web.state(&killed, failed("e-1", None)).await.unwrap();
    assert_eq!(
        (
            number(&killed, DECISIONS).await,
            number(&killed, NEWS).await
        ),
        (0, 1)
    );
    drop(killed);

    let next = testing::app_over(Store::new(database));
    beat(&next).await;
    next.decider.decide_once(clock::now_ms()).await;
    assert_eq!(
        (number(&next, DECISIONS).await, number(&next, NEWS).await),
        (1, 0)
    );
    assert_eq!(told(&next).await.len(), 1);
}

#[tokio::test]
async fn deciders_that_race_make_one_decision_each_and_one_feed() {
    let database = testing::database().await;
    let silent = testing::app_over(Store::new(database.clone()));
    let mut web = Side::new(1, "shop/web");
    for chunk in 0..10 {
        let reports = (0..20)
            .map(|n| web.next(failed(&format!("e-{chunk}-{n}"), None)))
            .collect();
        silent.ingest.store(web.batch(reports)).await.unwrap();
    }
    // One event in two entries of the list.
    web.state(&silent, failed("e-0-0", None)).await.unwrap();
    let [one, two] = [Store::new(database.clone()), Store::new(database)].map(testing::app_over);
    beat(&one).await;
    beat(&two).await;
    let now_ms = clock::now_ms();
    tokio::join!(
        one.decider.decide_once(now_ms),
        two.decider.decide_once(now_ms)
    );
    assert_eq!(number(&one, DECISIONS).await, 200);
    assert_eq!(
        number(&one, "SELECT count(DISTINCT event) FROM decisions").await,
        200
    );
    assert_eq!(number(&one, NEWS).await, 0);
    let feed = told(&one).await;
    assert_eq!((feed.len(), &feed), (200, &told(&two).await));
    assert_eq!(number(&one, "SELECT feed_seq FROM store").await, 200);
}

#[tokio::test]
async fn who_waits_for_events_finds_what_the_other_left() {
    let app = testing::app().await;
    let mut web = Side::new(1, "shop/web");
    web.state(&app, failed("e-1", None)).await.unwrap();
    let names = ["e-1", "e-2"].map(ToOwned::to_owned);
    let now = timestamp(clock::now_ms());
    let mut first = app.store.begin().await.unwrap();
    let held = events::lock(&mut first, &names, now).await.unwrap();
    assert_eq!(held.iter().map(|h| h.reports).collect::<Vec<_>>(), [1, 0]);
    sqlx::query("UPDATE events SET reports = 7")
        .execute(&mut *first)
        .await
        .unwrap();
    let mut seconds = Vec::new();
    for (place, name) in names.iter().enumerate() {
        // One is known to the other's statement, one is made after it began.
        let (store, name) = (app.store.clone(), name.clone());
        let second = tokio::spawn(async move {
            let mut second = store.begin().await.unwrap();
            let held = events::lock(&mut second, std::slice::from_ref(&name), now).await;
            held.unwrap().iter().map(|h| h.reports).collect::<Vec<_>>()
        });
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while usize::try_from(number(&app, waiting).await).unwrap() <= place {
            tokio::task::yield_now().await;
        }
        seconds.push(second);
    }
    first.commit().await.unwrap();
    for second in seconds {
        assert_eq!(second.await.unwrap(), [7]);
    }
}

/// The decision about the event `bad` cannot be read.
async fn with_an_event_that_cannot_be_looked_at() -> (App, Side) {
    let app = testing::app().await;
    let mut web = Side::new(1, "shop/web");
    web.state(&app, failed("bad", None)).await.unwrap();
    sqlx::query("UPDATE decisions SET body = '{}'")
        .execute(app.store.pool())
        .await
        .unwrap();
    (app, web)
}

#[tokio::test]
async fn a_failure_that_cannot_be_decided_at_once_is_stored_for_the_decider() {
    let (app, mut web) = with_an_event_that_cannot_be_looked_at().await;
    let reports = vec![
        web.next(failed("bad", None)),
        web.next(failed("good", None)),
    ];
    let receipt = app.ingest.store(web.batch(reports)).await.unwrap();
    assert_eq!(receipt.accepted, 2);
    assert_eq!(
        (number(&app, DECISIONS).await, number(&app, NEWS).await),
        (1, 1)
    );
    app.decider.decide_once(clock::now_ms()).await;
    assert_eq!(number(&app, DECISIONS).await, 2);
    assert_eq!(told(&app).await.len(), 2);
}

#[tokio::test]
async fn an_event_that_cannot_be_looked_at_stops_no_other() {
    let (app, mut web) = with_an_event_that_cannot_be_looked_at().await;
    let reports = vec![
        web.next(attempt("bad", None, 200)),
        web.next(attempt("good", None, 200)),
    ];
    app.ingest.store(web.batch(reports)).await.unwrap();
    app.decider.decide_once(clock::now_ms() + 10_000).await;
    assert_eq!(app.metrics.events_parked.get(), 1);
    assert_eq!(number(&app, NEWS).await, 0);
    assert_eq!(state_of(&app, "good").await, "succeeded");
    assert_eq!(
        number(
            &app,
            "SELECT count(*) FROM events WHERE event = 'bad' AND wake_at > now()"
        )
        .await,
        1
    );
}

#[tokio::test]
async fn a_settled_event_teaches_its_flow_once() {
    let app = testing::app().await;
    let mut web = Side::new(1, "shop/web");
    let mut first = attempt("e-1", None, 200);
    first.call_mut().event_type = Some("order.placed".parse().unwrap());
    web.state(&app, first).await.unwrap();
    let now_ms = clock::now_ms();
    app.decider.decide_once(now_ms).await;
    assert_eq!(
        (
            state_of(&app, "e-1").await.as_str(),
            number(&app, "SELECT count(*) FROM flows").await
        ),
        ("running", 0)
    );
    // It settles by time alone: it is woken without a report.
    app.decider.decide_once(now_ms + 5_000).await;
    assert_eq!(state_of(&app, "e-1").await, "succeeded");
    web.state(&app, attempt("e-1", None, 200)).await.unwrap();
    app.decider.decide_once(now_ms + 20_000).await;
    assert_eq!(
        number(&app, "SELECT events FROM flows WHERE type = 'order.placed'").await,
        1
    );
    assert_eq!(
        number(
            &app,
            "SELECT events FROM flow_steps WHERE peer = 'shop/web'"
        )
        .await,
        1
    );
    assert_eq!(
        number(
            &app,
            "SELECT count FROM flow_edges WHERE callee = 'shop/web'"
        )
        .await,
        1
    );
}

#[tokio::test]
async fn our_own_outage_dooms_nobody() {
    let app = testing::app().await;
    let mut web = Side::new(1, "shop/web");
    let began_ms = clock::now_ms();
    let mut running = report("job-1", Kind::Running);
    running.due_ms = Some(1_000);
    web.state(&app, running).await.unwrap();
    app.decider.decide_once(began_ms).await;

    // Away for a minute. Then its proxy is heard again before it names the job.
    let back_ms = began_ms + 60_000;
    assert!(!app.decider.may_decide(back_ms));
    app.pulse.beat(&app.store, back_ms).await.unwrap();
    hear(&app, back_ms + 500).await;
    app.decider.decide_once(back_ms + 1_000).await;
    assert_eq!(
        (
            state_of(&app, "job-1").await.as_str(),
            number(&app, DECISIONS).await
        ),
        ("running", 0)
    );

    // The proxy goes on reporting; a heartbeat after the longest back-off has ended it has still not named the job.
    hear(&app, back_ms + 40_000).await;
    app.decider.decide_once(back_ms + 40_000).await;
    assert_eq!(number(&app, DECISIONS).await, 1);
    let rule: String = sqlx::query_scalar("SELECT body->'reason'->>'rule' FROM decisions")
        .fetch_one(app.store.pool())
        .await
        .unwrap();
    assert_eq!(rule, "stalled");
}

/// Proxies were heard of at this time, and all that their reporters gave out has arrived.
async fn hear(app: &App, at_ms: u64) {
    for statement in [
        "UPDATE proxies SET last_heard = $1",
        "UPDATE reporters SET checked_at = $1",
    ] {
        sqlx::query(statement)
            .bind(timestamp(at_ms))
            .execute(app.store.pool())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_clock_that_is_off_is_set_right() {
    let app = testing::app().await;
    let mut web = Side::new(1, "shop/web");
    let mut till = Side::new(2, "shop/till");
    till.clock_behind_ms = 300_000;
    // The till's clock says that it was first.
    web.state(&app, attempt("e-1", None, 200)).await.unwrap();
    till.state(&app, attempt("e-1", None, 200)).await.unwrap();
    app.decider.decide_once(clock::now_ms()).await;
    let entry: String = sqlx::query_scalar("SELECT entry FROM events")
        .fetch_one(app.store.pool())
        .await
        .unwrap();
    assert_eq!(entry, "shop/web");
    let stated = "SELECT count(*) FROM reports WHERE at < received - interval '4 minutes'";
    assert_eq!(number(&app, stated).await, 1, "as it was stated");
}

#[tokio::test]
async fn a_withdrawn_decision_is_told_as_proceed() {
    let app = testing::app().await;
    let mut web = Side::new(1, "shop/web");
    web.state(&app, failed("e-1", None)).await.unwrap();
    let id: String = sqlx::query_scalar("SELECT id FROM decisions")
        .fetch_one(app.store.pool())
        .await
        .unwrap();
    let id = id.parse().unwrap();
    let now_ms = clock::now_ms();
    let take_back = || withdraw(&app, &id, "alice".into(), "a test".into(), now_ms);
    assert!(
        matches!(take_back().await.unwrap(), Withdrawn::Done(stored) if stored.decision.revision == 2)
    );
    assert_eq!(
        told(&app).await,
        [("e-1".to_owned(), Verdict::Proceed, Mode::Shadow)]
    );
    assert!(matches!(take_back().await.unwrap(), Withdrawn::TooLate(_)));
    // What it knew then dooms the event no more.
    app.decider.decide_once(now_ms + 10_000).await;
    assert_eq!(
        (
            number(&app, DECISIONS).await,
            state_of(&app, "e-1").await.as_str()
        ),
        (1, "failed")
    );
    // A new word does, as a decision of its own.
    web.state(&app, failed("e-1", None)).await.unwrap();
    assert_eq!(
        number(&app, "SELECT count(*) FROM decisions WHERE state = 'live'").await,
        1
    );
    assert_eq!(number(&app, DECISIONS).await, 2);
}

#[tokio::test]
async fn an_acknowledged_undo_cannot_be_taken_back() {
    let app = testing::app().await;
    let mut web = Side::new(1, "shop/web");
    web.state(&app, failed("e-1", None)).await.unwrap();
    let id: String = sqlx::query_scalar("SELECT id FROM decisions")
        .fetch_one(app.store.pool())
        .await
        .unwrap();
    let mut undo = report("e-1", Kind::Undo);
    undo.decision = Some(id.parse().unwrap());
    undo.ending.status = Some(200);
    web.state(&app, undo).await.unwrap();
    let outcome = withdraw(
        &app,
        &id.parse().unwrap(),
        "alice".into(),
        "x".into(),
        clock::now_ms(),
    )
    .await;
    assert!(matches!(outcome.unwrap(), Withdrawn::TooLate(_)));
}

#[tokio::test]
async fn a_half_spent_verdict_is_told_again_while_its_event_is_heard_of() {
    let app = testing::app_with(
        Store::new(testing::database().await),
        &["--verdict-idle-s", "60"],
    );
    beat(&app).await;
    let mut web = Side::new(1, "shop/web");
    web.state(&app, failed("e-1", None)).await.unwrap();
    let seq = "SELECT seq FROM feed";
    assert_eq!(number(&app, seq).await, 1);
    web.state(&app, attempt("e-1", None, 200)).await.unwrap();
    app.decider.decide_once(clock::now_ms()).await;
    assert_eq!(number(&app, seq).await, 2, "the plan's revision is told");
    web.state(&app, report("e-1", Kind::Refused)).await.unwrap();
    app.decider.decide_once(clock::now_ms()).await;
    assert_eq!(number(&app, seq).await, 2);
    sqlx::query("UPDATE feed SET expires_at = now() + interval '29 s'")
        .execute(app.store.pool())
        .await
        .unwrap();
    web.state(&app, report("e-1", Kind::Refused)).await.unwrap();
    app.decider.decide_once(clock::now_ms()).await;
    assert_eq!(number(&app, seq).await, 3);
}

#[tokio::test]
async fn too_many_doomed_events_of_a_type_trip_its_breaker() {
    let app = testing::app().await;
    enforce(&app).await;
    let mut web = Side::new(1, "shop/web");
    let typed = |event: String, kind: &str, is_failed: bool| {
        let mut one = if is_failed {
            failed(&event, None)
        } else {
            attempt(&event, None, 200)
        };
        one.call_mut().event_type = Some(kind.parse().unwrap());
        one
    };
    let mut reports = Vec::new();
    for n in 0..100 {
        reports.push(web.next(typed(format!("a-{n}"), "all.fail", n < 30)));
        reports.push(web.next(typed(format!("b-{n}"), "few.fail", n < 19)));
    }
    app.ingest.store(web.batch(reports)).await.unwrap();
    app.decider.decide_once(clock::now_ms()).await;
    assert!(
        told(&app)
            .await
            .iter()
            .all(|(_, _, mode)| *mode == Mode::Enforce)
    );

    let mut tick = crate::tick::Tick::new(app.parts(), None);
    tick.tick(false).await.unwrap();
    assert_eq!(app.metrics.breaker_trips.get(), 1);
    for (event, _, mode) in told(&app).await {
        let expected = if event.starts_with('a') {
            Mode::Shadow
        } else {
            Mode::Enforce
        };
        assert_eq!(mode, expected, "{event}");
    }
    // A new version of the policy closes it.
    let mut transaction = app.store.begin().await.unwrap();
    let yaml = "mode: enforce\ndoomed_max: 50%\n";
    policies::put(&mut transaction, yaml, timestamp(clock::now_ms()))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    tick.tick(false).await.unwrap();
    assert!(
        told(&app)
            .await
            .iter()
            .all(|(_, _, mode)| *mode == Mode::Enforce)
    );
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_leaves_the_old_one_in_force() {
    let app = testing::app().await;
    enforce(&app).await;
    let mut transaction = app.store.begin().await.unwrap();
    policies::put(
        &mut transaction,
        "mode: loudly\n",
        timestamp(clock::now_ms()),
    )
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    let mut web = Side::new(1, "shop/web");
    web.state(&app, failed("e-1", None)).await.unwrap();
    assert_eq!(
        number(&app, "SELECT policy_version FROM decisions").await,
        1
    );
    assert_eq!(app.metrics.policies_refused.get(), 1);
}

#[tokio::test]
async fn a_watched_policy_becomes_a_version_when_it_changes() {
    let file = testing::folder("policy", "true").join("policy.yaml");
    std::fs::write(&file, "mode: enforce\n").unwrap();
    let app = testing::app_with(
        Store::new(testing::database().await),
        &["--policy", file.to_str().unwrap()],
    );
    let mut tick = crate::tick::Tick::new(app.parts(), None);
    let versions = "SELECT count(*) FROM policies";
    for (text, count) in [
        ("mode: enforce\n", 1),
        ("mode: off\n", 2),
        ("mode: wrong\n", 2),
        ("mode: off\n", 2),
    ] {
        std::fs::write(&file, text).unwrap();
        tick.tick(false).await.unwrap();
        assert_eq!(number(&app, versions).await, count, "{text}");
    }
    assert_eq!(app.metrics.policies_refused.get(), 1);
    assert_eq!(app.policies.last_known().mode(None, None), Mode::Off);
}

#[tokio::test]
async fn a_shared_id_is_not_read_again_with_each_report() {
    let app = testing::app().await;
    let mut web = Side::new(1, "shop/web");
    for _ in 0..3 {
        let reports: Vec<_> = (0..4_000)
            .map(|_| web.next(attempt("same", None, 200)))
            .collect();
        app.ingest.store(web.batch(reports)).await.unwrap();
    }
    app.decider.decide_once(clock::now_ms()).await;
    assert_eq!(
        number(&app, "SELECT count(*) FROM events WHERE shared").await,
        1
    );
    let judged = app.metrics.events_judged.get();
    web.state(&app, failed("same", None)).await.unwrap();
    app.decider.decide_once(clock::now_ms()).await;
    assert_eq!(
        (
            app.metrics.events_judged.get(),
            number(&app, DECISIONS).await
        ),
        (judged, 0)
    );
}

#[tokio::test]
async fn the_decider_wakes_by_itself() {
    let app = testing::app().await;
    let worker = app.parts();
    let work = tokio::spawn(async move { worker.decider.work().await });
    let ticking = tokio::spawn(crate::tick::Tick::new(app.parts(), None).work());
    let mut web = Side::new(1, "shop/web");
    web.state(&app, attempt("e-1", None, 200)).await.unwrap();
    let settled = async {
        while state_of_if_any(&app).await.as_deref() != Some("succeeded") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), settled)
        .await
        .unwrap();
    work.abort();
    ticking.abort();
}

async fn state_of_if_any(app: &App) -> Option<String> {
    let query = sqlx::query_scalar("SELECT state FROM events");
    query.fetch_optional(app.store.pool()).await.unwrap()
}

#[test]
fn parts_are_shared_between_tasks() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Arc<crate::app::Parts>>();
}

#[tokio::test]
async fn a_loss_that_becomes_known_makes_a_plan_incomplete() {
    let app = testing::app().await;
    let mut web = Side::new(1, "shop/web");
    web.state(&app, attempt("e-1", None, 200)).await.unwrap();
    let mut backend = Side::new(2, "shop/backend");
    let outcome = failed("e-1", Some("shop/web"));
    backend.state(&app, outcome).await.unwrap();
    app.decider.decide_once(clock::now_ms()).await;
    let incomplete = "SELECT count(*) FROM decisions WHERE body->'missing' ? 'shop/backend'";
    assert_eq!(number(&app, incomplete).await, 0);

    // Its proxy was started anew: what its old reporter held, nobody can count.
    let mut after = Side::new(3, "shop/backend");
    after.reporter.proxy = backend.reporter.proxy.clone();
    let told = after.body(Body::Proxy(Box::default()));
    app.ingest.store(after.batch(vec![told])).await.unwrap();
    app.decider.decide_once(clock::now_ms()).await;
    assert_eq!(number(&app, incomplete).await, 1);
    assert_eq!(
        number(&app, "SELECT revision::bigint FROM decisions").await,
        2
    );
}

/// An event that has failed, and that nobody has decided: its aggregator may not. Its proxy is about to
/// be known to have lost something.
async fn failed_and_undecided() -> (App, Side) {
    let database = testing::database().await;
    let silent = testing::app_over(Store::new(database.clone()));
    let mut web = Side::new(1, "shop/web");
    web.state(&silent, failed("e-1", None)).await.unwrap();
    let app = testing::app_over(Store::new(database));
    beat(&app).await;
    let mut after = Side::new(2, "shop/web");
    after.reporter.proxy = web.reporter.proxy;
    (app, after)
}

const WAITS: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'";
const INCOMPLETE: &str = "SELECT count(*) FROM decisions WHERE body->'missing' ? 'shop/web'";

#[tokio::test]
async fn a_loss_beside_a_decision_that_is_being_made_waits_for_it() {
    let (app, mut after) = failed_and_undecided().await;
    let mut deciding = app.store.begin().await.unwrap();
    let now_ms = clock::now_ms();
    let due = super::due(&mut deciding, now_ms).await.unwrap().unwrap();
    let told = app.decider.decide(&mut deciding, &due, now_ms);
    assert!(told.await.unwrap().is_some());

    let told = after.body(Body::Proxy(Box::default()));
    let batch = after.batch(vec![told]);
    let ingest = app.ingest.clone();
    let storing = tokio::spawn(async move { ingest.store(batch).await });
    while number(&app, WAITS).await == 0 && !storing.is_finished() {
        tokio::task::yield_now().await;
    }
    deciding.commit().await.unwrap();
    storing.await.unwrap().unwrap();
    app.decider.decide_once(clock::now_ms()).await;
    assert_eq!(number(&app, INCOMPLETE).await, 1);
}

#[tokio::test]
async fn a_decision_that_was_made_beside_a_loss_is_looked_at_again() {
    let (app, after) = failed_and_undecided().await;
    let now = timestamp(clock::now_ms());
    let mut lost = Lost::default();
    let mut losing = app.store.begin().await.unwrap();
    let service = &after.reporter.service;
    losses::add(&mut losing, &mut lost, 1, service, (now, now), 0)
        .await
        .unwrap();
    losses::wake_plans(&mut losing, &lost).await.unwrap();

    let parts = app.parts();
    let deciding = tokio::spawn(async move { parts.decider.round(clock::now_ms()).await });
    while number(&app, WAITS).await == 0 && !deciding.is_finished() {
        tokio::task::yield_now().await;
    }
    losing.commit().await.unwrap();
    deciding.await.unwrap().unwrap();
    assert_eq!(number(&app, DECISIONS).await, 1);
    let wake = "SELECT (extract(epoch FROM max(due_at)) * 1000)::bigint FROM intake";
    let next_ms = number(&app, wake).await.cast_unsigned();
    app.decider.decide_once(next_ms).await;
    assert_eq!(number(&app, INCOMPLETE).await, 1);
}
