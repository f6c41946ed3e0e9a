//! A decision in one paragraph: what was decided, by which rule, on what evidence and policy line, what there is to
//! undo, what changed since, and what it means for requests now.

use std::collections::HashMap;

use kaeru_flow::{Decision, Evidence, ReportKey, Rule, Standing};

use super::changes;
use super::story::Story;
use crate::http::grounds::Quote;
use crate::http::modes;
use crate::http::operator::OPERATOR;
use crate::http::time::Time;
use crate::http::words::{count, listed};
use crate::store::decisions::{Source, Stored};

/// Pieces of evidence that are told one by one; the list has them all.
const EVIDENCE_TOLD: usize = 3;

/// The paragraph.
pub(super) fn explanation(story: &Story) -> String {
    let stored = &story.stored;
    let decision = &stored.decision;
    let mut sentences = vec![decided(stored)];
    sentences.push(rule(decision.reason.rule()).to_owned());
    sentences.push(policy(story));
    sentences.push(evidence(stored, &story.sources));
    sentences.push(to_undo(decision));
    for pair in story.revisions.windows(2) {
        if let [before, after] = pair {
            sentences.push(format!(
                "Revision {}, at {}: {}.",
                after.decision.revision,
                Time(after.at),
                changes::between(&before.decision, &after.decision)
            ));
        }
    }
    sentences.push(match &decision.standing {
        Standing::Withdrawn(_) => {
            "It no longer holds: proxies were told to let the event proceed.".to_owned()
        }
        Standing::Live | Standing::Contested => modes::sentence(story.mode, story.breaker.as_ref()),
    });
    sentences.join(" ")
}

fn decided(stored: &Stored) -> String {
    let of_type = stored
        .event_type
        .as_ref()
        .map_or_else(String::new, |name| format!(" ({name})"));
    format!(
        "At {} it was decided that event {}{of_type} must be rolled back: {}.",
        Time::of_millis(stored.decision.decided_ms),
        stored.event,
        stored.decision.reason
    )
}

/// What of the policy it relied on.
fn policy(story: &Story) -> String {
    let quotes: Vec<String> = story.policy.iter().map(Quote::words).collect();
    if quotes.is_empty() {
        let version = story.stored.decision.policy_version;
        return format!("It needed no line of the policy (version {version} was in force).");
    }
    format!("It relied on {}.", quotes.join("; "))
}

/// What the rule that fired says.
fn rule(rule: Rule) -> &'static str {
    match rule {
        Rule::Operator => "The rule is `operator`: a person may demand a rollback.",
        Rule::Word => {
            "The rule is `word`: a service that takes part may say that no retry can help."
        }
        Rule::Fatal => {
            "The rule is `fatal`: the policy names statuses after which no retry can help."
        }
        Rule::Entry => {
            "The rule is `entry`: the call that began the event ended badly, and was not tried again in time."
        }
        Rule::Stalled => "The rule is `stalled`: a step that runs must be heard of.",
        Rule::Deadline => "The rule is `deadline`: the event's time was up while it still ran.",
        Rule::Learned => "The rule is `learned`: what failed has always failed the whole event.",
    }
}

fn evidence(stored: &Stored, sources: &HashMap<(String, ReportKey), Source>) -> String {
    let all = &stored.decision.evidence;
    let told: Vec<String> = all
        .iter()
        .take(EVIDENCE_TOLD)
        .map(|one| one_piece(one, sources.get(&(stored.id.to_string(), one.key))))
        .collect();
    let more = all.len().saturating_sub(told.len());
    let more = if more > 0 {
        format!("; and {more} more")
    } else {
        String::new()
    };
    format!(
        "It rests on {}: {}{more}.",
        count(all.len(), "report", "reports"),
        told.join("; ")
    )
}

fn one_piece(evidence: &Evidence, source: Option<&Source>) -> String {
    let Evidence { key, at_ms, text } = evidence;
    let at = Time::of_millis(*at_ms);
    match source {
        Some(source) if source.service == OPERATOR => format!("{text} (at {at}, by the API)"),
        Some(source) => format!(
            "{text} (at {at}, reported by {} beside {})",
            source.proxy, source.service
        ),
        None => format!("{text} (report {key})"),
    }
}

fn to_undo(decision: &Decision) -> String {
    let plan = &decision.plan;
    let todo = changes::todo(plan);
    let words = match todo.as_slice() {
        [] => "Nothing is left to undo".to_owned(),
        [one] => format!("There is something to undo in {one}"),
        many => format!(
            "There is something to undo in {}, in this order",
            listed(many)
        ),
    };
    match changes::incomplete(&plan.missing.iter().collect::<Vec<_>>()) {
        Some(incomplete) => format!("{words}; {incomplete}."),
        None => format!("{words}."),
    }
}
