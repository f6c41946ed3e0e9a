//! Decisions. The row form of `kaeru_flow::Decision` is in `decisions/body.rs`; what is kept with one for people
//! (its revisions, and who stated its evidence) is read in `decisions/history.rs`.

mod body;
mod history;

use chrono::{DateTime, Utc};
use kaeru_flow::{Decision, Standing};
use kaeru_protocol::{DecisionId, EventId, EventType, Mode};
use serde::Deserialize;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};

use super::{Error, Result};
use crate::clock::timestamp;
use body::Body;

pub(crate) use history::{Revision, Source, revisions, sources};

/// A decision as it stands in the store.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    /// Which.
    pub(crate) id: DecisionId,
    /// About which event.
    pub(crate) event: EventId,
    /// Of which type.
    pub(crate) event_type: Option<EventType>,
    /// The mode that was in force when it was decided.
    pub(crate) mode: Mode,
    /// When its last revision was written.
    pub(crate) revised_at: DateTime<Utc>,
    /// What it says.
    pub(crate) decision: Decision,
}

/// A decision's row; every query of whole decisions selects [`COLUMNS`].
#[derive(Debug, Deserialize, FromRow)]
pub(crate) struct Row {
    id: String,
    event: String,
    r#type: Option<String>,
    mode: String,
    revised_at: DateTime<Utc>,
    body: Json<Body>,
}

/// The columns of [`Row`].
pub(crate) const COLUMNS: &str = "id, event, type, mode, revised_at, body";

/// The word of a standing in SQL and JSON.
pub(crate) fn standing_word(standing: &Standing) -> &'static str {
    match standing {
        Standing::Live => "live",
        Standing::Contested => "contested",
        Standing::Withdrawn(_) => "withdrawn",
    }
}

/// The word of a mode in SQL.
pub(crate) fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Off => "off",
        Mode::Shadow => "shadow",
        Mode::Enforce => "enforce",
    }
}

/// The mode of a word in SQL; one of a later version reads as `shadow`.
pub(crate) fn mode_of(word: &str) -> Mode {
    match word {
        "off" => Mode::Off,
        "enforce" => Mode::Enforce,
        _ => Mode::Shadow,
    }
}

impl TryFrom<Row> for Stored {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let unreadable =
            |why: String| Error::unreadable("a decision", format!("{}: {why}", row.id));
        Ok(Self {
            id: row.id.parse().map_err(|e| unreadable(format!("{e}")))?,
            event: row.event.parse().map_err(|e| unreadable(format!("{e}")))?,
            event_type: row.r#type.as_deref().and_then(|name| name.parse().ok()),
            mode: mode_of(&row.mode),
            revised_at: row.revised_at,
            decision: row.body.0.try_into().map_err(unreadable)?,
        })
    }
}

/// The last decision about an event, withdrawn or not.
pub(crate) async fn last_of_event(
    connection: &mut PgConnection,
    event: &EventId,
) -> Result<Option<Stored>> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT id, event, type, mode, revised_at, body FROM decisions
         WHERE event = $1 ORDER BY decided_at DESC, id DESC LIMIT 1",
    )
    .bind(event.as_str())
    .fetch_optional(connection)
    .await?;
    row.map(Stored::try_from).transpose()
}

/// One decision by its id.
pub(crate) async fn find(connection: &mut PgConnection, id: &DecisionId) -> Result<Option<Stored>> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT id, event, type, mode, revised_at, body FROM decisions WHERE id = $1",
    )
    .bind(id.as_str())
    .fetch_optional(connection)
    .await?;
    row.map(Stored::try_from).transpose()
}

/// Writes revisions of decisions about different events: the first makes a decision's row, later ones change it; each is kept,
/// and who stated the evidence, for reports are let go before decisions.
pub(crate) async fn save(connection: &mut PgConnection, all: &[Stored]) -> Result<()> {
    fn column<'a, T>(all: &'a [Stored], of: impl Fn(&'a Stored) -> T) -> Vec<T> {
        all.iter().map(of).collect()
    }
    let withdrawal = |stored: &'_ Stored| match &stored.decision.standing {
        Standing::Withdrawn(withdrawal) => Some(withdrawal.clone()),
        Standing::Live | Standing::Contested => None,
    };
    let evidence = || {
        let of = |stored| move |evidence| (stored, evidence);
        all.iter()
            .flat_map(move |stored: &Stored| stored.decision.evidence.iter().map(of(stored)))
    };
    // OFFSET keeps the reports apart from the rest: else the plan that is made while there are few of them looks for all that a
    // reporter ever stated, and picks the one.
    sqlx::query(
        "WITH new AS MATERIALIZED (
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::text[], $6::text[], $7::text[],
                 $8::bigint[], $9::bigint[], $10::timestamptz[], $11::timestamptz[], $12::jsonb[], $13::text[],
                 $14::text[], $15::timestamptz[])
                 AS new (id, event, type, revision, state, mode, failed, policy_version, flow_version, decided_at,
                     revised_at, body, withdrawn_by, withdrawn_for, withdrawn_at)
         ), decided AS (
             INSERT INTO decisions (id, event, type, revision, state, mode, failed, policy_version,
                 flow_version, decided_at, revised_at, body, withdrawn_by, withdrawn_for, withdrawn_at)
             SELECT * FROM new
             ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, state = excluded.state,
                 type = coalesce(excluded.type, decisions.type),
                 revised_at = excluded.revised_at, body = excluded.body,
                 withdrawn_by = excluded.withdrawn_by, withdrawn_for = excluded.withdrawn_for,
                 withdrawn_at = excluded.withdrawn_at
         ), stated AS (
             INSERT INTO decision_evidence (decision, reporter, seq, service, proxy, received)
             SELECT key.decision, r.reporter, r.seq, v.service, v.proxy, r.received
             FROM unnest($16::text[], $17::text[], $18::bigint[], $19::bigint[])
                 AS key (decision, event, reporter, seq)
             CROSS JOIN LATERAL (
                 SELECT reporter, seq, received FROM reports
                 WHERE reporter = key.reporter AND seq = key.seq AND event = key.event OFFSET 0
             ) AS r
             JOIN reporters v ON v.id = r.reporter
             ON CONFLICT DO NOTHING
         )
         INSERT INTO decision_revisions (decision, revision, at, body) SELECT id, revision, revised_at, body FROM new",
    )
    .bind(column(all, |s| s.id.as_str()))
    .bind(column(all, |s| s.event.as_str()))
    .bind(column(all, |s| s.event_type.as_ref().map(EventType::as_str)))
    .bind(column(all, |s| i32::try_from(s.decision.revision).unwrap_or(i32::MAX)))
    .bind(column(all, |s| standing_word(&s.decision.standing)))
    .bind(column(all, |s| mode_word(s.mode)))
    .bind(column(all, |s| s.decision.reason.failed().map(kaeru_protocol::Peer::as_str)))
    .bind(column(all, |s| s.decision.policy_version.cast_signed()))
    .bind(column(all, |s| s.decision.flow_version.map(u64::cast_signed)))
    .bind(column(all, |s| timestamp(s.decision.decided_ms)))
    .bind(column(all, |s| s.revised_at))
    .bind(column(all, |s| Json(Body::from(&s.decision))))
    .bind(column(all, |s| withdrawal(s).map(|w| w.by)))
    .bind(column(all, |s| withdrawal(s).map(|w| w.reason)))
    .bind(column(all, |s| withdrawal(s).map(|w| timestamp(w.at_ms))))
    .bind(evidence().map(|(s, _)| s.id.as_str()).collect::<Vec<_>>())
    .bind(evidence().map(|(s, _)| s.event.as_str()).collect::<Vec<_>>())
    .bind(evidence().map(|(_, e)| e.key.reporter.0.cast_signed()).collect::<Vec<_>>())
    .bind(evidence().map(|(_, e)| e.key.seq.cast_signed()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether a service acknowledged an undo for this decision.
pub(crate) async fn is_undo_acknowledged(
    connection: &mut PgConnection,
    stored: &Stored,
) -> Result<bool> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM reports WHERE event = $1 AND kind = $2
             AND rest->>'decision' = $3 AND status BETWEEN 200 AND 299 AND coalesce(grpc, 0) = 0)",
    )
    .bind(stored.event.as_str())
    .bind(super::reports::kind_number(kaeru_protocol::Kind::Undo))
    .bind(stored.id.as_str())
    .fetch_one(connection)
    .await?)
}

/// Deletes decisions that were made before `first`, a bounded number at a time; says how many.
pub(crate) async fn forget(
    connection: &mut PgConnection,
    first: DateTime<Utc>,
    decisions_max: i64,
) -> Result<u64> {
    let outcome = sqlx::query(
        "DELETE FROM decisions WHERE id IN (
             SELECT id FROM decisions WHERE decided_at < $1 ORDER BY decided_at LIMIT $2)",
    )
    .bind(first)
    .bind(decisions_max)
    .execute(connection)
    .await?;
    Ok(outcome.rows_affected())
}
