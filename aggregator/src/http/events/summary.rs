//! Where an event stands, in a sentence or two: what an operator reads first. The details stand below it.

use kaeru_flow::{Effect, Rule, Standing, Step, Trace};
use kaeru_protocol::{Outcome, Peer};

use super::story::{Seen, Story};
use crate::clock::timestamp;
use crate::http::time::Time;
use crate::http::words::{count, listed};
use crate::http::{decisions, modes};

/// The sentences.
pub(super) fn summary(story: &Story) -> String {
    let mut sentences = Vec::new();
    let standing = story.decision.as_ref().map(decisions::Story::standing);
    match (&story.decision, standing) {
        (Some(decision), Some(Standing::Live | Standing::Contested)) => {
            sentences.extend(rolling_back(decision));
            sentences.push(modes::sentence(story.mode, story.breaker.as_ref()));
        }
        (_, Some(Standing::Withdrawn(withdrawal))) => {
            sentences.push(format!(
                "A rollback was decided, and taken back by {}: {}.",
                withdrawal.by, withdrawal.reason
            ));
            sentences.push(undecided(story));
        }
        (None, _) | (_, None) => sentences.push(undecided(story)),
    }
    if story.seen.is_none() {
        sentences.push("Its reports are no longer kept.".to_owned());
    }
    sentences.join(" ")
}

fn rolling_back(decision: &decisions::Story) -> Vec<String> {
    let services = decision.services_to_undo();
    let mut sentences = vec![format!(
        "It must be rolled back: {}. {} something to undo.",
        decision.reason(),
        count(services, "service has", "services have")
    )];
    if decision.standing() == &Standing::Contested {
        sentences.push(
            "Its entry succeeded after that was decided, so it is contested: undo waits for a person."
                .to_owned(),
        );
    }
    sentences
}

/// Of an event without a decision in force.
fn undecided(story: &Story) -> String {
    let shared = story.seen.as_ref().map_or_else(
        || {
            story
                .row
                .as_ref()
                .is_some_and(|row| row.shared)
                .then(String::new)
        },
        |seen| seen.trace.shared.map(|shared| format!(" ({shared})")),
    );
    if let Some(why) = shared {
        return format!(
            "Its id stands for more than one event{why}: it is shown and counted, and no rule applies to it."
        );
    }
    let state = story
        .row
        .as_ref()
        .map_or("running", |row| row.state.as_str());
    match (state, &story.seen) {
        ("succeeded", seen) => succeeded(seen.as_ref()),
        ("failed", seen) => failed(story, seen.as_ref()),
        ("abandoned", seen) => abandoned(seen.as_ref()),
        ("running", Some(seen)) if story.row.is_some() => running(seen),
        ("running", _) => "It was reported a moment ago, and was not looked at yet.".to_owned(),
        (other, _) => format!("It is {}.", other.replace('_', " ")),
    }
}

fn succeeded(seen: Option<&Seen>) -> String {
    let steps = || seen.into_iter().flat_map(|seen| &seen.trace.steps);
    let went_wrong: Vec<&Peer> = steps()
        .filter(|(_, step)| is_bad(step.outcome))
        .map(|(peer, _)| peer)
        .collect();
    let healed: Vec<&Peer> = steps()
        .filter(|(_, step)| !is_bad(step.outcome) && is_healed(step))
        .map(|(peer, _)| peer)
        .collect();
    match (went_wrong.as_slice(), healed.as_slice()) {
        ([], []) => "It succeeded: there is nothing to roll back.".to_owned(),
        ([], healed) => format!(
            "It succeeded: what failed at {} was tried again and succeeded, so there is nothing to roll back.",
            listed(healed)
        ),
        (wrong, _) => format!(
            "It succeeded although {} failed: its entry succeeded all the same, so there is nothing to roll back.",
            listed(wrong)
        ),
    }
}

fn failed(story: &Story, seen: Option<&Seen>) -> String {
    let Some(seen) = seen else {
        return "It failed, and was not rolled back.".to_owned();
    };
    let effects = effects(&seen.trace);
    let why = seen.judgement.considered.iter().find(|rule| rule.fired);
    if effects.is_empty() {
        let why = why.map_or_else(String::new, |rule| format!(" ({})", rule.why));
        return format!(
            "It failed{why}, and there is nothing to undo: no service of it had an effect."
        );
    }
    let event_type = seen.trace.event_type.as_ref();
    let policy = story
        .in_force
        .policy
        .for_event(event_type, seen.trace.entry.as_ref());
    let off: Vec<String> = Rule::ALL
        .into_iter()
        .filter(|rule| *rule != Rule::Learned && !policy.is_on(*rule))
        .map(|rule| format!("`{rule}`"))
        .collect();
    let off = if off.is_empty() {
        String::new()
    } else {
        format!(" (switched off: {})", listed(off))
    };
    format!(
        "It failed and is not rolled back, though {} something to undo: no rule that is on dooms it{off}.",
        have(&effects)
    )
}

fn abandoned(seen: Option<&Seen>) -> String {
    let effects = seen.map(|seen| effects(&seen.trace)).unwrap_or_default();
    let left = if effects.is_empty() {
        String::new()
    } else {
        format!(
            " What was done stays: {} something to undo.",
            have(&effects)
        )
    };
    format!("Its client went away before it was answered, which dooms nothing by itself.{left}")
}

fn running(seen: &Seen) -> String {
    let open: Vec<&Peer> = seen
        .trace
        .steps
        .iter()
        .filter(|(_, step)| step.is_open())
        .map(|(peer, _)| peer)
        .collect();
    if open.is_empty() {
        let again = seen.judgement.wake_ms.map_or_else(String::new, |ms| {
            format!("; it is looked at again at {}", Time(timestamp(ms)))
        });
        return format!("Nothing of it is open, and it is not settled yet{again}.");
    }
    let silent = match seen.out_of_touch.as_slice() {
        [] => return format!("It is running: {} not ended.", has(&open)),
        [one] => format!("the proxy of {one} is"),
        many => format!("the proxies of {} are", listed(many)),
    };
    format!(
        "It is running as far as is known: {} not ended, but {silent} out of touch. What is not heard is no evidence, and \
         dooms nothing unless the policy says so.",
        has(&open)
    )
}

/// The services that may have left something behind, and whose it is to undo.
fn effects(trace: &Trace) -> Vec<&Peer> {
    let steps = trace.steps.iter();
    steps
        .filter(|(_, step)| !step.external && !step.gateway && step.effect != Effect::No)
        .map(|(peer, _)| peer)
        .collect()
}

fn is_bad(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Failed | Outcome::Unknown)
}

/// Whether an attempt of it went wrong and another one did not.
fn is_healed(step: &Step) -> bool {
    let attempts = step.calls.iter().flat_map(|call| &call.attempts);
    attempts.into_iter().any(|attempt| is_bad(attempt.outcome))
}

fn has(peers: &[&Peer]) -> String {
    let verb = if peers.len() == 1 { "has" } else { "have" };
    format!("{} {verb}", listed(peers))
}

fn have(peers: &[&Peer]) -> String {
    let verb = if peers.len() == 1 {
        "has, or may have,"
    } else {
        "have, or may have,"
    };
    format!("{} {verb}", listed(peers))
}
