//! The API: one table of routes, from which the OpenAPI document is made.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::get;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

pub(crate) mod breakers;
mod dashboard;
pub(crate) mod decisions;
pub(crate) mod events;
pub(crate) mod flows;
mod grounds;
pub(crate) mod identity;
mod limits;
mod modes;
pub(crate) mod openapi;
mod operator;
mod page;
mod params;
pub(crate) mod problem;
#[cfg(test)]
mod proxy_tests;
mod reports;
pub(crate) mod services;
mod status;
#[cfg(test)]
mod tests;
mod time;
mod verdicts;
mod words;

/// Every route and its description.
pub(crate) fn api() -> (Router<App>, OpenApi) {
    OpenApiRouter::with_openapi(openapi::Frame::openapi())
        .merge(reports::routes())
        .merge(verdicts::routes())
        .merge(status::routes())
        .merge(operator::routes())
        .merge(events::routes())
        .merge(decisions::routes())
        .merge(breakers::routes())
        .merge(services::routes())
        .merge(limits::routes())
        .merge(flows::routes())
        .split_for_parts()
}

/// The API with everything around it.
pub(crate) fn router(app: App) -> Router {
    let (routes, openapi) = api();
    routes
        .route(
            "/openapi.json",
            get(move || std::future::ready(axum::Json(openapi.clone()))),
        )
        .merge(dashboard::routes())
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::no_method)
        .layer(DefaultBodyLimit::max(
            kaeru_protocol::limits::BATCH_BYTES_MAX,
        ))
        .with_state(app)
}
