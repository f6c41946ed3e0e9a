//! When to try again after a failure: later each time, never two proxies in step.

/// The first wait, ms: with the doubling below, one proxy's poll, main thread and four workers make 6 connects in the first
/// second without an aggregator and fewer than one a second from the tenth on.
const FIRST_MS: u64 = 1_000;
/// The longest wait, ms: how late after an outage the first report may come.
const LONGEST_MS: u64 = 30_000;
/// The longest that a `Retry-After` is believed, ms.
const TOLD_MAX_MS: u64 = 300_000;

/// A sequence of failures, and until when to wait after the last.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    until_ms: u64,
}

impl Backoff {
    /// Another failure. Waits twice as long as the last time, of which a random half is taken off, and at least as
    /// long as the server told.
    pub fn fail(&mut self, now_ms: u64, told_ms: Option<u64>, random: u64) {
        let wait = (FIRST_MS << self.failures.min(16)).min(LONGEST_MS);
        let jittered = wait / 2 + random % (wait / 2 + 1);
        let told = told_ms.unwrap_or(0).min(TOLD_MAX_MS);
        self.until_ms = now_ms.saturating_add(jittered.max(told));
        self.failures = self.failures.saturating_add(1);
    }

    /// It worked.
    pub fn succeed(&mut self) {
        *self = Self::default();
    }

    /// Whether the last try failed.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Whether it may be tried now. A clock that was set back never makes a wait longer than the longest.
    pub fn is_over(&self, now_ms: u64) -> bool {
        now_ms >= self.until_ms || self.until_ms - now_ms > TOLD_MAX_MS
    }
}

/// Reads `Retry-After` in its seconds form (RFC 9110, 10.2.3) as ms; a date counts as absent.
pub fn retry_after_ms(value: &[u8]) -> Option<u64> {
    let seconds: u64 = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
    Some(seconds.saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_end_with_success() {
        let mut backoff = Backoff::default();
        assert!(backoff.is_over(0));
        let mut waits = Vec::new();
        for _ in 0..8 {
            backoff.fail(0, None, u64::MAX);
            waits.push(backoff.until_ms);
        }
        assert!(waits.is_sorted() && waits[0] >= FIRST_MS / 2);
        assert!(*waits.last().unwrap() <= LONGEST_MS);
        assert!(!backoff.is_over(100) && backoff.is_failing());
        backoff.succeed();
        assert!(backoff.is_over(100) && !backoff.is_failing());
    }

    #[test]
    fn the_server_may_ask_for_more_within_reason() {
        let mut backoff = Backoff::default();
        backoff.fail(0, retry_after_ms(b"7"), 0);
        assert!(!backoff.is_over(6_999) && backoff.is_over(7_000));
        backoff.fail(0, retry_after_ms(b"99999999999"), 0);
        assert!(backoff.is_over(TOLD_MAX_MS));
        assert_eq!(retry_after_ms(b"Fri, 31 Dec 1999 23:59:59 GMT"), None);
    }

    #[test]
    fn a_clock_set_back_does_not_silence() {
        let mut backoff = Backoff::default();
        backoff.fail(1_000_000_000, None, 0);
        assert!(backoff.is_over(1_000));
    }
}
