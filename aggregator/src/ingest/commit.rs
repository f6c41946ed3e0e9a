//! One transaction of waiting batches: reports, the decider's to-do list, proxies' statuses, and, for reports of
//! failure, the decision itself, so that one commit lies between a failure and its decision.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, Utc};
use kaeru_protocol::{
    Body, Call, EventReport, Kind, Outcome, ProxyStatus, Receipt, Rejection, Reporter, Word,
};
use sqlx::{Connection as _, PgConnection};

use super::batch::rejection;
use super::{Batch, Fault};
use crate::app::Parts;
use crate::census::What;
use crate::clock::{self, timestamp};
use crate::decider::Due;
use crate::store::calls::Calls;
use crate::store::days::{self, Kept, day_of};
use crate::store::feed::Announced;
use crate::store::history::History;
use crate::store::losses::{self, Lost};
use crate::store::reporters::{self, Sender, Senders, Stranger};
use crate::store::reports::{self, Row, reporter_number};
use crate::store::{Error, Kept as KeptConnection, Result, intake, patiently};

/// Failed events that are decided before the commit; the others wait for the decider, so that a storm of failures
/// holds no acknowledgement up: 64 events take about 20 ms.
const URGENT_MAX: usize = 64;

/// What writes batches.
#[derive(Debug)]
pub(super) struct Committer {
    parts: Arc<Parts>,
    connection: KeptConnection,
    calls: Calls,
    made: HashSet<NaiveDate>,
    /// Of which store the above is true.
    history: Option<History>,
}

/// The rows of a group of batches.
#[derive(Debug, Default)]
struct Group<'a> {
    rows: Vec<Row>,
    /// Of no earlier time.
    since: Option<DateTime<Utc>>,
    events: BTreeSet<&'a str>,
    /// Those of them that may be doomed.
    urgent: BTreeSet<&'a str>,
    statuses: BTreeMap<(i64, i64), (&'a Reporter, &'a ProxyStatus, u64)>,
    rejected: Vec<Vec<Rejection>>,
}

/// What was written.
#[derive(Debug, Default)]
struct Written {
    /// Reports that were new.
    rows: u64,
    /// Reports that turned out to be lost.
    lost: u64,
    /// What was told.
    told: Option<Announced>,
    /// There is something for the decider at once.
    hurry: bool,
}

/// Why nothing was written.
#[derive(Debug)]
enum Unwritten {
    /// Failed events could not be decided.
    Undecided,
    /// The store did not take it.
    Failed(Error),
}

impl Unwritten {
    /// Whether the same may be written if the decider decides later: failed events could not be, or two transactions met.
    fn is_worth_another(&self) -> bool {
        match self {
            Self::Undecided => true,
            Self::Failed(error) => error.is_collision(),
        }
    }
}

impl From<Error> for Unwritten {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<sqlx::Error> for Unwritten {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Committer {
    /// A committer that knows nothing of the store yet.
    pub(super) fn new(parts: Arc<Parts>) -> Self {
        Self {
            parts,
            connection: KeptConnection::default(),
            calls: Calls::default(),
            made: HashSet::new(),
            history: None,
        }
    }

    /// Stores these batches in one transaction; an answer for each, in order.
    pub(super) async fn commit(
        &mut self,
        batches: &[Batch],
    ) -> Vec<std::result::Result<Receipt, Fault>> {
        let everyone: Vec<&Batch> = batches.iter().collect();
        let outcome = match patiently(self.attempt(&everyone, URGENT_MAX)).await {
            Err(unwritten) if unwritten.is_worth_another() => {
                patiently(self.attempt(&everyone, 0)).await
            }
            outcome => outcome,
        };
        match outcome {
            Ok(outcomes) => return outcomes,
            Err(Unwritten::Failed(error)) => {
                self.parts.metrics.store_failed(&error, "storing reports");
                if matches!(error, Error::Unavailable(_)) {
                    return vec![Err(Fault::StoreAway); batches.len()];
                }
            }
            Err(Unwritten::Undecided) => {}
        }
        // A partition may be gone that was known.
        self.made.clear();
        self.each_alone(batches).await
    }

    /// After a statement was refused: the batch that caused it fails alone.
    async fn each_alone(&mut self, batches: &[Batch]) -> Vec<std::result::Result<Receipt, Fault>> {
        let mut outcomes = Vec::with_capacity(batches.len());
        for batch in batches {
            let outcome = match patiently(self.attempt(&[batch], 0)).await {
                Ok(mut one) => one.pop().unwrap_or(Err(Fault::Broken)),
                Err(Unwritten::Failed(Error::Unavailable(_))) => Err(Fault::StoreAway),
                Err(Unwritten::Failed(error)) => {
                    self.parts.metrics.store_failed(&error, "storing one batch");
                    Err(Fault::Broken)
                }
                Err(Unwritten::Undecided) => Err(Fault::Broken),
            };
            outcomes.push(outcome);
        }
        outcomes
    }

    /// One transaction, in which so many failed events are decided; the decider has the others.
    async fn attempt(
        &mut self,
        batches: &[&Batch],
        urgent_max: usize,
    ) -> std::result::Result<Vec<std::result::Result<Receipt, Fault>>, Unwritten> {
        let timer = self.parts.metrics.commit_seconds.start_timer();
        let now_ms = clock::now_ms();
        let now = timestamp(now_ms);
        let senders: BTreeMap<i64, Sender> = batches
            .iter()
            .map(|b| (reporter_number(b.sender.reporter.id), b.sender.clone()))
            .collect();
        let mut clocks: BTreeMap<i64, i64> = BTreeMap::new();
        for batch in batches {
            let ahead_ms = now_ms.cast_signed().saturating_sub_unsigned(batch.sent_ms);
            let id = reporter_number(batch.sender.reporter.id);
            let least = clocks.entry(id).or_insert(ahead_ms);
            *least = ahead_ms.min(*least);
        }
        let mut connection = self.connection.take(&self.parts.store, now_ms).await?;
        let mut transaction = connection.begin().await?;
        let census = &self.parts.census;
        let Senders {
            history,
            strangers,
            checked,
        } = reporters::hear(&mut transaction, &senders, &clocks, census, now).await?;
        self.follow_history(history);
        let stranger = |batch: &Batch| {
            let id = reporter_number(batch.sender.reporter.id);
            // Two services in one group under one id: the first to be known keeps it.
            let is_other = senders.get(&id) != Some(&batch.sender);
            (strangers.get(&id).cloned()).or_else(|| is_other.then_some(Stranger::Foreign))
        };
        let mut group = self
            .group(batches, |batch| stranger(batch).is_some(), now)
            .await?;
        let late = reports::up_to(&group.rows, &checked);
        reporters::came_late(&mut transaction, &late).await?;
        let written = self
            .write(&mut transaction, &mut group, now_ms, urgent_max)
            .await?;
        transaction.commit().await?;
        self.connection.keep(connection, now_ms);
        timer.observe_duration();
        self.count(&group, written.rows);
        self.parts.metrics.reports_lost.inc_by(written.lost);
        self.parts.decider.told(written.told);
        if written.hurry {
            self.parts.decider.hurry();
        }
        let receipt = |(batch, rejected): (&&Batch, Vec<Rejection>)| {
            match stranger(batch) {
                None => {}
                Some(Stranger::Foreign) => return Err(Fault::NotYours),
                Some(Stranger::OneTooMany(what, full)) => {
                    let proxy = &batch.sender.reporter.proxy;
                    let who = full.0.clone();
                    let fault = Fault::OneTooMany { what, who };
                    self.parts
                        .census
                        .note(what, full, proxy, &self.parts.metrics);
                    return Err(fault);
                }
            }
            let refused = rejected.len() - batch.rejected.len();
            Ok(Receipt {
                accepted: u32::try_from(batch.reports.len() - refused).unwrap_or(u32::MAX),
                rejected,
            })
        };
        Ok(batches
            .iter()
            .zip(std::mem::take(&mut group.rejected))
            .map(receipt)
            .collect())
    }

    /// Forgets what was read of another store: in a restored one the same number may name another call.
    fn follow_history(&mut self, current: Option<History>) {
        if self.history != current {
            self.calls = Calls::default();
            self.made.clear();
            self.history = current;
        }
    }

    /// Makes rows of the batches' reports.
    async fn group<'a>(
        &mut self,
        batches: &[&'a Batch],
        is_stranger: impl Fn(&Batch) -> bool,
        now: DateTime<Utc>,
    ) -> Result<Group<'a>> {
        let kept = Kept::new(now, self.parts.config.retention_days);
        // The reports of a batch share their calls: each is looked up once.
        let mut shared: HashMap<usize, (&Arc<Call>, &str)> = HashMap::new();
        let mut proxies: HashMap<&str, &str> = HashMap::new();
        for batch in batches.iter().filter(|batch| !is_stranger(batch)) {
            let service = batch.sender.reporter.service.as_str();
            proxies.insert(service, &batch.sender.reporter.proxy);
            for report in &batch.reports {
                if let Body::Event(event) = &report.body {
                    shared.insert(place(&event.call), (&event.call, service));
                }
            }
        }
        let calls: HashMap<&Call, &str> = (shared.values())
            .map(|(call, service)| (&***call, *service))
            .collect();
        let (pool, census) = (self.parts.store.own(), &self.parts.census);
        let known = self
            .calls
            .numbers(pool, &calls, census, day_of(now))
            .await?;
        for (call, full) in known.cut {
            let service = calls.get(&call).copied().unwrap_or_default();
            let proxy = proxies.get(service).copied().unwrap_or_default();
            census.note(What::Calls, full, proxy, &self.parts.metrics);
        }
        let number = |call: &Call| known.of.get(call).copied().flatten();
        let numbers: HashMap<usize, Option<i32>> = (shared.into_iter())
            .map(|(place, (call, _))| (place, number(call)))
            .collect();
        let mut group = Group::default();
        for batch in batches {
            let mut rejected = batch.rejected.clone();
            let reporter = &batch.sender.reporter;
            let reports = if is_stranger(batch) {
                &[]
            } else {
                batch.reports.as_slice()
            };
            for report in reports {
                let day = day_of(timestamp(report.at_ms));
                if let Some(reason) = kept.refuse(day) {
                    rejected.push(rejection(Some(report.seq), reason));
                    continue;
                }
                if !self.made.contains(&day) {
                    days::make(self.parts.store.own(), day).await?;
                    self.made.insert(day);
                }
                match &report.body {
                    Body::Event(event) => {
                        let Some(Some(number)) = numbers.get(&place(&event.call)) else {
                            rejected.push(rejection(
                                Some(report.seq),
                                "too many different calls are known",
                            ));
                            continue;
                        };
                        let row =
                            Row::event(reporter.id, report.seq, report.at_ms, event, Some(*number));
                        group.rows.push(row);
                        let at = timestamp(report.at_ms);
                        group.since = Some(group.since.map_or(at, |since| since.min(at)));
                        group.events.insert(event.event.as_str());
                        if is_urgent(event) {
                            group.urgent.insert(event.event.as_str());
                        }
                    }
                    Body::Proxy(status) => {
                        group
                            .rows
                            .push(Row::status(reporter.id, report.seq, report.at_ms, status));
                        let key = (reporter_number(reporter.id), report.seq.cast_signed());
                        group.statuses.insert(key, (reporter, status, report.at_ms));
                    }
                }
            }
            group.rejected.push(rejected);
        }
        Ok(group)
    }

    /// Writes the group.
    async fn write(
        &self,
        connection: &mut PgConnection,
        group: &mut Group<'_>,
        now_ms: u64,
        urgent_max: usize,
    ) -> std::result::Result<Written, Unwritten> {
        let now = timestamp(now_ms);
        let new = reports::insert(&mut *connection, &mut group.rows, now).await?;
        let mut lost = Lost::default();
        for key in &new.statuses {
            if let Some((reporter, status, at_ms)) = group.statuses.get(key) {
                let census = &self.parts.census;
                reporters::take_status(
                    &mut *connection,
                    reporter,
                    status,
                    *at_ms,
                    census,
                    now,
                    &mut lost,
                )
                .await?;
            }
        }
        if new.rows == 0 {
            return Ok(Written::default());
        }
        let news = std::mem::take(&mut group.events);
        let (mut urgent, others): (Vec<String>, Vec<String>) = (news.into_iter())
            .map(str::to_owned)
            .partition(|event| group.urgent.contains(event.as_str()));
        let decider = &self.parts.decider;
        let urgent_max = if decider.may_decide(now_ms) {
            urgent_max
        } else {
            0
        };
        let late = urgent.split_off(urgent.len().min(urgent_max));
        let mut told = None;
        if !urgent.is_empty() {
            let due = Due {
                names: urgent,
                since: group.since,
            };
            let outcome = decider.decide(&mut *connection, &due, now_ms).await;
            told = outcome.map_err(|error| {
                let metrics = &self.parts.metrics;
                metrics.store_failed(&error, "deciding failed events at once");
                Unwritten::Undecided
            })?;
        }
        intake::add(&mut *connection, &late, group.since, now).await?;
        let gathered_at = intake::rounded_up(now + intake::gather(others.len()));
        intake::add(&mut *connection, &others, group.since, gathered_at).await?;
        losses::wake_plans(connection, &lost).await?;
        Ok(Written {
            told,
            rows: new.rows,
            lost: lost.reports,
            hurry: !late.is_empty(),
        })
    }

    fn count(&self, group: &Group<'_>, stored: u64) {
        let rows = u64::try_from(group.rows.len()).unwrap_or(u64::MAX);
        let rejected = group.rejected.iter().map(Vec::len).sum::<usize>();
        let metrics = &self.parts.metrics;
        metrics.reports_stored.inc_by(stored);
        metrics.reports_repeated.inc_by(rows.saturating_sub(stored));
        metrics
            .reports_rejected
            .inc_by(u64::try_from(rejected).unwrap_or(u64::MAX));
    }
}

/// Where a call stands: the same for reports that share it.
fn place(call: &Arc<Call>) -> usize {
    Arc::as_ptr(call).addr()
}

/// Whether a report may doom its event, as far as it can be said without the policy.
pub fn is_urgent(report: &EventReport) -> bool {
    let ending = &report.ending;
    match report.kind {
        Kind::Attempt => matches!(ending.outcome(), Outcome::Failed | Outcome::Unknown),
        // An external host's answer may be `fatal` by policy whatever its status.
        Kind::Call => {
            ending.outcome() != Outcome::Succeeded
                || ending.status.is_some_and(|status| status >= 400)
        }
        Kind::Word | Kind::Running => ending.word == Some(Word::Failed),
        Kind::Operator => true,
        Kind::Refused | Kind::WouldRefuse | Kind::Cleanup | Kind::Undo => false,
    }
}
