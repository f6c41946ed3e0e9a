//! The one place that reads the clock by which is measured.

use std::time::{Instant, SystemTime};

/// Now.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Microseconds since 1970, as other programs' logs say it.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}
