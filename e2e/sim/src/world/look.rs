//! One look at some events, as `decider/look.rs` of the aggregator takes it, over the database in memory. The fold, the
//! judgement, the lesson and what is told when are the real ones.

use std::collections::BTreeMap;

use kaeru_aggregator::logic::Occasion;
use kaeru_flow::{Flow, Heard, Now, Standing, Trace, judge};
use kaeru_protocol::{EventId, ReporterId, Verdict, VerdictEntry};

use crate::database::transaction::{Revision, Telling};
use crate::database::{Database, EventRow, Transaction};

/// How a verdict's end is counted from its event's last report, ms, and how decisions are named.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) verdict_idle_ms: u64,
}

/// Looks at these events within the transaction; says how many looks were taken. `decisions_made` numbers decisions.
pub(crate) fn look(
    database: &Database,
    transaction: &mut Transaction,
    names: &[EventId],
    setting: Setting,
    decisions_made: &mut u64,
) {
    let policy = database.policy();
    let now_ms = transaction.now_ms;
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    let mut traces: Vec<Trace> = Vec::new();
    for name in names {
        let facts = transaction.facts_of(database, &name);
        if facts.is_empty() {
            transaction.parked.push((name, None));
            continue;
        }
        traces.push(Trace::fold(name, facts, &policy));
    }
    let began_ms = traces.iter().map(Trace::may_have_begun_ms).min();
    let outages = database.outages();
    let losses = transaction.losses_since(database, began_ms.unwrap_or(now_ms));
    let heard: BTreeMap<ReporterId, Heard> = traces
        .iter()
        .flat_map(Trace::open_reporters)
        .filter_map(|id| Some((id, transaction.heard(database, id)?)))
        .collect();
    for trace in traces {
        let before = database.last_decision(&trace.event);
        let flow = trace
            .event_type
            .as_ref()
            .and_then(|name| database.flows.get(name));
        let now = Now {
            at_ms: now_ms,
            heard: &heard,
            outages: &outages,
            losses: &losses,
        };
        let judgement = judge(
            &trace,
            before.map(super::super::database::Stored::last),
            flow,
            &policy,
            &now,
        );
        let mode = policy
            .for_event(trace.event_type.as_ref(), trace.entry.as_ref())
            .mode();
        let decided = judgement.decision.clone();
        // A first revision is a decision of its own, though an earlier one was withdrawn.
        let revised = before.filter(|_| decided.as_ref().is_none_or(|d| d.revision > 1));
        let id = match revised {
            Some(before) => Some((before.id.clone(), before.event_type.clone())),
            None => decided.as_ref().and_then(|_| {
                *decisions_made += 1;
                let id = format!("d-{decisions_made}").parse().ok()?;
                Some((id, trace.event_type.clone()))
            }),
        };
        let occasion = Occasion {
            is_decided_now: decided.is_some(),
            mode,
            told: database
                .feed
                .get(&trace.event)
                .map(|row| (row.entry.mode, row.expires_ms)),
            last_received_ms: trace.last_received_ms,
            verdict_idle_ms: setting.verdict_idle_ms,
            now_ms,
        };
        if let Some((id, event_type)) = id
            && let Some(holds) = decided
                .as_ref()
                .or(before.map(super::super::database::Stored::last))
            && let Some(expires_ms) = occasion.tell_until_ms(holds.is_in_force())
        {
            let verdict = match holds.standing {
                Standing::Withdrawn(_) => Verdict::Proceed,
                Standing::Live | Standing::Contested => Verdict::RollBack,
            };
            transaction.tellings.push(Telling {
                entry: VerdictEntry {
                    event: trace.event.clone(),
                    verdict,
                    decision: id.clone(),
                    failed: holds.reason.failed().cloned(),
                    mode,
                    ttl_ms: 0,
                },
                event_type: event_type.clone(),
                expires_ms,
            });
            if let Some(decision) = decided {
                transaction.revisions.push(Revision {
                    event: trace.event.clone(),
                    id,
                    event_type,
                    decision,
                });
            }
        }
        let was_learned = database
            .events
            .get(&trace.event)
            .is_some_and(|row| row.learned);
        let lesson = (judgement.settled && !was_learned)
            .then(|| Flow::of(&trace, judgement.state))
            .flatten();
        let row = EventRow {
            state: judgement.state,
            shared: trace.shared.is_some(),
            learned: was_learned || lesson.is_some(),
            began_ms: trace.first_ms,
            last_received_ms: trace.last_received_ms,
            entry: trace.entry.clone(),
            wake_ms: judgement.wake_ms,
        };
        if let Some(lesson) = lesson {
            transaction
                .lessons
                .entry(lesson.event_type.clone())
                .or_insert_with(|| Flow::new(lesson.event_type.clone()))
                .add(&lesson);
        }
        transaction.looked.push((trace.event.clone(), row));
    }
}
