//! Ticks and what they send: open requests are named, batches leave, answers come back. All our calls are made in a root
//! context's name, since one made by a request would die with it.

use std::num::{NonZeroU32, NonZeroU64};

use kaeru_protocol::{Ending, Kind, limits};

use super::setup::Setup;
use super::{Flight, TICK_MS, URGENT_GAP_MS, Vm};
use crate::backoff::retry_after_ms;
use crate::host::{HeaderMap, Headers, Host, Level, Outcall, Refused};
use crate::metrics::Counter;
use crate::outbox::Answer;
use crate::report::{Body, Event};
use crate::{leader, page, said};

/// Bytes of a receipt that are read: one that rejects each of 512 reports in 200 bytes.
const RECEIPT_BYTES_MAX: usize = 128 * 1024;

impl<H: Host> Vm<H> {
    /// The root context ticks: every [`TICK_MS`] or flush interval, or sooner where what is urgent had to wait.
    pub fn tick(&mut self, root: u32) {
        self.root = Some(root);
        let Some(setup) = self.setup.clone() else {
            return self.host.set_tick_ms(TICK_MS);
        };
        self.host.set_tick_ms(setup.tick_ms());
        let now_ms = self.now_ms();
        self.flush_metrics();
        self.verdicts.refresh(&self.host);
        self.roll.check(&self.host, self.me);
        self.leads = leader::lead(&self.host, now_ms, self.me);
        if self.leads {
            self.poll(&setup, root, now_ms);
            self.state_status(&setup, now_ms);
            self.send_left(&setup, root, now_ms);
        }
        let since_ms = now_ms.saturating_sub(self.flushed_ms);
        let due = since_ms >= setup.config.flush_interval_ms.into() || self.flushed_ms > now_ms;
        if due {
            self.flushed_ms = now_ms;
            self.name_open(&setup, now_ms);
            self.publish_load();
        }
        if self.urgent {
            self.hurried_ms = now_ms;
        }
        if due || self.urgent {
            self.send(&setup, root, now_ms);
        }
    }

    /// Takes the answer to one of our calls; `answered` is false where the connection broke.
    pub fn call_answered(&mut self, token: u32, answered: bool) {
        let Some(setup) = self.setup.clone() else {
            return;
        };
        let now_ms = self.now_ms();
        let headers = if answered {
            self.host.headers(HeaderMap::CallAnswer)
        } else {
            Headers::default()
        };
        if let Some(root) = self.poll.landed(token) {
            self.take_page(&setup, root, now_ms, &headers);
        } else if let Some((root, left)) = self.heir.landed(token) {
            self.left_answered(&setup, root, &left, now_ms, &headers);
        } else if let Some(flight) = self.sending.take_if(|flight| flight.token == token) {
            let answer = self.read_answer(&headers);
            self.settle(&answer, now_ms, status(&headers));
            let more = self.urgent || self.outbox.waiting() >= crate::outbox::BATCH_REPORTS;
            if more || answer == Answer::TooLarge {
                self.send(&setup, flight.root, now_ms);
            }
        }
    }

    /// A root context is gone, and its calls with it: their answers will never come.
    pub(super) fn forget_calls_of(&mut self, root: u32) {
        self.root.take_if(|known| *known == root);
        self.poll.forget(root);
        self.heir.forget(root);
        if self.sending.take_if(|flight| flight.root == root).is_some() {
            // It may have arrived; sent again it does no harm.
            self.outbox.recall();
        }
    }

    /// Queues a report for each open request that is due to be named: at its first flush, then at every heartbeat.
    fn name_open(&mut self, setup: &Setup, now_ms: u64) {
        let heartbeat_ms = setup.config.heartbeat_interval_s * 1_000;
        let due_ms = heartbeat_ms + 2 * setup.config.flush_interval_ms;
        let mut streams = std::mem::take(&mut self.streams);
        let mut oldest_ms = u64::MAX;
        for (id, stream) in streams.iter_mut().filter(|(_, s)| s.is_at_service()) {
            oldest_ms = oldest_ms.min(stream.started_ms);
            self.remember_ids(setup, stream, self.mark(id), now_ms);
            if stream.kind != Kind::Attempt || stream.due_at_ms > now_ms {
                continue;
            }
            let so_far = Ending {
                word: stream.word,
                ..Ending::default()
            };
            let running = Event {
                due_ms: NonZeroU32::new(due_ms),
                ..stream.event(Kind::Running, so_far, now_ms)
            };
            self.push(now_ms, Body::Event(running));
            if stream.opened.is_none() {
                stream.opened = NonZeroU64::new(self.outbox.last_seq());
            }
            stream.due_at_ms = now_ms + u64::from(heartbeat_ms);
        }
        self.streams = streams;
        if oldest_ms == u64::MAX {
            oldest_ms = 0;
        }
        self.oldest_ms = oldest_ms;
        // Also where nothing changed: a VM that writes no note any more is gone.
        self.note(now_ms);
    }

    /// Makes what is queued leave at once, not at the next flush: now, or where that would be too often or no root is
    /// known, at a tick that comes sooner. While a batch is on its way, its answer sends the next.
    pub(super) fn hurry(&mut self, now_ms: u64) {
        let was_urgent = std::mem::replace(&mut self.urgent, true);
        if was_urgent || self.outbox.is_sending() || !self.outbox.backoff.is_over(now_ms) {
            return;
        }
        let since_ms = now_ms.saturating_sub(self.hurried_ms);
        let wait_ms = URGENT_GAP_MS.saturating_sub(since_ms);
        match (self.setup.clone(), self.root) {
            (Some(setup), Some(root)) if wait_ms == 0 => {
                self.hurried_ms = now_ms;
                self.send(&setup, root, now_ms);
            }
            _ => self
                .host
                .set_tick_ms(u32::try_from(wait_ms.max(1)).unwrap_or(TICK_MS)),
        }
    }

    /// Sends the next batch, unless one is on its way (its answer sends what is urgent) or the last failure is too near.
    fn send(&mut self, setup: &Setup, root: u32, now_ms: u64) {
        if self.outbox.is_sending() {
            return;
        }
        self.urgent = false;
        if !self.outbox.backoff.is_over(now_ms) {
            return;
        }
        let Some(batch) = self.outbox.next_batch(&setup.reporter, now_ms) else {
            return;
        };
        match self.post(setup, root, batch.as_bytes()) {
            Ok(token) => self.sending = Some(Flight { token, root }),
            Err(_) => self.settle(&Answer::Later(None), now_ms, None),
        }
    }

    /// Sends a batch; gives the token that its answer names.
    pub(super) fn post(&mut self, setup: &Setup, root: u32, batch: &[u8]) -> Result<u32, Refused> {
        let call = Outcall {
            cluster: &setup.config.aggregator_cluster,
            headers: &[
                (":method", "POST"),
                (":path", "/v1/reports"),
                (":authority", &setup.config.aggregator_authority),
                ("content-type", "application/json"),
            ],
            body: batch,
            timeout_ms: setup.config.report_timeout_ms,
            root,
        };
        let token = self.host.call(&call);
        token.inspect_err(|refused| self.count_refused(*refused))
    }

    pub(super) fn count_refused(&mut self, refused: Refused) {
        if refused == Refused::BAD_ARGUMENT {
            self.metrics.add(Counter::NoCluster, 1);
        }
    }

    pub(super) fn read_answer(&self, headers: &Headers) -> Answer {
        match status(headers) {
            Some(200..=299) => {
                let body = self.host.call_body(RECEIPT_BYTES_MAX);
                // An answer that is no receipt says nothing of a commit.
                page::rejected(&body).map_or(Answer::Later(None), Answer::Taken)
            }
            Some(413) => Answer::TooLarge,
            Some(status @ 400..=499) if status != 429 => Answer::Never,
            _ => Answer::Later(headers.get("retry-after").and_then(retry_after_ms)),
        }
    }

    fn settle(&mut self, answer: &Answer, now_ms: u64, status: Option<u64>) {
        let (failing, refusing) = (self.outbox.backoff.is_failing(), self.refusing);
        self.refusing = *answer == Answer::Never;
        let settled = self.outbox.settle(answer, now_ms, self.host.random());
        self.metrics.add(Counter::Delivered, settled.delivered);
        self.metrics.add(Counter::Dropped, settled.dropped);
        if settled.dropped > 0 {
            self.note(now_ms);
        }
        let later = matches!(answer, Answer::Later(_));
        self.metrics.add(Counter::BatchesFailed, u64::from(later));
        let status = status.map_or_else(|| "no answer".into(), |status| format!("{status}"));
        match answer {
            Answer::Later(_) if !failing => self.host.log(
                Level::Warn,
                &format!("kaeru: reports cannot be delivered ({status}); they are kept and sent later"),
            ),
            Answer::Never if !refusing => self.host.log(
                Level::Warn,
                &format!(
                    "kaeru: the aggregator refuses reports for good ({status}); they are lost and counted"
                ),
            ),
            Answer::Taken(_) if failing => self
                .host
                .log(Level::Info, "kaeru: reports are delivered again"),
            _ => {}
        }
    }

    pub(super) fn flush_metrics(&mut self) {
        let faults = self.host.faults();
        self.metrics
            .add(Counter::HostFaults, faults - self.faults_counted);
        self.faults_counted = faults;
        self.metrics.flush(&self.host);
    }
}

/// The status of an answer; `None` where there was none.
pub(super) fn status(headers: &Headers) -> Option<u64> {
    headers.get(":status").and_then(said::number)
}

const _: () = assert!(crate::outbox::BATCH_REPORTS <= limits::BATCH_REPORTS_MAX);
