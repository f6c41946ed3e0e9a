//! The flow: which services events of one type go through, learned from settled traces.
//!
//! A flow of one trace has counts of one; learning is addition, so a store can add concurrently.

use std::collections::BTreeMap;

use kaeru_protocol::{EventType, Outcome, Peer};

use crate::{EventState, SeenBy, Trace};

/// What events of one type did so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Flow {
    /// Which type.
    pub event_type: EventType,
    /// Grows with each event learned.
    pub version: u64,
    /// Settled events.
    pub events: u64,
    /// Of them succeeded.
    pub succeeded: u64,
    /// Of them failed.
    pub failed: u64,
    /// Of them abandoned.
    pub abandoned: u64,
    /// Of them doomed by a decision.
    pub doomed: u64,
    /// What each service did.
    pub steps: BTreeMap<Peer, FlowStep>,
    /// Who calls whom.
    pub edges: BTreeMap<EdgeKey, FlowEdge>,
}

/// What one service did in events of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowStep {
    /// Events that it took part in.
    pub events: u64,
    /// Attempts that it handled.
    pub attempts: u64,
    /// Events in which it failed (or gave no answer).
    pub failed: u64,
    /// Of those, events that ended without a decision: the samples of the learned rule.
    pub failed_undecided: u64,
    /// Of those samples, events that failed as a whole.
    pub failed_whole: u64,
    /// Time that its own attempts took, ms.
    pub total_ms: u64,
    /// Attempts that `total_ms` adds up.
    pub timed: u64,
}

/// One kind of call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeKey {
    /// The caller; absent at the entry.
    pub from: Option<Peer>,
    /// The callee.
    pub to: Peer,
    /// HTTP method.
    pub method: Box<str>,
    /// Folded path.
    pub path: Box<str>,
}

/// How often, and at which place among its caller's calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowEdge {
    /// Events in which it was made.
    pub count: u64,
    /// Sum of its places (0 is the first) among its caller's calls.
    pub positions: u64,
}

impl Flow {
    /// An empty flow.
    pub fn new(event_type: EventType) -> Self {
        Self {
            event_type,
            version: 0,
            events: 0,
            succeeded: 0,
            failed: 0,
            abandoned: 0,
            doomed: 0,
            steps: BTreeMap::new(),
            edges: BTreeMap::new(),
        }
    }

    /// What one settled event teaches; `None` for an event of no type or a shared id.
    pub fn of(trace: &Trace, state: EventState) -> Option<Self> {
        if trace.shared.is_some() {
            return None;
        }
        let mut flow = Self::new(trace.event_type.clone()?);
        flow.version = 1;
        flow.events = 1;
        let decided = matches!(
            state,
            EventState::RollingBack | EventState::RolledBack | EventState::RollbackStuck
        );
        match state {
            EventState::Succeeded => flow.succeeded = 1,
            EventState::Failed => flow.failed = 1,
            EventState::Abandoned => flow.abandoned = 1,
            _ => flow.doomed = u64::from(decided),
        }
        for (peer, step) in &trace.steps {
            let own = || {
                step.calls.iter().flat_map(|c| &c.attempts).filter(|a| {
                    a.open.is_none() && (a.seen_by == SeenBy::Service || !step.reported)
                })
            };
            let failed = u64::from(matches!(step.outcome, Outcome::Failed | Outcome::Unknown));
            flow.steps.insert(
                peer.clone(),
                FlowStep {
                    events: 1,
                    attempts: step.calls.iter().map(|c| c.attempts.len() as u64).sum(),
                    failed,
                    failed_undecided: if decided { 0 } else { failed },
                    failed_whole: if state == EventState::Failed {
                        failed
                    } else {
                        0
                    },
                    total_ms: own().map(|a| u64::from(a.duration_ms)).sum(),
                    timed: own().count() as u64,
                },
            );
        }
        // Places among the calls of one caller, by the caller's clock where it is known.
        let mut calls: Vec<_> = trace
            .steps
            .iter()
            .flat_map(|(peer, step)| step.calls.iter().map(move |call| (peer, call)))
            .collect();
        calls.sort_by_key(|(peer, call)| {
            let first = call.attempts.first();
            (
                &call.from,
                first.map(|a| a.sent_ms.unwrap_or(a.began_ms)),
                *peer,
            )
        });
        let mut caller = None;
        let mut position = 0;
        for (peer, call) in calls {
            position = if caller == Some(&call.from) {
                position + 1
            } else {
                0
            };
            caller = Some(&call.from);
            let key = EdgeKey {
                from: call.from.clone().map(Peer::from),
                to: peer.clone(),
                method: call.method.clone(),
                path: call.path.clone(),
            };
            let edge = flow.edges.entry(key).or_default();
            edge.count = 1;
            edge.positions = position;
        }
        Some(flow)
    }

    /// Adds what other events taught.
    pub fn add(&mut self, other: &Self) {
        self.version += other.version;
        self.events += other.events;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.abandoned += other.abandoned;
        self.doomed += other.doomed;
        for (peer, step) in &other.steps {
            let mine = self.steps.entry(peer.clone()).or_default();
            mine.events += step.events;
            mine.attempts += step.attempts;
            mine.failed += step.failed;
            mine.failed_undecided += step.failed_undecided;
            mine.failed_whole += step.failed_whole;
            mine.total_ms += step.total_ms;
            mine.timed += step.timed;
        }
        for (key, edge) in &other.edges {
            let mine = self.edges.entry(key.clone()).or_default();
            mine.count += edge.count;
            mine.positions += edge.positions;
        }
    }
}
