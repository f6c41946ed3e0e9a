//! The leader's long poll for verdicts: one per proxy, sent again as soon as it is answered, and never in a hurry after a
//! failure.

use super::courier::status;
use super::setup::Setup;
use super::{Flight, Vm};
use crate::backoff::{Backoff, retry_after_ms};
use crate::host::{Headers, Host, Level, Outcall};
use crate::metrics::Counter;
use crate::{page, verdicts};

/// Bytes of a page that are read: 1,024 verdicts of at most 800 bytes.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// How much longer than it may be held a poll may take, ms.
const POLL_GRACE_MS: u32 = 5_000;
/// An answer without verdicts that came sooner than this was not held: the next poll waits that long, ms.
const POLL_GAP_MS: u64 = 1_000;
/// How often the ring is looked through for verdicts that have ended, ms.
const SWEEP_MS: u64 = 10_000;

/// Where the polling stands.
#[derive(Debug, Default)]
pub(super) struct Poll {
    flight: Option<Flight>,
    sent_ms: u64,
    not_before_ms: u64,
    swept_ms: u64,
    /// The last page told to forget all before it.
    began: bool,
    backoff: Backoff,
}

impl Poll {
    /// Whether this answer is ours; gives the root context that it came to.
    pub(super) fn landed(&mut self, token: u32) -> Option<u32> {
        let flight = self.flight.take_if(|flight| flight.token == token)?;
        Some(flight.root)
    }

    /// A root context is gone, and a poll of it with it.
    pub(super) fn forget(&mut self, root: u32) {
        self.flight.take_if(|flight| flight.root == root);
    }

    /// Whether one may be sent now. A clock that was set back makes no wait longer.
    fn is_due(&self, now_ms: u64) -> bool {
        let gap_over = now_ms >= self.not_before_ms || self.not_before_ms - now_ms > POLL_GAP_MS;
        self.flight.is_none() && gap_over && self.backoff.is_over(now_ms)
    }
}

impl<H: Host> Vm<H> {
    /// Polls, if it is time to.
    pub(super) fn poll(&mut self, setup: &Setup, root: u32, now_ms: u64) {
        if now_ms.abs_diff(self.poll.swept_ms) >= SWEEP_MS {
            self.poll.swept_ms = now_ms;
            // Another leader wrote in between: it will sweep.
            let _ = verdicts::sweep(&self.host, now_ms);
        }
        if !self.poll.is_due(now_ms) {
            return;
        }
        let config = &setup.config;
        let mut path = format!(
            "/v1/verdicts?service={}&wait_ms={}",
            setup.service(),
            config.poll_wait_ms
        );
        if let Some(cursor) = verdicts::cursor(&self.host) {
            path.push_str("&after=");
            path.push_str(&cursor.to_string());
        }
        let call = Outcall {
            cluster: &config.aggregator_cluster,
            headers: &[
                (":method", "GET"),
                (":path", &path),
                (":authority", &config.aggregator_authority),
                ("accept", "application/json"),
            ],
            body: &[],
            timeout_ms: config.poll_wait_ms + POLL_GRACE_MS,
            root,
        };
        self.poll.sent_ms = now_ms;
        match self.host.call(&call) {
            Ok(token) => self.poll.flight = Some(Flight { token, root }),
            Err(refused) => {
                self.count_refused(refused);
                self.poll_failed(now_ms, None, "not sent");
            }
        }
    }

    /// Takes a page into the ring, and polls on.
    pub(super) fn take_page(&mut self, setup: &Setup, root: u32, now_ms: u64, headers: &Headers) {
        let body = match status(headers) {
            Some(200) => self.host.call_body(PAGE_BYTES_MAX),
            status => {
                let told_ms = headers.get("retry-after").and_then(retry_after_ms);
                let status = status.map_or_else(|| "no answer".into(), |s| format!("{s}"));
                return self.poll_failed(now_ms, told_ms, &status);
            }
        };
        if !self.leads {
            return;
        }
        let Some(page) = page::verdicts(&body) else {
            return self.poll_failed(now_ms, None, "the answer is no page of verdicts");
        };
        let Ok(written) = verdicts::write(&self.host, now_ms, &page, setup.config.verdicts_max)
        else {
            // Another leader wrote in between: what it has not taken is asked for again.
            self.poll.not_before_ms = now_ms + POLL_GAP_MS;
            return;
        };
        self.metrics.add(Counter::Verdicts, written.taken);
        self.metrics.add(Counter::VerdictsEvicted, written.evicted);
        if self.poll.backoff.is_failing() {
            self.host
                .log(Level::Info, "kaeru: verdicts are heard again");
        }
        self.poll.backoff.succeed();
        let held = now_ms.saturating_sub(self.poll.sent_ms) >= POLL_GAP_MS;
        // The first page comes at once and may be empty; a second such in a row is a sign of trouble.
        let begins = page.reset && !self.poll.began;
        self.poll.began = page.reset;
        if written.taken == 0 && !page.more && !held && !begins {
            self.poll.not_before_ms = now_ms + POLL_GAP_MS;
        }
        self.poll(setup, root, now_ms);
    }

    fn poll_failed(&mut self, now_ms: u64, told_ms: Option<u64>, why: &str) {
        self.metrics.add(Counter::PollsFailed, 1);
        if !self.poll.backoff.is_failing() {
            self.host.log(
                Level::Warn,
                &format!("kaeru: verdicts cannot be heard ({why}); those known still hold"),
            );
        }
        self.poll.backoff.fail(now_ms, told_ms, self.host.random());
    }
}
