//! Everything that Kaeru counts, in one table: the doc comment is the help text. Event ids are never labels;
//! each label's values are named in its help.

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

/// Upper bounds of times, seconds: from a tenth of a commit to a statement's time limit.
const SECONDS: [f64; 12] = [
    0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

macro_rules! metrics {
    ($($(#[doc = $help:literal])* $kind:ident $field:ident = $name:literal $([$label:literal])?;)*) => {
        /// The table of metrics.
        #[derive(Debug)]
        pub(crate) struct Metrics {
            registry: Registry,
            $($(#[doc = $help])* pub(crate) $field: metrics!(@type $kind),)*
        }

        impl Metrics {
            /// The name of each.
            #[cfg(test)]
            pub(crate) const NAMES: &[&str] = &[$($name),*];

            /// All of them, at zero.
            pub(crate) fn new() -> prometheus::Result<Self> {
                let registry = Registry::new();
                $(
                    let help = concat!($($help),*).trim();
                    let $field = metrics!(@new $kind, $name, help $(, $label)?)?;
                    registry.register(Box::new($field.clone()))?;
                )*
                Ok(Self { registry, $($field),* })
            }
        }
    };
    (@type counter) => { IntCounter };
    (@type counters) => { IntCounterVec };
    (@type gauge) => { IntGauge };
    (@type seconds) => { Histogram };
    (@new counter, $name:literal, $help:ident) => { IntCounter::new($name, $help) };
    (@new counters, $name:literal, $help:ident, $label:literal) => {
        IntCounterVec::new(Opts::new($name, $help), &[$label])
    };
    (@new gauge, $name:literal, $help:ident) => { IntGauge::new($name, $help) };
    (@new seconds, $name:literal, $help:ident) => {
        Histogram::with_opts(HistogramOpts::new($name, $help).buckets(SECONDS.to_vec()))
    };
}

metrics! {
    /// Report batches by what became of them: stored, invalid, foreign, excess, overload, unavailable, broken.
    counters batches = "kaeru_batches_total" ["outcome"];
    /// Reports stored, each once.
    counter reports_stored = "kaeru_reports_stored_total";
    /// Reports that had been stored before: delivery is at least once.
    counter reports_repeated = "kaeru_reports_repeated_total";
    /// Reports rejected alone: unreadable, or of a day that is not kept.
    counter reports_rejected = "kaeru_reports_rejected_total";
    /// What was one too many of those that are bounded by name: proxies, reporters, calls, types. Who: GET /v1/limits.
    counters excess = "kaeru_excess_total" ["what"];
    /// Reports that reporters lost, by gaps in their sequences or by their own count.
    counter reports_lost = "kaeru_reports_lost_total";
    /// Time of one transaction that stores reports, commit included.
    seconds commit_seconds = "kaeru_commit_seconds";
    /// Looks at events: each is a fold of its reports and a judgement.
    counter events_judged = "kaeru_events_judged_total";
    /// Events put off because looking at them failed; the log says why.
    counter events_parked = "kaeru_events_parked_total";
    /// Time of one round of the decider, commit included.
    seconds round_seconds = "kaeru_decider_round_seconds";
    /// Decisions made, by the rule that fired: operator, word, fatal, entry, stalled, deadline, learned.
    counters decisions = "kaeru_decisions_total" ["rule"];
    /// Later revisions of decisions.
    counter revisions = "kaeru_decision_revisions_total";
    /// Decisions withdrawn.
    counter withdrawals = "kaeru_decisions_withdrawn_total";
    /// Breakers that tripped: an event type fell back to shadow.
    counter breaker_trips = "kaeru_breaker_trips_total";
    /// Breakers that are open under the policy in force.
    gauge breakers_open = "kaeru_breakers_open";
    /// Verdicts that the feed holds.
    gauge feed_verdicts = "kaeru_feed_verdicts";
    /// The last feed sequence that this aggregator knows.
    gauge feed_seq = "kaeru_feed_sequence";
    /// Verdicts that left the feed early because it was full.
    counter feed_evicted = "kaeru_feed_evicted_total";
    /// Long polls that wait now.
    gauge polls = "kaeru_polls";
    /// The version of the policy in force; 0 is the built-in one.
    gauge policy_version = "kaeru_policy_version";
    /// Policies that were refused; the log says why.
    counter policies_refused = "kaeru_policies_refused_total";
    /// Times that this aggregator could not say that it is alive.
    counter beats_missed = "kaeru_beats_missed_total";
    /// Answers that the store did not give: unavailable, statement, unreadable.
    counters store_errors = "kaeru_store_errors_total" ["kind"];
}

impl Metrics {
    /// In the text format of Prometheus.
    pub(crate) fn render(&self) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// Counts and logs an answer that the store did not give.
    pub(crate) fn store_failed(&self, error: &crate::store::Error, doing: &'static str) {
        use crate::store::Error;
        let kind = match error {
            Error::Unavailable(_) => "unavailable",
            Error::Statement(_) => "statement",
            Error::Unreadable { .. } => "unreadable",
        };
        self.store_errors.with_label_values(&[kind]).inc();
        let cause = std::error::Error::source(error).map(ToString::to_string);
        tracing::warn!(doing, cause, "{error}");
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn every_metric_is_registered_under_our_prefix() {
        let metrics = Metrics::new().unwrap();
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        for name in Metrics::NAMES {
            assert!(name.starts_with("kaeru_"), "{name}");
        }
        assert!(text.contains("# HELP kaeru_reports_stored_total Reports stored, each once."));
    }
}
