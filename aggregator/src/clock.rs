//! The one place that reads the time. Everything else takes it as an argument.
//!
//! Any number of aggregators judge by one clock, the store's: each follows it at every beat.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};

/// What this machine's clock showed when it was first read, and its steady clock then. From there on only the steady
/// one counts: a jump of the other would date reports, and so waits and deadlines, wrongly until the next beat.
static BEGAN: LazyLock<(u64, Instant)> = LazyLock::new(read);

/// How far the store's clock is ahead of this machine's, ms.
static AHEAD_MS: AtomicI64 = AtomicI64::new(0);

/// Milliseconds since 1970, UTC, by the store's clock as far as it is known.
pub(crate) fn now_ms() -> u64 {
    machine_ms().saturating_add_signed(AHEAD_MS.load(Ordering::Relaxed))
}

/// The store's clock showed `store_ms` at some moment from `asked_ms` to `answered_ms` of this machine's. What is
/// known already holds where that is possible, so that the time does not jitter.
pub(crate) fn follow(asked_ms: u64, store_ms: u64, answered_ms: u64) {
    let known = AHEAD_MS.load(Ordering::Relaxed);
    let ahead = ahead(known, asked_ms, store_ms, answered_ms);
    AHEAD_MS.store(ahead, Ordering::Relaxed);
}

fn ahead(known: i64, asked_ms: u64, store_ms: u64, answered_ms: u64) -> i64 {
    let of = |machine_ms: u64| store_ms.cast_signed().saturating_sub_unsigned(machine_ms);
    let (least, most) = (of(answered_ms), of(asked_ms.min(answered_ms)));
    if (least..=most).contains(&known) {
        known
    } else {
        least.midpoint(most)
    }
}

/// Milliseconds since 1970, UTC, by this machine's clock as it was first read, and steady since.
pub(crate) fn machine_ms() -> u64 {
    let (began_ms, began) = *BEGAN;
    began_ms.saturating_add(whole_ms(began.elapsed()))
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the time"
)]
fn read() -> (u64, Instant) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    (whole_ms(since.unwrap_or(Duration::ZERO)), Instant::now())
}

fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A time of the wire as the store writes it; what is out of range becomes the nearest time that is in it.
pub(crate) fn timestamp(ms: u64) -> DateTime<Utc> {
    i64::try_from(ms)
        .ok()
        .and_then(DateTime::from_timestamp_millis)
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// A time of the store as the wire says it.
pub(crate) fn millis(at: DateTime<Utc>) -> u64 {
    u64::try_from(at.timestamp_millis()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::ahead;

    #[test]
    fn the_stores_clock_is_followed_where_what_is_known_cannot_hold() {
        assert_eq!(ahead(0, 1_000, 1_020, 1_040), 0);
        assert_eq!(ahead(15, 1_000, 1_020, 1_040), 15);
        assert_eq!(ahead(0, 1_000, 6_020, 1_040), 5_000);
        assert_eq!(ahead(5_000, 1_000, 1_020, 1_040), 0);
        assert_eq!(ahead(0, 9_000, 4_020, 9_040), -5_000);
    }
}
