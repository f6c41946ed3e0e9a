//! A service that does what its requests say ([`Work`]). All services of a graph run in this process, each behind a port
//! of its own: what is under test are the proxies between them.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use kaeru_protocol::headers;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

use super::act::{Act, Work};
use super::mesh;
use crate::clock;
use crate::shop::Ledger;
use crate::shop::outward::{Outward, forwarded};

/// Bytes of a body: the widest act has 50 calls of about 200 bytes.
const WORK_BYTES_MAX: usize = 256 * 1024;

/// One service.
#[derive(Debug)]
pub(super) struct Service {
    /// What reached it, and what it holds, by run.
    pub(super) ledger: Arc<Ledger>,
    task: AbortHandle,
}

#[derive(Debug, Clone)]
struct Desk {
    outward: Outward,
    ledger: Arc<Ledger>,
}

impl Service {
    /// Listens on `listen`; its calls go to `sidecar`.
    pub(super) async fn start(listen: SocketAddr, sidecar: SocketAddr) -> Result<Self> {
        let ledger = Arc::<Ledger>::default();
        let client = reqwest::Client::builder().no_proxy().build()?;
        let desk = Desk {
            outward: Outward { sidecar, client },
            ledger: ledger.clone(),
        };
        let listener = TcpListener::bind(listen).await;
        let listener = listener.with_context(|| format!("listen on {listen}"))?;
        let routes = axum::Router::new().fallback(handle).with_state(desk);
        let serving = tokio::spawn(async move {
            // Ends only by being aborted.
            let _ = axum::serve(listener, routes).await;
        });
        let task = serving.abort_handle();
        Ok(Self { ledger, task })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn handle(State(desk): State<Desk>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, WORK_BYTES_MAX).await;
    let Some(work) = body
        .ok()
        .and_then(|b| serde_json::from_slice::<Work>(&b).ok())
    else {
        return (StatusCode::BAD_REQUEST, "the body is no work").into_response();
    };
    let (method, path) = (parts.method.as_str(), parts.uri.path());
    let (now, headers) = (clock::now_ms(), &parts.headers);
    desk.ledger.note(&work.run, now, method, path, headers);
    desk.work(&work, headers).await
}

impl Desk {
    async fn work(&self, work: &Work, came_with: &HeaderMap) -> Response {
        let act = &work.act;
        let before = self.ledger.arrivals(&work.run);
        let nth = before.iter().filter(|a| a.path == act.path).count();
        if act.holds {
            self.ledger.released(&work.run).await;
        }
        let mut took = Vec::new();
        for group in &act.calls {
            took.extend(self.together(work, group, came_with).await);
        }
        let status = match act
            .answers
            .get(nth.saturating_sub(1))
            .or(act.answers.last())
        {
            Some(status) => *status,
            None if took.iter().all(|s| s.is_some_and(|s| s < 300)) => 201,
            None => 500,
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::IM_A_TEAPOT);
        let event = came_with.get(headers::EVENT_ID);
        let event = event.and_then(|value| value.to_str().ok());
        let mut response = (status, Json(json!({ "event": event, "calls": took }))).into_response();
        if let Some(word) = (act.says.as_deref()).and_then(|w| HeaderValue::try_from(w).ok()) {
            response.headers_mut().insert(headers::EVENT_STATUS, word);
        }
        response
    }

    /// Makes the calls of a group side by side; their statuses, in the group's order.
    async fn together(
        &self,
        work: &Work,
        group: &[Act],
        came_with: &HeaderMap,
    ) -> Vec<Option<u16>> {
        let mut calls = JoinSet::new();
        for (index, act) in group.iter().enumerate() {
            let (desk, headers) = (self.clone(), forwarded(&work.forward, came_with));
            let work = Work {
                run: work.run.clone(),
                forward: work.forward.clone(),
                act: act.clone(),
            };
            calls.spawn(async move { (index, desk.call(&work, headers).await) });
        }
        let mut statuses = vec![None; group.len()];
        while let Some(Ok((index, status))) = calls.join_next().await {
            statuses[index] = status;
        }
        statuses
    }

    /// One call, tried as often as it may be; the last status.
    async fn call(&self, work: &Work, mut headers: HeaderMap) -> Option<u16> {
        let act = &work.act;
        let chosen = act
            .event
            .as_deref()
            .and_then(|e| HeaderValue::try_from(e).ok());
        if let Some(chosen) = chosen {
            headers.insert(headers::EVENT_ID, chosen);
        }
        let method = Method::from_bytes(act.method.as_bytes()).ok()?;
        let body = serde_json::to_string(work).ok()?;
        let host = mesh::authority(&act.at);
        let mut status = None;
        for _ in 0..act.tries {
            let call = self.outward.call(
                method.clone(),
                &host,
                &act.path,
                headers.clone(),
                Some(body.clone()),
            );
            status = call.await.ok().map(|answer| answer.status().as_u16());
            if status.is_some_and(|s| s < 500) {
                break;
            }
        }
        status
    }
}
