//! What is truly Postgres, modelled: tables, unique keys, row locks, transactions whose writes appear at once at their
//! commit, and the feed's sequences under a lock that is held to commit.

pub(crate) mod transaction;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kaeru_aggregator::logic::{Account, Alive, Head, Told};
use kaeru_flow::{Decision, EventState, Fact, Flow, Heard, Loss, Policy, Span, set_right};
use kaeru_protocol::{
    DecisionId, EventId, EventType, Mode, Peer, ReporterId, ServiceName, VerdictEntry,
};

pub(crate) use transaction::{Transaction, Work};

const DAY_MS: u64 = 24 * 3_600 * 1_000;
/// What the store calls this history.
const EPOCH: &str = "sim-1";

/// The identity of a report: its day, its reporter, its sequence.
pub(crate) type Key = (u64, ReporterId, u64);

/// The database.
#[derive(Debug)]
pub(crate) struct Database {
    /// It cannot be reached.
    pub(crate) is_away: bool,
    /// As they were stated; [`Transaction::facts_of`] sets their times right.
    pub(crate) facts: BTreeMap<EventId, Vec<Fact>>,
    /// Every report's identity, and when it was committed, by the true time.
    pub(crate) keys: BTreeMap<Key, u64>,
    pub(crate) reporters: BTreeMap<ReporterId, ReporterRow>,
    pub(crate) proxies: BTreeMap<Box<str>, ProxyRow>,
    pub(crate) losses: Vec<LossRow>,
    pub(crate) aggregators: Vec<Alive>,
    pub(crate) outages: BTreeMap<u64, u64>,
    pub(crate) intake: BTreeMap<u64, (u64, Vec<EventId>)>,
    pub(crate) events: BTreeMap<EventId, EventRow>,
    pub(crate) decisions: BTreeMap<EventId, Vec<Stored>>,
    pub(crate) feed: BTreeMap<EventId, FeedRow>,
    pub(crate) feed_seq: i64,
    pub(crate) policies: Vec<Arc<Policy>>,
    pub(crate) flows: BTreeMap<EventType, Flow>,
    intake_made: u64,
    locks: BTreeMap<Lock, u64>,
    transactions_made: u64,
}

/// What a transaction may hold against all others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lock {
    Event(EventId),
    Intake(u64),
    Proxy(Box<str>),
    Report(Key),
    Feed,
}

/// One reporter.
#[derive(Debug, Clone)]
pub(crate) struct ReporterRow {
    pub(crate) proxy: Box<str>,
    pub(crate) heard_ms: u64,
    /// How far our clock is ahead of its, ms.
    pub(crate) clock_ms: Option<i64>,
    pub(crate) account: Account,
    /// Since when its proxy no longer names it.
    pub(crate) gone_ms: Option<u64>,
    /// Every sequence of it that is stored.
    pub(crate) seqs: BTreeSet<u64>,
}

impl ReporterRow {
    /// How many reports are stored of those above what is accounted for and up to its last mark.
    pub(crate) fn came(&self) -> u64 {
        let gap = self.account.checked_seq + 1..self.account.marked_seq + 1;
        self.seqs.range(gap).count() as u64
    }
}

/// One proxy.
#[derive(Debug, Clone)]
pub(crate) struct ProxyRow {
    pub(crate) service: ServiceName,
    pub(crate) heard_ms: u64,
    pub(crate) status_ms: Option<u64>,
    pub(crate) due_ms: Option<u64>,
}

/// A time in which reports are missing.
#[derive(Debug, Clone)]
pub(crate) struct LossRow {
    pub(crate) reporter: ReporterId,
    pub(crate) service: ServiceName,
    pub(crate) since_ms: u64,
    pub(crate) until_ms: u64,
    pub(crate) lost: u64,
}

/// What was made of an event at the last look.
#[derive(Debug, Clone)]
pub(crate) struct EventRow {
    pub(crate) state: EventState,
    pub(crate) shared: bool,
    pub(crate) learned: bool,
    pub(crate) began_ms: u64,
    pub(crate) last_received_ms: u64,
    pub(crate) entry: Option<Peer>,
    pub(crate) wake_ms: Option<u64>,
}

/// A decision with all its revisions; the last holds.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) id: DecisionId,
    pub(crate) event_type: Option<EventType>,
    pub(crate) revisions: Vec<Decision>,
}

impl Stored {
    pub(crate) fn last(&self) -> &Decision {
        &self.revisions[self.revisions.len() - 1]
    }
}

/// The newest verdict of an event.
#[derive(Debug, Clone)]
pub(crate) struct FeedRow {
    pub(crate) seq: i64,
    pub(crate) entry: VerdictEntry,
    pub(crate) event_type: Option<EventType>,
    pub(crate) expires_ms: u64,
}

impl Database {
    /// An empty one with this policy.
    pub(crate) fn new(policy: Policy) -> Self {
        let mut database = Self {
            is_away: false,
            facts: BTreeMap::new(),
            keys: BTreeMap::new(),
            reporters: BTreeMap::new(),
            proxies: BTreeMap::new(),
            losses: Vec::new(),
            aggregators: Vec::new(),
            outages: BTreeMap::new(),
            intake: BTreeMap::new(),
            events: BTreeMap::new(),
            decisions: BTreeMap::new(),
            feed: BTreeMap::new(),
            feed_seq: 0,
            policies: Vec::new(),
            flows: BTreeMap::new(),
            intake_made: 0,
            locks: BTreeMap::new(),
            transactions_made: 0,
        };
        database.put_policy(policy);
        database
    }

    /// A new policy is in force.
    pub(crate) fn put_policy(&mut self, policy: Policy) {
        let version = self.policies.len() as u64 + 1;
        self.policies.push(Arc::new(Policy { version, ..policy }));
    }

    /// The policy in force.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policies[self.policies.len() - 1])
    }

    /// Begins a transaction that holds all of `locks`, or does not begin.
    pub(crate) fn begin(
        &mut self,
        aggregator: usize,
        (true_ms, now_ms): (u64, u64),
        work: Work,
        locks: Vec<Lock>,
    ) -> Option<Transaction> {
        if locks.iter().any(|lock| self.locks.contains_key(lock)) {
            return None;
        }
        self.transactions_made += 1;
        let id = self.transactions_made;
        for lock in locks {
            self.locks.insert(lock, id);
        }
        let version = self.policy().version;
        Some(Transaction::new(
            id,
            aggregator,
            (true_ms, now_ms),
            work,
            version,
        ))
    }

    /// Whether somebody holds it.
    pub(crate) fn is_locked(&self, lock: &Lock) -> bool {
        self.locks.contains_key(lock)
    }

    /// Ends the transaction's work: sequences for what it tells, and plans of a time of which something is lost are to be
    /// looked at again; `false` while another is at it.
    pub(crate) fn tell(&mut self, transaction: &mut Transaction) -> bool {
        if transaction.tellings.is_empty() && transaction.losses.is_empty() {
            transaction.is_done = true;
            return true;
        }
        if self
            .locks
            .get(&Lock::Feed)
            .is_some_and(|holder| *holder != transaction.id)
        {
            return false;
        }
        self.locks.insert(Lock::Feed, transaction.id);
        transaction.first_seq = self.feed_seq + 1;
        transaction.wake_plans(self);
        transaction.is_done = true;
        true
    }

    /// Ends a transaction without a trace of it.
    pub(crate) fn roll_back(&mut self, transaction: &Transaction) {
        self.locks.retain(|_, holder| *holder != transaction.id);
    }

    /// Adds events that have news to the to-do list, to be looked at from `due_ms` on.
    pub(crate) fn add_intake(&mut self, due_ms: u64, events: Vec<EventId>) {
        if !events.is_empty() {
            self.intake_made += 1;
            self.intake.insert(self.intake_made, (due_ms, events));
        }
    }

    /// Where the feed stands.
    pub(crate) fn head(&self) -> Head {
        Head {
            epoch: EPOCH.to_owned(),
            seq: self.feed_seq,
        }
    }

    /// What was told after `seq`, in order.
    pub(crate) fn told_after(&self, seq: i64) -> Vec<Told> {
        let mut rows: Vec<&FeedRow> = self.feed.values().filter(|row| row.seq > seq).collect();
        rows.sort_by_key(|row| row.seq);
        rows.iter()
            .map(|row| Told::new(row.seq, &row.entry, row.expires_ms))
            .collect()
    }

    /// The last decision about an event, withdrawn or not.
    pub(crate) fn last_decision(&self, event: &EventId) -> Option<&Stored> {
        self.decisions.get(event).and_then(|all| all.last())
    }

    /// Times in which reports could not be taken.
    pub(crate) fn outages(&self) -> Vec<Span> {
        kaeru_aggregator::logic::unheard(self.outages.iter().map(|(from_ms, to_ms)| Span {
            from_ms: *from_ms,
            to_ms: *to_ms,
        }))
    }

    /// Losses that reach into the time since `since_ms`, with those that a transaction adds.
    pub(crate) fn losses_since(&self, since_ms: u64, now_ms: u64, added: &[LossRow]) -> Vec<Loss> {
        let lost = self.losses.iter().chain(added);
        let lost = lost.filter(|row| row.until_ms >= since_ms);
        let lost = lost.map(|row| {
            (
                row.service.clone(),
                Some(row.reporter),
                row.since_ms,
                row.until_ms,
            )
        });
        let silent = self.proxies.values().filter_map(|row| {
            let due_ms = row.due_ms?;
            ((since_ms..=now_ms).contains(&due_ms) && row.heard_ms < due_ms)
                .then(|| (row.service.clone(), None, row.heard_ms, due_ms))
        });
        lost.chain(silent)
            .map(|(service, reporter, from_ms, to_ms)| Loss {
                service: service.into(),
                reporter,
                span: Span { from_ms, to_ms },
            })
            .collect()
    }

    /// When the next event is to be looked at, ms.
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        let wakes = self.events.values().filter_map(|row| row.wake_ms);
        wakes
            .chain(self.intake.values().map(|(due_ms, _)| *due_ms))
            .min()
    }

    /// The facts of an event as they are read: with their times set right.
    pub(crate) fn facts_of(&self, event: &EventId) -> Vec<Fact> {
        let stated = self.facts.get(event).into_iter().flatten();
        stated
            .map(|fact| right(fact, self.reporters.get(&fact.key.reporter)))
            .collect()
    }

    /// How far each reporter was heard.
    pub(crate) fn heard(&self, id: ReporterId) -> Option<Heard> {
        let row = self.reporters.get(&id)?;
        Some(Heard {
            proxy_ms: self.proxies.get(&row.proxy)?.heard_ms,
            accounted_ms: row.account.checked_ms,
        })
    }

    /// The mode in force for an event.
    pub(crate) fn mode(&self, event_type: Option<&EventType>, entry: Option<&Peer>) -> Mode {
        self.policy().for_event(event_type, entry).mode()
    }
}

/// A fact with its time set right by what is known of its reporter's clock.
fn right(fact: &Fact, row: Option<&ReporterRow>) -> Fact {
    let clock_ms = row.and_then(|row| row.clock_ms).unwrap_or(0);
    Fact {
        at_ms: set_right(fact.at_ms, clock_ms),
        ..fact.clone()
    }
}

/// The identity of a report that states `at_ms`.
pub(crate) fn key(reporter: ReporterId, seq: u64, at_ms: u64) -> Key {
    (at_ms / DAY_MS, reporter, seq)
}
