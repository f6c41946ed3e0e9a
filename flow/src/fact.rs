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
    /// The proxy that the reporter lives in.
    pub proxy: Box<str>,
    /// The proxy is a gateway.
    pub gateway: bool,
    /// When it was so, by the reporter's clock, ms.
    pub at_ms: u64,
    /// When it was first received, by the aggregator's clock, ms.
    pub received_ms: u64,
    /// What it says.
    pub report: EventReport,
}
