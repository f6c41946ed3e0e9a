//! Pages of a list, newest first: how long one is, and the cursor by which the next goes on.

use chrono::DateTime;

use super::params::parse_given;
use super::problem::Error;
use super::time::Time;
use crate::store::pages::{Page, Place, Stretch};

/// Longest page: 500 entries of at most 2 KiB are 1 MiB.
const LIMIT_MAX: u32 = 500;
/// Length of a page where none is asked for.
const LIMIT_DEFAULT: u32 = 50;

/// The stretch of a list that a query asks for.
pub(super) fn stretch(
    since: Option<&str>,
    until: Option<&str>,
    limit: Option<&str>,
    after: Option<&str>,
) -> Result<Stretch, Error> {
    let limit = match limit {
        None => LIMIT_DEFAULT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=LIMIT_MAX).contains(limit))
            .ok_or_else(|| Error::Parameter {
                name: "limit",
                rule: format!("1 to {LIMIT_MAX}"),
            })?,
    };
    Ok(Stretch {
        since: parse_given::<Time>("since", since)?.map(|time| time.0),
        until: parse_given::<Time>("until", until)?.map(|time| time.0),
        after: after.map(place).transpose()?,
        limit,
    })
}

/// The cursor behind the last entry of a full page, or where one that is not full stopped looking; `None` where the list ends.
pub(super) fn next<T>(page: &Page<T>, limit: u32, place: impl Fn(&T) -> Place) -> Option<String> {
    let full = usize::try_from(limit).is_ok_and(|limit| page.rows.len() >= limit);
    let last = page.rows.last().filter(|_| full).map(place);
    let Place { at, id } = last.or_else(|| page.stopped.clone())?;
    Some(format!("{}:{id}", at.timestamp_micros()))
}

fn place(cursor: &str) -> Result<Place, Error> {
    let read = || {
        let (micros, id) = cursor.split_once(':')?;
        Some(Place {
            at: DateTime::from_timestamp_micros(micros.parse().ok()?)?,
            id: id.to_owned(),
        })
    };
    read().ok_or_else(|| Error::Parameter {
        name: "after",
        rule: "a cursor as `next` gave it".to_owned(),
    })
}
