//! An order as a job: it outlives its request, says how far it is by the status call, and asks for its verdict. It calls
//! Kaeru's URLs through its sidecar, as any service may, and stops when its event is to be rolled back.

use std::time::Duration;

use axum::http::{HeaderMap, Method};
use kaeru_protocol::headers;
use serde_json::Value;

use super::outward::Outward;
use super::{Ledger, Order, Role};
use crate::world::{KAERU_HOST, KAERU_PORT};

/// Between two looks at the verdict.
const PACE: Duration = Duration::from_millis(50);
/// Looks between two words of a job that talks: half a second.
const LOOKS: u32 = 10;

/// Goes on with an order until it is released, then confirms it; stops where its event is doomed before.
pub(super) async fn go_on(
    outward: &Outward,
    ledger: &Ledger,
    order: &Order,
    came_with: &HeaderMap,
) {
    let event = came_with.get(headers::EVENT_ID);
    let Some(event) = event.and_then(|value| value.to_str().ok()) else {
        return;
    };
    for look in 1_u32.. {
        if is_doomed(outward, event).await {
            return say(outward, event, "failed").await;
        }
        if order.talks && look % LOOKS == 0 {
            say(outward, event, "running").await;
        }
        tokio::select! {
            () = ledger.released(&order.number) => break,
            () = tokio::time::sleep(PACE) => {}
        }
    }
    let (host, path) = (Role::DbApi.host(), "/confirmations");
    let status = outward.pass_on(&host, path, order, came_with).await;
    let took_effect = status.is_some_and(|s| (200..300).contains(&s));
    say(
        outward,
        event,
        if took_effect { "succeeded" } else { "failed" },
    )
    .await;
}

async fn is_doomed(outward: &Outward, event: &str) -> bool {
    let path = format!("/v1/events/{event}/verdict");
    let verdict = async {
        let answer = ask(outward, Method::GET, &path).await?;
        answer.json::<Value>().await
    };
    // Without an answer there is no verdict: the job goes on.
    verdict
        .await
        .is_ok_and(|verdict| verdict["verdict"] == "roll_back")
}

async fn say(outward: &Outward, event: &str, word: &str) {
    let path = format!("/v1/events/{event}/status?status={word}");
    // Its sidecar takes the word; where there is none, nobody waits for it.
    let _ = ask(outward, Method::POST, &path).await;
}

async fn ask(outward: &Outward, method: Method, path: &str) -> reqwest::Result<reqwest::Response> {
    let host = format!("{KAERU_HOST}:{KAERU_PORT}");
    outward
        .call(method, &host, path, HeaderMap::new(), None)
        .await
}
