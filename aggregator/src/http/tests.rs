//! The read side against a real database: what was reported is what is read.

mod breakers;
mod explained;

use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use kaeru_protocol::ProblemType;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use tower::ServiceExt as _;

use crate::app::App;
use crate::clock;
use crate::store::Store;
use crate::testing;

/// The API of one aggregator.
struct Api(App);

impl Api {
    async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(Request::get(path).body(Body::empty()).unwrap())
            .await
    }

    /// What the route answers when all is well.
    async fn read(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        self.ask(request.body(Body::from(body.to_string())).unwrap())
            .await
    }

    async fn ask(&self, request: Request<Body>) -> (u16, Value) {
        let answer = super::router(self.0.clone())
            .oneshot(request)
            .await
            .unwrap();
        let status = answer.status().as_u16();
        let content_type = answer.headers()[header::CONTENT_TYPE]
            .to_str()
            .unwrap()
            .to_owned();
        if !(200..300).contains(&status) {
            assert_eq!(content_type, "application/problem+json");
        }
        let body = to_bytes(answer.into_body(), 1 << 24).await.unwrap();
        let read: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        // A key that stands twice would be gone when it is written again.
        let again = serde_json::to_vec(&read).unwrap_or_default();
        assert!(read.is_null() || again.len() == body.len(), "{read}");
        (status, read)
    }

    /// Takes in reports of one sidecar.
    async fn report(&self, reporter: u64, service: &str, calls: Value, reports: Value) {
        let batch = json!({
            "protocol": 1,
            "reporter": {"id": format!("{reporter:016x}"), "proxy": format!("proxy-{reporter}"), "service": service},
            "sent_ms": clock::now_ms(), "calls": calls, "reports": reports,
        });
        let (status, receipt) = self.post("/v1/reports", &batch).await;
        assert_eq!(
            (status, receipt["rejected"].clone()),
            (200, Value::Null),
            "{receipt}"
        );
    }

    /// An order that `shop/backend` says has failed, after an external payment declined.
    async fn declined_order(&self, event: &str) {
        self.report(
            1,
            "shop/backend",
            json!([
                {"from": "shop/web", "method": "POST", "path": "/orders/{id}/pay"},
                {"from": "shop/backend", "to": "host:payments.example.com", "method": "POST", "path": "/charge"}
            ]),
            json!([
                {"seq": 1, "at": -20, "event": event, "kind": "call", "side": "outbound", "call": 1, "sent": -30, "status": 402, "ms": 9},
                {"seq": 2, "at": -10, "event": event, "call": 0, "sent": -40, "status": 200, "word": "failed", "ms": 28, "cost": 1.5}
            ]),
        )
        .await;
        self.report(
            2,
            "shop/web",
            json!([{"type": "order.placed", "method": "POST", "path": "/orders"}]),
            json!([{"seq": 1, "at": -5, "event": event, "call": 0, "status": 502, "ms": 40}]),
        )
        .await;
        self.report(
            1,
            "shop/backend",
            json!([{"from": "shop/backend", "to": "shop/db-api", "method": "PUT", "path": "/rows"}]),
            json!([{"seq": 3, "at": 0, "event": event, "kind": "would_refuse", "side": "outbound", "call": 0}]),
        )
        .await;
    }
}

async fn api() -> Api {
    Api(testing::app().await)
}

/// The text of a field of each entry.
fn each<'v>(list: &'v Value, field: &str) -> Vec<&'v str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|entry| entry[field].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn an_event_tells_its_story() {
    let api = api().await;
    api.declined_order("order-7").await;
    let story = api.read("/v1/events/order-7").await;
    assert_eq!(story["event"], "order-7");
    assert_eq!(
        each(&story["steps"], "service"),
        ["shop/web", "shop/backend", "host:payments.example.com"]
    );
    let [web, backend, payment] = [0, 1, 2].map(|index| &story["steps"][index]);
    assert_eq!((&web["entry"], &web["parents"]), (&json!(true), &json!([])));
    assert_eq!(
        (&backend["word"], &backend["cost"], &backend["outcome"]),
        (&json!("failed"), &json!(1.5), &json!("failed"))
    );
    assert_eq!(
        (&payment["external"], &payment["outcome"]),
        (&json!(true), &json!("rejected"))
    );
    let attempt = &payment["calls"][0]["attempts"][0];
    assert_eq!(
        (&attempt["status"], &attempt["seen_by"]),
        (&json!(402), &json!("caller"))
    );
    assert_eq!(
        attempt["report"],
        json!({"reporter": "0000000000000001", "seq": 1})
    );
    let refusal = &story["refusals"][0];
    assert_eq!(
        (&refusal["to"], &refusal["enforced"]),
        (&json!("shop/db-api"), &json!(false))
    );
    assert_eq!(story["considered"][0]["rule"], "word");

    let decision = &story["decision"];
    assert_eq!(
        (&decision["state"], &decision["mode"]),
        (&json!("live"), &json!("shadow"))
    );
    assert_eq!(
        decision["reason"]["text"],
        "shop/backend says that the event failed for good"
    );
    assert_eq!(decision["evidence"][0]["seq"], 2);
    assert_eq!(
        each(&decision["plan"]["entries"], "service")[0],
        "shop/backend"
    );
    let id = decision["id"].as_str().unwrap();
    assert_eq!(api.read(&format!("/v1/decisions/{id}")).await, *decision);
    let live = api.read("/v1/decisions?state=live").await;
    assert_eq!(each(&live["decisions"], "id"), [id]);
    for (field, value) in live["decisions"][0].as_object().unwrap() {
        assert_eq!(decision[field], *value, "{field}");
    }
    assert_eq!(
        api.read("/v1/decisions?state=withdrawn").await["decisions"],
        json!([])
    );
}

#[tokio::test]
async fn an_event_is_read_in_few_round_trips() {
    let api = Api(testing::app_written_down().await);
    api.declined_order("order-7").await;
    let calls = json!([{"type": "order.placed", "method": "POST", "path": "/orders"}]);
    let reports =
        json!([{"seq": 2, "at": -5, "event": "order-8", "call": 0, "status": 200, "ms": 40}]);
    api.report(2, "shop/web", calls, reports).await;
    for (event, count) in [("order-7", 9), ("order-8", 6)] {
        let before = testing::statements(&api.0).await.len();
        api.read(&format!("/v1/events/{event}")).await;
        let mut spoken = testing::statements(&api.0).await.split_off(before);
        // The end of a snapshot is waited for by nobody.
        spoken.retain(|line| !line.ends_with("ROLLBACK"));
        // One of them is the test's own.
        assert_eq!(spoken.len() - 1, count, "{event}: {spoken:#?}");
    }
}

#[tokio::test]
async fn after_retention_the_summary_and_the_decision_are_left() {
    let api = api().await;
    api.declined_order("order-8").await;
    let before = api.read("/v1/events/order-8").await;
    sqlx::query("DELETE FROM reports")
        .execute(api.0.store.pool())
        .await
        .unwrap();
    let after = api.read("/v1/events/order-8").await;
    assert_eq!(after["decision"], before["decision"]);
    assert_eq!(after["state"], "rolling_back");
    assert_eq!(
        (&after["steps"], &after["considered"]),
        (&json!([]), &json!([]))
    );
}

#[tokio::test]
async fn events_come_in_pages_newest_first() {
    let api = api().await;
    // Two begin at each second, so that pages end between equals.
    sqlx::query(
        "INSERT INTO events (event, type, state, borrowed, services, first_at, last_at, last_received, reports)
         SELECT 'e-' || n, CASE WHEN n < 3 THEN 'rare' END, CASE WHEN n = 4 THEN 'failed' ELSE 'succeeded' END,
             false, ARRAY['shop/web', 'shop/s' || n],
             at, at, at, 1 FROM generate_series(1, 7) AS n, LATERAL (SELECT timestamptz '2026-01-01Z' + n / 2 * interval '1 s' AS at) t",
    )
    .execute(api.0.store.pool())
    .await
    .unwrap();
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = api.read(&format!("/v1/events?limit=3{after}")).await;
        seen.extend(
            each(&page["events"], "event")
                .into_iter()
                .map(str::to_owned),
        );
        let Some(next) = page["next"].as_str() else {
            break;
        };
        after = format!("&after={next}");
    }
    assert_eq!(seen, ["e-7", "e-6", "e-5", "e-4", "e-3", "e-2", "e-1"]);

    for (filter, found) in [
        ("state=failed", vec!["e-4"]),
        ("type=rare", vec!["e-2", "e-1"]),
        ("service=shop/s3", vec!["e-3"]),
        ("since=2026-01-01T00:00:03Z", vec!["e-7", "e-6"]),
        ("until=2026-01-01T01:00:01%2B01:00", vec!["e-1"]),
        ("type=rare&since=2026-01-01T00:00:01.000Z", vec!["e-2"]),
        ("service=shop/web&state=running", vec![]),
    ] {
        let page = api.read(&format!("/v1/events?{filter}")).await;
        assert_eq!(each(&page["events"], "event"), found, "{filter}");
    }
}

#[tokio::test]
async fn a_page_looks_at_so_many_rows_and_the_next_goes_on() {
    let api = api().await;
    sqlx::query(
        "INSERT INTO events (event, state, borrowed, services, first_at, last_at, last_received, reports)
         SELECT 'e-' || n, 'succeeded', false, ARRAY[CASE n WHEN 1 THEN 'shop/rare' ELSE 'shop/web' END], at, at, at, 1
         FROM generate_series(1, 10001) AS n, LATERAL (SELECT now() - interval '1 day' + n * interval '1 ms' AS at) AS t",
    )
    .execute(api.0.store.pool())
    .await
    .unwrap();
    let first = api.read("/v1/events?service=shop/rare").await;
    assert_eq!(first["events"], json!([]));
    let next = first["next"].as_str().unwrap();
    let second = api
        .read(&format!("/v1/events?service=shop/rare&after={next}"))
        .await;
    assert_eq!(each(&second["events"], "event"), ["e-1"]);
    assert_eq!(second["next"], json!(null));
}

#[tokio::test]
async fn wrong_parameters_are_named_with_what_is_allowed() {
    let api = api().await;
    for (path, told) in [
        (
            "/v1/events?state=lost",
            "state: one of running, succeeded, failed, abandoned, rolling_back, rolled_back, rollback_stuck",
        ),
        ("/v1/events?limit=501", "limit: 1 to 500"),
        ("/v1/events?limit=0", "limit: 1 to 500"),
        (
            "/v1/events?after=yesterday",
            "after: a cursor as `next` gave it",
        ),
        (
            "/v1/events?since=now",
            "since: a time is RFC 3339, as in 2026-01-01T12:00:00Z",
        ),
        (
            "/v1/events?service=web",
            "service: not a valid peer: namespace/name, or host:<authority> of [A-Za-z0-9._:-]",
        ),
        (
            "/v1/decisions?state=dead",
            "state: one of live, contested, withdrawn",
        ),
        (
            "/v1/events/a%20b",
            "id: not a valid event id: 1 to 128 characters of [A-Za-z0-9._:~-]",
        ),
    ] {
        let (status, problem) = api.get(path).await;
        assert_eq!(
            (status, problem["detail"].as_str().unwrap()),
            (400, told),
            "{path}"
        );
        assert_eq!(problem["type"], ProblemType::InvalidParameter.uri());
    }
    let (status, problem) = api.get("/v1/events?stat=failed").await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        status == 400 && detail.contains("`stat`") && detail.contains("`state`"),
        "{detail}"
    );
    for (path, problem) in [
        ("/v1/events/none", ProblemType::EventNotFound),
        ("/v1/decisions/none", ProblemType::DecisionNotFound),
        ("/v1/services/shop/none", ProblemType::ServiceNotFound),
        ("/v1/flows/none", ProblemType::FlowNotFound),
        ("/v1/none", ProblemType::RouteNotFound),
    ] {
        let (status, told) = api.get(path).await;
        assert_eq!(
            (status, told["type"].as_str().unwrap()),
            (404, problem.uri()),
            "{path}"
        );
    }
    let (status, told) = api.post("/v1/flows", &json!({})).await;
    assert_eq!(
        (status, told["type"].as_str().unwrap()),
        (405, ProblemType::MethodNotAllowed.uri())
    );
}

#[tokio::test]
async fn a_service_says_what_its_proxies_said() {
    let api = api().await;
    let status = |in_flight: u64, seq: u64| {
        json!([{"seq": seq, "at": 0, "proxy": {"due_ms": 60000, "in_flight": in_flight, "oldest_ms": 70,
            "counts": {"succeeded": 7, "possible_splits": 1, "dropped": 2}, "load": {"cpu_utilization": 0.5},
            "reporters": [{"id": "0000000000000003", "seq": 9, "dropped": 2}]}}])
    };
    api.report(3, "shop/web", json!([]), status(4, 9)).await;
    api.report(4, "shop/web", json!([]), status(1, 1)).await;
    let expected = json!({"service": "shop/web", "proxies": 2, "in_flight": 5, "possible_splits": 2, "dropped": 4});
    let list = api.read("/v1/services").await;
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(list["services"][0][field], *value, "{field}");
    }
    let one = api.read("/v1/services/shop/web").await;
    assert_eq!(
        (&one["counts"]["succeeded"], &one["counts"]["dropped"]),
        (&json!(14), &json!(4))
    );
    let proxies = one["proxies"].as_array().unwrap();
    let proxy = proxies
        .iter()
        .find(|proxy| proxy["proxy"] == "proxy-3")
        .unwrap();
    assert_eq!(
        (
            &proxy["out_of_touch"],
            &proxy["in_flight"],
            &proxy["oldest_ms"]
        ),
        (&json!(false), &json!(4), &json!(70))
    );
    assert_eq!(proxy["load"], json!({"cpu_utilization": 0.5}));
    assert_eq!(
        proxy["reporters"],
        json!([{"id": "0000000000000003", "seq": 9, "stored_seq": 9, "dropped": 2}])
    );

    // Its promise to be heard of is broken: what it had in flight is no longer known.
    sqlx::query("UPDATE proxies SET due_at = now() - interval '1 s' WHERE proxy = 'proxy-3'")
        .execute(api.0.store.pool())
        .await
        .unwrap();
    assert_eq!(
        api.read("/v1/services").await["services"][0]["in_flight"],
        1
    );
    let one = api.read("/v1/services/shop/web").await;
    let silent: Vec<_> = one["proxies"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|p| p["out_of_touch"] == true)
        .collect();
    assert_eq!(silent.len(), 1);
}

#[tokio::test]
async fn a_flow_shows_who_calls_whom() {
    let api = api().await;
    let name = "POST shop/web /orders";
    for statement in [
        "INSERT INTO flows VALUES ($1, 4, 4, 2, 1, 1, 0, timestamptz '2026-01-01Z')",
        "INSERT INTO flow_steps VALUES ($1, 'shop/web', 4, 5, 1, 1, 1, 100, 3), ($1, 'shop/idle', 4, 5, 1, 1, 1, 0, 0)",
        "INSERT INTO flow_edges VALUES ($1, '', 'shop/web', 'POST', '/orders', 4, 0),
             ($1, 'shop/web', 'shop/stock', 'POST', '/stock/check', 4, 6), ($1, 'shop/web', 'shop/pay', 'POST', '/pay', 2, 0)",
    ] {
        sqlx::query(statement).bind(name).execute(api.0.store.pool()).await.unwrap();
    }
    assert_eq!(api.read("/v1/flows").await["flows"][0]["type"], name);
    let flow = api.read("/v1/flows/POST%20shop%2Fweb%20%2Forders").await;
    assert_eq!(
        (&flow["events"], &flow["succeeded"], &flow["last_at"]),
        (&json!(4), &json!(2), &json!("2026-01-01T00:00:00.000Z"))
    );
    assert_eq!(
        (&flow["steps"][0]["mean_ms"], &flow["steps"][1]["mean_ms"]),
        (&Value::Null, &json!(33.3))
    );
    assert_eq!(
        each(&flow["edges"], "to"),
        ["shop/web", "shop/pay", "shop/stock"]
    );
    assert_eq!(
        (
            &flow["edges"][0]["from"],
            &flow["edges"][2]["mean_position"]
        ),
        (&Value::Null, &json!(1.5))
    );
    assert_eq!(
        flow["read_only_candidates"],
        json!([{"service": "shop/stock", "operation": "POST /stock/check"}])
    );
}

#[tokio::test]
async fn without_a_database_every_route_says_so() {
    let nowhere = PgConnectOptions::new_without_pgpass()
        .socket("/nonexistent")
        .username("nobody");
    let api = Api(testing::app_over(Store::new(nowhere)));
    for path in [
        "/v1/events",
        "/v1/events/a",
        "/v1/decisions",
        "/v1/decisions/a",
        "/v1/services",
        "/v1/services/a/b",
        "/v1/flows",
        "/v1/flows/a",
        "/v1/breakers",
    ] {
        let (status, problem) = api.get(path).await;
        assert_eq!(
            (status, problem["type"].as_str().unwrap()),
            (503, ProblemType::StoreUnavailable.uri()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_dashboard_is_served_with_its_policy() {
    let api = api().await;
    for (path, kind) in [
        ("/", "text/html"),
        ("/dashboard.css", "text/css"),
        ("/dashboard.js", "text/javascript"),
    ] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = super::router(api.0.clone()).oneshot(request).await.unwrap();
        assert!(
            answer.headers()[header::CONTENT_TYPE]
                .to_str()
                .unwrap()
                .starts_with(kind),
            "{path}"
        );
        assert!(
            answer.headers()[header::CONTENT_SECURITY_POLICY]
                .to_str()
                .unwrap()
                .contains("default-src 'none'")
        );
    }
}
