//! The fold: facts in any order, any number of times, become one trace.
//!
//! Facts are put in one order first (by key), so everything after may depend on order freely.

use std::collections::{BTreeMap, BTreeSet};

use kaeru_protocol::{EventId, EventType, Kind, Outcome, Peer, ServiceName, Side, Word};

use super::{
    Attempt, CallTrace, Cleanup, Deadline, Demand, Effect, Open, RefusalSeen, SeenBy, Shared, Step,
    Trace, UndoSeen, WordSaid, effects,
};
use crate::{Fact, Policy, ReportKey};

/// Services of one event; above it the id is shared.
const SERVICES_MAX: usize = 256;

/// Attempts that callees reported, by callee, caller, the caller's `t` and the method (which no route rewrites).
type HeardRequests = BTreeMap<(Peer, ServiceName, Option<u64>, Box<str>), u32>;

impl Trace {
    /// All that `facts` say of `event`, with outcomes and effects as `policy` reads them.
    pub fn fold(event: EventId, facts: impl IntoIterator<Item = Fact>, policy: &Policy) -> Self {
        let facts: BTreeMap<ReportKey, Fact> = facts
            .into_iter()
            .filter(|f| f.report.event == event)
            .map(|f| (f.key, f))
            .collect();
        let mut trace = Self {
            event,
            event_type: None,
            borrowed: facts.values().any(|f| f.report.borrowed),
            shared: None,
            entry: None,
            steps: BTreeMap::new(),
            first_ms: facts.values().map(Fact::began_ms).min().unwrap_or(0),
            last_ms: facts.values().map(|f| f.at_ms).max().unwrap_or(0),
            began_received_ms: facts
                .values()
                .map(Fact::began_received_ms)
                .min()
                .unwrap_or(0),
            last_received_ms: facts.values().map(|f| f.received_ms).max().unwrap_or(0),
            reports: facts.len(),
            deadline: None,
            demands: Vec::new(),
            refusals: Vec::new(),
            cleanups: Vec::new(),
            undos: Vec::new(),
        };
        let mut calls_seen = Vec::new();
        for fact in facts.values() {
            match fact.report.kind {
                Kind::Attempt | Kind::Running => trace.take_attempt(fact),
                Kind::Call => calls_seen.push(fact),
                Kind::Word => trace.take_word(fact),
                Kind::Refused | Kind::WouldRefuse => trace.take_refusal(fact),
                Kind::Cleanup => trace.take_cleanup(fact),
                Kind::Undo => trace.take_undo(fact),
                Kind::Operator => trace.demands.push(Demand {
                    key: fact.key,
                    words: fact.report.detail.clone().unwrap_or_default(),
                    received_ms: fact.received_ms,
                }),
            }
        }
        // Callers' views last: they count only where the callee said nothing of the same request.
        let heard = trace.heard_requests();
        for fact in calls_seen {
            trace.take_call(fact, &heard);
        }
        trace.take_progress(facts.values());
        trace.put_in_order();
        trace.event_type = event_type(facts.values(), &trace);
        trace.deadline = deadline(facts.values());
        effects::judge(&mut trace, policy);
        let reports_max = policy
            .for_event(trace.event_type.as_ref(), trace.entry.as_ref())
            .reports_max();
        trace.shared = if trace.steps.len() > SERVICES_MAX {
            Some(Shared::TooManyServices)
        } else if trace.reports > reports_max {
            Some(Shared::TooManyReports)
        } else if trace.borrowed && has_second_entry(&trace) {
            Some(Shared::SecondEntry)
        } else {
            None
        };
        trace
    }

    fn step(&mut self, peer: Peer) -> &mut Step {
        self.steps.entry(peer).or_insert_with_key(|peer| Step {
            external: peer.is_external(),
            gateway: false,
            reported: false,
            handed_over: true,
            calls: Vec::new(),
            word: None,
            parents: BTreeSet::new(),
            progress: None,
            cost: None,
            outcome: Outcome::Succeeded,
            effect: Effect::No,
        })
    }

    /// The service's own view of an attempt: its running reports and its end are one attempt.
    fn take_attempt(&mut self, fact: &Fact) {
        let report = &fact.report;
        let step = self.step(fact.service.clone().into());
        step.gateway |= fact.gateway;
        step.reported = true;
        step.handed_over &= report.handed_over;
        if let Some(parent) = &report.call.from {
            step.parents.insert(parent.clone().into());
        }
        if let Some(cost) = report.cost {
            *step.cost.get_or_insert(0.0) += cost;
        }
        if let Some(word) = report.word() {
            step.hear(word, fact);
        }
        let first = ReportKey {
            reporter: fact.key.reporter,
            seq: report.opened.unwrap_or(fact.key.seq),
        };
        let open = (report.kind == Kind::Running).then(|| Open::Request {
            due_ms: report.due_ms.unwrap_or(0),
        });
        let call = step.call(fact, report.call.from.as_ref());
        // Facts come in the order of their sequences; only a later report of an attempt names its first.
        let known = report
            .opened
            .and_then(|_| call.attempts.iter_mut().rev().find(|a| a.key == first));
        match known {
            // An end stays an end.
            Some(known) if known.open.is_some() => {
                known.open = open;
                known.ending = report.ending;
                known.duration_ms = report.duration_ms;
                known.received_ms = fact.received_ms;
                known.sent_ms = known.sent_ms.or(report.sent_ms);
            }
            Some(_) => {}
            None => call.attempts.push(Attempt {
                key: first,
                open,
                ..fact.attempt(SeenBy::Service)
            }),
        }
    }

    /// The caller's view of a call: it stands where the callee said nothing of the same request, or where the
    /// callee heard fewer attempts than were made.
    fn take_call(&mut self, fact: &Fact, heard: &HeardRequests) {
        let report = &fact.report;
        let Some(to) = report.call.to.clone() else {
            return;
        };
        let caller = &fact.service;
        let method = report.call.method.clone();
        let request = (to.clone(), caller.clone(), report.sent_ms, method);
        if heard
            .get(&request)
            .is_some_and(|count| *count >= report.attempt)
        {
            return;
        }
        let step = self.step(to);
        step.handed_over &= report.handed_over;
        step.parents.insert(caller.clone().into());
        let attempt = fact.attempt(SeenBy::Caller);
        step.call(fact, Some(caller)).attempts.push(attempt);
    }

    /// How many attempts of each request the callee itself reported.
    fn heard_requests(&self) -> HeardRequests {
        let mut heard = HeardRequests::new();
        for (peer, step) in &self.steps {
            for call in &step.calls {
                let Some(caller) = &call.from else { continue };
                for attempt in &call.attempts {
                    let method = call.method.clone();
                    let request = (peer.clone(), caller.clone(), attempt.sent_ms, method);
                    *heard.entry(request).or_default() += 1;
                }
            }
        }
        heard
    }

    fn take_word(&mut self, fact: &Fact) {
        let Some(word) = fact.report.word() else {
            return;
        };
        let step = self.step(fact.service.clone().into());
        step.gateway |= fact.gateway;
        step.handed_over &= fact.report.handed_over;
        step.hear(word, fact);
    }

    /// How far each service is, as it said last: its words may come by several reporters.
    fn take_progress<'a>(&mut self, facts: impl Iterator<Item = &'a Fact>) {
        let mut said: Vec<&Fact> = facts.filter(|f| f.report.progress.is_some()).collect();
        said.sort_by_key(|f| (f.at_ms, f.key));
        for fact in said {
            if let Some(step) = self.steps.get_mut(&Peer::from(fact.service.clone())) {
                step.progress = fact.report.progress;
            }
        }
    }

    fn take_refusal(&mut self, fact: &Fact) {
        let report = &fact.report;
        self.refusals.push(RefusalSeen {
            key: fact.key,
            service: fact.service.clone(),
            side: report.side,
            from: report.call.from.clone(),
            to: report.call.to.clone(),
            method: report.call.method.clone(),
            path: report.call.path.clone(),
            at_ms: fact.at_ms,
            enforced: report.kind == Kind::Refused,
        });
    }

    fn take_cleanup(&mut self, fact: &Fact) {
        let report = &fact.report;
        self.cleanups.push(Cleanup {
            key: fact.key,
            service: fact.service.clone(),
            side: report.side,
            method: report.call.method.clone(),
            path: report.call.path.clone(),
            at_ms: fact.at_ms,
            ending: report.ending,
        });
    }

    fn take_undo(&mut self, fact: &Fact) {
        let report = &fact.report;
        if report.side == Side::Inbound {
            self.undos.push(UndoSeen {
                key: fact.key,
                service: fact.service.clone(),
                decision: report.decision.clone(),
                method: report.call.method.clone(),
                path: report.call.path.clone(),
                at_ms: fact.at_ms,
                ending: report.ending,
            });
        }
    }

    /// Attempts and calls in the order of their beginning, lists in the order of their time; the entry found.
    fn put_in_order(&mut self) {
        for step in self.steps.values_mut() {
            for call in &mut step.calls {
                call.attempts.sort_by_key(|a| (a.began_ms, a.key));
            }
            step.calls
                .sort_by_key(|c| c.attempts.first().map(|a| (a.began_ms, a.key)));
        }
        self.demands.sort_by_key(|d| (d.received_ms, d.key));
        self.refusals.sort_by_key(|r| (r.at_ms, r.key));
        self.cleanups.sort_by_key(|c| (c.at_ms, c.key));
        self.undos.sort_by_key(|u| (u.at_ms, u.key));
        // The call that began the event: the earliest unsafe one that nobody in the mesh made, else the
        // earliest safe one. A call that left a pod past its filter names no caller either: first comes a service
        // that nobody else called for this event.
        let is_called = |peer: &Peer, step: &Step| step.parents.iter().any(|p| p != peer);
        self.entry = self
            .steps
            .iter()
            .flat_map(|(peer, step)| step.calls.iter().map(move |call| (peer, step, call)))
            .filter(|(_, _, call)| call.from.is_none())
            .min_by_key(|(peer, step, call)| {
                (
                    call.is_safe(),
                    is_called(peer, step),
                    call.attempts.first().map(|a| a.began_ms),
                    *peer,
                )
            })
            .map(|(peer, _, _)| peer.clone());
    }
}

impl Step {
    fn call(&mut self, fact: &Fact, from: Option<&ServiceName>) -> &mut CallTrace {
        let call = &fact.report.call;
        let same = |c: &CallTrace| {
            c.from.as_ref() == from && c.method == call.method && c.path == call.path
        };
        let index = self.calls.iter().position(same).unwrap_or_else(|| {
            self.calls.push(CallTrace {
                from: from.cloned(),
                method: call.method.clone(),
                path: call.path.clone(),
                attempts: Vec::new(),
                outcome: Outcome::Running,
                effect: Effect::No,
            });
            self.calls.len() - 1
        });
        &mut self.calls[index]
    }

    /// Keeps the latest word, by the service's clock.
    fn hear(&mut self, word: Word, fact: &Fact) {
        let said = WordSaid {
            word,
            key: fact.key,
            at_ms: fact.at_ms,
            received_ms: fact.received_ms,
        };
        if self
            .word
            .is_none_or(|known| (known.at_ms, known.key) < (said.at_ms, said.key))
        {
            self.word = Some(said);
        }
    }
}

impl Fact {
    fn began_ms(&self) -> u64 {
        self.at_ms
            .saturating_sub(u64::from(self.report.duration_ms))
    }

    fn began_received_ms(&self) -> u64 {
        self.received_ms
            .saturating_sub(u64::from(self.report.duration_ms))
    }

    fn attempt(&self, seen_by: SeenBy) -> Attempt {
        Attempt {
            key: self.key,
            seen_by,
            sent_ms: self.report.sent_ms,
            began_ms: self.began_ms(),
            duration_ms: self.report.duration_ms,
            number: self.report.attempt,
            ending: self.report.ending,
            received_ms: self.received_ms,
            open: None,
            outcome: Outcome::Running,
            effect: Effect::No,
            fatal: None,
        }
    }
}

/// The type that a header said first, else the entry's call. Facts come in the order of their keys.
fn event_type<'a>(facts: impl Iterator<Item = &'a Fact>, trace: &Trace) -> Option<EventType> {
    facts
        .filter(|f| f.report.call.event_type.is_some())
        .min_by_key(|f| (f.report.call.from.is_some(), f.at_ms, f.key))
        .and_then(|f| f.report.call.event_type.clone())
        .or_else(|| {
            let call = trace.entry_call()?;
            format!("{} {} {}", call.method, trace.entry.as_ref()?, call.path)
                .parse()
                .ok()
        })
}

/// When the time given at the entry is up: counted back from when each report of the entry was received.
fn deadline<'a>(facts: impl Iterator<Item = &'a Fact>) -> Option<Deadline> {
    facts
        .filter(|f| f.report.call.from.is_none())
        .filter_map(|f| {
            let given_ms = u64::from(f.report.deadline_s?) * 1_000;
            Some(Deadline {
                at_ms: f.began_received_ms() + given_ms,
                given_ms,
                key: f.key,
            })
        })
        .min_by_key(|d| (d.at_ms, d.key))
}

/// Whether there is a second unsafe entry that is no retry. A retry begins after every earlier attempt of the
/// same call ended without success. Attempts that overlap are not retries: taking them for two events spares
/// both, the other way round would doom one for the other. That an open one overlaps is known only as far as it
/// was heard of: its end may be on its way.
fn has_second_entry(trace: &Trace) -> bool {
    let mut unsafe_entries = trace
        .steps
        .values()
        .flat_map(|step| &step.calls)
        .filter(|call| call.from.is_none() && !call.is_safe());
    let Some(call) = unsafe_entries.next() else {
        return false;
    };
    let overlapping = call
        .attempts
        .windows(2)
        .any(|pair| pair[0].outcome == Outcome::Succeeded || pair[0].ended_ms() > pair[1].began_ms);
    unsafe_entries.next().is_some() || overlapping
}
