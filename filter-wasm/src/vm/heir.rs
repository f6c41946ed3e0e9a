//! The end of a VM, and what comes of what it left: the last root context gone, its reports go into the estate; the leader
//! of the proxy's VMs sends them.

use super::setup::Setup;
use super::{Flight, Vm};
use crate::backoff::Backoff;
use crate::estate::{self, Left};
use crate::host::{Headers, Host};
use crate::metrics::Counter;
use crate::outbox::Answer;

/// Where the sending of what was left stands.
#[derive(Debug, Default)]
pub(super) struct Heir {
    /// The estate's version of which everything was sent.
    settled: u32,
    flight: Option<(Flight, Left)>,
    backoff: Backoff,
}

impl Heir {
    /// Whether this answer is to what was left; gives the root context that it came to, and what it was.
    pub(super) fn landed(&mut self, token: u32) -> Option<(u32, Left)> {
        let (flight, left) = self.flight.take_if(|(flight, _)| flight.token == token)?;
        Some((flight.root, left))
    }

    /// A root context is gone, and a call of it with it.
    pub(super) fn forget(&mut self, root: u32) {
        self.flight.take_if(|(flight, _)| flight.root == root);
    }
}

impl<H: Host> Vm<H> {
    /// The last root context is gone, and this VM with it: leaves what was not acknowledged. What has no room is counted as
    /// lost by the roll's note.
    pub(super) fn bequeath(&mut self) {
        self.flush_metrics();
        let Some(setup) = self.setup.clone() else {
            return;
        };
        let now_ms = self.now_ms();
        self.outbox.recall();
        while let Some(batch) = self.outbox.next_batch(&setup.reporter, now_ms) {
            let reports = u32::try_from(self.outbox.sending()).unwrap_or(u32::MAX);
            if !estate::leave(&self.host, self.me, reports, &batch) {
                return self.outbox.recall();
            }
            self.outbox.settle(&Answer::Taken(0), now_ms, 0);
        }
    }

    /// Sends the next of what was left, if anything was.
    pub(super) fn send_left(&mut self, setup: &Setup, root: u32, now_ms: u64) {
        if self.heir.flight.is_some() || !self.heir.backoff.is_over(now_ms) {
            return;
        }
        // Read before the look: what is left meanwhile is looked for again.
        let version = estate::version(&self.host);
        if version == self.heir.settled {
            return;
        }
        let Some(mut left) = estate::first(&self.host) else {
            self.heir.settled = version;
            return;
        };
        let batch = std::mem::take(&mut left.batch);
        match self.post(setup, root, &batch) {
            Ok(token) => self.heir.flight = Some((Flight { token, root }, left)),
            Err(_) => self.left_failed(now_ms),
        }
    }

    /// Takes the answer to what was left.
    pub(super) fn left_answered(
        &mut self,
        setup: &Setup,
        root: u32,
        left: &Left,
        now_ms: u64,
        headers: &Headers,
    ) {
        let reports = u64::from(left.reports);
        let rejected = match self.read_answer(headers) {
            Answer::Later(_) => return self.left_failed(now_ms),
            Answer::Taken(rejected) => rejected.min(reports),
            // It cannot be made smaller any more.
            Answer::TooLarge | Answer::Never => reports,
        };
        self.metrics.add(Counter::Delivered, reports - rejected);
        self.metrics.add(Counter::Dropped, rejected);
        self.heir.backoff.succeed();
        estate::clear(&self.host, left.slot, left.cas);
        self.send_left(setup, root, now_ms);
    }

    fn left_failed(&mut self, now_ms: u64) {
        self.metrics.add(Counter::BatchesFailed, 1);
        self.heir.backoff.fail(now_ms, None, self.host.random());
    }
}
