//! Aggregators: batches into transactions, looks at events, the feed in memory, polls. The reading of batches, the pulse, the
//! feed's memory and every rule are the real ones; only the store is the one in memory.

mod transactions;

use kaeru_aggregator::logic::{BEAT_MS, Batch, Live, Pulse, Sender, read_batch};
use kaeru_protocol::{Body, EventReport, Report, Reporter, ReporterId};

use super::callouts::Cargo;
use super::{Moment, World};
use crate::database::{Transaction, Work};

/// How often the store is asked for news of the feed when nothing wakes, ms.
const FOLLOW_MS: u64 = 1_000;
/// How long the decider sleeps at most, ms.
const SLEEP_MAX_MS: u64 = 1_000;

/// One aggregator.
pub(crate) struct Aggregator {
    pub(crate) is_up: bool,
    /// It stops in good order: nothing new is sent to it.
    pub(crate) is_leaving: bool,
    pub(crate) lives: u32,
    pub(crate) offset_ms: i64,
    pulse: Pulse,
    id: u64,
    live: Live,
    pub(crate) cursor: i64,
    /// Polls that are held.
    polls: Vec<usize>,
    /// Batches that wait: who waits for the receipt, if anybody does.
    waiting: Vec<(Option<usize>, Batch)>,
    in_work: Vec<(Option<usize>, Batch)>,
    is_storing: bool,
    is_deciding: bool,
    told_policy: u64,
    own_seq: u64,
    /// When its timers go off next.
    follows_ms: u64,
    decides_ms: u64,
}

impl World {
    pub(super) fn raise_aggregators(&mut self) {
        for _ in 0..self.shape.aggregators {
            let apart = self.shape.aggregators_apart_ms;
            let offset_ms = if apart == 0 {
                0
            } else {
                self.chance.within(0..=2 * apart).cast_signed() - apart.cast_signed()
            };
            self.aggregators.push(Aggregator {
                is_up: false,
                is_leaving: false,
                lives: 0,
                offset_ms,
                pulse: Pulse::new(0),
                id: 0,
                live: Live::default(),
                cursor: 0,
                polls: Vec::new(),
                waiting: Vec::new(),
                in_work: Vec::new(),
                is_storing: false,
                is_deciding: false,
                told_policy: 0,
                own_seq: 0,
                follows_ms: 0,
                decides_ms: 0,
            });
            let aggregator = self.aggregators.len() - 1;
            self.start_aggregator(aggregator);
        }
    }

    pub(super) fn start_aggregator(&mut self, aggregator: usize) {
        let id = self.chance.next();
        let one = &mut self.aggregators[aggregator];
        one.is_up = true;
        one.is_leaving = false;
        one.lives += 1;
        one.id = id;
        one.pulse = Pulse::new(id);
        one.live = Live::default();
        one.cursor = 0;
        one.own_seq = 0;
        one.told_policy = 0;
        one.follows_ms = 0;
        one.decides_ms = 0;
        let lives = one.lives;
        self.after(0, Moment::Beat { aggregator, lives });
        self.after(1, Moment::Decide { aggregator, lives });
        self.after(1, Moment::Follow { aggregator, lives });
    }

    /// It dies, or (`goodbye`) stops in good order.
    pub(super) fn stop_aggregator(&mut self, aggregator: usize, goodbye: bool) {
        let now_ms = self.aggregator_ms(aggregator);
        let one = &mut self.aggregators[aggregator];
        one.is_up = false;
        one.lives += 1;
        let flights: Vec<usize> = one
            .polls
            .drain(..)
            .chain(one.waiting.drain(..).filter_map(|w| w.0))
            .chain(one.in_work.drain(..).filter_map(|w| w.0))
            .collect();
        one.is_storing = false;
        one.is_deciding = false;
        if goodbye && !self.database.is_away {
            self.database.goodbye(one.id.cast_signed(), now_ms, true);
        }
        self.abort_transactions(Some(aggregator));
        for flight in flights {
            self.send_reply(flight, 503, Vec::new());
        }
    }

    /// It has finished what was in work, and is gone.
    pub(super) fn left(&mut self, aggregator: usize) {
        if self.aggregators[aggregator].is_up && self.aggregators[aggregator].is_leaving {
            self.stop_aggregator(aggregator, true);
            if self.aggregators.iter().all(|one| !one.is_up) {
                self.truth.aggregators_died.push(self.now_ms);
            }
        }
    }

    /// The aggregator's clock, ms.
    pub(crate) fn aggregator_ms(&self, aggregator: usize) -> u64 {
        self.now_ms
            .saturating_add_signed(self.aggregators[aggregator].offset_ms)
    }

    fn is_alive(&self, aggregator: usize, lives: u32) -> bool {
        let one = &self.aggregators[aggregator];
        one.is_up && one.lives == lives
    }

    /// A batch arrives.
    pub(super) fn take_batch(&mut self, aggregator: usize, flight: usize, body: &[u8]) {
        match read_batch(body) {
            Ok(batch) => {
                self.aggregators[aggregator]
                    .waiting
                    .push((Some(flight), batch));
                let lives = self.aggregators[aggregator].lives;
                self.after(0, Moment::Store { aggregator, lives });
            }
            Err(_) => self.send_reply(flight, 400, Vec::new()),
        }
    }

    /// A report of the aggregator's own: an operator's demand.
    pub(super) fn state(&mut self, aggregator: usize, report: EventReport) {
        let at_ms = self.aggregator_ms(aggregator);
        let one = &mut self.aggregators[aggregator];
        one.own_seq += 1;
        let Ok(service) = "kaeru-system/operator".parse() else {
            return;
        };
        let batch = Batch {
            sender: Sender {
                reporter: Reporter {
                    id: ReporterId(one.id ^ 0x0be2_a702),
                    proxy: format!("aggregator~{:016x}", one.id).into(),
                    service,
                    gateway: false,
                },
                is_proxy: false,
            },
            sent_ms: at_ms,
            reports: vec![Report {
                seq: one.own_seq,
                at_ms,
                body: Body::Event(Box::new(report)),
            }],
            rejected: Vec::new(),
        };
        one.waiting.push((None, batch));
        let lives = one.lives;
        self.after(0, Moment::Store { aggregator, lives });
    }

    pub(super) fn beat(&mut self, aggregator: usize, lives: u32) {
        if !self.is_alive(aggregator, lives) {
            return;
        }
        let now_ms = self.aggregator_ms(aggregator);
        let is_away = self.database.is_away;
        let one = &self.aggregators[aggregator];
        let beat = one.pulse.begin_beat();
        if !is_away {
            self.database
                .beat(one.id.cast_signed(), now_ms, beat.refused_since_ms);
        }
        one.pulse.end_beat(now_ms, !is_away);
        if !is_away {
            self.tell_modes_again(aggregator);
            self.aggregators[aggregator].live.expire(now_ms);
        }
        self.after(BEAT_MS, Moment::Beat { aggregator, lives });
    }

    /// A round of the decider.
    pub(super) fn decide(&mut self, aggregator: usize, lives: u32) {
        if !self.is_alive(aggregator, lives) || self.aggregators[aggregator].is_deciding {
            return;
        }
        let now_ms = self.aggregator_ms(aggregator);
        let is_fresh = self.aggregators[aggregator].pulse.is_fresh(now_ms);
        if is_fresh && !self.database.is_away && self.begin_round(aggregator, now_ms) {
            self.aggregators[aggregator].is_deciding = true;
            return;
        }
        let due_ms = self.database.next_due_ms().unwrap_or(u64::MAX);
        let wait_ms = due_ms.saturating_sub(now_ms).clamp(1, SLEEP_MAX_MS);
        let at_ms = self.now_ms + wait_ms;
        let one = &mut self.aggregators[aggregator];
        if one.decides_ms <= self.now_ms || one.decides_ms > at_ms {
            one.decides_ms = at_ms;
            self.agenda.at(at_ms, Moment::Decide { aggregator, lives });
        }
    }

    /// Catches up with the feed.
    pub(super) fn follow(&mut self, aggregator: usize, lives: u32) {
        if !self.is_alive(aggregator, lives) {
            return;
        }
        if !self.database.is_away {
            let head = self.database.head();
            let one = &mut self.aggregators[aggregator];
            let after = one.live.position_in(&head);
            if after != Some(head.seq) {
                let told = self.database.told_after(after.unwrap_or(0));
                one.live.take(&head, after.is_none(), told);
                self.oracle.check_followed(one.cursor, head.seq);
                one.cursor = head.seq;
                self.answer_polls(aggregator);
            }
        }
        let one = &mut self.aggregators[aggregator];
        if one.follows_ms <= self.now_ms {
            one.follows_ms = self.now_ms + FOLLOW_MS;
            self.after(FOLLOW_MS, Moment::Follow { aggregator, lives });
        }
    }

    /// What it told itself, which is committed, it need not read where it knows all that was told before.
    fn take_in_what_was_told(&mut self, transaction: &Transaction) {
        let head = self.database.head();
        let told = self.database.told_after(transaction.first_seq - 1);
        let one = &mut self.aggregators[transaction.aggregator];
        if matches!(transaction.work, Work::Modes) || one.live.take_next(&head, told).is_none() {
            let (aggregator, lives) = (transaction.aggregator, one.lives);
            return self.after(0, Moment::Follow { aggregator, lives });
        }
        self.oracle.check_followed(one.cursor, head.seq);
        one.cursor = head.seq;
        self.tally.count("feed: taken in unread");
        self.answer_polls(transaction.aggregator);
    }

    pub(super) fn take_poll(&mut self, aggregator: usize, flight: usize) {
        let Cargo::Poll { wait_ms, .. } = self.flights[flight].what else {
            return;
        };
        if !self.answer_poll(aggregator, flight, false) {
            self.aggregators[aggregator].polls.push(flight);
            let lives = self.aggregators[aggregator].lives;
            self.after(
                wait_ms,
                Moment::PollOver {
                    aggregator,
                    lives,
                    flight,
                },
            );
        }
    }

    fn answer_polls(&mut self, aggregator: usize) {
        for flight in std::mem::take(&mut self.aggregators[aggregator].polls) {
            if !self.answer_poll(aggregator, flight, false) {
                self.aggregators[aggregator].polls.push(flight);
            }
        }
    }

    pub(super) fn poll_over(&mut self, aggregator: usize, lives: u32, flight: usize) {
        if !self.is_alive(aggregator, lives) {
            return;
        }
        let polls = &mut self.aggregators[aggregator].polls;
        if let Some(at) = polls.iter().position(|held| *held == flight) {
            polls.remove(at);
            self.answer_poll(aggregator, flight, true);
        }
    }

    /// Answers a poll if there is something to say, or its time is over.
    fn answer_poll(&mut self, aggregator: usize, flight: usize, is_over: bool) -> bool {
        let Cargo::Poll { after, .. } = &self.flights[flight].what else {
            return true;
        };
        let now_ms = self.aggregator_ms(aggregator);
        let Some(page) = self.aggregators[aggregator]
            .live
            .page(after.as_ref(), now_ms)
        else {
            self.send_reply(flight, 503, Vec::new());
            return true;
        };
        if !is_over && !page.reset && page.verdicts.is_empty() {
            return false;
        }
        let body = serde_json::to_vec(&page).unwrap_or_default();
        self.send_reply(flight, 200, body);
        true
    }

    /// Every aggregator that is up has read the whole feed, and every proxy has heard it.
    pub(super) fn feed_is_followed(&self) -> bool {
        let head = self.database.feed_seq;
        let aggregators = self.aggregators.iter().filter(|a| a.is_up);
        let mut proxies = self.proxies.iter().filter(|p| p.is_up);
        aggregators.into_iter().all(|a| a.cursor == head)
            && proxies.all(|p| self.oracle.heard_up_to(&p.name) == Some(head.cast_unsigned()))
    }
}
