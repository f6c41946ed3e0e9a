//! Reports on their way out: kept until the aggregator says that they are committed, bounded, the least missed leave
//! first when there are too many. Decides what to send when; sends nothing itself.

mod queue;

use kaeru_protocol::{Kind, Outcome, Reporter, Word, is_safe_method, limits};

use crate::backoff::Backoff;
use crate::batch;
use crate::report::{Body, Report};
use queue::Queue;

/// Reports in one batch: 512 x about 110 bytes = 56 KB, written in well under a millisecond of a worker's time.
pub const BATCH_REPORTS: usize = 512;

/// How much a report would be missed; the lowest leave a full outbox first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Said again soon: what is open, how the proxy is.
    Heartbeat,
    /// Successes of safe methods: nothing to undo.
    Harmless,
    /// What may have left something behind, or says that it failed.
    Telling,
}

const RANKS: usize = 3;

fn rank(body: &Body) -> Rank {
    let Body::Event(event) = body else {
        return Rank::Heartbeat;
    };
    let failed = event.ending.word == Some(Word::Failed);
    match event.kind {
        Kind::Running if !failed => Rank::Heartbeat,
        Kind::Refused | Kind::WouldRefuse => Rank::Harmless,
        Kind::Attempt | Kind::Call
            if is_safe_method(&event.facts.call.method)
                && event.ending.outcome() == Outcome::Succeeded =>
        {
            Rank::Harmless
        }
        _ => Rank::Telling,
    }
}

/// How the aggregator answered a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Committed, but for so many that were rejected alone.
    Taken(u64),
    /// Too large: in smaller pieces, please.
    TooLarge,
    /// Not now: 429, 5xx, no answer, an answer that is none. The number is the server's `Retry-After`, ms.
    Later(Option<u64>),
    /// Never: any other 4xx.
    Never,
}

/// What came of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settled {
    /// Reports committed.
    pub delivered: u64,
    /// Reports that will not be sent again.
    pub dropped: u64,
    /// The batch will be sent again.
    pub again: bool,
}

/// The reports of one VM.
#[derive(Debug)]
pub struct Outbox {
    queues: [Queue; RANKS],
    in_flight: Vec<Report>,
    max: usize,
    batch_max: usize,
    last_seq: u64,
    dropped: u64,
    /// When to try again after a failure.
    pub backoff: Backoff,
}

impl Outbox {
    /// An empty outbox of at most `max` reports.
    pub fn new(max: usize) -> Self {
        Self {
            queues: Default::default(),
            in_flight: Vec::new(),
            max,
            batch_max: BATCH_REPORTS,
            last_seq: 0,
            dropped: 0,
            backoff: Backoff::default(),
        }
    }

    /// Changes the limit; what is above it leaves at the next report.
    pub fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// Takes a report and gives it the next sequence; says how many were dropped for it.
    pub fn push(&mut self, at_ms: u64, body: Body) -> u64 {
        self.last_seq += 1;
        let rank = rank(&body) as usize;
        let report = Report {
            seq: self.last_seq,
            at_ms,
            body,
        };
        if let Some(queue) = self.queues.get_mut(rank) {
            queue.push_back(report);
        }
        let mut dropped = 0;
        while self.kept() > self.max {
            let lowest = self.queues.iter_mut().find(|queue| queue.len() > 0);
            match lowest.and_then(Queue::pop_front) {
                Some(_) => dropped += 1,
                None => break,
            }
        }
        self.dropped += dropped;
        dropped
    }

    /// Reports that wait to be sent.
    pub fn waiting(&self) -> usize {
        self.queues.iter().map(Queue::len).sum()
    }

    /// Reports that are kept: those that wait, and those on their way.
    pub fn kept(&self) -> usize {
        self.waiting() + self.in_flight.len()
    }

    /// Reports on their way.
    pub fn sending(&self) -> usize {
        self.in_flight.len()
    }

    /// The batch on its way was cut off by nobody's fault: it waits again.
    pub fn recall(&mut self) {
        self.put_back();
    }

    /// Whether a batch is on its way.
    pub fn is_sending(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// The last sequence given out.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// How many reports were dropped in all.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes the next batch, the most telling reports first, and writes it as JSON; `None` while one is on its way, or
    /// nothing is there.
    pub fn next_batch(&mut self, reporter: &Reporter, now_ms: u64) -> Option<String> {
        if self.is_sending() {
            return None;
        }
        let mut room = self.batch_max;
        let mut share = [0; RANKS];
        for (share, queue) in share.iter_mut().zip(&self.queues).rev() {
            *share = room.min(queue.len());
            room -= *share;
        }
        self.in_flight.reserve_exact(self.batch_max - room);
        // Each queue is in the order of sequences, and so shall the batch be.
        while let Some((queue, share)) = (self.queues.iter_mut().zip(&mut share))
            .filter(|(_, share)| **share > 0)
            .min_by_key(|(queue, _)| queue.front().map(|report| report.seq))
        {
            self.in_flight.extend(queue.pop_front());
            *share -= 1;
        }
        if self.in_flight.is_empty() {
            return None;
        }
        let json = batch::encode(reporter, now_ms, &self.in_flight);
        if json.len() > limits::BATCH_BYTES_MAX {
            self.put_back();
            self.halve();
            return self.next_batch(reporter, now_ms);
        }
        Some(json)
    }

    /// Takes the answer to the batch on its way.
    pub fn settle(&mut self, answer: &Answer, now_ms: u64, random: u64) -> Settled {
        let sent = self.in_flight.len() as u64;
        match answer {
            Answer::Taken(rejected) => {
                self.in_flight.clear();
                self.backoff.succeed();
                self.batch_max = (self.batch_max * 2).min(BATCH_REPORTS);
                let rejected = (*rejected).min(sent);
                self.settled(sent - rejected, rejected)
            }
            Answer::Never => {
                self.in_flight.clear();
                self.backoff.succeed();
                self.settled(0, sent)
            }
            Answer::TooLarge if sent <= 1 => {
                self.in_flight.clear();
                self.settled(0, sent)
            }
            Answer::TooLarge => {
                self.put_back();
                self.halve();
                Settled {
                    again: true,
                    ..Settled::default()
                }
            }
            Answer::Later(told_ms) => {
                self.put_back();
                self.backoff.fail(now_ms, *told_ms, random);
                Settled {
                    again: true,
                    ..Settled::default()
                }
            }
        }
    }

    fn settled(&mut self, delivered: u64, dropped: u64) -> Settled {
        self.dropped += dropped;
        Settled {
            delivered,
            dropped,
            again: false,
        }
    }

    /// Half of what was just too large, at least one.
    fn halve(&mut self) {
        self.batch_max = (self.batch_max.min(self.waiting()) / 2).max(1);
    }

    /// The batch on its way waits again, before what came later.
    fn put_back(&mut self) {
        for report in self.in_flight.drain(..).rev() {
            let rank = rank(&report.body) as usize;
            if let Some(queue) = self.queues.get_mut(rank) {
                queue.push_front(report);
            }
        }
    }
}

#[cfg(test)]
mod tests;
