//! The routes of proxies, services and operators against a real database.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, header};
use kaeru_protocol::{ProblemType, Verdict, VerdictPage, limits};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use tower::ServiceExt as _;

use crate::app::App;
use crate::clock;
use crate::store::Store;
use crate::testing::{self, Side, failed, number};

async fn ask(app: &App, request: Request<Body>) -> Response<Body> {
    super::router(app.clone()).oneshot(request).await.unwrap()
}

async fn json_of(answer: Response<Body>) -> Value {
    let body = to_bytes(answer.into_body(), 1 << 22).await.unwrap();
    serde_json::from_slice(&body).unwrap_or(Value::Null)
}

async fn problem_of(answer: Response<Body>) -> (u16, String) {
    let status = answer.status().as_u16();
    let body = json_of(answer).await;
    (status, body["type"].as_str().unwrap_or_default().to_owned())
}

fn batch(service: &str, reports: &Value) -> Body {
    Body::from(
        json!({
            "protocol": 1, "sent_ms": clock::now_ms(), "reports": reports,
            "reporter": {"id": "0000000000000001", "proxy": "p", "service": service},
            "calls": [{"method": "POST", "path": "/orders"}],
        })
        .to_string(),
    )
}

fn one_report() -> Value {
    json!([{"seq": 1, "at": 0, "event": "e-1", "call": 0, "status": 200}])
}

async fn poll(app: &App, query: &str) -> VerdictPage {
    let path = format!("/v1/verdicts?service=shop/web&{query}");
    let answer = ask(app, Request::get(path).body(Body::empty()).unwrap()).await;
    serde_json::from_value(json_of(answer).await).unwrap()
}

#[tokio::test]
async fn without_a_database_nothing_is_acknowledged() {
    let nowhere = PgConnectOptions::new_without_pgpass().socket("/nonexistent");
    let app = testing::app_over(Store::new(nowhere));
    let request = Request::post("/v1/reports")
        .body(batch("shop/web", &one_report()))
        .unwrap();
    let answer = ask(&app, request).await;
    assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
    let expected = (503, ProblemType::StoreUnavailable.uri().to_owned());
    assert_eq!(problem_of(answer).await, expected);
    let request = Request::get("/v1/verdicts?service=shop/web&wait_ms=0")
        .body(Body::empty())
        .unwrap();
    assert_eq!(problem_of(ask(&app, request).await).await, expected);
}

#[tokio::test]
async fn a_workload_reports_for_its_own_namespace() {
    let app = testing::app().await;
    let strict = testing::app_with(app.store.clone(), &["--require-identity"]);
    let shop = Some("By=spiffe://c/ns/kaeru/sa/a;URI=spiffe://c/ns/shop/sa/web");
    for (app, service, caller, status) in [
        (&app, "shop/web", shop, 200),
        (&app, "bank/web", shop, 403),
        (&app, "shop/web", None, 200),
        (&strict, "shop/web", None, 403),
        (&strict, "shop/web", shop, 200),
    ] {
        let mut request = Request::post("/v1/reports");
        if let Some(caller) = caller {
            request = request.header("x-forwarded-client-cert", caller);
        }
        let answer = ask(app, request.body(batch(service, &one_report())).unwrap()).await;
        assert_eq!(answer.status(), status, "{service} {caller:?}");
    }
}

#[tokio::test]
async fn bodies_have_limits() {
    let app = testing::app().await;
    let huge = || Body::from(vec![b' '; limits::BATCH_BYTES_MAX + 1]);
    let said =
        Request::post("/v1/reports").header(header::CONTENT_LENGTH, limits::BATCH_BYTES_MAX + 1);
    let unsaid = Request::post("/v1/reports");
    for request in [said.body(huge()), unsaid.body(huge())] {
        let expected = (413, ProblemType::BodyTooLarge.uri().to_owned());
        assert_eq!(
            problem_of(ask(&app, request.unwrap()).await).await,
            expected
        );
    }
    let many: Vec<Value> = (1..=4_097)
        .map(|seq| json!({"seq": seq, "event": "e"}))
        .collect();
    let request = Request::post("/v1/reports")
        .body(batch("shop/web", &json!(many)))
        .unwrap();
    let expected = (413, ProblemType::BatchTooLarge.uri().to_owned());
    assert_eq!(problem_of(ask(&app, request).await).await, expected);
    let request = Request::post("/v1/reports").body(Body::from("{}")).unwrap();
    let expected = (400, ProblemType::InvalidBody.uri().to_owned());
    assert_eq!(problem_of(ask(&app, request).await).await, expected);
}

#[tokio::test]
async fn a_poll_waits_for_what_it_has_not_seen() {
    let app = testing::app().await;
    let follower = app.parts();
    let follow = tokio::spawn(async move {
        follower
            .feed
            .follow(&follower.store, &follower.metrics)
            .await;
    });
    let first = poll(&app, "wait_ms=60000").await;
    assert!(first.reset && first.verdicts.is_empty());

    let waiting = {
        let app = app.clone();
        let query = format!("wait_ms=60000&after={}", first.cursor);
        tokio::spawn(async move { poll(&app, &query).await })
    };
    let mut web = Side::new(1, "shop/web");
    web.state(&app, failed("e-1", None)).await.unwrap();
    let news = tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .unwrap()
        .unwrap();
    assert!(!news.reset);
    assert_eq!(news.verdicts[0].event.as_str(), "e-1");
    assert_eq!(
        (news.verdicts[0].verdict, news.cursor.seq),
        (Verdict::RollBack, 1)
    );
    assert!((590_000..=600_000).contains(&news.verdicts[0].ttl_ms));

    let quiet = poll(&app, &format!("wait_ms=1&after={}", news.cursor)).await;
    assert!(quiet.verdicts.is_empty() && !quiet.reset && quiet.cursor == news.cursor);
    let foreign = poll(&app, "wait_ms=60000&after=other:1").await;
    assert!(foreign.reset && foreign.verdicts.len() == 1);
    follow.abort();
}

#[tokio::test]
async fn a_poll_whose_connection_breaks_waits_no_more() {
    let app = testing::app().await;
    let start = poll(&app, "wait_ms=0").await.cursor;
    let (asked, query) = (app.clone(), format!("after={start}&wait_ms=50000"));
    let waits = tokio::spawn(async move { poll(&asked, &query).await });
    while app.metrics.polls.get() == 0 {
        tokio::task::yield_now().await;
    }
    waits.abort();
    assert!(waits.await.is_err());
    assert_eq!(app.metrics.polls.get(), 0);
}

#[tokio::test]
async fn two_aggregators_serve_one_feed() {
    let one = testing::app().await;
    let two = testing::app_over(one.store.clone());
    let followers = [one.parts(), two.parts()].map(|parts| {
        tokio::spawn(async move { parts.feed.follow(&parts.store, &parts.metrics).await })
    });
    let start = loop {
        let answer = ask(
            &two,
            Request::get("/v1/verdicts?service=a/b&wait_ms=0")
                .body(Body::empty())
                .unwrap(),
        )
        .await;
        if answer.status() == 200 {
            break serde_json::from_value::<VerdictPage>(json_of(answer).await).unwrap();
        }
        tokio::task::yield_now().await;
    };
    let mut web = Side::new(1, "shop/web");
    web.state(&one, failed("e-1", None)).await.unwrap();
    let there = poll(&two, &format!("wait_ms=20000&after={}", start.cursor)).await;
    let here = poll(&one, &format!("wait_ms=20000&after={}", start.cursor)).await;
    assert_eq!((&there.cursor, there.verdicts.len()), (&here.cursor, 1));
    assert_eq!(there.verdicts[0].decision, here.verdicts[0].decision);
    for follower in followers {
        follower.abort();
    }
}

#[tokio::test]
async fn a_service_without_a_sidecar_says_its_word() {
    let app = testing::app().await;
    let say = |path: &str, body: &'static str| {
        Request::post(format!("/v1/events/job-1/status?{path}"))
            .body(Body::from(body))
            .unwrap()
    };
    let answer = ask(
        &app,
        say(
            "status=failed&service=shop/job",
            r#"{"detail":"card declined"}"#,
        ),
    )
    .await;
    assert_eq!(answer.status(), 202);
    assert_eq!(
        number(
            &app,
            "SELECT count(*) FROM reports WHERE rest->>'detail' = 'card declined'"
        )
        .await,
        1
    );
    assert_eq!(
        number(&app, "SELECT count(*) FROM proxies").await,
        0,
        "it is no proxy of the service"
    );
    let by_certificate = Request::post("/v1/events/job-1/status?status=running&progress=2/5")
        .header("x-forwarded-client-cert", "URI=spiffe://c/ns/shop/sa/other")
        .body(Body::empty())
        .unwrap();
    assert_eq!(ask(&app, by_certificate).await.status(), 202);
    assert_eq!(
        number(
            &app,
            "SELECT count(*) FROM reporters WHERE service = 'shop/other'"
        )
        .await,
        1
    );
    for path in [
        "status=failed",
        "status=gone&service=shop/job",
        "service=shop/job",
        "status=failed&service=job",
    ] {
        assert_eq!(ask(&app, say(path, "")).await.status(), 400, "{path}");
    }
}

#[tokio::test]
async fn an_operator_rolls_back_and_takes_back() {
    let app = testing::app().await;
    let order = || Body::from(r#"{"by":"alice","reason":"a test"}"#);
    let post = |path: &str, body: Body| {
        Request::post(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .unwrap()
    };
    let unknown = ask(&app, post("/v1/events/e-1/rollback", order())).await;
    assert_eq!(
        problem_of(unknown).await,
        (404, ProblemType::EventNotFound.uri().to_owned())
    );

    let mut web = Side::new(1, "shop/web");
    web.state(&app, testing::attempt("e-1", None, 200))
        .await
        .unwrap();
    // Nobody looked at it yet.
    assert_eq!(
        ask(&app, post("/v1/events/e-1/rollback", Body::from("{}")))
            .await
            .status(),
        400
    );
    assert_eq!(
        ask(&app, post("/v1/events/e-1/rollback", order()))
            .await
            .status(),
        202
    );
    let verdict = || {
        Request::get("/v1/events/e-1/verdict")
            .body(Body::empty())
            .unwrap()
    };
    let told = json_of(ask(&app, verdict()).await).await;
    assert_eq!(told["verdict"], "roll_back");
    let again = ask(&app, post("/v1/events/e-1/rollback", order())).await;
    assert_eq!(
        problem_of(again).await,
        (409, ProblemType::NotRollable.uri().to_owned())
    );

    let path = format!(
        "/v1/decisions/{}/withdraw",
        told["decision"].as_str().unwrap()
    );
    let taken = json_of(ask(&app, post(&path, order())).await).await;
    assert_eq!(
        (&taken["state"], &taken["withdrawn"]["by"]),
        (&json!("withdrawn"), &json!("alice"))
    );
    assert_eq!(
        json_of(ask(&app, verdict()).await).await["verdict"],
        "proceed"
    );
    let late = ask(&app, post(&path, order())).await;
    assert_eq!(
        problem_of(late).await,
        (409, ProblemType::DecisionSettled.uri().to_owned())
    );
    let none = ask(&app, post("/v1/decisions/none/withdraw", order())).await;
    assert_eq!(
        problem_of(none).await,
        (404, ProblemType::DecisionNotFound.uri().to_owned())
    );
}
