//! `events`: routes, queries and views.

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// The routes of this resource.
pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
}
