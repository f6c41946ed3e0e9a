//! Pages of events and decisions for people: newest first, a bounded number of rows by index.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgPool, Postgres, QueryBuilder};

use super::Result;
use super::decisions::{self, Stored};

/// Which part of a list.
#[derive(Debug, Clone)]
pub(crate) struct Stretch {
    /// Nothing older.
    pub(crate) since: Option<DateTime<Utc>>,
    /// Nothing as young or younger.
    pub(crate) until: Option<DateTime<Utc>>,
    /// Go on behind this place.
    pub(crate) after: Option<Place>,
    /// At most so many.
    pub(crate) limit: u32,
}

/// A place in a list that is ordered by time and id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) at: DateTime<Utc>,
    pub(crate) id: String,
}

/// Which events.
#[derive(Debug, Clone, Default)]
pub(crate) struct EventFilter {
    pub(crate) state: Option<&'static str>,
    pub(crate) event_type: Option<String>,
    pub(crate) service: Option<String>,
}

/// Which decisions.
#[derive(Debug, Clone, Default)]
pub(crate) struct DecisionFilter {
    pub(crate) state: Option<&'static str>,
    pub(crate) event_type: Option<String>,
}

/// An event as the decider last saw it.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct EventRow {
    pub(crate) event: String,
    pub(crate) r#type: Option<String>,
    pub(crate) state: String,
    pub(crate) borrowed: bool,
    pub(crate) shared: bool,
    pub(crate) entry: Option<String>,
    pub(crate) services: Vec<String>,
    pub(crate) failed: Option<String>,
    pub(crate) decision: Option<String>,
    pub(crate) first_at: DateTime<Utc>,
    pub(crate) last_at: DateTime<Utc>,
    pub(crate) reports: i64,
}

const EVENT_COLUMNS: &str = "SELECT event, type, state, borrowed, shared, entry, services, failed, decision, \
                             first_at, last_at, reports FROM events WHERE reports > 0";

/// Events that began in the stretch.
pub(crate) async fn events(
    pool: &PgPool,
    filter: &EventFilter,
    stretch: &Stretch,
) -> Result<Vec<EventRow>> {
    let mut query = QueryBuilder::new(EVENT_COLUMNS);
    if let Some(state) = filter.state {
        // In the text, not beside it: an index holds only some states.
        query.push(format_args!(" AND state = '{state}'"));
    }
    and(&mut query, " AND type = ", filter.event_type.as_deref());
    if let Some(service) = &filter.service {
        query
            .push(" AND services @> ")
            .push_bind(vec![service.clone()]);
    }
    within(&mut query, stretch, "first_at", "event");
    Ok(query.build_query_as().fetch_all(pool).await?)
}

/// One event.
pub(crate) async fn event(
    connection: &mut sqlx::PgConnection,
    event: &str,
) -> Result<Option<EventRow>> {
    let mut query = QueryBuilder::new(EVENT_COLUMNS);
    and(&mut query, " AND event = ", Some(event));
    Ok(query.build_query_as().fetch_optional(connection).await?)
}

/// Decisions that were made in the stretch.
pub(crate) async fn decisions(
    pool: &PgPool,
    filter: &DecisionFilter,
    stretch: &Stretch,
) -> Result<Vec<Stored>> {
    let mut query = QueryBuilder::new("SELECT ");
    query
        .push(decisions::COLUMNS)
        .push(" FROM decisions WHERE true");
    and(&mut query, " AND state = ", filter.state);
    and(&mut query, " AND type = ", filter.event_type.as_deref());
    within(&mut query, stretch, "decided_at", "id");
    let rows: Vec<decisions::Row> = query.build_query_as().fetch_all(pool).await?;
    rows.into_iter().map(Stored::try_from).collect()
}

fn and(query: &mut QueryBuilder<Postgres>, condition: &str, value: Option<&str>) {
    if let Some(value) = value {
        query.push(condition).push_bind(value.to_owned());
    }
}

fn within(query: &mut QueryBuilder<Postgres>, stretch: &Stretch, time: &str, id: &str) {
    if let Some(since) = stretch.since {
        query.push(format_args!(" AND {time} >= ")).push_bind(since);
    }
    if let Some(until) = stretch.until {
        query.push(format_args!(" AND {time} < ")).push_bind(until);
    }
    if let Some(Place { at, id: after }) = &stretch.after {
        query
            .push(format_args!(" AND ({time}, {id}) < ("))
            .push_bind(*at);
        query.push(", ").push_bind(after.clone()).push(")");
    }
    query
        .push(format_args!(" ORDER BY {time} DESC, {id} DESC LIMIT "))
        .push_bind(i64::from(stretch.limit));
}
