//! What is kept with decisions for people: each revision as it was written, and who stated the reports that they
//! rest on.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use kaeru_flow::{Decision, ReportKey};
use kaeru_protocol::{DecisionId, ReporterId};
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};

use super::body::Body;
use crate::store::{Error, Result};

/// Revisions that are read at most, the first ones: a plan of 256 services changes a few times each.
const REVISIONS_MAX: i64 = 1_000;

/// A decision as one revision left it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Revision {
    /// When it was written.
    pub(crate) at: DateTime<Utc>,
    /// What it says.
    pub(crate) decision: Decision,
}

/// Who stated a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// The service that the reporter stands beside.
    pub(crate) service: String,
    /// The proxy that it lives in.
    pub(crate) proxy: String,
    /// When it was first received.
    pub(crate) received: DateTime<Utc>,
}

/// The revisions of a decision, in their order.
pub(crate) async fn revisions(
    connection: &mut PgConnection,
    id: &DecisionId,
) -> Result<Vec<Revision>> {
    let rows: Vec<(DateTime<Utc>, Json<Body>)> = sqlx::query_as(
        "SELECT at, body FROM decision_revisions WHERE decision = $1 ORDER BY revision LIMIT $2",
    )
    .bind(id.as_str())
    .bind(REVISIONS_MAX)
    .fetch_all(connection)
    .await?;
    let revision = |(at, body): (DateTime<Utc>, Json<Body>)| {
        let decision = Decision::try_from(body.0);
        Ok(Revision {
            at,
            decision: decision.map_err(|why| Error::unreadable("a revision", why))?,
        })
    };
    rows.into_iter().map(revision).collect()
}

#[derive(FromRow)]
struct SourceRow {
    decision: String,
    reporter: i64,
    seq: i64,
    service: String,
    proxy: String,
    received: DateTime<Utc>,
}

/// Who stated the reports that these decisions rest on, by decision and report.
pub(crate) async fn sources(
    connection: &mut PgConnection,
    ids: &[&str],
) -> Result<HashMap<(String, ReportKey), Source>> {
    let rows: Vec<SourceRow> = sqlx::query_as(
        "SELECT decision, reporter, seq, service, proxy, received FROM decision_evidence
         WHERE decision = ANY($1)",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    let source = |row: SourceRow| {
        let key = ReportKey {
            reporter: ReporterId(row.reporter.cast_unsigned()),
            seq: row.seq.cast_unsigned(),
        };
        let source = Source {
            service: row.service,
            proxy: row.proxy,
            received: row.received,
        };
        ((row.decision, key), source)
    };
    Ok(rows.into_iter().map(source).collect())
}
