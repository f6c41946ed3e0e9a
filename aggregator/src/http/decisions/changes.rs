//! What changed from one revision of a decision to the next, in words.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use kaeru_flow::{Decision, Effect, Plan, PlanEntry, Standing};
use kaeru_protocol::Peer;

use crate::http::words::listed;

/// What the first revision said.
pub(super) fn first(decision: &Decision) -> String {
    let words = format!(
        "decided, with something to undo in {}",
        listed(todo(&decision.plan))
    );
    match incomplete(&decision.plan.missing.iter().collect::<Vec<_>>()) {
        Some(incomplete) => format!("{words}; {incomplete}"),
        None => words,
    }
}

/// What the later of two revisions changed.
pub(super) fn between(before: &Decision, after: &Decision) -> String {
    let mut changes = plans(&before.plan, &after.plan);
    if before.standing != after.standing {
        changes.push(standing(&after.standing));
    }
    if before.plan_policy_version != after.plan_policy_version {
        let version = after.plan_policy_version;
        changes.push(format!("read by policy version {version}"));
    }
    if changes.is_empty() {
        changes.push("nothing that is shown here".to_owned());
    }
    changes.join("; ")
}

/// How a decision came to stand.
fn standing(standing: &Standing) -> String {
    match standing {
        Standing::Live => "it holds again".to_owned(),
        Standing::Contested => {
            "contested: the entry succeeded after the decision, so undo waits for a person or the policy"
                .to_owned()
        }
        Standing::Withdrawn(withdrawal) => {
            format!("withdrawn by {}: {}", withdrawal.by, withdrawal.reason)
        }
    }
}

fn plans(before: &Plan, after: &Plan) -> Vec<String> {
    let known: BTreeMap<&Peer, &PlanEntry> =
        before.entries.iter().map(|e| (&e.service, e)).collect();
    let mut changes = Vec::new();
    let mut is_reordered = false;
    for entry in &after.entries {
        let service = &entry.service;
        match known.get(service) {
            None => changes.push(format!(
                "{service} joined the plan ({})",
                effect(entry.effect)
            )),
            Some(old) if old.effect != entry.effect => changes.push(effect_changed(old, entry)),
            Some(old) => is_reordered |= old.after != entry.after || old.together != entry.together,
        }
    }
    // A service that joins takes its place in the order of those before it: that goes without saying.
    if is_reordered && changes.is_empty() {
        changes.push("the order of undo changed".to_owned());
    }
    let missing: Vec<&Peer> = after.missing.difference(&before.missing).collect();
    changes.extend(incomplete(&missing));
    changes
}

fn effect_changed(old: &PlanEntry, new: &PlanEntry) -> String {
    let service = &new.service;
    match (old.effect, new.effect) {
        (_, Effect::No) => format!(
            "{service} was cleared: by its own report nothing is left to undo there (before: {})",
            effect(old.effect)
        ),
        (Effect::No, _) => format!(
            "{service} has something to undo after all ({})",
            effect(new.effect)
        ),
        _ => format!(
            "{service}: {} (before: {})",
            effect(new.effect),
            effect(old.effect)
        ),
    }
}

fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Yes => "it took effect",
        Effect::Maybe => "it may have taken effect",
        Effect::No => "no effect",
    }
}

/// That services may have more to undo than was heard.
pub(super) fn incomplete(missing: &[&Peer]) -> Option<String> {
    (!missing.is_empty()).then(|| {
        format!(
            "not everything was heard of {}, which may have more to undo",
            listed(missing.iter().copied())
        )
    })
}

/// The services that have something to undo, in an order that works.
pub(super) fn todo(plan: &Plan) -> Vec<&Peer> {
    let entries = plan.entries.iter();
    entries
        .filter(|entry| entry.effect != Effect::No)
        .map(|entry| &entry.service)
        .collect()
}
