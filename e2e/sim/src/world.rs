//! A world: services with their proxies, aggregators, one database, clients, an operator, and everything that can go wrong
//! between them. It runs on one agenda, in one thread, and draws every choice from its seed.

mod aggregators;
mod apps;
mod callouts;
mod clients;
mod faults;
mod hops;
pub(crate) mod look;
mod operator;
mod proxies;

use std::collections::BTreeMap;

use crate::agenda::Agenda;
use crate::chance::Chance;
use crate::database::{Database, Transaction};
use crate::oracle::Oracle;
use crate::shape::Shape;
use crate::story::Story;
use crate::tally::Tally;
use crate::truth::Truth;

pub(crate) use aggregators::Aggregator;
pub(crate) use apps::Job;
pub(crate) use callouts::Flight;
pub(crate) use clients::Client;
pub(crate) use faults::Blow;
pub(crate) use hops::Hop;
pub(crate) use proxies::{Proxy, Stream};

/// How long the world is run on after everything has healed, at most, ms.
pub(crate) const QUIET_MAX_MS: u64 = 120_000;
/// When no new work begins, and when faults end, ms after the beginning.
pub(crate) const ACTIVE_MS: u64 = 14_000;
pub(crate) const HEALED_MS: u64 = 18_000;

/// What happens next.
#[derive(Debug)]
pub(crate) enum Moment {
    /// A VM's root context ticks.
    Tick {
        proxy: usize,
        worker: usize,
        ticks: u32,
    },
    /// A client sends its order, for the so-many-th time.
    Send { client: usize },
    /// A client goes away.
    GoAway { hop: usize },
    /// A request arrives at its target's proxy.
    Arrive { hop: usize, tries: u32 },
    /// A connection breaks.
    Break { hop: usize, tries: u32 },
    /// An answer arrives at the caller.
    Answered { hop: usize, tries: u32 },
    /// The caller's proxy waits no longer.
    TimeOut { hop: usize },
    /// A job goes on.
    Work { job: usize },
    /// A consumer takes a message.
    Take { message: apps::Message },
    /// A batch or a poll arrives at an aggregator.
    Land { flight: usize, aggregator: usize },
    /// The answer to a VM's own call arrives.
    Reply {
        flight: usize,
        status: u16,
        body: Vec<u8>,
    },
    /// An aggregator's clockwork.
    Beat { aggregator: usize, lives: u32 },
    /// It looks for work.
    Decide { aggregator: usize, lives: u32 },
    /// It catches up with the feed.
    Follow { aggregator: usize, lives: u32 },
    /// It begins a transaction of the batches that wait.
    Store { aggregator: usize, lives: u32 },
    /// A held poll is over.
    PollOver {
        aggregator: usize,
        lives: u32,
        flight: usize,
    },
    /// A transaction has done its work and tells.
    Tell { transaction: u64 },
    /// A transaction commits.
    Commit { transaction: u64 },
    /// Something goes wrong.
    Strike(Blow),
    /// Something is well again.
    Heal(Blow),
    /// An aggregator that was leaving is gone.
    Left { aggregator: usize },
    /// An operator acts.
    Act,
    /// The policy changes.
    Policy,
    /// A consumer begins an event of its own.
    Cron,
    /// Is everything quiet?
    Look,
}

/// The world.
pub(crate) struct World {
    pub(crate) now_ms: u64,
    pub(crate) agenda: Agenda<Moment>,
    pub(crate) chance: Chance,
    pub(crate) shape: Shape,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) hops: Vec<Hop>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) clients: Vec<Client>,
    pub(crate) flights: Vec<Flight>,
    pub(crate) aggregators: Vec<Aggregator>,
    pub(crate) database: Database,
    pub(crate) transactions: BTreeMap<u64, Transaction>,
    pub(crate) decisions_made: u64,
    pub(crate) truth: Truth,
    pub(crate) oracle: Oracle,
    pub(crate) tally: Tally,
    pub(crate) story: Story,
    pub(crate) begins_ms: u64,
    is_over: bool,
}

impl World {
    /// The world of a seed, about to begin.
    pub(crate) fn new(seed: u64, tells: bool) -> Self {
        let mut chance = Chance::new(seed);
        let shape = Shape::draw(&mut chance);
        let begins_ms = shape.begins_ms;
        let mut world = Self {
            now_ms: begins_ms,
            agenda: Agenda::new(),
            database: Database::new(shape.policy.clone()),
            proxies: Vec::new(),
            hops: Vec::new(),
            jobs: Vec::new(),
            clients: Vec::new(),
            flights: Vec::new(),
            aggregators: Vec::new(),
            transactions: BTreeMap::new(),
            decisions_made: 0,
            truth: Truth::default(),
            oracle: Oracle::default(),
            tally: Tally::default(),
            story: Story::new(tells, begins_ms),
            begins_ms,
            is_over: false,
            chance,
            shape,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        let what = format!("topology {:?}", self.shape.topology);
        self.tally.count(&what);
        self.introduce();
        self.raise_proxies();
        self.raise_aggregators();
        self.greet_clients();
        self.plan_faults();
        for at_ms in self.shape.policy_changes_ms.clone() {
            self.at(at_ms, Moment::Policy);
        }
        for _ in 0..self.shape.operator_acts {
            let at_ms = self.chance.within(3_000..=16_000);
            self.at(at_ms, Moment::Act);
        }
        for _ in 0..self.shape.cron {
            let at_ms = self.chance.within(500..=8_000);
            self.at(at_ms, Moment::Cron);
        }
        self.at(HEALED_MS + 2_000, Moment::Look);
    }

    /// Runs to its end, or to the first thing that may not be.
    pub(crate) fn run(&mut self) {
        while !self.is_over && self.oracle.is_content() {
            let Some((at_ms, moment)) = self.agenda.next() else {
                break;
            };
            self.now_ms = at_ms;
            self.happen(moment);
        }
        if self.oracle.is_content() {
            self.judge_the_end();
        }
    }

    fn happen(&mut self, moment: Moment) {
        match moment {
            Moment::Tick {
                proxy,
                worker,
                ticks,
            } => self.tick(proxy, worker, ticks),
            Moment::Send { client } => self.send_order(client),
            Moment::GoAway { hop } => self.go_away(hop),
            Moment::Arrive { hop, tries } => self.arrive(hop, tries),
            Moment::Break { hop, tries } => self.break_off(hop, tries),
            Moment::Answered { hop, tries } => self.answered(hop, tries),
            Moment::TimeOut { hop } => self.time_out(hop),
            Moment::Work { job } => self.work(job),
            Moment::Take { message } => self.take_message(message),
            Moment::Land { flight, aggregator } => self.land(flight, aggregator),
            Moment::Reply {
                flight,
                status,
                body,
            } => self.reply(flight, status, &body),
            Moment::Beat { aggregator, lives } => self.beat(aggregator, lives),
            Moment::Decide { aggregator, lives } => self.decide(aggregator, lives),
            Moment::Follow { aggregator, lives } => self.follow(aggregator, lives),
            Moment::Store { aggregator, lives } => self.store_batches(aggregator, lives),
            Moment::PollOver {
                aggregator,
                lives,
                flight,
            } => {
                self.poll_over(aggregator, lives, flight);
            }
            Moment::Tell { transaction } => self.tell_transaction(transaction),
            Moment::Commit { transaction } => self.commit_transaction(transaction),
            Moment::Strike(blow) => self.strike(blow),
            Moment::Heal(blow) => self.heal(blow),
            Moment::Left { aggregator } => self.left(aggregator),
            Moment::Act => self.act(),
            Moment::Policy => self.change_policy(),
            Moment::Cron => self.cron(),
            Moment::Look => self.look_around(),
        }
    }

    /// What became of it.
    pub(crate) fn conclude_run(mut self) -> crate::Outcome {
        let failure = self.oracle.failure.take();
        if let Some(failure) = &failure {
            self.tell_books(&failure.words);
            self.story.tell(self.now_ms, || format!("!! {failure}"));
        }
        crate::Outcome {
            failure,
            tally: self.tally,
            story: self.story.take(),
        }
    }

    /// All that was truly done for the event that a failure names, and all that is stored of it.
    fn tell_books(&mut self, words: &str) {
        let named: Vec<_> = self
            .truth
            .tries
            .iter()
            .map(|one| one.event.clone())
            .collect();
        let Some(event) = named
            .into_iter()
            .find(|event| words.contains(event.as_str()))
        else {
            return;
        };
        let since = |ms: u64| ms.cast_signed() - self.begins_ms.cast_signed();
        let mut lines = Vec::new();
        for one in self.truth.tries.iter().filter(|one| one.event == event) {
            lines.push(format!(
                "truth: {} {} {:?} from {:?} by {:?} at {:?}, {} to {:?}, report {:?}, unseen {:?}",
                one.method,
                one.path,
                one.kind,
                one.from,
                one.caller.map(|(_, id)| id.to_string()),
                one.reporter.map(|id| id.to_string()),
                since(one.began_ms),
                one.ended.map(|(at_ms, ending)| (
                    since(at_ms),
                    ending.status,
                    ending.flags,
                    ending.word
                )),
                one.end_seq,
                one.unseen_ms.map(since),
            ));
        }
        for fact in self.database.facts_of(&event) {
            let report = &fact.report;
            lines.push(format!(
                "fact: {} {} {:?} {} {} from {:?} to {:?} status {:?} flags {} word {:?}, at {} took {} received {}",
                fact.key,
                fact.service,
                report.kind,
                report.call.method,
                report.call.path,
                report.call.from.as_ref().map(ToString::to_string),
                report.call.to.as_ref().map(ToString::to_string),
                report.ending.status,
                report.ending.flags,
                report.ending.word,
                since(fact.at_ms),
                report.duration_ms,
                since(fact.received_ms),
            ));
        }
        for line in lines {
            self.tell(|| line);
        }
    }

    /// Says what kind of world it is.
    fn introduce(&mut self) {
        let shape = self.shape.clone();
        self.tell(|| format!("{shape:#?}"));
    }

    /// Puts something on the agenda, so long after the beginning.
    pub(crate) fn at(&mut self, since_ms: u64, moment: Moment) {
        self.agenda.at(self.begins_ms + since_ms, moment);
    }

    /// Puts something on the agenda, so long from now.
    pub(crate) fn after(&mut self, wait_ms: u64, moment: Moment) {
        self.agenda.at(self.now_ms + wait_ms, moment);
    }

    /// How long this world is old, ms.
    pub(crate) fn age_ms(&self) -> u64 {
        self.now_ms - self.begins_ms
    }

    /// Tells what happens.
    pub(crate) fn tell(&mut self, line: impl FnOnce() -> String) {
        self.story.tell(self.now_ms, line);
    }

    /// Whether nothing more can come but by the clock; else looks again in a while.
    fn look_around(&mut self) {
        let waited_ms = self.age_ms().saturating_sub(HEALED_MS);
        if self.is_quiet() || waited_ms > QUIET_MAX_MS {
            if waited_ms > QUIET_MAX_MS {
                self.tally.count("end: not quiet");
            }
            self.is_over = true;
        } else {
            self.after(1_000, Moment::Look);
        }
    }

    fn is_quiet(&self) -> bool {
        let jobs_done = self.jobs.iter().all(Job::is_over);
        let hops_done = self.hops.iter().all(Hop::is_over);
        let nothing_due = self
            .database
            .events
            .values()
            .all(|row| row.wake_ms.is_none_or(|wake| wake > self.now_ms + 300_000));
        jobs_done
            && hops_done
            && self.transactions.is_empty()
            && self.database.intake.is_empty()
            && nothing_due
            && self.proxies_are_quiet()
            && self.feed_is_followed()
    }
}
