//! The oracle: it knows what the services really did, and says what may not be. Each thing that may not be is a
//! [`Condition`] with its place in the design.

mod books;
mod decisions;
mod effects;
mod end;
mod order;
mod refusals;

use std::collections::BTreeMap;
use std::fmt;

use kaeru_filter::vm::Seen;
use kaeru_protocol::{Batch, EventId, Report, ReporterId, VerdictEntry};

macro_rules! conditions {
    ($($(#[doc = $words:literal])* $name:ident = $rule:literal;)*) => {
        /// What may not be.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Condition { $($(#[doc = $words])* $name),* }

        impl Condition {
            /// Every condition: its name, where the design says so, and what it says.
            pub const ALL: &[(&str, &str, &str)] = &[$((stringify!($name), $rule, concat!($($words),*))),*];

            /// Where the design says so.
            pub fn rule(self) -> &'static str {
                match self { $(Self::$name => $rule),* }
            }
        }
    };
}

conditions! {
    /// A decision by an operator's demand that no operator made, or that a withdrawal had answered.
    NoDemand = "4.1 (e)";
    /// A decision by a service's word that it did not say.
    NoWordFailed = "4.1 (a)";
    /// A decision by a status that was not answered, or that the policy does not call fatal.
    NoFatalAnswer = "4.1 (a)";
    /// A decision by a failure in a branch that a queue handed over and the policy does not require.
    BranchNotRequired = "4.2";
    /// A decision by the failure of an entry that succeeded, is open, or was tried again in time.
    EntryNotFailed = "4.1 (b), 4.2, 4.7";
    /// A decision by the failure of an entry whose client went away.
    ClientWentAway = "4.2";
    /// A decision by the failure of the entry of an event that has none.
    NoEntry = "4.7";
    /// A decision by a deadline that had not passed with anything open.
    DeadlineNotPassed = "4.1 (c), 4.7, 4.10";
    /// A decision by a stall of a step that runs, or that ended and was not lost for ever.
    NotStalled = "4.1 (d), 4.3";
    /// A decision by a service's silence that spoke in time.
    NotSilent = "4.3";
    /// A decision by a proxy's silence that was not silent by its own or the network's fault.
    NotOutOfTouch = "4.3, 5";
    /// A decision by a rule that the policy switches off for the event's type.
    RuleIsOff = "4.1";
    /// A decision about an id that several events share, with the evidence there.
    SharedDoomed = "4.4";
    /// A shared id has a decision in force though all is heard.
    SharedKept = "4.4";
    /// A decision by another policy than the one in force.
    WrongPolicy = "4.8";
    /// Two decisions about one event are in force.
    TwoInForce = "4.8";
    /// A revision's number is not one above the last.
    RevisionSkipped = "4.6";
    /// An entry left a plan.
    EntryLeft = "4.6";
    /// An entry of a plan went from `no` or `maybe` to less without its service having cleared it.
    EffectForgotten = "4.6";
    /// An unsafe request of an event went through though its proxy had heard the verdict, and both modes enforce.
    PassedThoughDoomed = "3.5";
    /// A request was refused without a verdict that the proxy had heard.
    RefusedWithoutVerdict = "3.5, 4.9";
    /// A request was refused for a decision that is not in force, and whose withdrawal the proxy had heard.
    RefusedWithoutDecision = "3.5, 4.9";
    /// A safe request, a clean-up or an undo was refused.
    RefusedHarmless = "3.5";
    /// A request was refused under a mode below `enforce`.
    ModeIgnored = "3.5";
    /// A sidecar answered another verdict than the one it had heard.
    WrongVerdictAnswer = "3.2";
    /// An event that a rule dooms has no decision at rest.
    NotDoomed = "4.1, 5";
    /// An event at rest would be decided otherwise if somebody looked.
    UndecidedAtRest = "5";
    /// An event with nothing open does not settle.
    NeverSettles = "4.7";
    /// An entry that succeeded after the decision did not make it contested.
    NotContested = "4.9";
    /// A service's effect that the rules name is neither in the last plan nor among the incomplete.
    EffectMissing = "4.5, 4.6";
    /// A plan names a service that did nothing for the event that could be undone.
    BystanderPlanned = "4.5";
    /// A plan's order goes against what called what, or what came after what.
    WrongOrder = "4.5, 4.10";
    /// The same facts in another order, or twice, give another trace.
    OrderMatters = "4.11";
    /// The last revision says other services or effects than all that was heard.
    PlanIsStale = "4.6, 4.11";
    /// A report that was acknowledged is not in the store.
    AcknowledgedLost = "5";
    /// A report is in the store twice.
    StoredTwice = "3.3";
    /// A report's facts are not the same at each delivery, or in the store.
    ReportChanged = "3.3";
    /// What was given out is not what was stored, dropped by own count, kept or lost with a dead VM.
    Unaccounted = "5";
    /// Reports were lost, and nobody counts them.
    LossNotCounted = "3.3, 5";
    /// More is held to be missing than was dropped, though nothing is on its way.
    LossOvercounted = "3.3, 5";
    /// The feed's sequences do not come in the order of commits.
    FeedOutOfOrder = "3.4";
    /// A cursor went back within one history.
    FeedWentBack = "3.4";
    /// A proxy's verdicts are not the feed's, at rest.
    NotConverged = "3.4";
    /// An outbox, or the requests observed, are above their bound.
    AboveBound = "5";
    /// Something panicked.
    Panicked = "5";
}

/// What may not be, and was.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Which condition.
    pub condition: Condition,
    /// This case in words.
    pub words: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} (DESIGN {}): {}",
            self.condition,
            self.condition.rule(),
            self.words
        )
    }
}

/// What the oracle keeps in mind.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) failure: Option<Failure>,
    /// What each report said when it was first sent.
    reports: BTreeMap<(ReporterId, u64), Report>,
    /// What each proxy has heard.
    caches: BTreeMap<String, Cache>,
}

/// The verdicts that a proxy has heard, and until when they hold by its clock, ms.
#[derive(Debug, Default)]
struct Cache {
    cursor: Option<u64>,
    verdicts: BTreeMap<EventId, (VerdictEntry, u64)>,
}

impl Oracle {
    /// Nothing is wrong so far.
    pub(crate) fn is_content(&self) -> bool {
        self.failure.is_none()
    }

    /// Something is.
    pub(crate) fn fail(&mut self, condition: Condition, words: impl Into<String>) {
        let words = words.into();
        self.failure.get_or_insert(Failure { condition, words });
    }

    /// Bounds hold after each callback.
    pub(crate) fn check_bounds(&mut self, seen: &Seen, kept_max: usize, open_max: usize) {
        if seen.kept > kept_max || seen.open > open_max {
            self.fail(
                Condition::AboveBound,
                format!(
                    "{}: {} reports kept, {} requests open",
                    seen.id, seen.kept, seen.open
                ),
            );
        }
    }

    /// What is sent again says the same.
    pub(crate) fn check_batch(&mut self, body: &[u8]) {
        let batch: Batch = match serde_json::from_slice(body) {
            Ok(batch) => batch,
            Err(error) => {
                return self.fail(
                    Condition::ReportChanged,
                    format!("a batch cannot be read: {error}"),
                );
            }
        };
        let id = batch.reporter.id;
        for report in batch.into_reports() {
            let report = match report {
                Ok(report) => report,
                Err(rejection) => {
                    return self.fail(Condition::ReportChanged, format!("{rejection:?}"));
                }
            };
            let known = self
                .reports
                .entry((id, report.seq))
                .or_insert_with(|| report.clone());
            if *known != report {
                let words = format!("{id}/{}: {known:?}, then {report:?}", report.seq);
                return self.fail(Condition::ReportChanged, words);
            }
        }
    }

    /// An aggregator that follows never goes back.
    pub(crate) fn check_followed(&mut self, from: i64, to: i64) {
        if to < from {
            self.fail(
                Condition::FeedWentBack,
                format!("an aggregator went from {from} to {to}"),
            );
        }
    }

    /// Its shared memory is gone.
    pub(crate) fn forget_proxy(&mut self, name: &str) {
        self.caches.remove(name);
    }

    /// Up to where a proxy has heard the feed.
    pub(crate) fn heard_up_to(&self, name: &str) -> Option<u64> {
        self.caches.get(name)?.cursor
    }
}
