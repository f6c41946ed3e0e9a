//! Each decision against the truth: was its event doomed by what really happened? What happened and was not heard counts
//! for the event, unless the network or a death kept it from being heard: never Kaeru's own outage.

mod silence;

mod entry;

use kaeru_flow::{Decision, Policy, Reason};
use kaeru_protocol::{Ending, EventId, EventType, Outcome, Peer, ReporterId, Word};

use super::Condition;
use crate::database::Transaction;
use crate::shape::EVENT_TYPE;
use crate::truth::{Said, Try, What};
use crate::world::World;

/// An aggregator that died is noticed after two seconds and a beat, ms.
const UNNOTICED_MS: u64 = 3_100;

/// What the truth says of a decision: right, or which condition is broken.
type Ruling = Result<(), (Condition, String)>;

impl World {
    /// A first revision was committed.
    pub(crate) fn judge_decision(
        &mut self,
        event: &EventId,
        decision: &Decision,
        transaction: &Transaction,
    ) {
        let policy = self.database.policies
            [usize::try_from(decision.policy_version).unwrap_or(1) - 1]
            .clone();
        let ruling = self.rule_on(event, decision, &policy, transaction);
        if let Err((condition, words)) = ruling {
            if self.has_wrong_clock(event) {
                return self
                    .tally
                    .count("excused: a clock set wrong by a late first batch");
            }
            let by_order = matches!(
                condition,
                Condition::EntryNotFailed | Condition::ClientWentAway | Condition::SharedDoomed
            );
            if by_order && self.has_near_clocks(event) {
                return self
                    .tally
                    .count("excused: order of attempts by clocks less than a second apart");
            }
            let by_call = matches!(
                condition,
                Condition::RuleIsOff
                    | Condition::EntryNotFailed
                    | Condition::NoEntry
                    | Condition::ClientWentAway
            );
            if by_call && self.left_unseen(event) {
                return self
                    .tally
                    .count("excused: a call past a dead filter looks like an entry");
            }
            self.oracle
                .fail(condition, format!("{event}: {words}; {}", decision.reason));
        }
    }

    fn rule_on(
        &mut self,
        event: &EventId,
        decision: &Decision,
        policy: &Policy,
        transaction: &Transaction,
    ) -> Ruling {
        let event_type = self.true_type(event);
        let rules = policy.for_event(event_type.as_ref(), None);
        let rule = decision.reason.rule();
        let is_typed_once = self
            .clients
            .iter()
            .filter(|client| client.event == *event)
            .count()
            <= 1;
        if !rules.is_on(rule) && is_typed_once {
            return Err((Condition::RuleIsOff, format!("{event_type:?}")));
        }
        let began_ms = transaction.began_ms;
        if self.is_shared(event, Some(began_ms)) {
            return Err((Condition::SharedDoomed, "its id is shared".into()));
        }
        match &decision.reason {
            Reason::Operator { .. } => self.was_demanded(event),
            Reason::Word { service } => self.was_said(event, service, policy, began_ms),
            Reason::Fatal { peer, .. } => self.was_fatal(event, peer, policy, began_ms),
            Reason::Entry { outcome, .. } => self.entry_failed(event, *outcome, policy),
            Reason::Deadline { given_ms } => self.was_late(event, *given_ms),
            Reason::Stalled { service, how } => {
                self.was_stalled(event, service, *how, policy, began_ms)
            }
            Reason::Learned { .. } => Err((Condition::RuleIsOff, "not in force yet".into())),
        }
    }

    /// The type that the event has, whoever has heard it.
    pub(crate) fn true_type(&self, event: &EventId) -> Option<EventType> {
        let client = self
            .clients
            .iter()
            .position(|client| client.event == *event)?;
        let order = &self.shape.orders[client];
        let entry = &self.shape.services[self.shape.entry];
        if self.clients[client].says_type(order) && !entry.is_gateway {
            return EVENT_TYPE.parse().ok();
        }
        let method = if order.is_safe { "GET" } else { "POST" };
        format!("{method} {} /orders", entry.name).parse().ok()
    }

    /// The tries of an event that count as attempts.
    pub(crate) fn tries<'a>(&'a self, event: &'a EventId) -> impl Iterator<Item = &'a Try> {
        self.truth
            .tries
            .iter()
            .filter(move |one| one.event == *event && one.kind == What::Attempt)
    }

    /// The tries by which the event began.
    pub(crate) fn entries<'a>(&'a self, event: &'a EventId) -> Vec<&'a Try> {
        let mut all: Vec<&Try> = self.tries(event).filter(|one| one.from.is_none()).collect();
        if all.iter().any(|one| !one.is_safe()) {
            all.retain(|one| !one.is_safe());
        }
        all.sort_by_key(|one| one.began_ms);
        all
    }

    /// How a try ended, as the policy reads it; `Running` while it is open.
    pub(crate) fn outcome(&self, one: &Try, policy: &Policy) -> Outcome {
        self.outcome_by(one, policy, None)
    }

    /// The same, by the words that were stored by that time.
    fn outcome_by(&self, one: &Try, policy: &Policy, stored_by_ms: Option<u64>) -> Outcome {
        let Some((_, mut ending)) = one.ended else {
            return Outcome::Running;
        };
        if let (Some(Word::Running), Some(service)) = (ending.word, one.service) {
            // Answered, and the work went on: the last word counts.
            ending.word = self
                .words_by(&one.event, service, stored_by_ms)
                .last()
                .map(|(_, word)| *word);
        }
        let peer = self.peer_of(one);
        policy
            .for_step(self.true_type(&one.event).as_ref(), &peer)
            .outcome(&ending)
    }

    /// Where a try was handled.
    pub(crate) fn peer_of(&self, one: &Try) -> Peer {
        match one.service {
            Some(service) => self.peer(service),
            None => external(),
        }
    }

    /// Whether the report with this sequence is stored.
    pub(crate) fn is_stored(&self, one: &Try) -> bool {
        let row = one.reporter.and_then(|id| self.database.reporters.get(&id));
        one.end_seq
            .is_some_and(|seq| row.is_some_and(|row| row.seqs.contains(&seq)))
    }

    /// Whether its last report was stored by that time.
    fn is_stored_by(&self, one: &Try, at_ms: u64) -> bool {
        let report = one.reporter.zip(one.end_seq);
        report.is_some_and(|report| self.is_report_stored_by(report, at_ms))
    }

    /// Whether a word by the status call was.
    fn is_word_stored_by(&self, said: &Said, at_ms: u64) -> bool {
        let report = said.heard;
        report.is_some_and(|report| self.is_report_stored_by(report, at_ms))
    }

    fn is_report_stored_by(&self, (id, seq): (ReporterId, u64), at_ms: u64) -> bool {
        let mut keys = self
            .database
            .keys
            .iter()
            .filter(|((_, of, s), _)| *of == id && *s == seq);
        keys.any(|(_, stored_ms)| *stored_ms < at_ms)
    }

    /// Whether any report of the try is stored: its end, or that it runs.
    pub(crate) fn is_heard(&self, one: &Try) -> bool {
        self.is_heard_by(one, u64::MAX)
    }

    /// Whether one was by that time.
    fn is_heard_by(&self, one: &Try, at_ms: u64) -> bool {
        let mut facts = self.database.facts.get(&one.event).into_iter().flatten();
        self.is_stored_by(one, at_ms)
            || facts.any(|fact| {
                Some(fact.key.reporter) == one.reporter
                    && fact.report.call.path.as_ref() == one.path
                    && fact.at_ms.saturating_sub(fact.report.duration_ms.into())
                        == one.began_here_ms
                    && self.is_report_stored_by((fact.key.reporter, fact.key.seq), at_ms)
            })
    }

    /// Whether the network, a death or an overflow kept what this try's VM said after `since_ms` from being heard.
    pub(crate) fn is_excused(&self, one: &Try, since_ms: u64) -> bool {
        if one.unseen_ms.is_some() {
            return true;
        }
        let Some(id) = one.reporter else { return true };
        if self.truth.dead.contains_key(&id) {
            return true;
        }
        if self.dropped_by(id) > 0 {
            return true;
        }
        self.was_hindered(id, since_ms) || self.died_unnoticed(since_ms)
    }

    /// Whether an aggregator died so shortly ago that nobody has noticed yet.
    fn died_unnoticed(&self, since_ms: u64) -> bool {
        let is_near = |at_ms: u64| at_ms >= since_ms && self.now_ms < at_ms + UNNOTICED_MS;
        self.truth
            .aggregators_died
            .iter()
            .any(|at_ms| is_near(*at_ms))
    }

    pub(crate) fn was_hindered(&self, id: ReporterId, since_ms: u64) -> bool {
        let times = self.truth.hindered.get(&id);
        let by_answer = times.is_some_and(|times| times.iter().any(|(_, to)| *to >= since_ms));
        let under_way = self
            .flights
            .iter()
            .rev()
            .take(400)
            .any(|flight| flight.reporter == id && flight.is_hindered());
        by_answer || under_way
    }

    fn dropped_by(&self, id: ReporterId) -> u64 {
        let Some((proxy, worker)) = self.truth.reporters.get(&id) else {
            return 0;
        };
        let vm = self.proxies[*proxy].workers[*worker].vm.as_ref();
        vm.map_or(0, |vm| vm.seen().dropped)
    }

    fn last_withdrawal_ms(&self, event: &EventId) -> Option<u64> {
        let of_event = self.truth.withdrawals.iter().filter(|(of, _)| of == event);
        of_event.map(|(_, at_ms)| *at_ms).max()
    }

    fn was_demanded(&self, event: &EventId) -> Ruling {
        let since_ms = self.last_withdrawal_ms(event);
        let mut demands = self.truth.demands.iter().filter(|d| d.event == *event);
        let slack_ms = 2 * self.shape.aggregators_apart_ms + 100;
        if demands.any(|d| since_ms.is_none_or(|since| d.at_ms + slack_ms >= since)) {
            return Ok(());
        }
        Err((Condition::NoDemand, "nobody demanded it".into()))
    }

    fn was_said(&self, event: &EventId, service: &Peer, policy: &Policy, began_ms: u64) -> Ruling {
        let by_call = self.truth.words.iter().any(|said| {
            said.event == *event && said.word == Word::Failed && self.peer(said.service) == *service
        });
        let in_answer = self.tries(event).any(|one| {
            self.peer_of(one) == *service
                && one
                    .ended
                    .is_some_and(|(_, ending)| ending.word == Some(Word::Failed))
        });
        if !by_call && !in_answer {
            return Err((Condition::NoWordFailed, "it was not said".into()));
        }
        self.concerns(event, service, policy, began_ms)
    }

    /// Whether a try was made at this peer, under its name or (as long as its callers have not learned it) its host's.
    fn is_at(&self, one: &Try, peer: &Peer) -> bool {
        let host = one
            .service
            .map(|service| format!("host:{}", self.shape.services[service].host));
        self.peer_of(one) == *peer || host.is_some_and(|host| host == peer.as_str())
    }

    fn was_fatal(&self, event: &EventId, peer: &Peer, policy: &Policy, began_ms: u64) -> Ruling {
        let event_type = self.true_type(event);
        let rules = policy.for_step(event_type.as_ref(), peer);
        let is_fatal = |ending: &Ending| rules.fatal(ending).is_some();
        let answered = self.tries(event).any(|one| {
            let is_own = one.ended.is_some_and(|(_, ending)| is_fatal(&ending));
            let is_seen =
                peer.is_external() && one.answered.is_some_and(|(_, ending)| is_fatal(&ending));
            self.is_at(one, peer) && (is_own || is_seen)
        });
        if !answered {
            return Err((Condition::NoFatalAnswer, "it was not answered".into()));
        }
        self.concerns(event, peer, policy, began_ms)
    }

    /// Whether a call for the event left a pod past a dead filter: its callee looks like an entry.
    pub(crate) fn left_unseen(&self, event: &EventId) -> bool {
        self.tries(event)
            .any(|one| one.from.is_some() && one.caller.is_none())
    }

    /// A failure in a branch that a queue handed over concerns the event only where the policy requires the branch,
    /// or where its entry could not be heard by that time.
    pub(crate) fn concerns(
        &self,
        event: &EventId,
        peer: &Peer,
        policy: &Policy,
        heard_by_ms: u64,
    ) -> Ruling {
        let entries = self.entries(event);
        let unheard =
            |one: &&Try| !self.is_heard_by(one, heard_by_ms) && self.is_excused(one, one.began_ms);
        if entries.iter().all(unheard) || self.is_reached(event, peer) {
            return Ok(());
        }
        let event_type = self.true_type(event);
        if policy.for_step(event_type.as_ref(), peer).is_required() || self.left_unseen(event) {
            return Ok(());
        }
        Err((
            Condition::BranchNotRequired,
            format!("{peer} is in a branch handed over"),
        ))
    }

    /// Whether calls lead from the entry to the peer.
    pub(crate) fn is_reached(&self, event: &EventId, peer: &Peer) -> bool {
        let mut reached: Vec<&Try> = self.tries(event).filter(|one| one.from.is_none()).collect();
        loop {
            let calls = |one: &Try| {
                reached
                    .iter()
                    .any(|caller| one.from.is_some() && one.from == caller.service)
            };
            let is_known = |one: &Try| reached.iter().any(|known| std::ptr::eq(*known, one));
            let more: Vec<&Try> = self
                .tries(event)
                .filter(|one| calls(one) && !is_known(one))
                .collect();
            if more.is_empty() {
                return reached.iter().any(|one| self.is_at(one, peer));
            }
            reached.extend(more);
        }
    }

    /// What a service said of an event, in its answers and by the status call, oldest first.
    pub(crate) fn words_of(&self, event: &EventId, service: usize) -> Vec<(u64, Word)> {
        self.words_by(event, service, None)
    }

    /// The same, of the words that were stored by that time.
    fn words_by(
        &self,
        event: &EventId,
        service: usize,
        stored_by_ms: Option<u64>,
    ) -> Vec<(u64, Word)> {
        let is_stored = |one: &&Try| stored_by_ms.is_none_or(|at_ms| self.is_stored_by(one, at_ms));
        let is_told =
            |said: &&Said| stored_by_ms.is_none_or(|at_ms| self.is_word_stored_by(said, at_ms));
        let in_answers = self
            .tries(event)
            .filter(|one| one.service == Some(service))
            .filter(is_stored)
            .filter_map(|one| {
                let (at_ms, ending) = one.ended?;
                Some((at_ms, ending.word?))
            });
        let by_call = self
            .truth
            .words
            .iter()
            .filter(|said| said.event == *event && said.service == service)
            .filter(is_told)
            .map(|said| (said.at_ms, said.word));
        let mut all: Vec<(u64, Word)> = in_answers.chain(by_call).collect();
        all.sort_by_key(|(at_ms, _)| *at_ms);
        all
    }
}

/// The host outside the mesh.
pub(crate) fn external() -> Peer {
    Peer::host(crate::shape::EXTERNAL.as_bytes()).unwrap_or_else(|_| unreachable!("a host"))
}
