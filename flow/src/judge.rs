//! The judgement of an event: where it stands, whether it is doomed and why, what was considered and why not,
//! and when to look again.
//!
//! What no report has said yet is no evidence: silence counts only after its time, and never for a time in
//! which Kaeru itself could not take reports.

mod rules;
mod verdict;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use kaeru_protocol::{Outcome, Peer, ReporterId};

use crate::{
    Decision, EventPolicy, EventState, Evidence, Flow, Ground, Plan, Policy, Reason, Trace,
};

/// The rules by which an event can be doomed, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// An operator says so.
    Operator,
    /// A service that takes part says `failed`.
    Word,
    /// A status that the policy calls fatal.
    Fatal,
    /// The entry ended badly and was not tried again in time.
    Entry,
    /// A running step stalled.
    Stalled,
    /// The event's time is up.
    Deadline,
    /// The step that failed has always failed the whole event. Not in force yet.
    Learned,
}

impl Rule {
    /// All of them, in the order in which they are asked.
    pub const ALL: [Self; 7] = [
        Self::Operator,
        Self::Word,
        Self::Fatal,
        Self::Entry,
        Self::Stalled,
        Self::Deadline,
        Self::Learned,
    ];

    /// The word in policies, JSON, SQL and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Word => "word",
            Self::Fatal => "fatal",
            Self::Entry => "entry",
            Self::Stalled => "stalled",
            Self::Deadline => "deadline",
            Self::Learned => "learned",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Rule {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|rule| rule.as_str() == text)
            .ok_or(())
    }
}

/// The time and what is known of it, by the aggregator's clock.
#[derive(Debug, Clone, Copy)]
pub struct Now<'a> {
    /// The time, ms.
    pub at_ms: u64,
    /// How far the reporters that hold open requests were heard.
    pub heard: &'a BTreeMap<ReporterId, Heard>,
    /// Times in which reports could not be taken, oldest first.
    pub outages: &'a [Span],
    /// Times in which services lost reports or fell silent.
    pub losses: &'a [Loss],
}

/// How far one reporter was heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heard {
    /// When its proxy was last heard of, by any of its reporters, ms.
    pub proxy_ms: u64,
    /// Until when all that this reporter gave out has arrived or is known to be lost, ms.
    pub accounted_ms: u64,
}

/// A time, ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// From.
    pub from_ms: u64,
    /// Until.
    pub to_ms: u64,
}

/// A time in which reports of a service may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Whose.
    pub service: Peer,
    /// Which of its reporters lost them; absent where a whole proxy fell silent.
    pub reporter: Option<ReporterId>,
    /// When.
    pub span: Span,
}

/// What became of looking at an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Where the event stands.
    pub state: EventState,
    /// Nothing is open and nothing was heard for `settle`: the state is final unless a late report comes.
    pub settled: bool,
    /// When something may change without a report, ms.
    pub wake_ms: Option<u64>,
    /// Each rule, whether it fired, and why or why not.
    pub considered: Vec<Considered>,
    /// A new decision or a new revision; `None` where what was decided before holds unchanged.
    pub decision: Option<Decision>,
}

/// One rule and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Considered {
    /// Which.
    pub rule: Rule,
    /// Whether it dooms the event.
    pub fired: bool,
    /// Why, or why not.
    pub why: Box<str>,
    /// What of the policy it relied on.
    pub grounds: Vec<Ground>,
    /// Until when it waits, by the aggregator's clock, ms.
    pub until_ms: Option<u64>,
}

/// Whether the event must be rolled back: a new decision, or a new revision of the one in force.
pub fn decide(
    trace: &Trace,
    before: Option<&Decision>,
    flow: Option<&Flow>,
    policy: &Policy,
    now: &Now<'_>,
) -> Option<Decision> {
    judge(trace, before, flow, policy, now).decision
}

/// Looks at an event. `before` is the last decision about it, withdrawn or not.
pub fn judge(
    trace: &Trace,
    before: Option<&Decision>,
    flow: Option<&Flow>,
    policy: &Policy,
    now: &Now<'_>,
) -> Judgement {
    let case = Case {
        trace,
        before,
        flow,
        policy,
        event: policy.for_event(trace.event_type.as_ref(), trace.entry.as_ref()),
        now,
    };
    if let Some(decided) = before.filter(|d| d.is_in_force()) {
        return case.revise(decided);
    }
    let mut wakes = Vec::new();
    let mut considered = Vec::new();
    let mut fired: Option<(Reason, Vec<Evidence>, Vec<Ground>)> = None;
    for rule in Rule::ALL {
        let Look { says, grounds } = if let Some(shared) = trace.shared {
            Look::no(format!("the id is shared ({shared}): no rule applies"))
        } else if rule == Rule::Learned {
            case.look(rule)
        } else if let Some(off) = case.event.switched_off(rule) {
            Look::no("switched off by the policy").on([off])
        } else {
            case.look(rule)
        };
        let (is_fired, why, until_ms) = match says {
            Says::Fired(reason, evidence) => {
                let why = reason.to_string();
                fired.get_or_insert((reason, evidence, grounds.clone()));
                (true, why, None)
            }
            Says::Waits { until_ms, why } => {
                wakes.push(until_ms);
                (false, why, Some(until_ms))
            }
            Says::No(why) => (false, why, None),
        };
        considered.push(Considered {
            rule,
            fired: is_fired,
            why: why.into(),
            grounds,
            until_ms,
        });
    }
    let settles_ms = case.settles_ms();
    let settled = !trace.is_open() && now.at_ms >= settles_ms;
    wakes.push(settles_ms);
    let decision = fired
        .as_ref()
        .and_then(|(reason, evidence, grounds)| case.doom(reason, evidence, grounds));
    let state = if decision.is_some() {
        EventState::RollingBack
    } else if fired.is_some() && !trace.is_open() {
        EventState::Failed
    } else {
        case.state(settled, &wakes)
    };
    // A new plan is looked at at least once more: who says meanwhile that something is lost does not know of it yet.
    let again_ms = decision.is_some().then(|| case.silence_known_ms());
    wakes.extend(again_ms);
    let wake_ms = wakes.into_iter().filter(|w| *w > now.at_ms).min();
    Judgement {
        state,
        settled: settled && state != EventState::Running,
        wake_ms: wake_ms.or(again_ms.map(|_| now.at_ms)),
        considered,
        decision,
    }
}

/// What became of looking at one rule.
struct Look {
    says: Says,
    /// What of the policy it relied on.
    grounds: Vec<Ground>,
}

/// What one rule says.
enum Says {
    /// It dooms the event.
    Fired(Reason, Vec<Evidence>),
    /// Not yet: look again then.
    Waits { until_ms: u64, why: String },
    /// No.
    No(String),
}

impl Look {
    fn fired(reason: Reason, evidence: Vec<Evidence>) -> Self {
        Self::of(Says::Fired(reason, evidence))
    }

    fn waits(until_ms: u64, why: impl Into<String>) -> Self {
        let why = why.into();
        Self::of(Says::Waits { until_ms, why })
    }

    fn no(why: impl Into<String>) -> Self {
        Self::of(Says::No(why.into()))
    }

    /// The first that fires; else the one that is over first; else the last that says why not, or `nothing`.
    fn first(looks: impl Iterator<Item = Self>, nothing: &str) -> Self {
        let mut found = Self::no(nothing);
        for look in looks {
            let is_better = match (&look.says, &found.says) {
                (Says::Fired(..), _) => return look,
                (
                    Says::Waits { until_ms, .. },
                    Says::Waits {
                        until_ms: known, ..
                    },
                ) => until_ms < known,
                (Says::No(_), Says::Waits { .. }) => false,
                _ => true,
            };
            if is_better {
                found = look;
            }
        }
        found
    }

    fn of(says: Says) -> Self {
        let grounds = Vec::new();
        Self { says, grounds }
    }

    /// The same, on these grounds of the policy.
    fn on(mut self, grounds: impl IntoIterator<Item = Ground>) -> Self {
        self.grounds.extend(grounds);
        self
    }
}

/// One event and everything it is judged by.
struct Case<'a> {
    trace: &'a Trace,
    before: Option<&'a Decision>,
    flow: Option<&'a Flow>,
    policy: &'a Policy,
    event: EventPolicy<'a>,
    now: &'a Now<'a>,
}

impl Case<'_> {
    /// The plan of the decision in force.
    fn planned(&self) -> Option<&Plan> {
        self.before.filter(|d| d.is_in_force()).map(|d| &d.plan)
    }

    /// When silence since `from_ms` for `wait_ms` counts: a time in which reports could not be taken puts it
    /// off to `wait_ms` after that time.
    fn counts_from(&self, from_ms: u64, wait_ms: u64) -> u64 {
        let mut until_ms = from_ms.saturating_add(wait_ms);
        for outage in self.now.outages {
            if outage.to_ms > from_ms && outage.from_ms < until_ms {
                until_ms = until_ms.max(outage.to_ms.saturating_add(wait_ms));
            }
        }
        until_ms
    }

    /// When "nothing is open" counts.
    fn settles_ms(&self) -> u64 {
        self.counts_from(self.trace.last_received_ms, self.event.settle_ms())
    }

    /// Where an event without a decision stands.
    fn state(&self, settled: bool, wakes: &[u64]) -> EventState {
        let waits = wakes.iter().any(|w| *w > self.now.at_ms);
        let Some(entry) = self.trace.entry_call() else {
            if !settled {
                return EventState::Running;
            }
            let failed = |outcome| matches!(outcome, Outcome::Failed | Outcome::Unknown);
            return if self.trace.steps.values().any(|s| failed(s.outcome)) {
                EventState::Failed
            } else {
                EventState::Succeeded
            };
        };
        match entry.outcome {
            _ if !settled => EventState::Running,
            Outcome::Succeeded => EventState::Succeeded,
            _ if rules::client_gone(entry) => EventState::Abandoned,
            // A rule may still doom it.
            _ if waits => EventState::Running,
            _ => EventState::Failed,
        }
    }
}
