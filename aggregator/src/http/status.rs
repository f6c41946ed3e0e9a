//! `POST /v1/events/{id}/status`: what a service says of an event outside a request. A sidecar answers this by
//! itself; here it arrives from services without one, and from those that add a detail.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use kaeru_protocol::{EventId, EventReport, Kind, ProblemType, ServiceName, Word, limits};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::identity;
use super::openapi::ProblemBody;
use super::params::{InPath, Params, parse};
use super::problem::Error;
use crate::app::App;

/// The routes of this resource.
pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(say))
}

/// What is said.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Said {
    /// `running`, `succeeded`, `rejected` or `failed` (final for the event).
    status: String,
    /// How far the job is: `0.4` or `2/5`.
    progress: Option<String>,
    /// Who says it, `namespace/name`; needed where no certificate says it (`x-forwarded-client-cert`).
    service: Option<String>,
}

/// More about it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Detail {
    /// Free text, at most 4 KiB.
    detail: Option<Box<str>>,
}

/// Say how an event stands at a service
#[utoipa::path(post, path = "/v1/events/{id}/status", tag = "services",
    params(("id" = String, Path), Said), request_body(content = Option<Detail>), responses(
    (status = 202, description = "It is stored"),
    (status = 400, description = "invalid-parameter, invalid-body", body = ProblemBody, content_type = "application/problem+json"),
    (status = 403, description = "identity-mismatch", body = ProblemBody, content_type = "application/problem+json"),
    (status = 429, description = "too-many-requests, share-used-up", body = ProblemBody, content_type = "application/problem+json"),
    (status = 503, description = "store-unavailable", body = ProblemBody, content_type = "application/problem+json"),
))]
async fn say(
    State(app): State<App>,
    InPath(id): InPath<String>,
    Params(said): Params<Said>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Error> {
    let event: EventId = parse("id", &id)?;
    let service = speaker(said.service.as_deref(), &headers)?;
    identity::check(&headers, &service, app.config.require_identity)?;
    let mut report = EventReport::new(event, Kind::Word);
    // Without a sidecar nobody vouches that the service was called for the event.
    report.handed_over = true;
    report.ending.word = Some(word(&said.status)?);
    report.progress = said.progress.as_deref().map(progress).transpose()?;
    report.detail = detail(&body)?.detail;
    app.state(service, report).await?;
    Ok(StatusCode::ACCEPTED)
}

/// As the caller says; else as its certificate says, whose service account mostly bears the service's name.
fn speaker(service: Option<&str>, headers: &HeaderMap) -> Result<ServiceName, Error> {
    match (service, identity::workload(headers)) {
        (Some(service), _) => parse("service", service),
        (None, Some((namespace, account))) => parse("service", &format!("{namespace}/{account}")),
        (None, None) => Err(Error::Parameter {
            name: "service",
            rule: "namespace/name of who says it; without a sidecar nobody else knows".to_owned(),
        }),
    }
}

fn word(status: &str) -> Result<Word, Error> {
    Word::from_bytes(status.as_bytes()).ok_or_else(|| Error::Parameter {
        name: "status",
        rule: "running, succeeded, rejected or failed".to_owned(),
    })
}

fn progress(text: &str) -> Result<f32, Error> {
    let number = |text: &str| text.trim().parse::<f32>().ok();
    let share = match text.split_once('/') {
        Some((done, all)) => number(done).zip(number(all)).map(|(done, all)| done / all),
        None => number(text),
    };
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| Error::Parameter {
            name: "progress",
            rule: "0 to 1, or a part of a whole such as 2/5".to_owned(),
        })
}

fn detail(body: &[u8]) -> Result<Detail, Error> {
    if body.is_empty() {
        return Ok(Detail::default());
    }
    let invalid = |detail: String| Error::Refused {
        problem: ProblemType::InvalidBody,
        detail,
    };
    let read: Detail = serde_json::from_slice(body).map_err(|error| invalid(error.to_string()))?;
    match read.detail.as_deref() {
        Some(text) if text.len() > limits::DETAIL_MAX || text.contains('\0') => Err(invalid(
            "detail: at most 4 KiB of text without zero characters".to_owned(),
        )),
        _ => Ok(read),
    }
}

#[cfg(test)]
mod tests {
    use super::{detail, progress, word};

    #[test]
    fn what_is_said_is_read_strictly() {
        assert_eq!(progress("2/5").unwrap().to_string(), "0.4");
        assert_eq!(progress("0.4").unwrap().to_string(), "0.4");
        for wrong in ["", "2", "-1", "1/0", "0/0", "6/5", "NaN", "x"] {
            assert!(progress(wrong).is_err(), "{wrong}");
        }
        assert!(word("failed").is_ok() && word("broken").is_err());
        assert_eq!(
            detail(b"{\"detail\":\"x\"}").unwrap().detail.as_deref(),
            Some("x")
        );
        assert!(detail(b"").unwrap().detail.is_none());
        assert!(detail(b"{\"other\":1}").is_err());
    }
}
