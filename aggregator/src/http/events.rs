//! `events`: a page of them, newest first, and one event's whole story.

mod story;
mod summary;
mod trace_view;

use axum::Json;
use axum::extract::State;
use kaeru_flow::{EventState, Trace};
use kaeru_protocol::{EventId, EventType, Peer, ProblemType};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::breakers::BreakerView;
use super::decisions::StoryView;
use super::openapi::ProblemBody;
use super::page;
use super::params::{InPath, Params, one_of, parse, parse_given};
use super::problem::Error;
use super::time::Time;
use crate::app::App;
use crate::clock;
use crate::store::decisions::mode_word;
use crate::store::pages::{self, EventFilter, EventRow, Place};
use story::{Seen, Story};
use trace_view::{CleanupView, ConsideredView, RefusalView, StepView, UndoView};

/// The routes of this resource.
pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(one))
}

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// `running`, `succeeded`, `failed`, `abandoned`, `rolling_back`, `rolled_back` or `rollback_stuck`.
    state: Option<String>,
    /// Of this event type.
    r#type: Option<String>,
    /// In which this service (`namespace/name`) or external host (`host:<authority>`) takes part.
    service: Option<String>,
    /// Begun at this time or later (RFC 3339).
    since: Option<String>,
    /// Begun before this time (RFC 3339).
    until: Option<String>,
    /// 1 to 500; default 50.
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
}

/// A page of events.
#[derive(Debug, Serialize, ToSchema)]
struct EventPage {
    /// Newest first.
    events: Vec<EventInList>,
    /// Where the next page begins; `null` at the end.
    next: Option<String>,
}

/// One event in a list.
#[derive(Debug, Serialize, ToSchema)]
struct EventInList {
    #[serde(flatten)]
    event: EventSummary,
    /// The last decision about it.
    decision: Option<String>,
}

/// One event in short.
#[derive(Debug, Serialize, ToSchema)]
struct EventSummary {
    event: String,
    /// Said by a header, or learned from the entry.
    r#type: Option<String>,
    /// `running`, `succeeded`, `failed`, `abandoned`, `rolling_back`, `rolled_back` or `rollback_stuck`.
    #[schema(example = "succeeded")]
    state: String,
    /// The id is a trace or request id, not one that was chosen for the event.
    borrowed: bool,
    /// The id is shared by more than one event: no rule applies to it.
    shared: bool,
    /// The service at which it began.
    entry: Option<String>,
    /// Who takes part: services and external hosts.
    services: Vec<String>,
    /// The service or host whose step failed, where one did.
    failed: Option<String>,
    /// The earliest time that a report states.
    first_at: Time,
    /// The latest.
    last_at: Time,
    /// How many reports there are.
    reports: u64,
}

/// One event in full. Once its reports are no longer kept, only the summary and the decision are left.
#[derive(Debug, Serialize, ToSchema)]
struct EventView {
    #[serde(flatten)]
    event: EventSummary,
    /// Where it stands and why, in a sentence or two.
    summary: String,
    /// The mode in force for it: `off`, `shadow` or `enforce`.
    #[schema(example = "enforce")]
    mode: &'static str,
    /// The breaker of its type, where it is open.
    breaker: Option<BreakerView>,
    /// What each service or external host did, in the order in which they began.
    steps: Vec<StepView>,
    /// Requests that were refused, or would have been.
    refusals: Vec<RefusalView>,
    /// Clean-up requests that were let through.
    cleanups: Vec<CleanupView>,
    /// Undo calls that were let through.
    undos: Vec<UndoView>,
    /// Each rule, whether it fired, and why or why not.
    considered: Vec<ConsideredView>,
    /// When it is looked at again without a new report; `null` where only a report can change something.
    looked_at_again: Option<Time>,
    /// The last decision about it.
    decision: Option<StoryView>,
}

/// Events, newest first
#[utoipa::path(get, path = "/v1/events", tag = "events", params(Wanted), responses(
    (status = 200, body = EventPage),
    (status = 400, description = "invalid-parameter", body = ProblemBody, content_type = "application/problem+json"),
    (status = 503, description = "store-unavailable", body = ProblemBody, content_type = "application/problem+json"),
))]
async fn list(
    State(app): State<App>,
    Params(wanted): Params<Wanted>,
) -> Result<Json<EventPage>, Error> {
    let Wanted {
        state,
        r#type,
        service,
        since,
        until,
        limit,
        after,
    } = wanted;
    let filter = EventFilter {
        state: one_of(
            "state",
            state.as_deref(),
            &EventState::ALL.map(EventState::as_str),
        )?,
        event_type: parse_given::<EventType>("type", r#type.as_deref())?.map(Into::into),
        service: parse_given::<Peer>("service", service.as_deref())?.map(Into::into),
    };
    let stretch = page::stretch(
        since.as_deref(),
        until.as_deref(),
        limit.as_deref(),
        after.as_deref(),
    )?;
    let found = pages::events(app.store.pool(), &filter, &stretch).await?;
    let next = page::next(&found, stretch.limit, |row| Place {
        at: row.first_at,
        id: row.event.clone(),
    });
    Ok(Json(EventPage {
        events: found.rows.into_iter().map(Into::into).collect(),
        next,
    }))
}

/// One event: its steps and attempts, what was refused, what was considered, the decision
#[utoipa::path(get, path = "/v1/events/{id}", tag = "events", params(("id" = String, Path)), responses(
    (status = 200, body = EventView),
    (status = 400, description = "invalid-parameter", body = ProblemBody, content_type = "application/problem+json"),
    (status = 404, description = "event-not-found", body = ProblemBody, content_type = "application/problem+json"),
    (status = 503, description = "store-unavailable", body = ProblemBody, content_type = "application/problem+json"),
))]
async fn one(State(app): State<App>, InPath(id): InPath<String>) -> Result<Json<EventView>, Error> {
    let event = parse::<EventId>("id", &id)?;
    let story = Story::read(&app, &event, clock::now_ms()).await?;
    let unknown = || Error::NotFound {
        problem: ProblemType::EventNotFound,
        what: "event",
        name: id,
    };
    Ok(Json(EventView::of(story).ok_or_else(unknown)?))
}

impl EventView {
    /// `None` where nothing at all is known of the event.
    fn of(story: Story) -> Option<Self> {
        let summary = summary::summary(&story);
        let in_force = story.in_force;
        let event = match (story.row, &story.seen) {
            (Some(row), _) => row.into(),
            (None, Some(seen)) => EventSummary::unseen(&seen.trace),
            (None, None) => return None,
        };
        let mut view = Self {
            event,
            summary,
            mode: mode_word(story.mode),
            breaker: story
                .breaker
                .map(|breaker| BreakerView::new(breaker, &in_force)),
            steps: Vec::new(),
            refusals: Vec::new(),
            cleanups: Vec::new(),
            undos: Vec::new(),
            considered: Vec::new(),
            looked_at_again: None,
            decision: story
                .decision
                .map(|decision| StoryView::new(decision, &in_force)),
        };
        if let Some(Seen {
            trace,
            judgement,
            policy,
            ..
        }) = story.seen
        {
            view.steps = trace_view::steps(trace.entry.as_ref(), trace.steps);
            view.refusals = trace.refusals.into_iter().map(Into::into).collect();
            view.cleanups = trace.cleanups.into_iter().map(Into::into).collect();
            view.undos = trace.undos.into_iter().map(Into::into).collect();
            let considered = judgement.considered.into_iter();
            view.considered = considered
                .map(|one| ConsideredView::new(one, &policy))
                .collect();
            view.looked_at_again = judgement.wake_ms.map(Time::of_millis);
        }
        Some(view)
    }
}

impl EventSummary {
    /// An event that has reports, and that no decider has looked at yet.
    fn unseen(trace: &Trace) -> Self {
        Self {
            event: trace.event.to_string(),
            r#type: trace.event_type.clone().map(Into::into),
            state: EventState::Running.to_string(),
            borrowed: trace.borrowed,
            shared: trace.shared.is_some(),
            entry: trace.entry.as_ref().map(ToString::to_string),
            services: trace.steps.keys().map(ToString::to_string).collect(),
            failed: None,
            first_at: Time::of_millis(trace.first_ms),
            last_at: Time::of_millis(trace.last_ms),
            reports: trace.reports as u64,
        }
    }
}

impl From<EventRow> for EventInList {
    fn from(mut row: EventRow) -> Self {
        let decision = row.decision.take();
        Self {
            event: row.into(),
            decision,
        }
    }
}

impl From<EventRow> for EventSummary {
    fn from(row: EventRow) -> Self {
        Self {
            event: row.event,
            r#type: row.r#type,
            state: row.state,
            borrowed: row.borrowed,
            shared: row.shared,
            entry: row.entry,
            services: row.services,
            failed: row.failed,
            first_at: Time(row.first_at),
            last_at: Time(row.last_at),
            reports: row.reports.cast_unsigned(),
        }
    }
}
