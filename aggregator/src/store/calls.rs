//! The dictionary of calls: what attempts have in common, once, so that a report row holds one number for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use chrono::NaiveDate;
use kaeru_protocol::Call;
use serde::Deserialize;
use sqlx::{PgConnection, PgPool};

use super::Result;
use crate::census::{Census, Full, What};

/// Calls that this aggregator remembers: all that [`What::Calls`] lets be, with those folded. 400,000 x 300 bytes = 120 MB.
const REMEMBERED_MAX: usize = 400_000;
/// The path of calls above their service's share: paths and event types of new ones fold into one, so that a caller that puts
/// ids into paths cannot fill the store.
const OTHER_PATH: &str = "(other)";
/// Above so many shares even callers, callees and methods are too many.
const FOLDED_SHARES: usize = 2;

/// What this aggregator knows of the dictionary: the number of each call, and the day it was last used.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    known: Mutex<HashMap<Call, (i32, NaiveDate)>>,
}

/// What numbers were found or given.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    /// The number of each call; `None` for those that are one too many.
    pub(crate) of: HashMap<Call, Option<i32>>,
    /// The calls that lost their path and type, or were not taken at all, and whose share is used up.
    pub(crate) cut: HashMap<Call, Full>,
}

impl Calls {
    /// The numbers of these calls, each with the service that states it. Writes the new ones down.
    pub(crate) async fn numbers(
        &self,
        pool: &PgPool,
        calls: &HashMap<&Call, &str>,
        census: &Census,
        today: NaiveDate,
    ) -> Result<Numbers> {
        let mut numbers = Numbers::default();
        let mut unknown = Vec::new();
        {
            let known = self.known();
            for call in calls.keys().copied() {
                let number = known.get(call).filter(|(_, used)| *used == today);
                numbers
                    .of
                    .insert(call.clone(), number.map(|(number, _)| *number));
                if number.is_none() {
                    unknown.push(call.clone());
                }
            }
        }
        if unknown.is_empty() {
            return Ok(numbers);
        }
        let mut found = touch(pool, &unknown, today).await?;
        unknown.retain(|call| !found.contains_key(call));
        let service = |call: &Call| calls.get(call).copied().unwrap_or_default();
        let rooms = census.rooms(What::Calls, 1, unknown.iter().map(service));
        let (mut own, mut other) = (Vec::new(), Vec::new());
        for (call, room) in unknown.into_iter().zip(rooms) {
            let service = service(&call);
            match room {
                Ok(()) => own.push((call, service)),
                Err(full) => {
                    other.push((call.clone(), service));
                    numbers.cut.insert(call, full);
                }
            }
        }
        found.extend(add(pool, &own, census, today).await?);
        found.extend(folded(pool, &other, census, today).await?);
        let mut known = self.known();
        if known.len() + found.len() > REMEMBERED_MAX {
            known.clear();
        }
        for (call, number) in found {
            known.insert(call.clone(), (number, today));
            numbers.of.insert(call, Some(number));
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

/// Writes these calls down; their numbers.
async fn add(
    pool: &PgPool,
    calls: &[(Call, &str)],
    census: &Census,
    today: NaiveDate,
) -> Result<HashMap<Call, i32>> {
    if calls.is_empty() {
        return Ok(HashMap::new());
    }
    for service in insert(pool, calls, today).await? {
        census.took(What::Calls, &service);
    }
    let calls: Vec<Call> = calls.iter().map(|(call, _)| call.clone()).collect();
    touch(pool, &calls, today).await
}

/// The numbers of what is left of these calls, for which there is no room, as far as there is room for that.
async fn folded(
    pool: &PgPool,
    calls: &[(Call, &str)],
    census: &Census,
    today: NaiveDate,
) -> Result<HashMap<Call, i32>> {
    if calls.is_empty() {
        return Ok(HashMap::new());
    }
    let left: HashMap<Call, &str> = (calls.iter())
        .map(|(call, service)| (fold(call), *service))
        .collect();
    let left: Vec<(Call, &str)> = left.into_iter().collect();
    let all: Vec<Call> = left.iter().map(|(call, _)| call.clone()).collect();
    let mut numbers = touch(pool, &all, today).await?;
    let missing: Vec<(Call, &str)> = (left.into_iter())
        .filter(|(call, _)| !numbers.contains_key(call))
        .collect();
    let services = missing.iter().map(|(_, service)| *service);
    let rooms = census.rooms(What::Calls, FOLDED_SHARES, services);
    let fit: Vec<(Call, &str)> = (missing.into_iter().zip(rooms))
        .filter_map(|(call, room)| room.is_ok().then_some(call))
        .collect();
    numbers.extend(add(pool, &fit, census, today).await?);
    Ok((calls.iter())
        .filter_map(|(call, _)| Some((call.clone(), *numbers.get(&fold(call))?)))
        .collect())
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

/// A call as it stands in the dictionary.
#[derive(Debug, Deserialize)]
pub(super) struct CallRow {
    id: i32,
    caller: String,
    callee: String,
    method: Box<str>,
    path: Box<str>,
    event_type: String,
}

/// The calls that have these numbers.
pub(super) fn of_rows(rows: Vec<CallRow>) -> HashMap<i32, Arc<Call>> {
    let call = |row: CallRow| {
        let call = Call {
            event_type: present(&row.event_type).and_then(|name| name.parse().ok()),
            from: present(&row.caller).and_then(|caller| caller.parse().ok()),
            to: present(&row.callee).and_then(|callee| callee.parse().ok()),
            method: row.method,
            path: row.path,
        };
        (row.id, Arc::new(call))
    };
    rows.into_iter().map(call).collect()
}

/// The dictionary writes an absent name as an empty one.
fn present(name: &str) -> Option<&str> {
    Some(name).filter(|name| !name.is_empty())
}

/// Says who stated each that is new.
async fn insert(pool: &PgPool, calls: &[(Call, &str)], today: NaiveDate) -> Result<Vec<String>> {
    let services: Vec<&str> = calls.iter().map(|(_, service)| *service).collect();
    let calls: Vec<Call> = calls.iter().map(|(call, _)| call.clone()).collect();
    let [from, to, methods, paths, types] = columns(&calls);
    // In one order, so that two aggregators with the same new calls wait for each other only one way.
    Ok(sqlx::query_scalar(
        "INSERT INTO calls (caller, callee, method, path, event_type, service, used)
         SELECT caller, callee, method, path, event_type, service, $7
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
             AS new (caller, callee, method, path, event_type, service)
         ORDER BY 1, 2, 3, 4, 5
         ON CONFLICT ON CONSTRAINT calls_once DO NOTHING
         RETURNING service",
    )
    .bind(from)
    .bind(to)
    .bind(methods)
    .bind(paths)
    .bind(types)
    .bind(services)
    .bind(today)
    .fetch_all(pool)
    .await?)
}

/// Forgets calls that no kept report can point to.
pub(crate) async fn forget(connection: &mut PgConnection, first_day: NaiveDate) -> Result<u64> {
    let outcome = sqlx::query("DELETE FROM calls WHERE used < $1")
        .bind(first_day)
        .execute(connection)
        .await?;
    Ok(outcome.rows_affected())
}
