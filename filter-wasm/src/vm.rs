//! One Wasm VM: a worker of the proxy, or its main thread. It holds the state that lives between callbacks and passes
//! each callback on: requests to `inbound` and `outbound`, responses and ends to `ending`, ticks to `courier`, `poll` and
//! `status`. State belongs to the VM, not to a root context: several roots of one VM share it, and one that is replaced
//! takes nothing with it but its open calls.

mod courier;
mod ending;
mod heir;
mod inbound;
mod learned;
mod outbound;
mod poll;
#[cfg(any(test, feature = "simulated"))]
mod seen;
mod setup;
mod status;
mod stream;

use std::rc::Rc;

use kaeru_protocol::ReporterId;

use crate::calls::Calls;
use crate::config::Role;
use crate::host::{HeaderMap, Host};
use crate::metrics::{Counter, Metrics};
use crate::orca::Load;
use crate::outbox::{BATCH_REPORTS, Outbox};
use crate::report::Body;
use crate::roll::{Note, Roll};
use crate::verdicts::Verdicts;
use learned::Learned;
#[cfg(any(test, feature = "simulated"))]
pub use seen::Seen;
use setup::Setup;
use stream::{Stream, Streams};

/// How often the root context ticks, ms: five times within a leader's lease.
const TICK_MS: u32 = 200;
/// Urgent flushes keep this apart, ms: a worker whose requests all fail sends 100 batches a second, not one for each.
const URGENT_GAP_MS: u64 = 10;
/// How far the times of requests may run ahead of the clock so that no two are the same, ms: above 1,000 requests a
/// second on one worker some are.
const STAMP_AHEAD_MS: u64 = 50;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Next {
    /// It goes on.
    #[default]
    Continue,
    /// It was answered here.
    Answered,
}

/// A call of our own on its way, and the root context that it dies with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flight {
    token: u32,
    root: u32,
}

/// The state of one VM.
#[derive(Debug)]
pub struct Vm<H> {
    host: H,
    /// Absent until configured, and beside an aggregator: then everything passes untouched.
    setup: Option<Rc<Setup>>,
    /// The root context that was configured or ticked last: our calls are made in its name.
    root: Option<u32>,
    /// All root contexts: with the last of them the VM ends.
    roots: Vec<u32>,
    me: ReporterId,
    metrics: Metrics,
    faults_counted: u64,
    streams: Streams,
    learned: Learned,
    calls: Calls,
    verdicts: Verdicts,
    roll: Roll,
    /// When the oldest request of this VM began, as of the last flush, ms; 0 where none was open.
    oldest_ms: u64,
    /// Load values not yet told to the other VMs.
    load: Option<Load>,
    outbox: Outbox,
    sending: Option<Flight>,
    /// The last batch was refused for good; said once.
    refusing: bool,
    urgent: bool,
    hurried_ms: u64,
    flushed_ms: u64,
    /// The last time that an outbound request was given, ms.
    stamped_ms: u64,
    leads: bool,
    poll: poll::Poll,
    heir: heir::Heir,
}

impl<H: Host> Vm<H> {
    /// A VM that was not configured yet.
    pub fn new(host: H) -> Self {
        Self {
            me: ReporterId(host.random()),
            host,
            setup: None,
            root: None,
            roots: Vec::new(),
            metrics: Metrics::default(),
            faults_counted: 0,
            streams: Streams::default(),
            learned: Learned::default(),
            calls: Calls::default(),
            verdicts: Verdicts::default(),
            roll: Roll::default(),
            oldest_ms: 0,
            load: None,
            outbox: Outbox::new(0),
            sending: None,
            refusing: false,
            urgent: false,
            hurried_ms: 0,
            flushed_ms: 0,
            stamped_ms: 0,
            leads: false,
            poll: poll::Poll::default(),
            heir: heir::Heir::default(),
        }
    }

    /// The proxy around it.
    pub fn host(&self) -> &H {
        &self.host
    }

    /// Takes a configuration; whatever it says, the VM works with it.
    pub fn configure(&mut self, root: u32, size: usize) {
        self.root = Some(root);
        if !self.roots.contains(&root) {
            self.roots.push(root);
        }
        self.metrics.define(&self.host);
        let bytes = self.host.configuration(size);
        let (setup, complaints) = Setup::new(&self.host, &bytes, self.me);
        self.metrics.add(Counter::ConfigErrors, complaints);
        self.setup = setup.map(Rc::new);
        // They name the service, which may be another one now.
        self.calls = Calls::default();
        if let Some(setup) = self.setup.clone() {
            self.outbox
                .set_max(setup.config.outbox_reports_max as usize);
            self.verdicts.refresh(&self.host);
        }
        self.metrics.flush(&self.host);
        self.host.set_tick_ms(TICK_MS);
    }

    /// A request's headers are here; `end` says that nothing follows them.
    pub fn request_headers(&mut self, stream: u32, end: bool) -> Next {
        let Some(setup) = self.setup.clone() else {
            return Next::Continue;
        };
        let Some(role) = setup.role.or_else(|| setup::listener_role(&self.host)) else {
            return Next::Continue;
        };
        let headers = self.host.headers(HeaderMap::Request);
        match role {
            Role::Inbound => self.inbound(&setup, stream, &headers),
            Role::Outbound => self.outbound(&setup, stream, &headers, end),
            Role::Gateway => self.gateway(&setup, stream, &headers),
        }
    }

    /// A context ends. A root takes its open calls with it, unanswered, and the last one the VM.
    pub fn delete(&mut self, context: u32) {
        if let Some(stream) = self.streams.remove(context) {
            self.close(&stream);
        }
        if let Some(place) = self.roots.iter().position(|root| *root == context) {
            self.roots.swap_remove(place);
            self.forget_calls_of(context);
            if self.roots.is_empty() {
                self.bequeath();
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.host.now_ns() / 1_000_000
    }

    /// Observes a request until it ends; says whether there is room for it.
    fn open(&mut self, setup: &Setup, id: u32, stream: Stream) -> bool {
        if self.streams.len() >= setup.config.open_requests_max as usize {
            self.metrics.add(Counter::Unobserved, 1);
            return false;
        }
        if stream.is_at_service() {
            self.metrics.move_open(&self.host, 1);
        }
        self.streams.insert(id, stream);
        true
    }

    fn close(&mut self, stream: &Stream) {
        if stream.is_at_service() {
            self.metrics.move_open(&self.host, -1);
        }
    }

    /// Queues a report. Its sequence is noted on the roll at once, so that it is missed if this VM dies with it.
    fn push(&mut self, now_ms: u64, body: Body) {
        let dropped = self.outbox.push(now_ms, body);
        self.metrics.add(Counter::Dropped, dropped);
        self.note(now_ms);
        if self.outbox.waiting() >= BATCH_REPORTS {
            self.hurry(now_ms);
        }
    }

    /// The time of an outbound request, by which its callee's report and its own are known to be of one: each its own.
    fn stamp(&mut self, now_ms: u64) -> u64 {
        let next_ms = self.stamped_ms + 1;
        let is_near = next_ms > now_ms && next_ms - now_ms <= STAMP_AHEAD_MS;
        self.stamped_ms = if is_near { next_ms } else { now_ms };
        self.stamped_ms
    }

    fn note(&mut self, now_ms: u64) {
        let note = Note {
            seq: self.outbox.last_seq(),
            dropped: self.outbox.dropped(),
            oldest_ms: self.oldest_ms,
            at_ms: now_ms,
        };
        self.roll.note(&self.host, self.me, note);
    }
}

#[cfg(test)]
mod tests;
