//! A decision and its plan: what they say, and how a person reads them.

use std::collections::BTreeSet;
use std::fmt;

use kaeru_protocol::{Outcome, Peer};

use crate::ground::duration;
use crate::{Effect, Ground, ReportKey, Rule, Scope, StatusPattern};

/// The record that an event must be rolled back. Immutable: what changes is a new revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Grows by one at each change; the first is 1.
    pub revision: u32,
    /// Whether it holds.
    pub standing: Standing,
    /// Why.
    pub reason: Reason,
    /// The reports that the reason rests on.
    pub evidence: Vec<Evidence>,
    /// What of the policy the reason rests on.
    pub grounds: Vec<Ground>,
    /// What there is to undo.
    pub plan: Plan,
    /// The policy that the reason was found by; the same in all revisions.
    pub policy_version: u64,
    /// The policy that this revision's plan was read by.
    pub plan_policy_version: u64,
    /// The learned flow that completeness was judged by.
    pub flow_version: Option<u64>,
    /// When its first revision was decided, by the aggregator's clock, ms.
    pub decided_ms: u64,
}

impl Decision {
    /// Whether it holds: it was not withdrawn.
    pub fn is_in_force(&self) -> bool {
        !matches!(self.standing, Standing::Withdrawn(_))
    }
}

/// Whether a decision holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It holds: proxies refuse, undo may begin.
    Live,
    /// The entry succeeded after all: proxies refuse, undo waits.
    Contested,
    /// It no longer holds.
    Withdrawn(Withdrawal),
}

/// Who took a decision back, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawal {
    /// A person, or `kaeru`.
    pub by: Box<str>,
    /// In words.
    pub reason: Box<str>,
    /// By the aggregator's clock, ms.
    pub at_ms: u64,
}

/// Why an event is doomed: the rule that fired with what it saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A service that takes part says `failed`.
    Word {
        /// Which.
        service: Peer,
    },
    /// A service or external host answered with a status that the policy calls fatal.
    Fatal {
        /// Which.
        peer: Peer,
        /// The policy's pattern that the answer matches.
        status: StatusPattern,
    },
    /// The entry ended and was not tried again in time.
    Entry {
        /// Which service.
        service: Peer,
        /// `failed` or `unknown`; `rejected` with effects to undo.
        outcome: Outcome,
    },
    /// The event took longer than it was given.
    Deadline {
        /// What it was given, ms.
        given_ms: u64,
    },
    /// A running step is no longer heard of.
    Stalled {
        /// Which service.
        service: Peer,
        /// How that shows.
        how: Stall,
    },
    /// An operator says so.
    Operator {
        /// Who and why, in the operator's words.
        words: Box<str>,
    },
    /// The step that failed has always failed the whole event before.
    Learned {
        /// Which service.
        service: Peer,
    },
}

/// How a stall shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stall {
    /// Its proxy still reports but no longer names it.
    NotNamed,
    /// Its service owes a word and says none.
    NoWord,
    /// Its proxy is silent, and the policy counts that as a stall.
    OutOfTouch,
}

impl Reason {
    /// The rule that fired.
    pub fn rule(&self) -> Rule {
        match self {
            Self::Word { .. } => Rule::Word,
            Self::Fatal { .. } => Rule::Fatal,
            Self::Entry { .. } => Rule::Entry,
            Self::Deadline { .. } => Rule::Deadline,
            Self::Stalled { .. } => Rule::Stalled,
            Self::Operator { .. } => Rule::Operator,
            Self::Learned { .. } => Rule::Learned,
        }
    }

    /// The service or host whose step failed, where it is one.
    pub fn failed(&self) -> Option<&Peer> {
        match self {
            Self::Word { service }
            | Self::Entry { service, .. }
            | Self::Stalled { service, .. }
            | Self::Learned { service } => Some(service),
            Self::Fatal { peer, .. } => Some(peer),
            Self::Deadline { .. } | Self::Operator { .. } => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word { service } => write!(f, "{service} says that the event failed for good"),
            Self::Fatal { peer, status } => {
                write!(
                    f,
                    "{peer} answered with a status that the policy calls fatal for it ({status})"
                )
            }
            Self::Entry {
                service,
                outcome: Outcome::Rejected,
            } => {
                write!(
                    f,
                    "the entry {service} rejected the event after other steps had taken effect"
                )
            }
            Self::Entry {
                service,
                outcome: Outcome::Unknown,
            } => {
                write!(
                    f,
                    "the entry {service} gave no answer and was not tried again in time"
                )
            }
            Self::Entry { service, .. } => {
                write!(
                    f,
                    "the entry {service} failed and was not tried again in time"
                )
            }
            Self::Deadline { given_ms } => {
                write!(
                    f,
                    "it took longer than the {} it was given",
                    duration(*given_ms)
                )
            }
            Self::Stalled {
                service,
                how: Stall::NotNamed,
            } => {
                write!(
                    f,
                    "{service} stalled: its proxy still reports but no longer names the running step"
                )
            }
            Self::Stalled {
                service,
                how: Stall::NoWord,
            } => {
                write!(
                    f,
                    "{service} stalled: it said `running` and has been silent longer than the policy allows"
                )
            }
            Self::Stalled {
                service,
                how: Stall::OutOfTouch,
            } => {
                write!(
                    f,
                    "{service} is out of touch with a step running, which the policy counts as a stall"
                )
            }
            Self::Operator { words } => write!(f, "an operator says so: {words}"),
            Self::Learned { service } => {
                write!(
                    f,
                    "{service} failed, and every event of this type in which it failed has failed"
                )
            }
        }
    }
}

/// One report that a decision rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Which report.
    pub key: ReportKey,
    /// When that was so, ms.
    pub at_ms: u64,
    /// What it says, for a person.
    pub text: Box<str>,
}

/// What there is to undo: entries in a partial order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// By service, in an order that respects `after`.
    pub entries: Vec<PlanEntry>,
    /// Services whose reporters lost reports or fell silent in the event's time: they may have something to
    /// undo that nobody reported. Not undone unasked.
    pub missing: BTreeSet<Peer>,
}

/// One service that has something to undo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanEntry {
    /// Which.
    pub service: Peer,
    /// `yes`, `maybe`; `no` where it was cleared since an earlier revision.
    pub effect: Effect,
    /// Nobody can be called to undo it: it waits for an operator.
    pub by_hand: bool,
    /// What must be undone before it: its callees and later siblings.
    pub after: BTreeSet<Peer>,
    /// What is undone together with it: the other services of its cycle.
    pub together: BTreeSet<Peer>,
}

impl Plan {
    /// Whether every service of the event could be heard.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// Whether there is nothing to undo.
    pub fn is_empty(&self) -> bool {
        self.entries.iter().all(|e| e.effect == Effect::No)
    }
}

fn names(peers: &BTreeSet<Peer>) -> String {
    peers
        .iter()
        .map(Peer::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.entries {
            write!(f, "  undo {} ({})", entry.service, entry.effect)?;
            if !entry.after.is_empty() {
                write!(f, " after {}", names(&entry.after))?;
            }
            if !entry.together.is_empty() {
                write!(f, " together with {}", names(&entry.together))?;
            }
            writeln!(f)?;
        }
        if !self.is_complete() {
            writeln!(
                f,
                "  incomplete: not all was heard of {}",
                names(&self.missing)
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let standing = match &self.standing {
            Standing::Live => "roll back".to_owned(),
            Standing::Contested => "roll back (contested)".to_owned(),
            Standing::Withdrawn(w) => format!("withdrawn by {}: {}", w.by, w.reason),
        };
        writeln!(f, "{standing}, revision {}: {}", self.revision, self.reason)?;
        for evidence in &self.evidence {
            writeln!(f, "  because {} ({})", evidence.text, evidence.key)?;
        }
        for ground in &self.grounds {
            match ground.scope {
                Scope::Default => writeln!(f, "  by the built-in {ground}")?,
                _ => writeln!(
                    f,
                    "  by policy {} {}: {ground}",
                    self.policy_version, ground.scope
                )?,
            }
        }
        self.plan.fmt(f)
    }
}
