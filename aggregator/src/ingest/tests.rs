use kaeru_protocol::{Body, Counts, Kind, ProxyStatus, ReporterMark, Word};
use serde_json::json;

use super::batch::{self, rejection};
use super::{ADMITTED_KIB, ADMITTED_SMALL_KIB, Fault};
use crate::clock;
use crate::testing::{self, Side, attempt, number, report};

const REPORTS: &str = "SELECT count(*) FROM reports";

#[tokio::test]
async fn a_batch_sent_twice_is_stored_once() {
    let app = testing::app().await;
    let mut web = Side::new(1, "shop/web");
    let reports = vec![
        web.next(attempt("e-1", None, 200)),
        web.next(attempt("e-2", None, 200)),
    ];
    let receipts = tokio::join!(
        app.ingest.store(web.batch(reports.clone())),
        app.ingest.store(web.batch(reports.clone())),
    );
    assert_eq!(
        (receipts.0.unwrap().accepted, receipts.1.unwrap().accepted),
        (2, 2)
    );
    let again = app.ingest.store(web.batch(reports)).await.unwrap();
    assert_eq!(again.accepted, 2);
    assert_eq!(number(&app, REPORTS).await, 2);
    assert_eq!(app.metrics.reports_stored.get(), 2);
    assert_eq!(app.metrics.reports_repeated.get(), 4);
}

#[tokio::test]
async fn a_large_batch_is_stored_as_small_ones_are_and_once() {
    const ROWS: &str = "SELECT md5(string_agg(row(seq, sent, call, ms, kind, status, outbound, borrowed, event, word, grpc,
        attempt, due_ms, flags, opened, rest)::text, ',' ORDER BY seq)) FROM reports WHERE reporter = $1";
    let app = testing::app().await;
    let now_ms = clock::now_ms();
    let stated = |number: u32| {
        let from = number.is_multiple_of(2).then_some("shop/front");
        let mut report = attempt(&format!("e-{number}"), from, 200);
        if number.is_multiple_of(3) {
            report.kind = Kind::Running;
            report.due_ms = Some(number);
            report.progress = Some(0.5);
            report.detail = Some("a \"word\" and an ä".into());
            report.sent_ms = Some(now_ms);
        }
        if number.is_multiple_of(5) {
            report.side = kaeru_protocol::Side::Outbound;
            report.borrowed = true;
            report.attempt = 3;
            report.ending.flags = 1 << 40;
            report.ending.grpc = Some(14);
            report.ending.word = Some(Word::Succeeded);
            report.opened = Some(1);
            report.cost = Some(1.5);
        }
        report
    };
    let (mut large, mut small) = (Side::new(1, "shop/web"), Side::new(2, "shop/web"));
    let all: Vec<_> = (0..600).map(|n| large.next(stated(n))).collect();
    let receipt = app.ingest.store(large.batch(all.clone())).await.unwrap();
    assert_eq!(receipt.accepted, 600);
    let few: Vec<_> = (0..600).map(|n| small.next(stated(n))).collect();
    for chunk in few.chunks(100) {
        app.ingest.store(small.batch(chunk.to_vec())).await.unwrap();
    }
    let rows = |reporter: i64| sqlx::query_scalar::<_, String>(ROWS).bind(reporter);
    let [copied, inserted] = [1, 2].map(|id| rows(id).fetch_one(app.store.pool()));
    assert_eq!(copied.await.unwrap(), inserted.await.unwrap());

    let mut again = all[300..].to_vec();
    again.extend((0..300).map(|n| large.next(stated(n))));
    let receipt = app.ingest.store(large.batch(again)).await.unwrap();
    assert_eq!(receipt.accepted, 600);
    assert_eq!(number(&app, REPORTS).await, 1_500);
    assert_eq!(app.metrics.reports_repeated.get(), 300);
}

#[tokio::test]
async fn a_report_of_a_day_that_is_not_kept_is_rejected_alone() {
    const DAY_MS: u64 = 86_400_000;
    let app = testing::app().await;
    let mut web = Side::new(1, "shop/web");
    let mut reports: Vec<_> = (0..4)
        .map(|_| web.next(attempt("e-1", None, 200)))
        .collect();
    let now_ms = clock::now_ms();
    reports[0].at_ms = now_ms - 9 * DAY_MS;
    reports[1].at_ms = now_ms + 3 * DAY_MS;
    reports[2].at_ms = now_ms - 6 * DAY_MS;
    let receipt = app.ingest.store(web.batch(reports)).await.unwrap();
    assert_eq!(receipt.accepted, 2);
    assert_eq!(
        receipt.rejected,
        [
            rejection(Some(1), "its day is no longer kept"),
            rejection(Some(2), "its day is more than a day ahead")
        ]
    );
    assert_eq!(number(&app, REPORTS).await, 2);
}

#[test]
fn what_cannot_be_read_is_rejected_alone() {
    let body = |calls: serde_json::Value, reports: serde_json::Value| {
        json!({"protocol": 2, "later": true, "sent_ms": 1_000,
            "reporter": {"id": "0000000000000001", "proxy": "p", "service": "shop/web"},
            "calls": calls, "reports": reports})
        .to_string()
    };
    let calls = json!([{"method": "POST", "path": "/a"}, {"from": "no service", "method": "POST", "path": "/a"}]);
    let read = |reports| batch::read(body(calls.clone(), reports).as_bytes()).unwrap();
    let batch = read(json!([
        {"seq": 1, "at": -1, "event": "e", "call": 0},
        {"seq": 2, "at": -1, "event": "e", "call": 1},
        {"seq": 3, "at": -1, "event": "e", "call": 2},
        {"seq": 4, "at": -1, "event": "e", "kind": "of a later version"},
        {"seq": 5, "at": -1001, "event": "e"},
        {"seq": 6, "at": -1},
        "nothing",
        {"seq": u64::MAX, "at": 0, "event": "e"},
        {"seq": 8, "at": 0, "event": "e", "detail": "a\u{0}b"},
    ]));
    let kept: Vec<u64> = batch.reports.iter().map(|r| r.seq).collect();
    assert_eq!(kept, [1]);
    let reasons: Vec<(Option<u64>, &str)> =
        batch.rejected.iter().map(|r| (r.seq, &*r.reason)).collect();
    assert_eq!(reasons.len(), 8);
    assert!(reasons.contains(&(Some(2), "its call cannot be read")));
    assert!(reasons.contains(&(Some(3), "it points outside the table of calls")));
    assert!(reasons.contains(&(Some(8), "it holds a zero character")));
    assert!(reasons.iter().any(|(seq, _)| seq.is_none()));

    let many: Vec<_> = (0..4_097)
        .map(|seq| json!({"seq": seq, "event": "e"}))
        .collect();
    assert!(matches!(
        batch::read(body(json!([]), json!(many)).as_bytes()),
        Err(batch::Error::TooMany(4_097))
    ));
    assert!(matches!(
        batch::read(b"[]"),
        Err(batch::Error::Unreadable(_))
    ));
}

#[test]
fn statuses_name_so_many_reporters_in_a_batch() {
    let marks: Vec<_> = (0..256)
        .map(|id| json!({"id": format!("{id:016x}"), "seq": 1}))
        .collect();
    let status =
        |seq| json!({"seq": seq, "proxy": {"due_ms": 1, "in_flight": 0, "reporters": marks}});
    let body = json!({"protocol": 1, "sent_ms": 1_000,
        "reporter": {"id": "0000000000000001", "proxy": "p", "service": "shop/web"},
        "reports": (0..6).map(status).chain([json!({"seq": 9, "event": "e"})]).collect::<Vec<_>>()});
    let batch = batch::read(body.to_string().as_bytes()).unwrap();
    let rejected: Vec<_> = batch.rejected.iter().filter_map(|r| r.seq).collect();
    assert_eq!((batch.reports.len(), rejected), (5, vec![4, 5]));
    assert_eq!(batch.weight(), 5 + 8 * 1_024);
}

#[tokio::test]
async fn waiting_batches_share_a_commit() {
    let app = testing::app().await;
    let batches = (0..64).map(|id| {
        let mut side = Side::new(id, "shop/web");
        let reports = vec![side.next(attempt(&format!("e-{id}"), None, 200))];
        let batch = side.batch(reports);
        let app = app.clone();
        tokio::spawn(async move { app.ingest.store(batch).await })
    });
    for batch in batches.collect::<Vec<_>>() {
        assert_eq!(batch.await.unwrap().unwrap().accepted, 1);
    }
    assert_eq!(number(&app, REPORTS).await, 64);
    let commits = app.metrics.commit_seconds.get_sample_count();
    assert!(commits < 64, "{commits} transactions for 64 batches");
}

#[tokio::test]
async fn a_stranger_is_refused_and_nobody_else() {
    let app = testing::app().await;
    let mut web = Side::new(1, "shop/web");
    web.state(&app, attempt("e-1", None, 200)).await.unwrap();
    // The same reporter id, and so the same proxy, but another service.
    let mut thief = Side::new(1, "bank/vault");
    let mut other = Side::new(2, "shop/backend");
    let (stolen, honest) = tokio::join!(
        thief.state(&app, attempt("e-1", None, 500)),
        other.state(&app, attempt("e-1", Some("shop/web"), 200)),
    );
    assert_eq!(stolen, Err(Fault::NotYours));
    assert_eq!(honest.unwrap().accepted, 1);
    assert_eq!(number(&app, REPORTS).await, 2);
}

#[tokio::test]
async fn admission_is_bounded_in_bytes() {
    let app = testing::app().await;
    let room: Vec<_> = (0..ADMITTED_KIB / 1024)
        .map(|_| app.ingest.admit(1 << 20).unwrap())
        .collect();
    assert!(matches!(app.ingest.admit(1 << 20), Err(Fault::Overload)));
    let small: Vec<_> = std::iter::from_fn(|| app.ingest.admit(1).ok()).collect();
    assert_eq!(
        small.len(),
        ADMITTED_SMALL_KIB / 4,
        "a failure still has room"
    );
    drop(room);
    assert!(app.ingest.admit(1 << 20).is_ok());
}

/// Senders whose time is over come again while their batches still wait: those count until they are gone.
#[tokio::test]
async fn a_batch_holds_its_room_though_its_sender_went_away() {
    let app = testing::app().await;
    let mut web = Side::new(1, "shop/web");
    let batch = web.batch(vec![web.clone().next(attempt("e-1", None, 200))]);
    let all = ADMITTED_KIB * 1024;
    tokio::select! {
        biased;
        _ = app.ingest.store_in(app.ingest.admit(all).unwrap(), batch) => panic!("nobody works yet"),
        () = std::future::ready(()) => {}
    }
    assert!(matches!(app.ingest.admit(1 << 20), Err(Fault::Overload)));
    while app.ingest.admit(all).is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        number(&app, REPORTS).await,
        0,
        "it has no receipt, so it is sent again"
    );
    web.state(&app, attempt("e-1", None, 200)).await.unwrap();
    assert_eq!(number(&app, REPORTS).await, 1);
}

/// Each of these would need a transaction of its own.
#[tokio::test]
async fn what_waits_behind_a_store_that_is_away_is_told_so_at_once() {
    let nowhere = sqlx::postgres::PgConnectOptions::new_without_pgpass().socket("/nonexistent");
    let app = testing::app_over(crate::store::Store::new(nowhere));
    let batches = (0..5).map(|id| {
        let mut side = Side::new(id, "shop/web");
        let reports =
            (0..super::TRANSACTION_REPORTS_MAX).map(|_| side.next(attempt("e-1", None, 200)));
        let batch = Side::new(id, "shop/web").batch(reports.collect());
        let app = app.clone();
        tokio::spawn(async move { app.ingest.store(batch).await })
    });
    for batch in batches.collect::<Vec<_>>() {
        assert_eq!(batch.await.unwrap(), Err(Fault::StoreAway));
    }
    let asked = app.metrics.store_errors.with_label_values(&["unavailable"]);
    assert_eq!(asked.get(), 1);
}

fn status(seq: u64, dropped: u64) -> Body {
    Body::Proxy(Box::new(ProxyStatus {
        due_ms: 60_000,
        in_flight: 3,
        counts: Counts {
            succeeded: 7,
            ..Counts::default()
        },
        reporters: vec![ReporterMark {
            id: kaeru_protocol::ReporterId(1),
            seq,
            dropped,
            gone: false,
        }],
        ..ProxyStatus::default()
    }))
}

#[tokio::test]
async fn a_status_counts_once_and_what_is_lost_is_told_from_what_is_late() {
    let app = testing::app().await;
    let mut web = Side::new(1, "shop/web");
    let mut reports: Vec<_> = (0..5)
        .map(|_| web.next(attempt("e-1", None, 200)))
        .collect();
    reports.push(web.body(status(6, 0)));
    // Two never arrive.
    reports.retain(|r| r.seq != 2 && r.seq != 4);
    for _ in 0..2 {
        app.ingest.store(web.batch(reports.clone())).await.unwrap();
    }
    let succeeded = "SELECT succeeded FROM proxies WHERE proxy = 'proxy-1'";
    assert_eq!(number(&app, succeeded).await, 7);
    let later = vec![web.body(status(7, 0))];
    app.ingest.store(web.batch(later)).await.unwrap();
    assert_eq!(number(&app, succeeded).await, 14);
    assert_eq!(
        app.metrics.reports_lost.get(),
        0,
        "they may still be on their way"
    );

    // The reporter's own count says that it dropped them.
    let later = vec![web.body(status(8, 2))];
    app.ingest.store(web.batch(later)).await.unwrap();
    assert_eq!(app.metrics.reports_lost.get(), 2);
    let lost = "SELECT lost FROM losses WHERE service = 'shop/web'";
    assert_eq!(number(&app, lost).await, 2);
    let later = vec![web.body(status(9, 3))];
    app.ingest.store(web.batch(later)).await.unwrap();
    assert_eq!(app.metrics.reports_lost.get(), 3);
}

#[tokio::test]
async fn what_was_late_though_it_passed_for_dropped_is_missing_no_more() {
    let app = testing::app().await;
    let mut web = Side::new(1, "shop/web");
    let mut leader = Side::new(2, "shop/web");
    leader.reporter.proxy = web.reporter.proxy.clone();
    let mut reports: Vec<_> = (0..15)
        .map(|_| web.next(attempt("e-1", None, 200)))
        .collect();
    // Of ten two are on their way; of five that come after the status three are dropped.
    let after = reports.split_off(10);
    let late = vec![reports.remove(6), reports.remove(2)];
    let mut told = [status(10, 0), status(15, 3), status(15, 3)].map(|body| leader.body(body));
    for (nth, report) in (0..).zip(&mut told) {
        report.at_ms = report.at_ms - 3 + nth;
    }
    let [first, second, third] = told;
    app.ingest.store(web.batch(reports)).await.unwrap();
    app.ingest.store(leader.batch(vec![first])).await.unwrap();
    app.ingest
        .store(web.batch(after[..2].to_vec()))
        .await
        .unwrap();
    app.ingest.store(leader.batch(vec![second])).await.unwrap();
    let missing = "SELECT missing FROM reporters WHERE id = 1";
    assert_eq!(number(&app, missing).await, 2);
    // Once is enough, and so is twice.
    for _ in 0..2 {
        app.ingest.store(web.batch(late.clone())).await.unwrap();
        assert_eq!(number(&app, missing).await, 0);
    }
    app.ingest.store(leader.batch(vec![third])).await.unwrap();
    assert_eq!(number(&app, missing).await, 3);
    let checked = "SELECT checked_seq FROM reporters WHERE id = 1";
    assert_eq!(number(&app, checked).await, 15);
    assert_eq!(app.metrics.reports_lost.get(), 3);
}

#[tokio::test]
async fn what_statuses_of_one_transaction_tell_to_be_lost_adds_up() {
    let app = testing::app().await;
    let mut web = Side::new(1, "shop/web");
    let mut told = [(1, 1), (2, 3), (3, 7)].map(|(seq, dropped)| web.body(status(seq, dropped)));
    // Stated a millisecond apart.
    for (nth, report) in (0..).zip(&mut told) {
        report.at_ms = report.at_ms - 3 + nth;
    }
    app.ingest.store(web.batch(told.into())).await.unwrap();
    assert_eq!(app.metrics.reports_lost.get(), 7);
    let lost = "SELECT sum(lost)::bigint FROM losses WHERE service = 'shop/web'";
    assert_eq!(number(&app, lost).await, 7);
}

#[tokio::test]
async fn a_proxy_that_was_started_anew_may_have_lost_something() {
    let app = testing::app().await;
    let mut before = Side::new(1, "shop/web");
    before.state(&app, attempt("e-1", None, 200)).await.unwrap();
    let mut after = Side::new(2, "shop/web");
    after.reporter.proxy = before.reporter.proxy.clone();
    let mut anew = ProxyStatus::default();
    anew.reporters.push(ReporterMark {
        id: after.reporter.id,
        seq: 1,
        dropped: 0,
        gone: false,
    });
    let told = after.body(Body::Proxy(Box::new(anew)));
    app.ingest.store(after.batch(vec![told])).await.unwrap();
    let missed = "SELECT count(*) FROM losses WHERE reporter = 1 AND lost = 0";
    assert_eq!(number(&app, missed).await, 1);
}

#[tokio::test]
async fn calls_are_written_down_once() {
    let app = testing::app().await;
    let mut web = Side::new(1, "shop/web");
    let mut backend = Side::new(2, "shop/backend");
    for _ in 0..3 {
        web.state(&app, attempt("e-1", None, 200)).await.unwrap();
        backend
            .state(&app, attempt("e-1", None, 200))
            .await
            .unwrap();
        backend
            .state(&app, report("e-1", Kind::Word))
            .await
            .unwrap();
    }
    assert_eq!(number(&app, "SELECT count(*) FROM calls").await, 1);
    assert_eq!(
        number(&app, "SELECT count(DISTINCT call) FROM reports").await,
        1
    );
}

#[tokio::test]
async fn a_report_comes_back_as_it_was_stated() {
    let app = testing::app().await;
    let mut web = Side::new(1, "shop/web");
    let mut stated = report("e-1", Kind::Call);
    stated.borrowed = true;
    stated.side = kaeru_protocol::Side::Outbound;
    stated.call_mut().event_type = Some("order.placed".parse().unwrap());
    stated.call_mut().from = Some("shop/front".parse().unwrap());
    stated.call_mut().to = Some("host:pay.example".parse().unwrap());
    stated.sent_ms = Some(1_767_225_600_123);
    stated.handed_over = true;
    stated.opened = Some(7);
    stated.attempt = 3;
    stated.ending = kaeru_protocol::Ending {
        status: Some(504),
        grpc: Some(4),
        flags: 1 << 40,
        word: Some(kaeru_protocol::Word::Failed),
    };
    stated.duration_ms = 12;
    stated.due_ms = Some(62_000);
    stated.progress = Some(0.5);
    stated.cost = Some(2.5);
    stated.deadline_s = Some(30);
    stated.decision = Some("d-1".parse().unwrap());
    stated.detail = Some("in words".into());
    web.state(&app, stated.clone()).await.unwrap();
    let mut connection = app.store.pool().acquire().await.unwrap();
    let event = stated.event.clone();
    let read =
        crate::store::facts::of_events(&mut connection, std::slice::from_ref(&event), 10, None);
    let facts = read.await.unwrap().of.remove(&event).unwrap();
    assert_eq!(facts.len(), 1);
    assert_eq!(facts[0].report, stated);
}
