//! `flows`: how events of each type go through the services, as learned.

mod candidates;

use axum::Json;
use axum::extract::State;
use kaeru_protocol::{EventType, ProblemType};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::openapi::ProblemBody;
use super::params::{InPath, parse};
use super::problem::Error;
use super::time::Time;
use crate::app::App;
use crate::store::flow_pages::{self, EdgeRow, FlowRow, StepRow};
use candidates::Candidate;

/// The routes of this resource.
pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(one))
}

/// All flows, the one that learned last first.
#[derive(Debug, Serialize, ToSchema)]
struct FlowList {
    flows: Vec<FlowSummary>,
}

/// One flow in short.
#[derive(Debug, Serialize, ToSchema)]
struct FlowSummary {
    /// The event type, said by a header or learned from the entry.
    #[schema(example = "POST shop/web /orders")]
    r#type: String,
    /// Grows with each event learned.
    version: u64,
    /// Settled events.
    events: u64,
    succeeded: u64,
    failed: u64,
    abandoned: u64,
    doomed: u64,
    /// When it last learned.
    last_at: Time,
}

/// One flow in full.
#[derive(Debug, Serialize, ToSchema)]
struct FlowView {
    #[serde(flatten)]
    summary: FlowSummary,
    steps: Vec<FlowStepView>,
    /// By caller, in the order in which it makes its calls.
    edges: Vec<FlowEdgeView>,
    /// Calls that may change nothing though their method is unsafe, by their names; for `read_only` in a policy,
    /// if a person agrees.
    read_only_candidates: Vec<Candidate>,
}

/// What one service did in events of this type.
#[derive(Debug, Serialize, ToSchema)]
struct FlowStepView {
    service: String,
    /// Events that it took part in.
    events: u64,
    attempts: u64,
    /// Events in which it failed or gave no answer.
    failed: u64,
    /// Of those that ended without a decision: events that failed as a whole.
    failed_whole: u64,
    /// Mean time of its attempts, ms; `null` where none has ended.
    mean_ms: Option<f64>,
}

/// One kind of call.
#[derive(Debug, Serialize, ToSchema)]
struct FlowEdgeView {
    /// The caller; `null` at the entry.
    from: Option<String>,
    to: String,
    method: String,
    path: String,
    /// Events in which it was made.
    count: u64,
    /// Its mean place among its caller's calls; 0 is the first.
    mean_position: f64,
}

/// All learned flows
#[utoipa::path(get, path = "/v1/flows", tag = "flows", responses(
    (status = 200, body = FlowList),
    (status = 503, description = "store-unavailable", body = ProblemBody, content_type = "application/problem+json"),
))]
async fn list(State(app): State<App>) -> Result<Json<FlowList>, Error> {
    let rows = flow_pages::list(app.store.pool()).await?;
    Ok(Json(FlowList {
        flows: rows.into_iter().map(Into::into).collect(),
    }))
}

/// One flow: its steps and edges. The type stands percent-encoded in the path
#[utoipa::path(get, path = "/v1/flows/{type}", tag = "flows", params(("type" = String, Path)), responses(
    (status = 200, body = FlowView),
    (status = 400, description = "invalid-parameter", body = ProblemBody, content_type = "application/problem+json"),
    (status = 404, description = "flow-not-found", body = ProblemBody, content_type = "application/problem+json"),
    (status = 503, description = "store-unavailable", body = ProblemBody, content_type = "application/problem+json"),
))]
async fn one(
    State(app): State<App>,
    InPath(name): InPath<String>,
) -> Result<Json<FlowView>, Error> {
    let event_type = parse::<EventType>("type", &name)?;
    let pool = app.store.pool();
    let Some(flow) = flow_pages::find(pool, event_type.as_str()).await? else {
        return Err(Error::NotFound {
            problem: ProblemType::FlowNotFound,
            what: "flow",
            name,
        });
    };
    let steps = flow_pages::steps(pool, event_type.as_str()).await?;
    let edges = flow_pages::edges(pool, event_type.as_str()).await?;
    Ok(Json(FlowView {
        summary: flow.into(),
        steps: steps.into_iter().map(Into::into).collect(),
        read_only_candidates: candidates::of(&edges),
        edges: edges.into_iter().map(Into::into).collect(),
    }))
}

impl From<FlowRow> for FlowSummary {
    fn from(row: FlowRow) -> Self {
        Self {
            r#type: row.r#type,
            version: row.version.cast_unsigned(),
            events: row.events.cast_unsigned(),
            succeeded: row.succeeded.cast_unsigned(),
            failed: row.failed.cast_unsigned(),
            abandoned: row.abandoned.cast_unsigned(),
            doomed: row.doomed.cast_unsigned(),
            last_at: Time(row.last_at),
        }
    }
}

impl From<StepRow> for FlowStepView {
    fn from(row: StepRow) -> Self {
        Self {
            service: row.peer,
            events: row.events.cast_unsigned(),
            attempts: row.attempts.cast_unsigned(),
            failed: row.failed.cast_unsigned(),
            failed_whole: row.failed_whole.cast_unsigned(),
            mean_ms: mean(row.total_ms, row.timed),
        }
    }
}

impl From<EdgeRow> for FlowEdgeView {
    fn from(row: EdgeRow) -> Self {
        Self {
            from: Some(row.caller).filter(|caller| !caller.is_empty()),
            to: row.callee,
            method: row.method,
            path: row.path,
            count: row.count.cast_unsigned(),
            mean_position: mean(row.positions, row.count).unwrap_or_default(),
        }
    }
}

/// To one decimal.
fn mean(sum: i64, number: i64) -> Option<f64> {
    (number > 0).then(|| (sum as f64 / number as f64 * 10.0).round() / 10.0)
}
