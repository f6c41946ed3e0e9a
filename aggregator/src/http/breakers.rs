//! `breakers`: the event types that fell back to shadow, and the way back for an operator.

mod view;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use kaeru_protocol::{EventType, ProblemType};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use view::BreakerView;

use super::openapi::ProblemBody;
use super::operator::Order;
use super::params::{InPath, parse};
use super::problem::Error;
use crate::app::App;
use crate::breaker::{self, Closed};
use crate::clock;
use crate::store::breakers;

/// In a path, the events of no type: no event type has quotes.
const UNTYPED: &str = "\"\"";

/// The routes of this resource.
pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(close))
}

/// The breakers that are open under the policy in force.
#[derive(Debug, Serialize, ToSchema)]
struct BreakerList {
    /// The one that tripped last first.
    breakers: Vec<BreakerView>,
}

/// Open breakers: event types that fell back to shadow
#[utoipa::path(get, path = "/v1/breakers", tag = "breakers", responses(
    (status = 200, body = BreakerList),
    (status = 503, description = "store-unavailable", body = ProblemBody, content_type = "application/problem+json"),
))]
async fn list(State(app): State<App>) -> Result<Json<BreakerList>, Error> {
    let mut connection = app.store.connection().await?;
    let in_force = app.policies.current(&mut connection, &app.metrics).await?;
    let open = breakers::open(&mut connection, in_force.version()).await?;
    Ok(Json(BreakerList {
        breakers: open
            .into_iter()
            .map(|breaker| BreakerView::new(breaker, &in_force))
            .collect(),
    }))
}

/// Close the breaker of an event type
///
/// The mode of the type is the policy's again; proxies are told within seconds. The type stands percent-encoded in the
/// path; `%22%22` stands for events of no type. Only what happens afterwards can trip the breaker again.
#[utoipa::path(post, path = "/v1/breakers/{type}/close", tag = "operators",
    params(("type" = String, Path)), request_body = Order, responses(
    (status = 200, body = BreakerView),
    (status = 400, description = "invalid-parameter, invalid-body", body = ProblemBody, content_type = "application/problem+json"),
    (status = 404, description = "breaker-not-found", body = ProblemBody, content_type = "application/problem+json"),
    (status = 409, description = "breaker-closed", body = ProblemBody, content_type = "application/problem+json"),
    (status = 503, description = "store-unavailable", body = ProblemBody, content_type = "application/problem+json"),
))]
async fn close(
    State(app): State<App>,
    InPath(name): InPath<String>,
    order: Result<Json<Order>, JsonRejection>,
) -> Result<Json<BreakerView>, Error> {
    let event_type = if name == UNTYPED {
        String::new()
    } else {
        parse::<EventType>("type", &name)?.into()
    };
    let Order { by, reason } = Order::read(order)?;
    match breaker::close(&app, &event_type, &by, &reason, clock::now_ms()).await? {
        Closed::Done(breaker) => Ok(Json(BreakerView::new(breaker, &app.policies.last_known()))),
        Closed::Before(breaker) => Err(Error::Refused {
            problem: ProblemType::BreakerClosed,
            detail: view::closed_before(&breaker),
        }),
        Closed::Unknown => Err(Error::NotFound {
            problem: ProblemType::BreakerNotFound,
            what: "tripped breaker of the type",
            name,
        }),
    }
}
