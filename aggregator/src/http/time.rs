//! Times as JSON and queries say them: RFC 3339, UTC, milliseconds.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::clock::timestamp;

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-01-01T12:00:00.000Z")]
pub(crate) struct Time(pub(crate) DateTime<Utc>);

impl Time {
    /// A time of the domain, ms since 1970.
    pub(crate) fn of_millis(ms: u64) -> Self {
        Self(timestamp(ms))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Time {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        DateTime::parse_from_rfc3339(text)
            .map(|time| Self(time.to_utc()))
            .map_err(|_| "a time is RFC 3339, as in 2026-01-01T12:00:00Z")
    }
}
