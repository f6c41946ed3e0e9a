//! What a test or the simulation sees of a VM from outside. Not in the shipped filter.

use kaeru_protocol::ReporterId;

use super::Vm;
use crate::host::Host;

/// The state of a VM in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Which reporter it is.
    pub id: ReporterId,
    /// The last sequence that it gave out.
    pub seq: u64,
    /// Reports that it dropped, by its own count.
    pub dropped: u64,
    /// Reports that it keeps: waiting, or on their way.
    pub kept: usize,
    /// Requests that it observes now.
    pub open: usize,
    /// Verdicts that it knows.
    pub verdicts: usize,
    /// It leads the VMs of its proxy.
    pub leads: bool,
}

impl<H: Host> Vm<H> {
    /// How it stands.
    pub fn seen(&self) -> Seen {
        Seen {
            id: self.me,
            seq: self.outbox.last_seq(),
            dropped: self.outbox.dropped(),
            kept: self.outbox.kept(),
            open: self.streams.len(),
            verdicts: self.verdicts.len(),
            leads: self.leads,
        }
    }
}
