//! Times in which reports of a service may be missing: its reporters lost some, or its proxy fell silent.

use chrono::{DateTime, Utc};
use kaeru_flow::{Loss, Span};
use kaeru_protocol::{ReporterId, ServiceName};
use serde::Deserialize;
use sqlx::PgConnection;

use super::reporters::bounded;
use super::{Result, feed, intake};
use crate::clock::millis;

/// Losses that are read at most, the newest: a plan that names this many services is incomplete anyhow.
pub(super) const LOSSES_MAX: i64 = 1_000;

/// What the statuses of one transaction tell to be lost.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    /// Reports, as far as anybody can count them.
    pub(crate) reports: u64,
    /// From the earliest to the latest time of any.
    span: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

/// Writes down that a reporter lost reports between two times: in one transaction several statuses may tell of more, after
/// an outage.
pub(crate) async fn add(
    connection: &mut PgConnection,
    told: &mut Lost,
    reporter: i64,
    service: &ServiceName,
    (since, until): (DateTime<Utc>, DateTime<Utc>),
    lost: u64,
) -> Result<()> {
    told.reports += lost;
    let (earliest, latest) = told.span.unwrap_or((since, until));
    told.span = Some((earliest.min(since), latest.max(until)));
    sqlx::query(
        "INSERT INTO losses (reporter, service, since, until, lost) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (reporter, until) DO UPDATE SET
             since = least(losses.since, excluded.since), lost = losses.lost + excluded.lost",
    )
    .bind(reporter)
    .bind(service.as_str())
    .bind(since)
    .bind(until)
    .bind(bounded(lost))
    .execute(connection)
    .await?;
    Ok(())
}

/// Plans of a time of which something is lost are no longer known to be complete: the decider looks at them again. This
/// comes last in a transaction, behind the feed's lock, behind which decisions are told: those that were are seen here, and those
/// that will be are looked at once more after their commit.
pub(crate) async fn wake_plans(connection: &mut PgConnection, told: &Lost) -> Result<()> {
    let Some(span) = told.span else {
        return Ok(());
    };
    feed::hold(&mut *connection).await?;
    intake::add_rolled_back(connection, span).await
}

/// A time in which a service's reports may be missing, as it stands in the store.
#[derive(Deserialize)]
pub(super) struct LossRow {
    service: String,
    /// Absent where a whole proxy was silent.
    reporter: Option<i64>,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
}

impl LossRow {
    /// What it says.
    pub(super) fn loss(&self) -> Option<Loss> {
        Some(Loss {
            service: self.service.parse().ok()?,
            reporter: self.reporter.map(|id| ReporterId(id.cast_unsigned())),
            span: Span {
                from_ms: millis(self.since),
                to_ms: millis(self.until),
            },
        })
    }
}

/// Forgets losses that ended before `first`.
pub(crate) async fn forget(connection: &mut PgConnection, first: DateTime<Utc>) -> Result<()> {
    sqlx::query("DELETE FROM losses WHERE until < $1")
        .bind(first)
        .execute(connection)
        .await?;
    Ok(())
}
