//! The operations port: `/metrics`, `/healthz` (the process lives) and `/readyz` (it can take reports).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;

use crate::clock;
use crate::metrics::Metrics;
use crate::pulse::Pulse;
use crate::store::Store;

/// How long the store may take to answer and still count as ready.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// What the operations port reaches.
#[derive(Debug, Clone)]
pub(crate) struct Ops {
    /// The database.
    pub(crate) store: Store,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// Whether it can take reports.
    pub(crate) pulse: Arc<Pulse>,
    /// Becomes true when the schema is up to date and everything runs.
    pub(crate) started: watch::Receiver<bool>,
}

/// The routes of the operations port.
pub(crate) fn router(ops: Ops) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| std::future::ready("ok\n")))
        .route("/readyz", get(readyz))
        .with_state(ops)
}

async fn metrics(State(ops): State<Ops>) -> Response {
    match ops.metrics.render() {
        Ok(text) => (
            [(
                header::CONTENT_TYPE,
                "text/plain; version=0.0.4; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn readyz(State(ops): State<Ops>) -> (StatusCode, &'static str) {
    if !*ops.started.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "starting\n");
    }
    match tokio::time::timeout(PING_TIMEOUT, ops.store.ping()).await {
        Ok(Ok(())) if ops.pulse.is_able(clock::now_ms()) => (StatusCode::OK, "ready\n"),
        Ok(Ok(())) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the database does not take what is written\n",
        ),
        Ok(Err(_)) | Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the database does not answer\n",
        ),
    }
}
