use std::sync::Arc;

use kaeru_protocol::{Body, ProxyStatus, ReporterId, ReporterMark};

use super::{Census, Full, NOTED_MAX, OTHERS, What};
use crate::ingest::Fault;
use crate::metrics::Metrics;
use crate::store::excesses;
use crate::testing::{self, Side, attempt, number};
use crate::tick::Tick;

fn full(who: &str) -> Result<(), Full> {
    Err(Full(who.to_owned()))
}

#[test]
fn a_service_a_namespace_and_all_have_their_share() {
    let census = Census::default();
    let limits = What::Types.limits();
    let shop = |n: usize| format!("shop/s{n}");
    let mut taken = 0;
    while taken < limits.of_namespace {
        let service = shop(taken / limits.of_service);
        assert_eq!(census.rooms(What::Types, 1, [&*service]), [Ok(())]);
        census.took(What::Types, &service);
        taken += 1;
    }
    // The first service has its own share to blame, one that has none of anything the namespace's.
    assert_eq!(census.rooms(What::Types, 1, ["shop/s0"]), [full("shop/s0")]);
    assert_eq!(census.rooms(What::Types, 1, ["shop/new"]), [full("shop/*")]);
    assert_eq!(census.rooms(What::Types, 1, ["bank/web"]), [Ok(())]);
    assert_eq!(census.rooms(What::Types, 2, ["shop/new"]), [Ok(())]);
    census.set(What::Types, vec![("other/x".into(), 1_000)]);
    assert_eq!(census.rooms(What::Types, 1, ["bank/web"]), [full("bank/*")]);
}

#[test]
fn those_of_one_group_count_for_each_other() {
    let census = Census::default();
    let of_service = What::Types.limits().of_service;
    census.set(
        What::Types,
        vec![("shop/web".into(), i64::try_from(of_service).unwrap() - 1)],
    );
    let rooms = census.rooms(What::Types, 1, ["shop/web", "shop/web", "shop/db"]);
    assert_eq!(rooms, [Ok(()), full("shop/web"), Ok(())]);
}

#[test]
fn what_is_taken_while_the_store_is_read_counts() {
    let census = Census::default();
    let of_service = What::Types.limits().of_service;
    let held = vec![(
        "shop/web".to_owned(),
        i64::try_from(of_service).unwrap() - 1,
    )];
    census.reads(What::Types);
    census.took(What::Types, "shop/web");
    census.set(What::Types, held.clone());
    assert_eq!(
        census.rooms(What::Types, 1, ["shop/web"]),
        [full("shop/web")]
    );
    census.reads(What::Types);
    census.set(What::Types, held);
    assert_eq!(census.rooms(What::Types, 1, ["shop/web"]), [Ok(())]);
}

#[test]
fn notes_are_bounded() {
    let census = Census::default();
    let metrics = Metrics::new().unwrap();
    for n in 0..3 * NOTED_MAX {
        let who = Full(format!("ns{n}/*"));
        census.note(What::Proxies, who, "p", &metrics);
    }
    let noted = census.noted();
    assert_eq!(noted.len(), NOTED_MAX + 1);
    let others = &noted[&(What::Proxies, OTHERS.to_owned())];
    assert_eq!(others.count, 2 * NOTED_MAX as u64);
    assert!(census.noted().is_empty());
}

/// What the store holds of a service's calls, all but `left` of its share.
fn nearly_full(census: &Census, what: What, service: &str, left: usize) {
    let held = i64::try_from(what.limits().of_service - left).unwrap();
    census.set(what, vec![(service.into(), held)]);
}

#[tokio::test]
async fn a_proxy_too_many_is_told_so_and_known_ones_go_on() {
    let app = testing::app().await;
    let mut known = Side::new(1, "shop/web");
    known.state(&app, attempt("e-1", None, 200)).await.unwrap();
    nearly_full(&app.census, What::Proxies, "shop/web", 1);
    let states = async |id: u64, service: &str| {
        let mut side = Side::new(id, service);
        side.state(&app, attempt("e-2", None, 200)).await
    };
    assert!(states(2, "shop/web").await.is_ok());
    let refused = states(3, "shop/web").await.unwrap_err();
    let (what, who) = (What::Proxies, "shop/web".to_owned());
    assert_eq!(refused, Fault::OneTooMany { what, who });
    assert!(states(4, "shop/db").await.is_ok());
    known.state(&app, attempt("e-3", None, 200)).await.unwrap();
    let held = "SELECT count(*) FROM proxies";
    assert_eq!(number(&app, held).await, 3);
    assert_eq!(number(&app, "SELECT count(*) FROM reporters").await, 3);
    assert_eq!(app.metrics.excess.with_label_values(&["proxies"]).get(), 1);
    // What is full is full by the store's own count, too: the next round counts anew.
    let mut connection = app.store.connection().await.unwrap();
    excesses::count(&mut connection, &app.census).await.unwrap();
    assert_eq!(app.census.count(What::Proxies), 3);
}

#[tokio::test]
async fn reporters_that_a_proxy_names_have_room_too_or_are_none() {
    let app = testing::app().await;
    let mut web = Side::new(1, "shop/web");
    web.state(&app, attempt("e-1", None, 200)).await.unwrap();
    nearly_full(&app.census, What::Reporters, "shop/web", 2);
    let mark = |id| ReporterMark {
        id: ReporterId(id),
        seq: 1,
        dropped: 0,
        gone: false,
    };
    let status = ProxyStatus {
        due_ms: 60_000,
        reporters: (1..200).map(mark).collect(),
        ..ProxyStatus::default()
    };
    let status = web.body(Body::Proxy(Box::new(status)));
    app.ingest.store(web.batch(vec![status])).await.unwrap();
    assert_eq!(number(&app, "SELECT count(*) FROM reporters").await, 3);
}

#[tokio::test]
async fn calls_above_a_services_share_fold_and_others_keep_theirs() {
    let app = testing::app().await;
    let mut web = Side::new(1, "shop/web");
    let mut db = Side::new(2, "shop/db");
    let call = |n: u64| {
        let mut report = attempt(&format!("e-{n}"), None, 200);
        let call = Arc::make_mut(&mut report.call);
        call.path = format!("/orders/{n}").into();
        call.event_type = Some(format!("order.{n}").parse().unwrap());
        report
    };
    nearly_full(&app.census, What::Calls, "shop/web", 10);
    let reports = (0..100).map(|n| web.next(call(n))).collect();
    let receipt = app.ingest.store(web.batch(reports)).await.unwrap();
    assert_eq!((receipt.accepted, receipt.rejected), (100, vec![]));
    let own = "SELECT count(*) FROM calls WHERE path <> '(other)'";
    assert_eq!(number(&app, own).await, 10);
    assert_eq!(number(&app, "SELECT count(*) FROM calls").await, 11);
    db.state(&app, call(1_000)).await.unwrap();
    assert_eq!(number(&app, own).await, 11);
    // Once for each call, though it is stated again.
    web.state(&app, call(99)).await.unwrap();
    assert_eq!(app.metrics.excess.with_label_values(&["calls"]).get(), 90);
    Tick::new(app.parts(), None).tick(false).await.unwrap();
    let excesses = excesses::list(app.store.pool()).await.unwrap();
    let [excess] = &excesses[..] else {
        panic!("{excesses:?}");
    };
    assert_eq!((&*excess.what, &*excess.who), ("calls", "shop/web"));
    assert_eq!((excess.count, &*excess.proxy), (90, "proxy-1"));
}

#[tokio::test]
async fn types_above_an_entrys_share_are_decided_and_not_learned() {
    let app = testing::app().await;
    let mut web = Side::new(1, "shop/web");
    let typed = |n: u64| {
        let mut report = attempt(&format!("e-{n}"), None, 200);
        Arc::make_mut(&mut report.call).event_type = Some(format!("order.{n}").parse().unwrap());
        report
    };
    nearly_full(&app.census, What::Types, "shop/web", 2);
    for n in 0..5 {
        web.state(&app, typed(n)).await.unwrap();
    }
    let later_ms = crate::clock::now_ms() + 10_000;
    testing::beat(&app).await;
    app.decider.decide_once(later_ms).await;
    let succeeded = "SELECT count(*) FROM events WHERE state = 'succeeded'";
    assert_eq!(number(&app, succeeded).await, 5);
    assert_eq!(number(&app, "SELECT count(*) FROM flows").await, 2);
    assert_eq!(app.metrics.excess.with_label_values(&["types"]).get(), 3);
    let known = "SELECT count(*) FROM flows WHERE entry = 'shop/web'";
    assert_eq!(number(&app, known).await, 2);
}

#[tokio::test]
async fn excesses_are_bounded_in_the_store() {
    let app = testing::app().await;
    for round in 0..15 {
        for n in 0..NOTED_MAX {
            let who = Full(format!("ns{round}-{n}/*"));
            app.census.note(What::Proxies, who, "p", &app.metrics);
        }
        Tick::new(app.parts(), None).tick(false).await.unwrap();
    }
    let rows = number(&app, "SELECT count(*) FROM excesses").await;
    assert_eq!(rows, 1_001);
    let others = "SELECT count FROM excesses WHERE who = '(others)'";
    assert_eq!(number(&app, others).await, 500);
}
