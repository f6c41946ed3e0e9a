//! The API: one table of routes, from which the OpenAPI document is made.

use axum::Router;
use axum::routing::get;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

pub(crate) mod decisions;
pub(crate) mod events;
pub(crate) mod flows;
pub(crate) mod problem;
pub(crate) mod services;

/// Every route and its description.
pub(crate) fn api() -> (Router<App>, OpenApi) {
    OpenApiRouter::new()
        .merge(events::routes())
        .merge(decisions::routes())
        .merge(services::routes())
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
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::no_method)
        .with_state(app)
}
