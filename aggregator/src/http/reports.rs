//! `POST /v1/reports`: where reporters state what they saw. Answered after commit.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use kaeru_protocol::{ProblemType, Receipt, limits};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::identity;
use super::openapi::ProblemBody;
use super::problem::Error;
use crate::app::App;
use crate::clock;
use crate::ingest::{Fault, batch};

/// How long a body may take to arrive: a batch of 1 MiB at 1 Mbit/s, and a little more.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The routes of this resource.
pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(take))
}

/// Take a batch of reports
///
/// Answered after commit. A report that cannot be kept is rejected alone: the receipt names it. The same report
/// may be sent any number of times.
#[utoipa::path(post, path = "/v1/reports", tag = "proxies",
    request_body(content = serde_json::Value, description = "A batch, as docs/PROTOCOL.md has it"),
    responses(
        (status = 200, description = "The receipt: how many are stored, which never will be", body = serde_json::Value),
        (status = 400, description = "invalid-body", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "identity-mismatch", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "body-too-large, batch-too-large", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "too-many-requests, share-used-up", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "store-unavailable", body = ProblemBody, content_type = "application/problem+json"),
    ))]
async fn take(State(app): State<App>, request: Request) -> Result<Json<Receipt>, Error> {
    let outcome = receive(&app, request).await;
    let label = match &outcome {
        Ok(_) => "stored",
        Err(error) => match error.problem_type() {
            ProblemType::TooManyRequests => "overload",
            ProblemType::StoreUnavailable => "unavailable",
            ProblemType::IdentityMismatch => "foreign",
            ProblemType::ShareUsedUp => "excess",
            ProblemType::Internal => "broken",
            _ => "invalid",
        },
    };
    app.metrics.batches.with_label_values(&[label]).inc();
    if matches!(label, "overload" | "unavailable") {
        app.pulse.refuse();
    }
    if label == "unavailable" {
        app.pulse.store_away(clock::now_ms());
    }
    outcome.map(Json)
}

async fn receive(app: &App, request: Request) -> Result<Receipt, Error> {
    let headers = request.headers().clone();
    let length = content_length(&headers).unwrap_or(limits::BATCH_BYTES_MAX);
    let too_large = || Error::Refused {
        problem: ProblemType::BodyTooLarge,
        detail: format!("a batch has at most {} bytes", limits::BATCH_BYTES_MAX),
    };
    if length > limits::BATCH_BYTES_MAX {
        return Err(too_large());
    }
    let room = app.ingest.admit(length)?;
    let bytes = read(request).await?.ok_or_else(too_large)?;
    let batch = batch::read(&bytes)?;
    drop(bytes);
    identity::check(
        &headers,
        &batch.sender.reporter.service,
        app.config.require_identity,
    )?;
    Ok(app.ingest.store_in(room, batch).await?)
}

/// The whole body; `None` when it is above its limit.
async fn read(request: Request) -> Result<Option<Bytes>, Error> {
    let invalid = |detail: &str| Error::Refused {
        problem: ProblemType::InvalidBody,
        detail: detail.to_owned(),
    };
    match tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, &())).await {
        Err(_) => Err(invalid("the body took longer than 10 s to arrive")),
        Ok(Ok(bytes)) => Ok(Some(bytes)),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Ok(None),
        Ok(Err(_)) => Err(invalid("the body ended early")),
    }
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

impl From<batch::Error> for Error {
    fn from(error: batch::Error) -> Self {
        let problem = match error {
            batch::Error::TooMany(_) => ProblemType::BatchTooLarge,
            batch::Error::Unreadable(_) | batch::Error::Proxy => ProblemType::InvalidBody,
        };
        Self::Refused {
            problem,
            detail: error.to_string(),
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let problem = match fault {
            Fault::Overload => ProblemType::TooManyRequests,
            Fault::StoreAway => ProblemType::StoreUnavailable,
            Fault::NotYours => ProblemType::IdentityMismatch,
            Fault::OneTooMany { .. } => ProblemType::ShareUsedUp,
            Fault::Broken => ProblemType::Internal,
        };
        Self::Refused {
            problem,
            detail: fault.to_string(),
        }
    }
}
