//! An operator: demands that an event be rolled back, takes a decision back, changes the policy, sends an undo.

use kaeru_aggregator::logic::withdrawn;
use kaeru_protocol::{EventId, EventReport, Kind, Verdict, VerdictEntry};

use super::World;
use crate::database::transaction::{Revision, Telling};
use crate::database::{Lock, Work};
use crate::truth::Demand;

impl World {
    /// Whatever the operator thinks of next.
    pub(super) fn act(&mut self) {
        if self.database.is_away || self.database.events.is_empty() {
            return;
        }
        let up: Vec<usize> = (0..self.aggregators.len())
            .filter(|a| self.aggregators[*a].is_up)
            .collect();
        if up.is_empty() {
            return;
        }
        let aggregator = *self.chance.of(&up);
        let events: Vec<EventId> = self.database.events.keys().cloned().collect();
        let event = self.chance.of(&events).clone();
        let is_doomed = self
            .database
            .last_decision(&event)
            .is_some_and(|stored| stored.last().is_in_force());
        let is_shared = self
            .database
            .events
            .get(&event)
            .is_some_and(|row| row.shared);
        if is_doomed {
            self.withdraw(aggregator, &event);
        } else if !is_shared {
            self.demand(aggregator, event);
        }
    }

    fn demand(&mut self, aggregator: usize, event: EventId) {
        self.tally.count("operator demands");
        self.tell(|| format!("{event}: an operator demands its rollback"));
        let mut report = EventReport::new(event.clone(), Kind::Operator);
        report.detail = Some("alice: stop it".into());
        let at_ms = self.now_ms;
        self.truth.demands.push(Demand { event, at_ms });
        self.state(aggregator, report);
    }

    fn withdraw(&mut self, aggregator: usize, event: &EventId) {
        let now_ms = self.aggregator_ms(aggregator);
        let locks = vec![Lock::Event(event.clone())];
        let Some(mut transaction) =
            self.database
                .begin(aggregator, (self.now_ms, now_ms), Work::Withdraw, locks)
        else {
            return;
        };
        let Some(stored) = self.database.last_decision(event) else {
            return;
        };
        self.tally.count("operator withdraws");
        let decision = withdrawn(
            stored.last().clone(),
            "bob".into(),
            "it was right".into(),
            now_ms,
        );
        let mode = self.database.feed.get(event).map_or_else(
            || self.database.mode(stored.event_type.as_ref(), None),
            |row| row.entry.mode,
        );
        transaction.tellings.push(Telling {
            entry: VerdictEntry {
                event: event.clone(),
                verdict: Verdict::Proceed,
                decision: stored.id.clone(),
                failed: decision.reason.failed().cloned(),
                mode,
                ttl_ms: 0,
            },
            event_type: stored.event_type.clone(),
            expires_ms: now_ms + self.shape.verdict_idle_ms,
        });
        transaction.revisions.push(Revision {
            event: event.clone(),
            id: stored.id.clone(),
            event_type: stored.event_type.clone(),
            decision,
        });
        transaction.added.push((now_ms, vec![event.clone()]));
        self.truth.withdrawals.push((event.clone(), self.now_ms));
        self.set_out(transaction);
    }

    /// The policy changes.
    pub(super) fn change_policy(&mut self) {
        if self.database.is_away {
            return;
        }
        let chance = &mut self.chance;
        let mut what = "";
        self.database
            .change_policy(|policy| what = crate::shape::change(policy, chance));
        self.tally.count(&format!("policy changes: {what}"));
        self.tell(|| format!("! policy changes: {what}"));
    }
}
