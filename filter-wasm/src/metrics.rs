//! The filter's Envoy metrics, one table: the name, what it is, and its help as the doc comment. Counters are added up in
//! the VM and handed to Envoy at each tick, so a request pays nothing for them; the gauge is moved at once, because all
//! workers read it. Event ids, hosts and paths are never part of a name.

use crate::host::{Host, MetricKind};

macro_rules! metrics {
    ($($(#[doc = $help:literal])* $name:ident = $text:literal;)*) => {
        /// A counter of the table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Counter { $($(#[doc = $help])* $name),* }

        /// Every counter: which, its name, its help.
        pub const COUNTERS: &[(Counter, &str, &str)] =
            &[$((Counter::$name, $text, concat!($($help),*))),*];
    };
}

metrics! {
    /// Attempts that succeeded.
    Succeeded = "kaeru_attempts_succeeded_total";
    /// Attempts that their service rejected.
    Rejected = "kaeru_attempts_rejected_total";
    /// Attempts that failed.
    Failed = "kaeru_attempts_failed_total";
    /// Attempts that ended without an answer.
    Unknown = "kaeru_attempts_unknown_total";
    /// Requests refused because their event is being rolled back.
    Refused = "kaeru_requests_refused_total";
    /// Requests that `enforce` would have refused.
    WouldRefuse = "kaeru_requests_would_refuse_total";
    /// Requests of doomed events that `pass` let through.
    Cleanups = "kaeru_cleanups_total";
    /// Undo calls let through by their decision id.
    Undos = "kaeru_undos_total";
    /// Calls reported in place of a callee that did not report.
    Calls = "kaeru_calls_total";
    /// Status calls answered in the sidecar.
    Words = "kaeru_words_answered_total";
    /// Verdict calls answered in the sidecar.
    VerdictsAnswered = "kaeru_verdicts_answered_total";
    /// Outbound requests that matched no open event while there were some: broken propagation.
    PossibleSplits = "kaeru_possible_splits_total";
    /// Ids that broke their grammar and counted as absent.
    InvalidIds = "kaeru_invalid_ids_total";
    /// Other headers of ours or load reports that could not be read.
    InvalidHeaders = "kaeru_invalid_headers_total";
    /// Requests from outside the mesh that had headers of ours taken off.
    TakenOff = "kaeru_taken_off_at_the_edge_total";
    /// Requests not observed because `open_requests_max` was reached.
    Unobserved = "kaeru_unobserved_total";
    /// Reports acknowledged by the aggregator.
    Delivered = "kaeru_reports_delivered_total";
    /// Reports lost: the outbox was full, or the aggregator refuses them for good.
    Dropped = "kaeru_reports_dropped_total";
    /// Batches that were not acknowledged and will be sent again.
    BatchesFailed = "kaeru_batches_failed_total";
    /// Batches or polls that Envoy did not send: the aggregator's cluster is unknown to this proxy.
    NoCluster = "kaeru_no_cluster_total";
    /// Polls for verdicts that failed.
    PollsFailed = "kaeru_polls_failed_total";
    /// Verdicts taken from the feed.
    Verdicts = "kaeru_verdicts_total";
    /// Verdicts forgotten early because `verdicts_max` was reached.
    VerdictsEvicted = "kaeru_verdicts_evicted_total";
    /// Wrong keys or values in the plugin configuration.
    ConfigErrors = "kaeru_config_errors_total";
    /// Hostcalls that were refused unexpectedly.
    HostFaults = "kaeru_host_faults_total";
}

/// Requests of events open now, over all workers of the proxy.
pub const OPEN_REQUESTS: &str = "kaeru_open_requests";

/// The table's values that Envoy does not have yet.
#[derive(Debug, Default)]
pub struct Metrics {
    ids: Vec<Option<u32>>,
    pending: [u64; COUNTERS.len()],
    open: Option<u32>,
}

impl Metrics {
    /// Makes the table known to the host, once.
    pub fn define(&mut self, host: &impl Host) {
        if self.ids.is_empty() {
            let names = COUNTERS.iter().map(|(_, name, _)| name);
            self.ids = names
                .map(|name| host.define_metric(MetricKind::Counter, name))
                .collect();
            self.open = host.define_metric(MetricKind::Gauge, OPEN_REQUESTS);
        }
    }

    /// Counts.
    pub fn add(&mut self, counter: Counter, by: u64) {
        if let Some(pending) = self.pending.get_mut(counter as usize) {
            *pending += by;
        }
    }

    /// Hands what was counted to the host.
    pub fn flush(&mut self, host: &impl Host) {
        for (id, pending) in self.ids.iter().zip(&mut self.pending) {
            if let (Some(id), true) = (id, *pending > 0) {
                host.add_metric(*id, i64::try_from(*pending).unwrap_or(i64::MAX));
                *pending = 0;
            }
        }
    }

    /// The value of a counter over all VMs of the proxy, as of their last ticks.
    pub fn total(&self, host: &impl Host, counter: Counter) -> u64 {
        match self.ids.get(counter as usize) {
            Some(Some(id)) => host.metric(*id),
            _ => 0,
        }
    }

    /// One request more, or one less, is open.
    pub fn move_open(&self, host: &impl Host, by: i64) {
        if let Some(id) = self.open {
            host.add_metric(id, by);
        }
    }

    /// How many requests are open, over all workers.
    pub fn open(&self, host: &impl Host) -> u64 {
        self.open.map_or(0, |id| host.metric(id))
    }
}

#[cfg(test)]
mod tests {
    use super::{COUNTERS, OPEN_REQUESTS};

    #[test]
    fn names_are_once_and_survive_the_stats_of_a_mesh() {
        let mut names: Vec<_> = COUNTERS.iter().map(|(_, name, _)| *name).collect();
        names.push(OPEN_REQUESTS);
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        for (index, (counter, name, help)) in COUNTERS.iter().enumerate() {
            assert_eq!(*counter as usize, index);
            assert!(name.starts_with("kaeru_") && name.ends_with("_total") && !name.contains('.'));
            assert!(help.trim().ends_with('.'), "{name}");
        }
    }
}
