//! What an operator can do with events and decisions: `POST /v1/events/{id}/rollback` and
//! `POST /v1/decisions/{id}/withdraw`.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use kaeru_protocol::{DecisionId, EventId, EventReport, Kind, ProblemType, ServiceName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::decisions::{self as pages, StoryView};
use super::openapi::ProblemBody;
use super::params::{InPath, parse};
use super::problem::Error;
use crate::app::App;
use crate::clock;
use crate::store::{decisions, events};
use crate::withdrawal::{self, Withdrawn};

/// Bytes of an operator's name, and of the reason.
const BY_MAX: usize = 128;
const REASON_MAX: usize = 2_048;
/// The service in whose name an aggregator states an operator's demand.
pub(super) const OPERATOR: &str = "kaeru-system/operator";

/// The routes of this resource.
pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(roll_back))
        .routes(routes!(withdraw))
}

/// Who does it, and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    /// Who, 1 to 128 characters.
    #[schema(example = "alice")]
    pub(super) by: Box<str>,
    /// Why, 1 to 2,048 characters.
    pub(super) reason: Box<str>,
}

/// The demand is stored and judged.
#[derive(Debug, Serialize, ToSchema)]
struct Accepted {
    /// The event.
    event: String,
    /// Always true.
    accepted: bool,
}

/// Demand that an event be rolled back
#[utoipa::path(post, path = "/v1/events/{id}/rollback", tag = "operators",
    params(("id" = String, Path)), request_body = Order, responses(
    (status = 202, body = Accepted),
    (status = 400, description = "invalid-parameter, invalid-body", body = ProblemBody, content_type = "application/problem+json"),
    (status = 404, description = "event-not-found", body = ProblemBody, content_type = "application/problem+json"),
    (status = 409, description = "not-rollable", body = ProblemBody, content_type = "application/problem+json"),
    (status = 503, description = "store-unavailable", body = ProblemBody, content_type = "application/problem+json"),
))]
async fn roll_back(
    State(app): State<App>,
    InPath(id): InPath<String>,
    order: Result<Json<Order>, JsonRejection>,
) -> Result<(StatusCode, Json<Accepted>), Error> {
    let event: EventId = parse("id", &id)?;
    let order = Order::read(order)?;
    is_rollable(&app, &event).await?;
    let mut report = EventReport::new(event, Kind::Operator);
    report.detail = Some(format!("{}: {}", order.by, order.reason).into());
    app.state(operator()?, report).await?;
    let accepted = Accepted {
        event: id,
        accepted: true,
    };
    Ok((StatusCode::ACCEPTED, Json(accepted)))
}

/// Take a decision back
///
/// Every proxy is told `proceed`. Possible until a service has acknowledged an undo.
#[utoipa::path(post, path = "/v1/decisions/{id}/withdraw", tag = "operators",
    params(("id" = String, Path)), request_body = Order, responses(
    (status = 200, body = StoryView),
    (status = 400, description = "invalid-parameter, invalid-body", body = ProblemBody, content_type = "application/problem+json"),
    (status = 404, description = "decision-not-found", body = ProblemBody, content_type = "application/problem+json"),
    (status = 409, description = "decision-settled", body = ProblemBody, content_type = "application/problem+json"),
    (status = 503, description = "store-unavailable", body = ProblemBody, content_type = "application/problem+json"),
))]
async fn withdraw(
    State(app): State<App>,
    InPath(id): InPath<String>,
    order: Result<Json<Order>, JsonRejection>,
) -> Result<Json<StoryView>, Error> {
    let id: DecisionId = parse("id", &id)?;
    let order = Order::read(order)?;
    let now_ms = clock::now_ms();
    let story = match withdrawal::withdraw(&app, &id, order.by, order.reason, now_ms).await? {
        Withdrawn::Done(stored) => pages::read(&app, &stored.id).await?,
        Withdrawn::Unknown => None,
        Withdrawn::TooLate(detail) => {
            return Err(Error::Refused {
                problem: ProblemType::DecisionSettled,
                detail: detail.to_owned(),
            });
        }
    };
    let unknown = || Error::NotFound {
        problem: ProblemType::DecisionNotFound,
        what: "decision",
        name: id.to_string(),
    };
    Ok(Json(story.ok_or_else(unknown)?))
}

async fn is_rollable(app: &App, event: &EventId) -> Result<(), Error> {
    let mut connection = app.store.connection().await?;
    let refused = |detail: String| {
        Err(Error::Refused {
            problem: ProblemType::NotRollable,
            detail,
        })
    };
    match events::find(&mut connection, event).await? {
        None => Err(Error::NotFound {
            problem: ProblemType::EventNotFound,
            what: "event",
            name: event.to_string(),
        }),
        Some(true) => refused(format!("{event} is an id that several events share")),
        Some(false) => match decisions::last_of_event(&mut connection, event).await? {
            Some(stored) if decisions::standing_word(&stored.decision.standing) != "withdrawn" => {
                refused(format!(
                    "{event} is being rolled back by decision {}",
                    stored.id
                ))
            }
            _ => Ok(()),
        },
    }
}

fn operator() -> Result<ServiceName, Error> {
    parse("service", OPERATOR)
}

impl Order {
    pub(super) fn read(order: Result<Json<Self>, JsonRejection>) -> Result<Self, Error> {
        let invalid = |detail: String| Error::Refused {
            problem: ProblemType::InvalidBody,
            detail,
        };
        let Json(order) = order.map_err(|rejection| invalid(rejection.body_text()))?;
        for (name, text, max) in [
            ("by", &order.by, BY_MAX),
            ("reason", &order.reason, REASON_MAX),
        ] {
            if text.trim().is_empty() || text.len() > max || text.contains('\0') {
                return Err(invalid(format!("{name}: 1 to {max} characters")));
            }
        }
        Ok(order)
    }
}
