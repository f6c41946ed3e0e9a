//! Pages of events and decisions for people: newest first, a bounded number of rows by index. One filter picks the index; the
//! others look at what that yields, row by row, up to [`SCAN_MAX`]: so a page costs the same however much is stored.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgPool, Postgres, QueryBuilder};

use super::Result;
use super::decisions::{self, Stored};

/// Rows that are looked at for one page: 10,000 that lie apart take about 40 ms.
const SCAN_MAX: i64 = 10_000;

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
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
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

const EVENT_COLUMNS: &str = "event, type, state, borrowed, shared, entry, services, failed, decision, \
                             first_at, last_at, reports";

/// A page.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) rows: Vec<T>,
    /// How far it was looked, where that was not far enough to fill the page or to reach the end.
    pub(crate) stopped: Option<Place>,
}

/// Events that began in the stretch.
pub(crate) async fn events(
    pool: &PgPool,
    filter: &EventFilter,
    stretch: &Stretch,
) -> Result<Page<EventRow>> {
    let event_type = ("type", filter.event_type.as_deref());
    let mut list = List {
        from: "events WHERE reports > 0".to_owned(),
        time: "first_at",
        id: "event",
        first: event_type,
        then: ("state", filter.state),
        service: filter.service.as_deref(),
    };
    // Most events succeed: any other state picks fewer than a type does, and an index holds those alone.
    if let Some(state) = filter.state.filter(|state| *state != "succeeded") {
        // In the text, not beside it: else a plan for any state could not use the index.
        list.from = format!("{} AND state = '{state}'", list.from);
        list.first = ("state", None);
        list.then = event_type;
    }
    list.page(pool, EVENT_COLUMNS, stretch).await
}

/// One event.
pub(crate) async fn event(
    connection: &mut sqlx::PgConnection,
    event: &str,
) -> Result<Option<EventRow>> {
    let mut query = QueryBuilder::new("SELECT ");
    query
        .push(EVENT_COLUMNS)
        .push(" FROM events WHERE reports > 0 AND event = ");
    query.push_bind(event);
    Ok(query.build_query_as().fetch_optional(connection).await?)
}

/// Decisions that were made in the stretch.
pub(crate) async fn decisions(
    pool: &PgPool,
    filter: &DecisionFilter,
    stretch: &Stretch,
) -> Result<Page<Stored>> {
    let list = List {
        from: "decisions WHERE true".to_owned(),
        time: "decided_at",
        id: "id",
        first: ("type", filter.event_type.as_deref()),
        then: ("state", filter.state),
        service: None,
    };
    let page: Page<decisions::Row> = list.page(pool, decisions::COLUMNS, stretch).await?;
    let rows = page
        .rows
        .into_iter()
        .map(Stored::try_from)
        .collect::<Result<_>>()?;
    Ok(Page {
        rows,
        stopped: page.stopped,
    })
}

/// A list that is ordered by time and id, by an index for each value of a column, too.
struct List<'a> {
    /// The table, and what holds for all of the list.
    from: String,
    time: &'static str,
    id: &'static str,
    /// The column that picks the index.
    first: (&'static str, Option<&'a str>),
    /// One that is looked at row by row.
    then: (&'static str, Option<&'a str>),
    /// Who takes part, row by row.
    service: Option<&'a str>,
}

impl List<'_> {
    async fn page<T>(&self, pool: &PgPool, columns: &str, stretch: &Stretch) -> Result<Page<T>>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let Self { time, id, .. } = self;
        let mut query = QueryBuilder::new("SELECT ");
        query.push(columns).push(" FROM (");
        self.scan(&mut query, "*", stretch);
        query
            .push(" LIMIT ")
            .push_bind(SCAN_MAX)
            .push(") AS seen WHERE true");
        and(&mut query, self.then);
        if let Some(service) = self.service {
            query
                .push(" AND services @> ")
                .push_bind(vec![service.to_owned()]);
        }
        query.push(format_args!(" ORDER BY {time} DESC, {id} DESC LIMIT "));
        query.push_bind(i64::from(stretch.limit));
        let rows: Vec<T> = query.build_query_as().fetch_all(pool).await?;
        let is_full = usize::try_from(stretch.limit).is_ok_and(|limit| rows.len() >= limit);
        if is_full || (self.then.1.is_none() && self.service.is_none()) {
            return Ok(Page {
                rows,
                stopped: None,
            });
        }
        let mut query = QueryBuilder::new("");
        self.scan(&mut query, &format!("{time} AS at, {id} AS id"), stretch);
        query.push(" LIMIT 1 OFFSET ").push_bind(SCAN_MAX - 1);
        let stopped = query.build_query_as().fetch_optional(pool).await?;
        Ok(Page { rows, stopped })
    }

    /// What the index yields, newest first.
    fn scan(&self, query: &mut QueryBuilder<Postgres>, columns: &str, stretch: &Stretch) {
        let Self { from, time, id, .. } = self;
        query.push(format_args!("SELECT {columns} FROM {from}"));
        and(query, self.first);
        if let Some(since) = stretch.since {
            query.push(format_args!(" AND {time} >= ")).push_bind(since);
        }
        if let Some(until) = stretch.until {
            query.push(format_args!(" AND {time} < ")).push_bind(until);
        }
        if let Some(Place { at, id: after }) = &stretch.after {
            query.push(format_args!(" AND ({time}, {id}) < ("));
            query
                .push_bind(*at)
                .push(", ")
                .push_bind(after.clone())
                .push(")");
        }
        query.push(format_args!(" ORDER BY {time} DESC, {id} DESC"));
    }
}

fn and(query: &mut QueryBuilder<Postgres>, (column, value): (&str, Option<&str>)) {
    if let Some(value) = value {
        query
            .push(format_args!(" AND {column} = "))
            .push_bind(value.to_owned());
    }
}
