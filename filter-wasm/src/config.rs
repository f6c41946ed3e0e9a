//! The plugin's configuration, compiled once when it is pushed; nothing of it is parsed per request. Every key may be
//! left out. A wrong key or value is complained of by its name and its default is used: a configuration is never
//! refused, for that would stop the listener.

mod keys;
mod pattern;

use kaeru_protocol::{Mode, ServiceName};

pub use keys::parse;
pub use pattern::{Match, Pattern, Rule};

use crate::identity::Source;

/// Which way the requests of this proxy go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Towards the service.
    Inbound,
    /// Away from the service.
    Outbound,
    /// Into the mesh, through a gateway.
    Gateway,
}

/// What may be set, each with its default in `Default`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `mode`: the ceiling over what the policy says.
    pub mode: Mode,
    /// `service`: the own service's name; absent: from the proxy's metadata.
    pub service: Option<ServiceName>,
    /// `proxy`: the proxy's name; absent: Envoy's node id.
    pub proxy: Option<Box<str>>,
    /// `role`; absent (`auto`): what the listener says.
    pub role: Option<Role>,
    /// `aggregator_cluster`: Envoy's cluster for reports and verdicts.
    pub aggregator_cluster: Box<str>,
    /// `aggregator_authority`: the aggregator's host, without port.
    pub aggregator_authority: Box<str>,
    /// `id_sources`: where event ids stand, the first wins.
    pub id_sources: Vec<Source>,
    /// `mesh_hosts`: hosts that may learn event ids.
    pub mesh_hosts: Vec<Pattern>,
    /// `trust_plaintext`: believe peers without a certificate.
    pub trust_plaintext: bool,
    /// `trust_ids_from`: SPIFFE ids that may choose ids at a gateway.
    pub trust_ids_from: Vec<Pattern>,
    /// `match`: which requests are steps.
    pub matching: Match,
    /// `pass`: which unsafe requests of a doomed event go through.
    pub pass: Vec<Rule>,
    /// `refusal_status`: HTTP status of a refusal.
    pub refusal_status: u16,
    /// `flush_interval_ms`: how often reports leave.
    pub flush_interval_ms: u32,
    /// `heartbeat_interval_s`: how often an open request is named again.
    pub heartbeat_interval_s: u32,
    /// `status_interval_s`: how often the proxy states its own status.
    pub status_interval_s: u32,
    /// `poll_wait_ms`: how long the aggregator may hold a poll.
    pub poll_wait_ms: u32,
    /// `report_timeout_ms`: how long a batch may take.
    pub report_timeout_ms: u32,
    /// `outbox_reports_max`: reports that one worker keeps while they cannot be sent.
    pub outbox_reports_max: u32,
    /// `open_requests_max`: requests that one worker observes at a time.
    pub open_requests_max: u32,
    /// `verdicts_max`: verdicts that one proxy keeps.
    pub verdicts_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            service: None,
            proxy: None,
            role: None,
            aggregator_cluster: "outbound|7170||kaeru-aggregator.kaeru-system.svc.cluster.local"
                .into(),
            aggregator_authority: "kaeru-aggregator.kaeru-system.svc.cluster.local".into(),
            id_sources: [
                "x-event-id",
                "ce-correlationid",
                "baggage",
                "traceparent",
                "b3",
                "x-b3-traceid",
                "x-request-id",
            ]
            .map(Source::of_header)
            .into(),
            mesh_hosts: vec![Pattern::new("*.svc.cluster.local")],
            trust_plaintext: false,
            trust_ids_from: Vec::new(),
            matching: Match::default(),
            pass: Vec::new(),
            refusal_status: 424,
            flush_interval_ms: 1_000,
            heartbeat_interval_s: 60,
            status_interval_s: 60,
            poll_wait_ms: 25_000,
            report_timeout_ms: 5_000,
            // 8,192 x about 170 bytes = 1.3 MiB per worker.
            outbox_reports_max: 8_192,
            // 10,000 x about 205 bytes = 2.0 MiB per worker.
            open_requests_max: 10_000,
            // 64-bit fingerprints: 1.2 MB per worker; records in shared data: 15 MB per proxy at the limit.
            verdicts_max: 100_000,
        }
    }
}

impl Config {
    /// Whether the host belongs to the mesh: it is named so, or has no dot.
    pub fn is_mesh_host(&self, host: &[u8]) -> bool {
        let bare = !host.is_empty() && !host.iter().any(|b| matches!(b, b'.' | b':'));
        bare || self.mesh_hosts.iter().any(|p| p.matches(host))
    }

    /// Whether the host is the aggregator's: its authority, or a shorter form of it that names the namespace too.
    pub fn is_aggregator(&self, host: &[u8]) -> bool {
        let authority = self.aggregator_authority.as_bytes();
        let same = authority
            .get(..host.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(host));
        same && match authority.get(host.len()) {
            None => true,
            Some(next) => *next == b'.' && host.contains(&b'.'),
        }
    }
}

#[cfg(test)]
mod tests;
