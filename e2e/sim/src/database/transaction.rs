//! A transaction: what it has read is as of its beginning, what it writes appears at its commit.

use std::collections::BTreeMap;

use kaeru_aggregator::logic::{Account, Accounted, Alive, Batch};
use kaeru_flow::{
    Decision, EventState, Fact, Flow, Heard, Loss, Policy, ReportKey, Span, set_right,
};
use kaeru_protocol::{
    Body, DecisionId, EventId, EventType, ProxyStatus, Reporter, ReporterId, VerdictEntry,
};

use super::{Database, EventRow, FeedRow, Key, LossRow, ProxyRow, ReporterRow, Stored, key};

/// What a reporter gave out before it was first heard of goes back this far, ms.
const UNKNOWN_MS: u64 = 300_000;
/// A clock that seems so much further behind than before was set back, ms.
const CLOCK_SET_BACK_MS: i64 = 60_000;

/// An event reaches further than its reports say, ms.
const REACH_MS: u64 = 60_000;

/// What a transaction is for, and what follows its commit.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// Batches of reports.
    Ingest,
    /// A round of the decider.
    Decide,
    /// Modes told again.
    Modes,
    /// An operator takes a decision back.
    Withdraw,
}

/// A decision's revision to be written.
#[derive(Debug, Clone)]
pub(crate) struct Revision {
    pub(crate) event: EventId,
    pub(crate) id: DecisionId,
    pub(crate) event_type: Option<EventType>,
    pub(crate) decision: Decision,
}

/// A verdict to be told.
#[derive(Debug, Clone)]
pub(crate) struct Telling {
    pub(crate) entry: VerdictEntry,
    pub(crate) event_type: Option<EventType>,
    pub(crate) expires_ms: u64,
}

/// A transaction under way.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) id: u64,
    pub(crate) aggregator: usize,
    /// When it began, by the true time.
    pub(crate) began_ms: u64,
    /// By its aggregator's clock.
    pub(crate) now_ms: u64,
    pub(crate) work: Work,
    pub(crate) first_seq: i64,
    /// The policy that it was judged by.
    pub(crate) policy_version: u64,
    pub(crate) facts: Vec<Fact>,
    pub(crate) keys: Vec<Key>,
    pub(crate) reporters: BTreeMap<ReporterId, ReporterRow>,
    proxies: BTreeMap<Box<str>, ProxyRow>,
    pub(crate) losses: Vec<LossRow>,
    pub(crate) taken: Vec<u64>,
    /// Events that have news, and when they are to be looked at.
    pub(crate) added: Vec<(u64, Vec<EventId>)>,
    pub(crate) looked: Vec<(EventId, EventRow)>,
    pub(crate) parked: Vec<(EventId, Option<u64>)>,
    pub(crate) revisions: Vec<Revision>,
    pub(crate) tellings: Vec<Telling>,
    pub(crate) lessons: BTreeMap<EventType, Flow>,
    /// All is written: its commit may have been sent.
    pub(crate) is_done: bool,
}

impl Transaction {
    pub(super) fn new(
        id: u64,
        aggregator: usize,
        (began_ms, now_ms): (u64, u64),
        work: Work,
        policy_version: u64,
    ) -> Self {
        Self {
            id,
            aggregator,
            began_ms,
            now_ms,
            work,
            first_seq: 0,
            policy_version,
            facts: Vec::new(),
            keys: Vec::new(),
            reporters: BTreeMap::new(),
            proxies: BTreeMap::new(),
            losses: Vec::new(),
            taken: Vec::new(),
            added: Vec::new(),
            looked: Vec::new(),
            parked: Vec::new(),
            revisions: Vec::new(),
            tellings: Vec::new(),
            lessons: BTreeMap::new(),
            is_done: false,
        }
    }

    /// Writes batches; gives the events that have news.
    pub(crate) fn store(&mut self, database: &Database, batches: &[&Batch]) -> Vec<EventId> {
        let mut news = Vec::new();
        let mut statuses: Vec<(Reporter, ProxyStatus, u64)> = Vec::new();
        self.hear(database, batches);
        for batch in batches {
            let reporter = &batch.sender.reporter;
            for report in &batch.reports {
                let key = key(reporter.id, report.seq, report.at_ms);
                if database.keys.contains_key(&key) || self.keys.contains(&key) {
                    continue;
                }
                self.keys.push(key);
                let row = self.reporter(database, reporter);
                row.seqs.insert(report.seq);
                if report.seq <= row.account.checked_seq {
                    row.account.came_late(1);
                }
                match &report.body {
                    Body::Event(event) => {
                        if !news.contains(&event.event) {
                            news.push(event.event.clone());
                        }
                        self.facts.push(Fact {
                            key: ReportKey {
                                reporter: reporter.id,
                                seq: report.seq,
                            },
                            service: reporter.service.clone(),
                            gateway: reporter.gateway,
                            at_ms: report.at_ms,
                            received_ms: self.now_ms,
                            report: (**event).clone(),
                        });
                    }
                    Body::Proxy(status) => {
                        statuses.push((reporter.clone(), (**status).clone(), report.at_ms));
                    }
                }
            }
        }
        for (sender, status, at_ms) in statuses {
            self.take_status(database, &sender, &status, at_ms);
        }
        news
    }

    /// Notes that these were heard of, and how far our clock is ahead of theirs at most (`hear` in
    /// `store/reporters.rs` of the aggregator).
    fn hear(&mut self, database: &Database, batches: &[&Batch]) {
        let now_ms = self.now_ms;
        let mut clocks: BTreeMap<ReporterId, i64> = BTreeMap::new();
        for batch in batches {
            let ahead_ms = now_ms.cast_signed() - batch.sent_ms.cast_signed();
            let least = clocks.entry(batch.sender.reporter.id).or_insert(ahead_ms);
            *least = ahead_ms.min(*least);
        }
        for batch in batches {
            let sender = &batch.sender;
            let clock_ms = clocks.get(&sender.reporter.id).copied().unwrap_or(0);
            let row = self.reporter(database, &sender.reporter);
            row.heard_ms = row.heard_ms.max(now_ms);
            row.clock_ms = match row.clock_ms {
                Some(known) if (known..=known + CLOCK_SET_BACK_MS).contains(&clock_ms) => {
                    Some(known)
                }
                _ => Some(clock_ms),
            };
            if sender.is_proxy {
                let row = self.proxy(database, &sender.reporter);
                row.heard_ms = row.heard_ms.max(now_ms);
            }
        }
    }

    fn proxy(&mut self, database: &Database, reporter: &Reporter) -> &mut ProxyRow {
        let now_ms = self.now_ms;
        self.proxies
            .entry(reporter.proxy.clone())
            .or_insert_with(|| {
                let known = database.proxies.get(&reporter.proxy).cloned();
                known.unwrap_or_else(|| ProxyRow {
                    service: reporter.service.clone(),
                    heard_ms: now_ms,
                    status_ms: None,
                    due_ms: None,
                })
            })
    }

    fn reporter(&mut self, database: &Database, reporter: &Reporter) -> &mut ReporterRow {
        let now_ms = self.now_ms;
        // What it gave out before is accounted for since its proxy's last status.
        let status_ms = database
            .proxies
            .get(&reporter.proxy)
            .and_then(|row| row.status_ms);
        let since_ms = status_ms.unwrap_or(now_ms - UNKNOWN_MS);
        self.reporters.entry(reporter.id).or_insert_with(|| {
            let known = database.reporters.get(&reporter.id).cloned();
            known.unwrap_or_else(|| ReporterRow {
                proxy: reporter.proxy.clone(),
                heard_ms: now_ms,
                clock_ms: None,
                account: Account {
                    checked_ms: since_ms,
                    ..Account::default()
                },
                gone_ms: None,
                seqs: std::collections::BTreeSet::new(),
            })
        })
    }

    /// As `take_status` in `store/reporters.rs` of the aggregator.
    fn take_status(
        &mut self,
        database: &Database,
        sender: &Reporter,
        status: &ProxyStatus,
        at_ms: u64,
    ) {
        let now_ms = self.now_ms;
        let clock_ms = self.reporter(database, sender).clock_ms.unwrap_or(0);
        let stated_ms = set_right(at_ms, clock_ms);
        let row = self.proxy(database, sender);
        if row.status_ms.is_none_or(|known| known <= stated_ms) {
            row.due_ms = Some(now_ms + u64::from(status.due_ms));
        }
        row.status_ms = row.status_ms.max(Some(stated_ms));
        let mut marks = status.reporters.clone();
        marks.sort_unstable_by_key(|mark| mark.id.0.cast_signed());
        for mark in &marks {
            let named = Reporter {
                id: mark.id,
                ..sender.clone()
            };
            let row = self.reporter(database, &named);
            if row.proxy != sender.proxy {
                continue;
            }
            row.gone_ms = None;
            let mut account = row.account;
            let came = row.came();
            let since_ms = account.checked_ms;
            let told = account.take(mark, stated_ms, came);
            row.account = account;
            if let Accounted::Lost(lost) = told
                && lost > 0
            {
                self.lose(mark.id, sender, (since_ms, now_ms), lost);
            }
        }
        // Reporters that their proxy names no more though it did.
        let gone: Vec<(ReporterId, u64)> = database
            .reporters
            .iter()
            .filter(|(id, row)| {
                let now = self.reporters.get(id).unwrap_or(row);
                now.proxy == sender.proxy
                    && !marks.iter().any(|mark| mark.id == **id)
                    && now.gone_ms.is_none()
                    && now.heard_ms < stated_ms
            })
            .map(|(id, row)| {
                (
                    *id,
                    self.reporters.get(id).unwrap_or(row).account.checked_ms,
                )
            })
            .collect();
        for (id, checked_ms) in gone {
            let named = Reporter {
                id,
                ..sender.clone()
            };
            self.reporter(database, &named).gone_ms = Some(stated_ms);
            self.lose(id, sender, (checked_ms, stated_ms), 0);
        }
    }

    fn lose(
        &mut self,
        reporter: ReporterId,
        sender: &Reporter,
        (since_ms, until_ms): (u64, u64),
        lost: u64,
    ) {
        self.losses.push(LossRow {
            reporter,
            service: sender.service.clone(),
            since_ms,
            until_ms,
            lost,
        });
    }

    /// Losses that reach into the time since `since_ms`, as this transaction sees them.
    pub(crate) fn losses_since(&self, database: &Database, since_ms: u64) -> Vec<Loss> {
        database.losses_since(since_ms, self.now_ms, &self.losses)
    }

    /// The last of its work, behind the feed's lock: plans of a time of which something is lost are looked at again
    /// (`store/losses.rs` of the aggregator).
    pub(super) fn wake_plans(&mut self, database: &Database) {
        for loss in &self.losses {
            let events = database.events.iter().filter(|(_, row)| {
                row.state == EventState::RollingBack
                    && row.last_received_ms + REACH_MS >= loss.since_ms
                    && row.began_ms <= loss.until_ms + REACH_MS
            });
            let events: Vec<EventId> = events.map(|(event, _)| event.clone()).collect();
            if !events.is_empty() {
                self.added.push((0, events));
            }
        }
    }

    /// The facts of an event as this transaction sees them.
    pub(crate) fn facts_of(&self, database: &Database, event: &EventId) -> Vec<Fact> {
        let stated = database.facts.get(event).into_iter().flatten();
        let own = self.facts.iter().filter(|fact| fact.report.event == *event);
        stated
            .chain(own)
            .map(|fact| {
                let id = &fact.key.reporter;
                super::right(
                    fact,
                    self.reporters
                        .get(id)
                        .or_else(|| database.reporters.get(id)),
                )
            })
            .collect()
    }

    /// How far a reporter was heard, as this transaction sees it.
    pub(crate) fn heard(&self, database: &Database, id: ReporterId) -> Option<Heard> {
        let row = self
            .reporters
            .get(&id)
            .or_else(|| database.reporters.get(&id))?;
        let proxy = self
            .proxies
            .get(&row.proxy)
            .or_else(|| database.proxies.get(&row.proxy))?;
        Some(Heard {
            proxy_ms: proxy.heard_ms,
            accounted_ms: row.account.checked_ms,
        })
    }
}

impl Database {
    /// Commits: everything appears at once.
    pub(crate) fn commit(&mut self, transaction: &Transaction, true_ms: u64) {
        self.keys
            .extend(transaction.keys.iter().map(|key| (*key, true_ms)));
        self.reporters.extend(transaction.reporters.clone());
        for fact in &transaction.facts {
            self.facts
                .entry(fact.report.event.clone())
                .or_default()
                .push(fact.clone());
        }
        self.proxies.extend(transaction.proxies.clone());
        self.losses.extend(transaction.losses.iter().cloned());
        for id in &transaction.taken {
            self.intake.remove(id);
        }
        for (due_ms, events) in &transaction.added {
            self.add_intake(*due_ms, events.clone());
        }
        for (event, row) in &transaction.looked {
            self.events.insert(event.clone(), row.clone());
        }
        for (event, until_ms) in &transaction.parked {
            if let Some(row) = self.events.get_mut(event) {
                row.wake_ms = *until_ms;
            }
        }
        for revision in &transaction.revisions {
            let all = self.decisions.entry(revision.event.clone()).or_default();
            match all.iter_mut().find(|stored| stored.id == revision.id) {
                Some(stored) => stored.revisions.push(revision.decision.clone()),
                None => all.push(Stored {
                    id: revision.id.clone(),
                    event_type: revision.event_type.clone(),
                    revisions: vec![revision.decision.clone()],
                }),
            }
        }
        for (name, lesson) in &transaction.lessons {
            self.flows
                .entry(name.clone())
                .or_insert_with(|| Flow::new(name.clone()))
                .add(lesson);
        }
        for (place, telling) in (0..).zip(&transaction.tellings) {
            let seq = transaction.first_seq + place;
            self.feed_seq = self.feed_seq.max(seq);
            self.feed.insert(
                telling.entry.event.clone(),
                FeedRow {
                    seq,
                    entry: telling.entry.clone(),
                    event_type: telling.event_type.clone(),
                    expires_ms: telling.expires_ms,
                },
            );
        }
        self.locks.retain(|_, holder| *holder != transaction.id);
    }

    /// An aggregator says that it is alive, and since when it or others were not.
    pub(crate) fn beat(&mut self, id: i64, now_ms: u64, refused_since_ms: Option<u64>) {
        let quiet = kaeru_aggregator::logic::quiet(&self.aggregators, id, now_ms);
        let refused = refused_since_ms.map(|from_ms| Span {
            from_ms,
            to_ms: now_ms,
        });
        for span in quiet.into_iter().chain(refused) {
            let known = self.outages.entry(span.from_ms).or_default();
            *known = span.to_ms.max(*known);
        }
        self.goodbye(id, now_ms, false);
    }

    /// An aggregator was alive at this time, and is (`has_left`) no more.
    pub(crate) fn goodbye(&mut self, id: i64, now_ms: u64, has_left: bool) {
        let alive = Alive {
            id,
            alive_ms: now_ms,
            has_left,
        };
        match self.aggregators.iter_mut().find(|one| one.id == id) {
            Some(known) => *known = alive,
            None => self.aggregators.push(alive),
        }
    }

    /// Puts a new policy in force.
    pub(crate) fn change_policy(&mut self, change: impl FnOnce(&mut Policy)) {
        let mut policy = (*self.policy()).clone();
        change(&mut policy);
        self.put_policy(policy);
    }
}
