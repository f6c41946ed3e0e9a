//! Breakers, as an operator sees and closes them.

use kaeru_protocol::ProblemType;
use serde_json::{Value, json};

use super::{Api, api, each};
use crate::store::policies;

async fn tripped(types: &[&str]) -> Api {
    let api = api().await;
    let mut transaction = api.0.store.begin().await.unwrap();
    let now = crate::clock::timestamp(crate::clock::now_ms());
    policies::put(&mut transaction, "mode: enforce\ndoomed_max: 30%\n", now)
        .await
        .unwrap();
    for name in types {
        sqlx::query(
            "INSERT INTO breakers (type, policy_version, tripped_at, doomed)
             VALUES ($1, 1, timestamptz '2026-01-01Z' + length($1) * interval '1 s', 42)",
        )
        .bind(name)
        .execute(&mut *transaction)
        .await
        .unwrap();
    }
    transaction.commit().await.unwrap();
    api
}

fn order() -> Value {
    json!({"by": "alice", "reason": "the deploy was taken back"})
}

#[tokio::test]
async fn open_breakers_are_listed_in_words_and_closed_by_name() {
    let api = tripped(&["POST shop/web /orders", "order.placed", ""]).await;
    let list = api.read("/v1/breakers").await;
    let breakers = &list["breakers"];
    assert_eq!(breakers.as_array().unwrap().len(), 3);
    let placed = &breakers[1];
    assert_eq!(
        *placed,
        json!({"type": "order.placed", "tripped_at": "2026-01-01T00:00:12.000Z", "policy_version": 1, "doomed": 42,
            "text": "42 events of type order.placed were doomed within a minute, more than 30 % of those that began: \
                     requests are counted and not refused, until an operator closes the breaker or the policy changes",
            "closed": null})
    );
    assert_eq!(breakers[2]["type"], Value::Null);

    let path = "/v1/breakers/POST%20shop%2Fweb%20%2Forders/close";
    let (status, closed) = api.post(path, &order()).await;
    assert_eq!(status, 200, "{closed}");
    assert_eq!(
        (
            &closed["type"],
            &closed["closed"]["by"],
            &closed["closed"]["reason"]
        ),
        (
            &json!("POST shop/web /orders"),
            &json!("alice"),
            &json!("the deploy was taken back")
        )
    );
    let (status, closed) = api.post("/v1/breakers/%22%22/close", &order()).await;
    assert_eq!((status, &closed["type"]), (200, &Value::Null));
    let left = api.read("/v1/breakers").await;
    assert_eq!(each(&left["breakers"], "type"), ["order.placed"]);
}

#[tokio::test]
async fn a_breaker_that_is_not_open_is_not_closed() {
    let api = tripped(&["order.placed"]).await;
    let close = async |path: &str, body: Value| {
        let (status, problem) = api.post(path, &body).await;
        (
            status,
            problem["type"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let path = "/v1/breakers/order.placed/close";
    for (path, body, problem) in [
        (
            path,
            json!({"by": "", "reason": "x"}),
            ProblemType::InvalidBody,
        ),
        (path, json!({"by": "alice"}), ProblemType::InvalidBody),
        (
            "/v1/breakers/a%22b/close",
            order(),
            ProblemType::InvalidParameter,
        ),
        (
            "/v1/breakers/order.other/close",
            order(),
            ProblemType::BreakerNotFound,
        ),
    ] {
        assert_eq!(
            close(path, body).await,
            (problem.status(), problem.uri().to_owned()),
            "{path}"
        );
    }
    assert_eq!(close(path, order()).await.0, 200);
    let (status, problem) = api.post(path, &order()).await;
    assert_eq!(
        (status, &problem["type"]),
        (409, &json!(ProblemType::BreakerClosed.uri()))
    );
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.ends_with("by alice: the deploy was taken back"),
        "{detail}"
    );
}
