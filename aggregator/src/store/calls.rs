//! The dictionary of calls: what attempts have in common, once, so that a report row holds one number for it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use chrono::NaiveDate;
use kaeru_protocol::Call;
use sqlx::{PgConnection, PgPool};

use super::Result;

/// Calls kept apart. Above it, paths and event types of new calls fold into one (`OTHER_PATH`), so that a caller
/// that puts ids into paths cannot fill the store: 200,000 x 300 bytes = 60 MB, the same in memory.
const CALLS_MAX: usize = 200_000;
/// Above this even callers, callees and methods are too many: 400,000 x 300 bytes = 120 MB.
const CALLS_EVER_MAX: usize = 2 * CALLS_MAX;
/// The path of calls above `CALLS_MAX`.
const OTHER_PATH: &str = "(other)";

/// What this aggregator knows of the dictionary: the number of each call, and the day it was last used.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    known: Mutex<HashMap<Call, (i32, NaiveDate)>>,
}

impl Calls {
    /// The numbers of these calls; `None` for those that are one too many. Writes the new ones down.
    pub(crate) async fn numbers(
        &self,
        pool: &PgPool,
        calls: &[Call],
        today: NaiveDate,
    ) -> Result<HashMap<Call, Option<i32>>> {
        let mut numbers = HashMap::with_capacity(calls.len());
        let mut unknown = Vec::new();
        {
            let known = self.known();
            for call in calls {
                match known.get(call) {
                    Some((number, used)) if *used == today => {
                        numbers.insert(call.clone(), Some(*number));
                    }
                    _ if numbers.contains_key(call) => {}
                    _ => {
                        numbers.insert(call.clone(), None);
                        unknown.push(call.clone());
                    }
                }
            }
        }
        if unknown.is_empty() {
            return Ok(numbers);
        }
        let mut found = touch(pool, &unknown, today).await?;
        if found.len() < unknown.len() {
            let held: i64 = sqlx::query_scalar("SELECT count(*) FROM calls")
                .fetch_one(pool)
                .await?;
            let held = usize::try_from(held).unwrap_or(usize::MAX);
            let missing: Vec<Call> = unknown
                .iter()
                .filter(|call| !found.contains_key(*call))
                .cloned()
                .collect();
            let (own, other) = missing.split_at(CALLS_MAX.saturating_sub(held).min(missing.len()));
            insert(pool, own, today).await?;
            found.extend(touch(pool, own, today).await?);
            let folded: Vec<Call> = other.iter().map(fold).collect();
            if held < CALLS_EVER_MAX {
                insert(pool, &folded, today).await?;
            }
            let numbers = touch(pool, &folded, today).await?;
            found.extend(
                other
                    .iter()
                    .filter_map(|call| Some((call.clone(), *numbers.get(&fold(call))?))),
            );
        }
        let mut known = self.known();
        if known.len() + found.len() > CALLS_EVER_MAX {
            known.clear();
        }
        for (call, number) in found {
            known.insert(call.clone(), (number, today));
            numbers.insert(call, Some(number));
        }
        drop(known);
        Ok(numbers)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Call, (i32, NaiveDate)>> {
        self.known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What is left of a call that is one too many.
fn fold(call: &Call) -> Call {
    Call {
        path: OTHER_PATH.into(),
        event_type: None,
        ..call.clone()
    }
}

/// The calls' columns, one array each; empty is absent.
fn columns(calls: &[Call]) -> [Vec<&str>; 5] {
    let column = |of: fn(&Call) -> &str| calls.iter().map(of).collect();
    [
        column(|call| call.from.as_ref().map_or("", |from| from.as_str())),
        column(|call| call.to.as_ref().map_or("", |to| to.as_str())),
        column(|call| &call.method),
        column(|call| &call.path),
        column(|call| call.event_type.as_ref().map_or("", |name| name.as_str())),
    ]
}

/// The numbers of those that are written down; they are in use today.
async fn touch(pool: &PgPool, calls: &[Call], today: NaiveDate) -> Result<HashMap<Call, i32>> {
    let [from, to, methods, paths, types] = columns(calls);
    let rows: Vec<(i64, i32, NaiveDate)> = sqlx::query_as(
        "SELECT place, id, used
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
             WITH ORDINALITY AS new (caller, callee, method, path, event_type, place)
         JOIN calls USING (caller, callee, method, path, event_type)",
    )
    .bind(from)
    .bind(to)
    .bind(methods)
    .bind(paths)
    .bind(types)
    .fetch_all(pool)
    .await?;
    let stale: Vec<i32> = rows
        .iter()
        .filter(|(_, _, used)| *used < today)
        .map(|(_, id, _)| *id)
        .collect();
    if !stale.is_empty() {
        sqlx::query("UPDATE calls SET used = $2 WHERE id = ANY($1) AND used < $2")
            .bind(stale)
            .bind(today)
            .execute(pool)
            .await?;
    }
    let named = |(place, id, _)| {
        let index = usize::try_from(place - 1_i64).ok()?;
        Some((calls.get(index)?.clone(), id))
    };
    Ok(rows.into_iter().filter_map(named).collect())
}

/// The calls that have these numbers.
pub(crate) async fn of_numbers(
    connection: &mut PgConnection,
    numbers: &BTreeSet<i32>,
) -> Result<HashMap<i32, Arc<Call>>> {
    type Row = (i32, String, String, String, String, String);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, caller, callee, method, path, event_type FROM calls WHERE id = ANY($1)",
    )
    .bind(numbers.iter().copied().collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let call = |(id, caller, callee, method, path, event_type): Row| {
        let call = Call {
            event_type: present(&event_type).and_then(|name| name.parse().ok()),
            from: present(&caller).and_then(|caller| caller.parse().ok()),
            to: present(&callee).and_then(|callee| callee.parse().ok()),
            method: method.into(),
            path: path.into(),
        };
        (id, Arc::new(call))
    };
    Ok(rows.into_iter().map(call).collect())
}

/// The dictionary writes an absent name as an empty one.
fn present(name: &str) -> Option<&str> {
    Some(name).filter(|name| !name.is_empty())
}

async fn insert(pool: &PgPool, calls: &[Call], today: NaiveDate) -> Result<()> {
    let [from, to, methods, paths, types] = columns(calls);
    // In one order, so that two aggregators with the same new calls wait for each other only one way.
    sqlx::query(
        "INSERT INTO calls (caller, callee, method, path, event_type, used)
         SELECT caller, callee, method, path, event_type, $6
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
             AS new (caller, callee, method, path, event_type)
         ORDER BY 1, 2, 3, 4, 5
         ON CONFLICT ON CONSTRAINT calls_once DO NOTHING",
    )
    .bind(from)
    .bind(to)
    .bind(methods)
    .bind(paths)
    .bind(types)
    .bind(today)
    .execute(pool)
    .await?;
    Ok(())
}

/// Forgets calls that no kept report can point to.
pub(crate) async fn forget(connection: &mut PgConnection, first_day: NaiveDate) -> Result<u64> {
    let outcome = sqlx::query("DELETE FROM calls WHERE used < $1")
        .bind(first_day)
        .execute(connection)
        .await?;
    Ok(outcome.rows_affected())
}
