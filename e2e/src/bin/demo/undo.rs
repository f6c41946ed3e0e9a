//! The plan as a person would do it: what is ready to be undone first, then what waited for it.

use kaeru_e2e::api::{Plan, PlanEntry};

/// The plan's entries in rounds: every entry's callees stand in an earlier round (or, in a cycle, in its own).
pub(crate) fn rounds(plan: &Plan) -> Vec<Vec<&PlanEntry>> {
    let mut left: Vec<&PlanEntry> = plan.entries.iter().collect();
    let mut rounds = Vec::new();
    while !left.is_empty() {
        let waits = |entry: &PlanEntry| {
            let after = |other: &&PlanEntry| entry.after.contains(&other.service);
            left.iter().any(after)
        };
        let (later, mut now): (Vec<_>, Vec<_>) = left.iter().partition(|entry| waits(entry));
        left = later;
        if now.is_empty() {
            now = std::mem::take(&mut left);
        }
        rounds.push(now);
    }
    rounds
}
