//! A fact: one report as the store keeps it, with who said it and when it was received.

use std::fmt;

use kaeru_protocol::{EventReport, ReporterId, ServiceName};

/// The identity of a report (its day follows from its time).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReportKey {
    /// Who stated it.
    pub reporter: ReporterId,
    /// Its sequence there.
    pub seq: u64,
}

impl fmt::Display for ReportKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.reporter, self.seq)
    }
}

/// One report about an event, with its reporter.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// Its identity.
    pub key: ReportKey,
    /// The service that the reporter stands beside.
    pub service: ServiceName,
    /// The proxy is a gateway.
    pub gateway: bool,
    /// When it was so, ms: by the reporter's clock, set right by as much as that is known to be off.
    pub at_ms: u64,
    /// When it was first received, by the aggregator's clock, ms.
    pub received_ms: u64,
    /// What it says.
    pub report: EventReport,
}

/// Clocks that are closer than this count as equal, ms: by how long batches take on their way, a difference
/// cannot be told better.
pub(crate) const CLOCKS_EQUAL_MS: u64 = 1_000;

/// A time of a reporter by the aggregator's clock, which is `clock_ms` ahead of the reporter's.
pub fn set_right(at_ms: u64, clock_ms: i64) -> u64 {
    if clock_ms.unsigned_abs() < CLOCKS_EQUAL_MS {
        at_ms
    } else {
        at_ms.saturating_add_signed(clock_ms)
    }
}
