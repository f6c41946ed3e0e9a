//! Outcomes and effects of attempts, calls and steps, as a policy reads them.

use std::collections::BTreeSet;

use kaeru_protocol::{Outcome, Peer, ServiceName, Side, Word, is_safe_method};

use super::{Attempt, Cleanup, Effect, SeenBy, Step, Trace};
use crate::{Open, Policy, StepPolicy};

/// Fills in outcomes and effects.
pub(super) fn judge(trace: &mut Trace, policy: &Policy) {
    let event_type = trace.event_type.clone();
    for (peer, step) in &mut trace.steps {
        step_outcome(peer, step, &policy.for_step(event_type.as_ref(), peer));
    }
    pass_on_rejections(trace, policy);
    // A request away from a service undoes nothing of its own step.
    let inbound = |c: &&Cleanup| c.side == Side::Inbound;
    for cleanup in trace.cleanups.iter().filter(inbound) {
        let peer = Peer::from(cleanup.service.clone());
        let rules = policy.for_step(event_type.as_ref(), &peer);
        let undid = rules.undoes(&cleanup.method, &cleanup.path)
            && rules.outcome(&cleanup.ending) == Outcome::Succeeded;
        if let Some(step) = trace.steps.get_mut(&peer)
            && undid
            && !step.is_open()
            && step
                .calls
                .iter()
                .flat_map(|c| &c.attempts)
                .all(|a| a.began_ms <= cleanup.at_ms)
        {
            step.effect = Effect::No;
        }
    }
}

fn step_outcome(peer: &Peer, step: &mut Step, policy: &StepPolicy<'_>) {
    let word = step.word;
    let reported = step.reported;
    for call in &mut step.calls {
        let harmless = is_safe_method(&call.method)
            || policy.is_read_only(&call.method, &call.path)
            || policy.has_nothing_to_undo();
        for attempt in &mut call.attempts {
            if attempt.open.is_none() && attempt.ending.word == Some(Word::Running) {
                // Answered, and the work goes on until the service's next word.
                attempt.ending.word = word.map(|w| w.word);
                attempt.open = (attempt.ending.word == Some(Word::Running)).then_some(Open::Word);
            }
            attempt.outcome = match attempt.open {
                Some(_) => Outcome::Running,
                None => policy.outcome(&attempt.ending),
            };
            // An external host's statuses count as its caller saw them; a caller never speaks for a service.
            if attempt.open.is_none() && (attempt.seen_by == SeenBy::Service || peer.is_external())
            {
                attempt.fatal = policy.fatal(&attempt.ending);
            }
            attempt.effect = if harmless {
                Effect::No
            } else {
                attempt_effect(attempt, reported)
            };
        }
        // A caller's view of a service that spoke for itself can add a `maybe`, not an outcome.
        let counts = |a: &&Attempt| a.seen_by == SeenBy::Service || !reported;
        let best = |attempts: &mut dyn Iterator<Item = &Attempt>| attempts.map(|a| a.outcome).min();
        call.outcome = best(&mut call.attempts.iter().filter(counts))
            .or_else(|| best(&mut call.attempts.iter()))
            .unwrap_or(Outcome::Running);
        call.effect = call
            .attempts
            .iter()
            .map(|a| a.effect)
            .max()
            .unwrap_or_default();
    }
    let spoken = |call: &&super::CallTrace| {
        !reported || call.attempts.iter().any(|a| a.seen_by == SeenBy::Service)
    };
    let by_calls = step.calls.iter().filter(spoken).map(|c| c.outcome).max();
    let by_word = word.map(|w| w.word);
    // A word outside a request is work of its own; one in a response has been counted there.
    let word_outcome = by_word.filter(|_| by_calls.is_none() || by_word == Some(Word::Running));
    step.outcome = by_calls
        .into_iter()
        .chain(word_outcome.map(Word::outcome))
        .chain(by_word.filter(|w| *w == Word::Failed).map(Word::outcome))
        .max()
        .unwrap_or(Outcome::Succeeded);
    // Only its own proxy's view of its requests says what a word was about: a caller never takes one back.
    let word_effect = match by_word.filter(|_| !reported) {
        _ if policy.has_nothing_to_undo() => Effect::No,
        Some(Word::Succeeded) => Effect::Yes,
        Some(Word::Running | Word::Failed) => Effect::Maybe,
        Some(Word::Rejected) | None => Effect::No,
    };
    step.effect = step
        .calls
        .iter()
        .map(|c| c.effect)
        .max()
        .unwrap_or_default()
        .max(word_effect);
}

/// What an unsafe attempt may have left behind.
fn attempt_effect(attempt: &Attempt, reported: bool) -> Effect {
    match attempt.outcome {
        Outcome::Succeeded if attempt.seen_by == SeenBy::Caller && reported => Effect::Maybe,
        Outcome::Succeeded => Effect::Yes,
        Outcome::Running | Outcome::Unknown | Outcome::Failed => Effect::Maybe,
        Outcome::Refused | Outcome::Rejected => Effect::No,
    }
}

/// A rejection leaves no effect, unless an unsafe call that the service made for the event may have left one:
/// then it may pass on a failure from below. Callees' effects are not known before callers' are, so this
/// repeats until nothing changes; effects only grow, so it ends after at most one round per service.
fn pass_on_rejections(trace: &mut Trace, policy: &Policy) {
    loop {
        let left_below: BTreeSet<ServiceName> = trace
            .steps
            .values()
            .flat_map(|step| &step.calls)
            .filter(|call| call.effect != Effect::No)
            .filter_map(|call| call.from.clone())
            .collect();
        let mut changed = false;
        for (peer, step) in &mut trace.steps {
            let rules = policy.for_step(trace.event_type.as_ref(), peer);
            if rules.has_nothing_to_undo()
                || !left_below.iter().any(|s| s.as_str() == peer.as_str())
            {
                continue;
            }
            for call in &mut step.calls {
                if is_safe_method(&call.method) || rules.is_read_only(&call.method, &call.path) {
                    continue;
                }
                for attempt in &mut call.attempts {
                    // Envoy's own reply came before the service saw the request.
                    let by_service = attempt.ending.by_transport().is_none();
                    if attempt.outcome == Outcome::Rejected
                        && by_service
                        && attempt.effect == Effect::No
                    {
                        attempt.effect = Effect::Maybe;
                        call.effect = call.effect.max(Effect::Maybe);
                        step.effect = step.effect.max(Effect::Maybe);
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            return;
        }
    }
}
