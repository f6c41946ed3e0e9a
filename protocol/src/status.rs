//! What each proxy states about itself once a minute, idle or not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ReporterId;

/// The state of one proxy and its service, stated by the leader among its VMs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// The next one comes within this time, ms.
    pub due_ms: u32,
    /// Requests of events open now, over all workers.
    pub in_flight: u64,
    /// Age of the oldest of them, ms.
    #[serde(default, skip_serializing_if = "is_default")]
    pub oldest_ms: u64,
    /// Counted since the last status.
    #[serde(default, skip_serializing_if = "is_default")]
    pub counts: Counts,
    /// The last ORCA values of the service (`cpu_utilization`, `named_metrics.queue_depth`, …), at most 16.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub load: BTreeMap<Box<str>, f64>,
    /// Every reporter of this proxy and how far it came, so that the tail of a dead VM is seen as lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reporters: Vec<ReporterMark>,
}

/// Counts of one proxy since its last status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Attempts that succeeded.
    #[serde(skip_serializing_if = "is_default")]
    pub succeeded: u64,
    /// Attempts that were rejected.
    #[serde(skip_serializing_if = "is_default")]
    pub rejected: u64,
    /// Attempts that failed.
    #[serde(skip_serializing_if = "is_default")]
    pub failed: u64,
    /// Attempts without an answer.
    #[serde(skip_serializing_if = "is_default")]
    pub unknown: u64,
    /// Requests that Kaeru refused.
    #[serde(skip_serializing_if = "is_default")]
    pub refused: u64,
    /// Outbound requests that matched no open event while there were some: broken propagation.
    #[serde(skip_serializing_if = "is_default")]
    pub possible_splits: u64,
    /// Event ids that broke the grammar and counted as absent.
    #[serde(skip_serializing_if = "is_default")]
    pub invalid_ids: u64,
    /// Reports lost because the outbox was full or the aggregator refused them for good.
    #[serde(skip_serializing_if = "is_default")]
    pub dropped: u64,
}

/// How far one reporter came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReporterMark {
    /// Which reporter.
    pub id: ReporterId,
    /// The last sequence that it gave out.
    pub seq: u64,
    /// How many of its reports it dropped in all, by its own count.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dropped: u64,
    /// It has fallen silent: it died, or its worker hangs. What it held is lost if it does not speak again.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gone: bool,
}

/// Whether a field is at its default and may be left out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
