//! An aggregator's transactions: batches, rounds of the decider, modes told again; from their locks to their commit, or without a trace.

use kaeru_aggregator::logic::{Batch, gather, is_urgent};
use kaeru_protocol::{Body, EventId, Receipt};

use crate::database::{Lock, Work, key};
use crate::world::{Moment, World, look};

impl World {
    /// Everything that waits, in one transaction.
    pub(crate) fn store_batches(&mut self, aggregator: usize, lives: u32) {
        if !self.is_alive(aggregator, lives) || self.aggregators[aggregator].is_storing {
            return;
        }
        let waiting = std::mem::take(&mut self.aggregators[aggregator].waiting);
        if waiting.is_empty() {
            return;
        }
        if self.database.is_away {
            self.refuse_batches(aggregator, waiting);
            return;
        }
        let batches: Vec<&Batch> = waiting.iter().map(|(_, batch)| batch).collect();
        let urgent: Vec<EventId> = batches
            .iter()
            .flat_map(|batch| &batch.reports)
            .filter_map(|report| match &report.body {
                Body::Event(event) if is_urgent(event) => Some(event.event.clone()),
                _ => None,
            })
            .collect();
        let now_ms = self.aggregator_ms(aggregator);
        let may_decide = self.aggregators[aggregator].pulse.is_fresh(now_ms);
        let mut locks: Vec<Lock> = Vec::new();
        for batch in &batches {
            let reporter = &batch.sender.reporter;
            locks.push(Lock::Proxy(reporter.proxy.clone()));
            let keys = batch
                .reports
                .iter()
                .map(|r| key(reporter.id, r.seq, r.at_ms));
            locks.extend(keys.map(Lock::Report));
        }
        if may_decide {
            locks.extend(urgent.iter().cloned().map(Lock::Event));
        }
        let Some(mut transaction) =
            self.database
                .begin(aggregator, (self.now_ms, now_ms), Work::Ingest, locks)
        else {
            // Somebody is at the same rows.
            self.aggregators[aggregator].waiting = waiting;
            return self.after(1, Moment::Store { aggregator, lives });
        };
        let news = transaction.store(&self.database, &batches);
        let (urgent, others): (Vec<EventId>, Vec<EventId>) =
            news.into_iter().partition(|event| urgent.contains(event));
        if !others.is_empty() {
            let wait_ms = gather(others.len()).num_milliseconds().unsigned_abs();
            transaction.added.push((now_ms + wait_ms, others));
        }
        if may_decide {
            self.look_at(&mut transaction, &urgent);
        } else if !urgent.is_empty() {
            transaction.added.push((now_ms, urgent));
        }
        let one = &mut self.aggregators[aggregator];
        one.in_work = waiting;
        one.is_storing = true;
        self.set_out(transaction);
    }

    pub(crate) fn look_at(
        &mut self,
        transaction: &mut crate::database::Transaction,
        events: &[EventId],
    ) {
        if events.is_empty() {
            return;
        }
        let setting = look::Setting {
            verdict_idle_ms: self.shape.verdict_idle_ms,
        };
        look::look(
            &self.database,
            transaction,
            events,
            setting,
            &mut self.decisions_made,
        );
    }

    /// A transaction is under way.
    pub(crate) fn set_out(&mut self, transaction: crate::database::Transaction) {
        let id = transaction.id;
        self.transactions.insert(id, transaction);
        let wait_ms = self.chance.within(0..=3);
        self.after(wait_ms, Moment::Tell { transaction: id });
    }

    pub(crate) fn tell_transaction(&mut self, id: u64) {
        let Some(mut transaction) = self.transactions.remove(&id) else {
            return;
        };
        let is_done = self.database.tell(&mut transaction);
        self.transactions.insert(id, transaction);
        if is_done {
            let wait_ms = self.chance.within(1..=3);
            self.after(wait_ms, Moment::Commit { transaction: id });
        } else {
            self.after(1, Moment::Tell { transaction: id });
        }
    }

    pub(crate) fn commit_transaction(&mut self, id: u64) {
        let Some(transaction) = self.transactions.remove(&id) else {
            return;
        };
        self.check_commit(&transaction);
        self.database.commit(&transaction, self.now_ms);
        self.check_committed(&transaction);
        if !transaction.tellings.is_empty() {
            self.take_in_what_was_told(&transaction);
            self.notify();
        }
        if !transaction.added.is_empty() {
            self.wake_deciders(transaction.aggregator);
        }
        self.committed(&transaction);
    }

    /// Its aggregator hears that it is committed.
    pub(crate) fn committed(&mut self, transaction: &crate::database::Transaction) {
        let aggregator = transaction.aggregator;
        let lives = self.aggregators[aggregator].lives;
        match transaction.work {
            Work::Ingest => {
                let one = &mut self.aggregators[aggregator];
                one.is_storing = false;
                let done = std::mem::take(&mut one.in_work);
                for (flight, batch) in done {
                    let receipt = Receipt {
                        accepted: u32::try_from(batch.reports.len()).unwrap_or(u32::MAX),
                        rejected: batch.rejected,
                    };
                    if let Some(flight) = flight {
                        let body = serde_json::to_vec(&receipt).unwrap_or_default();
                        self.send_reply(flight, 200, body);
                    }
                }
                self.after(0, Moment::Store { aggregator, lives });
                self.after(0, Moment::Decide { aggregator, lives });
            }
            Work::Decide => {
                self.aggregators[aggregator].is_deciding = false;
                self.after(0, Moment::Decide { aggregator, lives });
            }
            Work::Modes | Work::Withdraw => {}
        }
    }

    pub(crate) fn wake_deciders(&mut self, aggregator: usize) {
        let lives = self.aggregators[aggregator].lives;
        self.after(0, Moment::Decide { aggregator, lives });
    }

    /// NOTIFY: every aggregator that listens wakes; a lost one waits for its timer.
    pub(crate) fn notify(&mut self) {
        for aggregator in 0..self.aggregators.len() {
            if self.shape.rough > 0 && self.chance.percent(5) {
                self.tally.count("fault: notification lost");
                continue;
            }
            let lives = self.aggregators[aggregator].lives;
            self.after(1, Moment::Follow { aggregator, lives });
        }
    }

    pub(crate) fn refuse_batches(
        &mut self,
        aggregator: usize,
        batches: Vec<(Option<usize>, Batch)>,
    ) {
        self.tally
            .add("batch refused: store away", batches.len() as u64);
        self.aggregators[aggregator].pulse.refuse();
        for (flight, _) in batches {
            if let Some(flight) = flight {
                self.send_reply(flight, 503, Vec::new());
            }
        }
    }

    /// Transactions end without a trace: of one aggregator that died, or all, when the database goes away.
    pub(crate) fn abort_transactions(&mut self, aggregator: Option<usize>) {
        let ids: Vec<u64> = self
            .transactions
            .values()
            .filter(|t| aggregator.is_none_or(|a| t.aggregator == a))
            .map(|t| t.id)
            .collect();
        for id in ids {
            let Some(transaction) = self.transactions.remove(&id) else {
                continue;
            };
            // What was sent may have been committed though nobody heard so.
            if transaction.is_done && self.chance.percent(30) {
                self.tally.count("fault: commit not heard of");
                self.check_commit(&transaction);
                self.database.commit(&transaction, self.now_ms);
                self.check_committed(&transaction);
            } else {
                self.database.roll_back(&transaction);
            }
            let one = &mut self.aggregators[transaction.aggregator];
            match transaction.work {
                Work::Ingest => {
                    one.is_storing = false;
                    let batches = std::mem::take(&mut one.in_work);
                    self.refuse_batches(transaction.aggregator, batches);
                }
                Work::Decide => one.is_deciding = false,
                Work::Modes | Work::Withdraw => {}
            }
        }
    }

    /// News first, then events whose time has come; `false` where there is nothing to do, or others are at it.
    pub(crate) fn begin_round(&mut self, aggregator: usize, now_ms: u64) -> bool {
        let entries: Vec<u64> = self
            .database
            .intake
            .iter()
            .filter(|(id, (due_ms, _))| {
                *due_ms <= now_ms && !self.database.is_locked(&Lock::Intake(**id))
            })
            .take(4)
            .map(|(id, _)| *id)
            .collect();
        let (mut names, mut locks): (Vec<EventId>, Vec<Lock>) = if entries.is_empty() {
            let due = self.database.events.iter().filter(|(event, row)| {
                row.wake_ms.is_some_and(|wake| wake <= now_ms)
                    && !self.database.is_locked(&Lock::Event((*event).clone()))
            });
            (due.map(|(event, _)| event.clone()).collect(), Vec::new())
        } else {
            let events = entries.iter().filter_map(|id| self.database.intake.get(id));
            let locks = entries.iter().copied().map(Lock::Intake).collect();
            let events = events.flat_map(|(_, events)| events);
            (events.cloned().collect(), locks)
        };
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return false;
        }
        locks.extend(names.iter().cloned().map(Lock::Event));
        let Some(mut transaction) =
            self.database
                .begin(aggregator, (self.now_ms, now_ms), Work::Decide, locks)
        else {
            return false;
        };
        transaction.taken = entries;
        self.look_at(&mut transaction, &names);
        self.set_out(transaction);
        true
    }

    /// A verdict whose mode is another by the policy in force is told again.
    pub(crate) fn tell_modes_again(&mut self, aggregator: usize) {
        let version = self.database.policy().version;
        if self.aggregators[aggregator].told_policy == version {
            return;
        }
        let changed: Vec<crate::database::transaction::Telling> = self
            .database
            .feed
            .values()
            .filter(|row| row.entry.verdict == kaeru_protocol::Verdict::RollBack)
            .filter_map(|row| {
                let entry = self
                    .database
                    .events
                    .get(&row.entry.event)
                    .and_then(|e| e.entry.clone());
                let mode = self.database.mode(row.event_type.as_ref(), entry.as_ref());
                (mode != row.entry.mode).then(|| crate::database::transaction::Telling {
                    entry: kaeru_protocol::VerdictEntry {
                        mode,
                        ..row.entry.clone()
                    },
                    event_type: row.event_type.clone(),
                    expires_ms: row.expires_ms,
                })
            })
            .collect();
        if !changed.is_empty() {
            let now_ms = self.aggregator_ms(aggregator);
            // The lock on the feed's rows is taken with the sequences, at once.
            let Some(mut transaction) = self.database.begin(
                aggregator,
                (self.now_ms, now_ms),
                Work::Modes,
                vec![Lock::Feed],
            ) else {
                return;
            };
            transaction.tellings = changed;
            self.set_out(transaction);
            self.tally.count("modes told again");
        }
        self.aggregators[aggregator].told_policy = version;
    }
}
