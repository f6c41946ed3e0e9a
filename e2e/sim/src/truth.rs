//! What really happened, whatever was reported of it: the ledger that the oracle judges by. Written by the world as it
//! goes; nothing of Kaeru reads it.

use std::collections::BTreeMap;

use kaeru_protocol::{Ending, EventId, ReporterId, Word};

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) tries: Vec<Try>,
    pub(crate) words: Vec<Said>,
    pub(crate) demands: Vec<Demand>,
    pub(crate) withdrawals: Vec<(EventId, u64)>,
    /// Effects left behind and not undone, by event and service.
    pub(crate) written: BTreeMap<(EventId, usize), i64>,
    /// Clean-ups: when they were done, where.
    pub(crate) cleanups: Vec<(EventId, usize, u64)>,
    /// Times in which reports of a VM could not be delivered by the network's fault.
    pub(crate) hindered: BTreeMap<ReporterId, Vec<(u64, u64)>>,
    /// When a VM died, with what it had given out then.
    pub(crate) dead: BTreeMap<ReporterId, Dead>,
    /// By VM: what it is.
    pub(crate) reporters: BTreeMap<ReporterId, (usize, usize)>,
    /// Times in which a proxy was down or cut off.
    pub(crate) gone: Vec<(usize, u64, u64)>,
    /// VMs whose clock was set right by something wrong: their first batches were long on their way.
    pub(crate) clocks_wrong: std::collections::BTreeSet<ReporterId>,
    /// When aggregators died without goodbye, or the only one left.
    pub(crate) aggregators_died: Vec<u64>,
    /// Dead VMs whose whole proxy died, so that nobody could mark their end.
    pub(crate) died_with_proxy: Vec<ReporterId>,
}

/// One request that reached a service (or a gateway, or a host outside).
#[derive(Debug, Clone)]
pub(crate) struct Try {
    pub(crate) event: EventId,
    /// `None`: a host outside the mesh.
    pub(crate) service: Option<usize>,
    /// The service that called; `None` at the entry.
    pub(crate) from: Option<usize>,
    /// The client's order, at the entry.
    pub(crate) order: Option<usize>,
    pub(crate) kind: What,
    pub(crate) method: &'static str,
    pub(crate) path: String,
    /// The proxy at which it was handled.
    pub(crate) proxy: Option<usize>,
    /// The VM that observed it.
    pub(crate) reporter: Option<ReporterId>,
    /// The VM that observed the call at its caller.
    pub(crate) caller: Option<(usize, ReporterId)>,
    /// When its caller sent it.
    pub(crate) sent_ms: u64,
    pub(crate) began_ms: u64,
    /// `began_ms` by its proxy's clock.
    pub(crate) began_here_ms: u64,
    /// When its proxy saw its end, and how.
    pub(crate) ended: Option<(u64, Ending)>,
    /// When its caller was through with it, and how.
    pub(crate) answered: Option<(u64, Ending)>,
    /// The sequence of its last report.
    pub(crate) end_seq: Option<u64>,
    /// The sequence of its caller's report.
    pub(crate) call_seq: Option<u64>,
    /// It can no longer be heard of: the VM that observed it died first.
    pub(crate) unseen_ms: Option<u64>,
}

/// What a request was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Attempt,
    Cleanup,
    Refused,
}

/// A word by the status call.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) event: EventId,
    pub(crate) service: usize,
    pub(crate) word: Word,
    pub(crate) at_ms: u64,
    /// Who was told; `None` where nobody was.
    pub(crate) heard: Option<(ReporterId, u64)>,
}

/// An operator's demand.
#[derive(Debug, Clone)]
pub(crate) struct Demand {
    pub(crate) event: EventId,
    pub(crate) at_ms: u64,
}

/// A VM that died.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dead {
    pub(crate) at_ms: u64,
    pub(crate) seq: u64,
}

impl Try {
    /// Whether its method is safe.
    pub(crate) fn is_safe(&self) -> bool {
        kaeru_protocol::is_safe_method(self.method)
    }
}
