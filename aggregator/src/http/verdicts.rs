//! `GET /v1/verdicts`: the feed, by long poll; `GET /v1/events/{id}/verdict`: what holds for one event.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use kaeru_protocol::{EventId, FeedCursor, Mode, ProblemType, ServiceName, VerdictPage};
use prometheus::IntGauge;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::openapi::ProblemBody;
use super::params::{InPath, Params, parse, parse_given};
use super::problem::Error;
use crate::app::App;
use crate::clock;
use crate::store::{decisions, feed};

/// How long a poll waits when it does not say.
const WAIT_DEFAULT: Duration = Duration::from_secs(25);
/// How long a poll waits at most: proxies and load balancers close what is quiet for longer.
const WAIT_MAX: Duration = Duration::from_secs(55);

/// The routes of this resource.
pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(poll))
        .routes(routes!(one))
}

/// Where the poller stands.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Poll {
    /// `cursor` of the page before; without it, or with one of another epoch, everything from the beginning.
    after: Option<String>,
    /// The service that the poller stands beside, `namespace/name`.
    service: String,
    /// How long to wait for something new, ms; default 25,000, at most 55,000.
    #[param(value_type = Option<u32>)]
    wait_ms: Option<String>,
}

/// Verdicts, as they are told
#[utoipa::path(get, path = "/v1/verdicts", tag = "proxies", params(Poll), responses(
    (status = 200, description = "A page of verdicts, as docs/PROTOCOL.md has it", body = serde_json::Value),
    (status = 400, description = "invalid-parameter", body = ProblemBody, content_type = "application/problem+json"),
    (status = 429, description = "too-many-requests", body = ProblemBody, content_type = "application/problem+json"),
    (status = 503, description = "store-unavailable", body = ProblemBody, content_type = "application/problem+json"),
))]
async fn poll(
    State(app): State<App>,
    Params(poll): Params<Poll>,
) -> Result<Json<VerdictPage>, Error> {
    parse::<ServiceName>("service", &poll.service)?;
    let cursor = parse_given::<FeedCursor>("after", poll.after.as_deref())?;
    let wait = match parse_given::<u64>("wait_ms", poll.wait_ms.as_deref())? {
        None => WAIT_DEFAULT,
        Some(ms) => Duration::from_millis(ms).min(WAIT_MAX),
    };
    let _room = app.polls.try_acquire().map_err(|_| Error::Refused {
        problem: ProblemType::TooManyRequests,
        detail: "too many polls are waiting".to_owned(),
    })?;
    let _counted = Counted::new(&app.metrics.polls);
    let after = poll.after.as_deref().map(tracing::field::display);
    tracing::debug!(service = %poll.service, after, "polls");
    let page = wait_for_news(&app, cursor.as_ref(), wait).await;
    page.map(Json)
}

/// One poll that waits, however it ends: a connection that breaks ends it without an answer.
struct Counted<'a>(&'a IntGauge);

impl<'a> Counted<'a> {
    fn new(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The first page that says something, or an empty one when the time is over or we stop.
async fn wait_for_news(
    app: &App,
    cursor: Option<&FeedCursor>,
    wait: Duration,
) -> Result<VerdictPage, Error> {
    let mut changes = app.feed.changes();
    let mut stopping = app.stopping.clone();
    let until = Instant::now() + wait;
    if let Some(cursor) = cursor.filter(|cursor| app.feed.is_behind(cursor)) {
        // Only a store that was put back is a reason to tell everything again.
        let nothing = || VerdictPage {
            cursor: cursor.clone(),
            reset: false,
            more: false,
            verdicts: Vec::new(),
        };
        tokio::select! {
            () = app.feed.look_again() => {}
            _ = stopping.wait_for(|stopping| *stopping) => return Ok(nothing()),
            () = tokio::time::sleep_until(until) => return Ok(nothing()),
        }
    }
    loop {
        changes.mark_unchanged();
        let page = app
            .feed
            .page(cursor, clock::now_ms())
            .ok_or_else(|| Error::Refused {
                problem: ProblemType::StoreUnavailable,
                detail: "the feed has not been read yet".to_owned(),
            })?;
        if page.reset || !page.verdicts.is_empty() {
            return Ok(page);
        }
        tokio::select! {
            _ = changes.changed() => {}
            _ = stopping.wait_for(|stopping| *stopping) => return Ok(page),
            () = tokio::time::sleep_until(until) => return Ok(page),
        }
    }
}

/// What holds for one event.
#[derive(Debug, Serialize, ToSchema)]
struct VerdictView {
    /// The event.
    event: String,
    /// `proceed` or `roll_back`.
    verdict: &'static str,
    /// The decision behind it.
    decision: Option<String>,
    /// Whose step failed.
    failed: Option<String>,
    /// `off`, `shadow` or `enforce`.
    mode: &'static str,
}

/// The verdict on one event
///
/// A sidecar answers this by itself, from its cache. An event that nobody knows may proceed.
#[utoipa::path(get, path = "/v1/events/{id}/verdict", tag = "services", params(("id" = String, Path)), responses(
    (status = 200, body = VerdictView),
    (status = 400, description = "invalid-parameter", body = ProblemBody, content_type = "application/problem+json"),
    (status = 503, description = "store-unavailable", body = ProblemBody, content_type = "application/problem+json"),
))]
async fn one(
    State(app): State<App>,
    InPath(id): InPath<String>,
) -> Result<Json<VerdictView>, Error> {
    let event: EventId = parse("id", &id)?;
    let mut connection = app.store.connection().await?;
    let last = decisions::last_of_event(&mut connection, &event).await?;
    let in_force = app.policies.last_known();
    let view = match &last {
        None => VerdictView {
            event: id,
            verdict: "proceed",
            decision: None,
            failed: None,
            mode: decisions::mode_word(Mode::default()),
        },
        Some(stored) => {
            let mode = in_force.mode(stored.event_type.as_ref(), None);
            let told = feed::Telling::of(stored, mode, stored.revised_at);
            VerdictView {
                event: id,
                verdict: feed::verdict_word(told.verdict),
                decision: Some(told.decision),
                failed: told.failed.map(Into::into),
                mode: decisions::mode_word(mode),
            }
        }
    };
    Ok(Json(view))
}
