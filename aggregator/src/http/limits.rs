//! `limits`: how much of what is bounded by name is held, and who had too much of it.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::openapi::ProblemBody;
use super::problem::Error;
use super::time::Time;
use crate::app::App;
use crate::census::What;
use crate::store::excesses::{self, ExcessRow};

/// The routes of this resource.
pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// What is bounded by name.
#[derive(Debug, Serialize, ToSchema)]
struct LimitList {
    limits: Vec<LimitView>,
    /// Who had too many of what, the most first; at most 1,000, those above it together as `(others)`.
    excesses: Vec<ExcessView>,
}

/// One kind of names.
#[derive(Debug, Serialize, ToSchema)]
struct LimitView {
    /// `proxies`, `reporters`, `calls` or `types`.
    what: &'static str,
    /// How many are held, as of a minute ago.
    held: usize,
    /// How many there may be.
    most: usize,
    /// Of all services of one namespace.
    most_of_namespace: usize,
    /// Of one service.
    most_of_service: usize,
}

/// Who had too many.
#[derive(Debug, Serialize, ToSchema)]
struct ExcessView {
    /// Of what.
    what: String,
    /// A service that used up its share; `namespace/*` where its namespace did, or where there is no room for anybody.
    #[schema(example = "shop/web")]
    who: String,
    /// How many were one too many: batches that were refused (proxies, reporters), calls that lost their path and type, event
    /// types that were not learned.
    count: u64,
    /// The last proxy that was turned away, or whose call was cut.
    proxy: Option<String>,
    last_at: Time,
}

/// What is bounded by name: how much is held, and who had too much
#[utoipa::path(get, path = "/v1/limits", tag = "services", responses(
    (status = 200, body = LimitList),
    (status = 503, description = "store-unavailable", body = ProblemBody, content_type = "application/problem+json"),
))]
async fn list(State(app): State<App>) -> Result<Json<LimitList>, Error> {
    let limit = |what: What| {
        let limits = what.limits();
        LimitView {
            what: what.as_str(),
            held: app.census.count(what),
            most: limits.all,
            most_of_namespace: limits.of_namespace,
            most_of_service: limits.of_service,
        }
    };
    let excesses = excesses::list(app.store.pool()).await?;
    Ok(Json(LimitList {
        limits: What::ALL.into_iter().map(limit).collect(),
        excesses: excesses.into_iter().map(Into::into).collect(),
    }))
}

impl From<ExcessRow> for ExcessView {
    fn from(row: ExcessRow) -> Self {
        Self {
            what: row.what,
            who: row.who,
            count: row.count.cast_unsigned(),
            proxy: Some(row.proxy).filter(|proxy| !proxy.is_empty()),
            last_at: Time(row.last_at),
        }
    }
}
