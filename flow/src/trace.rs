//! A trace: all that is known of one event. Built by [`fold`](Trace::fold) from its facts; nothing in it
//! depends on their order or number.

mod effects;
mod fold;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use kaeru_protocol::{
    DecisionId, Ending, EventId, EventType, Outcome, Peer, ReporterId, ServiceName, Side, Word,
};

use crate::fact::CLOCKS_EQUAL_MS;
use crate::{ReportKey, StatusPattern};

/// What a step may have left behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Nothing.
    #[default]
    No,
    /// Perhaps something.
    Maybe,
    /// Something.
    Yes,
}

impl Effect {
    /// The word in JSON and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Maybe => "maybe",
            Self::Yes => "yes",
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventState {
    /// Not over, or not heard long enough to say.
    Running,
    /// Its entry succeeded.
    Succeeded,
    /// It failed with nothing to undo, or with no rule that dooms it.
    Failed,
    /// Its client went away and nothing is open any more.
    Abandoned,
    /// It is doomed; the plan is not settled.
    RollingBack,
    /// It is doomed; every entry of the plan is settled.
    RolledBack,
    /// It is doomed; an undo cannot be finished without a person.
    RollbackStuck,
}

impl EventState {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Abandoned,
        Self::RollingBack,
        Self::RolledBack,
        Self::RollbackStuck,
    ];

    /// The word in JSON and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
            Self::RollingBack => "rolling_back",
            Self::RolledBack => "rolled_back",
            Self::RollbackStuck => "rollback_stuck",
        }
    }
}

impl fmt::Display for EventState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All that is known of one event.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// Which event.
    pub event: EventId,
    /// Said by a header, or learned from the entry (`POST shop/web /orders`).
    pub event_type: Option<EventType>,
    /// Some reporter saw that the id is a trace or request id. Kaeru hands such an id on as `x-event-id`, so
    /// later hops may take it for a chosen one; one reporter that knows better is enough.
    pub borrowed: bool,
    /// The id is shared by more than one event; no rule applies to it.
    pub shared: Option<Shared>,
    /// The service of the call that began the event; absent while nobody reported one without a caller.
    pub entry: Option<Peer>,
    /// What each service or external host did.
    pub steps: BTreeMap<Peer, Step>,
    /// The earliest time that a report states, ms.
    pub first_ms: u64,
    /// The latest time that a report states, ms.
    pub last_ms: u64,
    /// When it began, by the aggregator's clock, ms: the earliest receipt less the duration that it states.
    pub began_received_ms: u64,
    /// When the last report was received, by the aggregator's clock, ms.
    pub last_received_ms: u64,
    /// How many reports there are.
    pub reports: usize,
    /// When its time is up, by the aggregator's clock, ms, and how much it was given.
    pub deadline: Option<Deadline>,
    /// Operators' demands that it be rolled back, oldest first.
    pub demands: Vec<Demand>,
    /// Requests that were refused, or would have been.
    pub refusals: Vec<RefusalSeen>,
    /// Clean-up requests that were let through.
    pub cleanups: Vec<Cleanup>,
    /// Undo calls that were let through.
    pub undos: Vec<UndoSeen>,
}

/// How long an event was given at its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// When the time is up, by the aggregator's clock, ms.
    pub at_ms: u64,
    /// What was given, ms.
    pub given_ms: u64,
    /// Which report says so.
    pub key: ReportKey,
}

/// An operator's demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// Which report.
    pub key: ReportKey,
    /// Who and why.
    pub words: Box<str>,
    /// When it was received, by the aggregator's clock, ms.
    pub received_ms: u64,
}

/// Why an id is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shared {
    /// A borrowed id with a second unsafe entry that is no retry.
    SecondEntry,
    /// More reports than the policy's `reports_max`.
    TooManyReports,
    /// More than 256 services: no flow is that wide, and a plan's order is found in time quadratic in them.
    TooManyServices,
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SecondEntry => "a borrowed id with a second unsafe entry that is no retry",
            Self::TooManyReports => "more reports than one event can have",
            Self::TooManyServices => "more than 256 services",
        })
    }
}

/// What one service (or external host) does for the event.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// A host outside the mesh.
    pub external: bool,
    /// A gateway.
    pub gateway: bool,
    /// Its own proxy reported it (an external host's never does).
    pub reported: bool,
    /// All that is known of it belongs to a branch that a queue handed over.
    pub handed_over: bool,
    /// Its calls, in the order of their first attempts.
    pub calls: Vec<CallTrace>,
    /// The last thing that the service said of the event.
    pub word: Option<WordSaid>,
    /// Who called it.
    pub parents: BTreeSet<Peer>,
    /// How far it is, 0 to 1, as last said.
    pub progress: Option<f32>,
    /// The sum of its request costs.
    pub cost: Option<f64>,
    /// The worst of its calls and its word.
    pub outcome: Outcome,
    /// The most that any attempt may have done.
    pub effect: Effect,
}

/// The last word of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WordSaid {
    /// What it said.
    pub word: Word,
    /// Where.
    pub key: ReportKey,
    /// When, ms.
    pub at_ms: u64,
    /// When that was received, by the aggregator's clock, ms.
    pub received_ms: u64,
}

/// Retries of one thing: attempts with the same caller, method and folded path.
#[derive(Debug, Clone, PartialEq)]
pub struct CallTrace {
    /// The caller; absent at the entry.
    pub from: Option<ServiceName>,
    /// HTTP method.
    pub method: Box<str>,
    /// Folded path.
    pub path: Box<str>,
    /// In the order of their beginning.
    pub attempts: Vec<Attempt>,
    /// The best of its attempts.
    pub outcome: Outcome,
    /// The most that any attempt may have done.
    pub effect: Effect,
}

/// Who saw an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeenBy {
    /// The service's own proxy.
    Service,
    /// Only the caller's proxy.
    Caller,
}

/// One request that a service handled for the event.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Its first report.
    pub key: ReportKey,
    /// Whose view this is.
    pub seen_by: SeenBy,
    /// The caller's `t`, by the caller's clock, ms.
    pub sent_ms: Option<u64>,
    /// When it began, ms.
    pub began_ms: u64,
    /// How long it took, or has taken as last reported, ms.
    pub duration_ms: u32,
    /// Which of Envoy's retries it was, or, seen by the caller, how many were made.
    pub number: u32,
    /// The facts of how it ended; meaningless while open.
    pub ending: Ending,
    /// When its last report was received, by the aggregator's clock, ms.
    pub received_ms: u64,
    /// Still open, and since when we wait for what.
    pub open: Option<Open>,
    /// How it ended.
    pub outcome: Outcome,
    /// What it may have left behind.
    pub effect: Effect,
    /// The status that the policy calls fatal for this peer, if it ended with one.
    pub fatal: Option<StatusPattern>,
}

/// Why an attempt is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Open {
    /// Its proxy has not reported its end; the next report is due this long after `received_ms`.
    Request {
        /// Within, ms.
        due_ms: u32,
    },
    /// The request is answered, but the service said `running`.
    Word,
}

/// A request that was refused, or would have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusalSeen {
    /// Which report.
    pub key: ReportKey,
    /// At whose proxy.
    pub service: ServiceName,
    /// On which side of it.
    pub side: Side,
    /// The caller, where known.
    pub from: Option<ServiceName>,
    /// The callee, on the outbound side.
    pub to: Option<Peer>,
    /// HTTP method.
    pub method: Box<str>,
    /// Folded path.
    pub path: Box<str>,
    /// When, ms.
    pub at_ms: u64,
    /// `false` in shadow mode.
    pub enforced: bool,
}

/// A clean-up request that was let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleanup {
    /// Which report.
    pub key: ReportKey,
    /// At whose proxy.
    pub service: ServiceName,
    /// On which side of it.
    pub side: Side,
    /// HTTP method.
    pub method: Box<str>,
    /// Folded path.
    pub path: Box<str>,
    /// When, ms.
    pub at_ms: u64,
    /// How it ended.
    pub ending: Ending,
}

/// An undo call that was let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndoSeen {
    /// Which report.
    pub key: ReportKey,
    /// Whose step it reverts.
    pub service: ServiceName,
    /// For which decision.
    pub decision: Option<DecisionId>,
    /// HTTP method.
    pub method: Box<str>,
    /// Folded path.
    pub path: Box<str>,
    /// When, ms.
    pub at_ms: u64,
    /// How it ended.
    pub ending: Ending,
}

impl Trace {
    /// The earliest that it may have begun, by the aggregator's clock, ms: its reports may have come late, and the
    /// times that they state are right to a second.
    pub fn may_have_begun_ms(&self) -> u64 {
        let stated_ms = self.first_ms.saturating_sub(CLOCKS_EQUAL_MS);
        self.began_received_ms.min(stated_ms)
    }

    /// Whether anything is still open.
    pub fn is_open(&self) -> bool {
        self.steps.values().any(Step::is_open)
    }

    /// The reporters that hold open requests of the event, each once.
    pub fn open_reporters(&self) -> BTreeSet<ReporterId> {
        let calls = self.steps.values().flat_map(|step| &step.calls);
        calls
            .flat_map(|call| &call.attempts)
            .filter(|attempt| matches!(attempt.open, Some(Open::Request { .. })))
            .map(|attempt| attempt.key.reporter)
            .collect()
    }

    /// The call that began the event: of the entry's calls without a caller, the first unsafe one, else the
    /// first.
    pub fn entry_call(&self) -> Option<&CallTrace> {
        let step = self.steps.get(self.entry.as_ref()?)?;
        let roots = || step.calls.iter().filter(|c| c.from.is_none());
        roots().find(|c| !c.is_safe()).or_else(|| roots().next())
    }

    /// The services reached from the entry by calls, itself included.
    pub fn reached_from_entry(&self) -> BTreeSet<&Peer> {
        let mut reached: BTreeSet<&Peer> = self.entry.iter().collect();
        loop {
            let more: Vec<&Peer> = self
                .steps
                .iter()
                .filter(|(peer, step)| {
                    !reached.contains(peer) && step.parents.iter().any(|p| reached.contains(p))
                })
                .map(|(peer, _)| peer)
                .collect();
            if more.is_empty() {
                return reached;
            }
            reached.extend(more);
        }
    }

    /// Whether the service takes part: it was called (its own proxy knows that before it reports the call), or it
    /// called somebody.
    pub fn takes_part(&self, peer: &Peer) -> bool {
        let is_called = |s: &Step| !s.calls.is_empty() || !s.handed_over;
        self.steps.get(peer).is_some_and(is_called)
            || self.steps.values().any(|s| s.parents.contains(peer))
    }

    /// Whether a request of the event to it, or by it, was refused: of itself no part in the event.
    pub fn is_named_by_refusals(&self, peer: &Peer) -> bool {
        let is_it = |service: &ServiceName| service.as_str() == peer.as_str();
        self.refusals.iter().any(|refusal| {
            is_it(&refusal.service)
                || refusal.from.as_ref().is_some_and(is_it)
                || refusal.to.as_ref() == Some(peer)
        })
    }
}

impl Step {
    /// Whether it is still open.
    pub fn is_open(&self) -> bool {
        self.word.is_some_and(|w| w.word == Word::Running)
            || self
                .calls
                .iter()
                .flat_map(|c| &c.attempts)
                .any(|a| a.open.is_some())
    }
}

impl CallTrace {
    /// Whether its method is safe.
    pub fn is_safe(&self) -> bool {
        kaeru_protocol::is_safe_method(&self.method)
    }
}

impl Attempt {
    /// When it ended, ms; while open, as far as was heard.
    pub fn ended_ms(&self) -> u64 {
        self.began_ms.saturating_add(u64::from(self.duration_ms))
    }
}
