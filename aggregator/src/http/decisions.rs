//! `decisions`: what was decided, newest first, and one decision in full.

mod changes;
mod explain;
mod story;
mod view;

use axum::Json;
use axum::extract::State;
use kaeru_protocol::{DecisionId, EventType, ProblemType};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use story::{Story, StoryView};
pub(crate) use view::ReportView;

use super::openapi::ProblemBody;
use super::page;
use super::params::{InPath, Params, one_of, parse, parse_given};
use super::problem::Error;
use crate::app::App;
use crate::store::decisions::Stored;
use crate::store::pages::{self, DecisionFilter, Place};
use crate::store::{self, decisions};
use view::DecisionView;

const STATES: [&str; 3] = ["live", "contested", "withdrawn"];

/// The routes of this resource.
pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(one))
}

/// Which decisions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// `live`, `contested` or `withdrawn`.
    state: Option<String>,
    /// Of events of this type.
    r#type: Option<String>,
    /// Decided at this time or later (RFC 3339).
    since: Option<String>,
    /// Decided before this time (RFC 3339).
    until: Option<String>,
    /// 1 to 500; default 50.
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
}

/// A page of decisions.
#[derive(Debug, Serialize, ToSchema)]
struct DecisionPage {
    /// Newest first.
    decisions: Vec<DecisionView>,
    /// Where the next page begins; `null` at the end.
    next: Option<String>,
}

/// Decisions, newest first
#[utoipa::path(get, path = "/v1/decisions", tag = "decisions", params(Wanted), responses(
    (status = 200, body = DecisionPage),
    (status = 400, description = "invalid-parameter", body = ProblemBody, content_type = "application/problem+json"),
    (status = 503, description = "store-unavailable", body = ProblemBody, content_type = "application/problem+json"),
))]
async fn list(
    State(app): State<App>,
    Params(wanted): Params<Wanted>,
) -> Result<Json<DecisionPage>, Error> {
    let Wanted {
        state,
        r#type,
        since,
        until,
        limit,
        after,
    } = wanted;
    let filter = DecisionFilter {
        state: one_of("state", state.as_deref(), &STATES)?,
        event_type: parse_given::<EventType>("type", r#type.as_deref())?.map(Into::into),
    };
    let stretch = page::stretch(
        since.as_deref(),
        until.as_deref(),
        limit.as_deref(),
        after.as_deref(),
    )?;
    let found = pages::decisions(app.store.pool(), &filter, &stretch).await?;
    let next = page::next(&found, stretch.limit, place);
    let stored = found.rows;
    let ids: Vec<&str> = stored.iter().map(|stored| stored.id.as_str()).collect();
    let mut connection = app.store.connection().await?;
    let sources = decisions::sources(&mut connection, &ids).await?;
    Ok(Json(DecisionPage {
        decisions: stored
            .into_iter()
            .map(|stored| DecisionView::new(stored, &sources))
            .collect(),
        next,
    }))
}

/// One decision: reason, evidence, policy line, plan and revisions, and all of it in a paragraph
#[utoipa::path(get, path = "/v1/decisions/{id}", tag = "decisions", params(("id" = String, Path)), responses(
    (status = 200, body = StoryView),
    (status = 400, description = "invalid-parameter", body = ProblemBody, content_type = "application/problem+json"),
    (status = 404, description = "decision-not-found", body = ProblemBody, content_type = "application/problem+json"),
    (status = 503, description = "store-unavailable", body = ProblemBody, content_type = "application/problem+json"),
))]
async fn one(State(app): State<App>, InPath(id): InPath<String>) -> Result<Json<StoryView>, Error> {
    let id = parse::<DecisionId>("id", &id)?;
    let story = read(&app, &id).await?;
    let unknown = || Error::NotFound {
        problem: ProblemType::DecisionNotFound,
        what: "decision",
        name: id.to_string(),
    };
    Ok(Json(story.ok_or_else(unknown)?))
}

/// A decision in full, as of one moment.
pub(super) async fn read(app: &App, id: &DecisionId) -> store::Result<Option<StoryView>> {
    let mut snapshot = app.store.snapshot().await?;
    let in_force = app.policies.current(&mut snapshot, &app.metrics).await?;
    let Some(stored) = decisions::find(&mut snapshot, id).await? else {
        return Ok(None);
    };
    let event = pages::event(&mut snapshot, stored.event.as_str()).await?;
    let story = Story::read(&mut snapshot, &in_force, stored, event.as_ref()).await?;
    Ok(Some(StoryView::new(story, &in_force)))
}

fn place(stored: &Stored) -> Place {
    Place {
        at: crate::clock::timestamp(stored.decision.decided_ms),
        id: stored.id.to_string(),
    }
}
