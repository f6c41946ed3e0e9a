//! `services`: who was heard of, and what its proxies say of themselves.

use std::collections::{BTreeMap, HashMap};

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use kaeru_protocol::{ProblemType, ReporterId, ServiceName};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::openapi::ProblemBody;
use super::params::{InPath, parse};
use super::problem::Error;
use super::time::Time;
use crate::app::App;
use crate::clock;
use crate::store::services::{self, CountsRow, ProxyRow, ReporterRow, ServiceRow};

/// The routes of this resource.
pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(one))
}

/// All services, worst first: by what they lost, then by possible splits.
#[derive(Debug, Serialize, ToSchema)]
struct ServiceList {
    services: Vec<ServiceSummary>,
}

/// One service in short.
#[derive(Debug, Serialize, ToSchema)]
struct ServiceSummary {
    #[schema(example = "shop/web")]
    service: String,
    /// Proxies that were heard of.
    proxies: u64,
    /// Requests of events open now, as its proxies in touch say.
    in_flight: u64,
    /// When one of them was last heard of.
    last_heard: Time,
    /// Outbound requests that matched no open event while there were some: broken propagation.
    possible_splits: u64,
    /// Reports that its proxies dropped, by their own count.
    dropped: u64,
    /// Reports that were given out and never came, by gaps in sequences; as long as losses are kept.
    lost: u64,
}

/// One service in full.
#[derive(Debug, Serialize, ToSchema)]
struct ServiceView {
    service: String,
    /// Those heard last first, at most 1,000.
    proxies: Vec<ProxyView>,
    counts: CountsView,
}

/// One proxy, as it last stated itself.
#[derive(Debug, Serialize, ToSchema)]
struct ProxyView {
    proxy: String,
    last_heard: Time,
    /// It owed a status by now.
    out_of_touch: bool,
    /// Requests of events open at its last status.
    in_flight: u64,
    /// Age of the oldest of them then, ms.
    oldest_ms: u64,
    /// The last ORCA values of the service.
    load: BTreeMap<String, f64>,
    /// Its VMs, those heard last first.
    reporters: Vec<ReporterView>,
}

/// One VM of a proxy.
#[derive(Debug, Serialize, ToSchema)]
struct ReporterView {
    /// 16 hex digits.
    id: String,
    /// The last sequence that it gave out, by its proxy's last status.
    seq: u64,
    /// The last sequence in the store.
    stored_seq: u64,
    /// Reports that it dropped.
    dropped: u64,
}

/// Sums over the service's proxies since they were first seen.
#[derive(Debug, Serialize, ToSchema)]
struct CountsView {
    succeeded: u64,
    rejected: u64,
    failed: u64,
    unknown: u64,
    refused: u64,
    possible_splits: u64,
    invalid_ids: u64,
    /// Reports that its proxies dropped, by their own count.
    dropped: u64,
    /// Reports that were given out and never came, by gaps in sequences.
    lost: u64,
}

/// All services that were heard of, worst first
#[utoipa::path(get, path = "/v1/services", tag = "services", responses(
    (status = 200, body = ServiceList),
    (status = 503, description = "store-unavailable", body = ProblemBody, content_type = "application/problem+json"),
))]
async fn list(State(app): State<App>) -> Result<Json<ServiceList>, Error> {
    let now = clock::timestamp(clock::now_ms());
    let rows = services::list(app.store.pool(), now).await?;
    Ok(Json(ServiceList {
        services: rows.into_iter().map(Into::into).collect(),
    }))
}

/// One service: its proxies, their reporters and counts
#[utoipa::path(get, path = "/v1/services/{namespace}/{name}", tag = "services",
    params(("namespace" = String, Path), ("name" = String, Path)), responses(
    (status = 200, body = ServiceView),
    (status = 400, description = "invalid-parameter", body = ProblemBody, content_type = "application/problem+json"),
    (status = 404, description = "service-not-found", body = ProblemBody, content_type = "application/problem+json"),
    (status = 503, description = "store-unavailable", body = ProblemBody, content_type = "application/problem+json"),
))]
async fn one(
    State(app): State<App>,
    InPath((namespace, name)): InPath<(String, String)>,
) -> Result<Json<ServiceView>, Error> {
    let service = parse::<ServiceName>("namespace/name", &format!("{namespace}/{name}"))?;
    let pool = app.store.pool();
    let counts = services::counts(pool, service.as_str()).await?;
    if counts.proxies == 0 {
        let problem = ProblemType::ServiceNotFound;
        return Err(Error::NotFound {
            problem,
            what: "service",
            name: service.into(),
        });
    }
    let mut reporters: HashMap<String, Vec<ReporterView>> = HashMap::new();
    for row in services::reporters(pool, service.as_str()).await? {
        reporters
            .entry(row.proxy.clone())
            .or_default()
            .push(row.into());
    }
    let now = clock::timestamp(clock::now_ms());
    let proxies = services::proxies(pool, service.as_str()).await?;
    let proxies = proxies.into_iter().map(|row| {
        let reporters = reporters.remove(&row.proxy).unwrap_or_default();
        ProxyView::new(row, reporters, now)
    });
    Ok(Json(ServiceView {
        proxies: proxies.collect(),
        service: service.into(),
        counts: counts.into(),
    }))
}

impl ProxyView {
    fn new(row: ProxyRow, reporters: Vec<ReporterView>, now: DateTime<Utc>) -> Self {
        let status = row.status.map(|status| status.0).unwrap_or_default();
        Self {
            proxy: row.proxy,
            last_heard: Time(row.last_heard),
            out_of_touch: row.due_at.is_some_and(|due| due < now),
            in_flight: status.in_flight,
            oldest_ms: status.oldest_ms,
            load: status
                .load
                .into_iter()
                .map(|(name, value)| (name.into(), value))
                .collect(),
            reporters,
        }
    }
}

impl From<ServiceRow> for ServiceSummary {
    fn from(row: ServiceRow) -> Self {
        Self {
            service: row.service,
            proxies: row.proxies.cast_unsigned(),
            in_flight: row.in_flight.cast_unsigned(),
            last_heard: Time(row.last_heard),
            possible_splits: row.possible_splits.cast_unsigned(),
            dropped: row.dropped.cast_unsigned(),
            lost: row.lost.cast_unsigned(),
        }
    }
}

impl From<ReporterRow> for ReporterView {
    fn from(row: ReporterRow) -> Self {
        Self {
            id: ReporterId(row.id.cast_unsigned()).to_string(),
            seq: row.seq.cast_unsigned(),
            stored_seq: row.stored_seq.cast_unsigned(),
            dropped: row.dropped.cast_unsigned(),
        }
    }
}

impl From<CountsRow> for CountsView {
    fn from(row: CountsRow) -> Self {
        Self {
            succeeded: row.succeeded.cast_unsigned(),
            rejected: row.rejected.cast_unsigned(),
            failed: row.failed.cast_unsigned(),
            unknown: row.unknown.cast_unsigned(),
            refused: row.refused.cast_unsigned(),
            possible_splits: row.possible_splits.cast_unsigned(),
            invalid_ids: row.invalid_ids.cast_unsigned(),
            dropped: row.dropped.cast_unsigned(),
            lost: row.lost.cast_unsigned(),
        }
    }
}
