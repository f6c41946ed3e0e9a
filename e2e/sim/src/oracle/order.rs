//! The order of a plan against what really called what, and what really came after what.

use std::collections::BTreeSet;

use kaeru_flow::Decision;
use kaeru_protocol::{EventId, Peer};

use super::Condition;
use crate::truth::Try;
use crate::world::World;

impl World {
    /// No service is undone before its callee, nor an earlier sibling before a later one, unless they are in one circle.
    pub(crate) fn judge_order(&mut self, event: &EventId, decision: &Decision) {
        let count = self.shape.services.len();
        let tries: Vec<Try> = self
            .tries(event)
            .filter(|one| self.is_stored(one))
            .cloned()
            .collect();
        let all_heard = self
            .tries(event)
            .all(|one| self.is_stored(one) || one.service.is_none());
        if !all_heard {
            return;
        }
        let mut below = vec![vec![false; count]; count];
        for one in &tries {
            // Past a dead filter nobody learns who called.
            if let (Some(from), Some(to), Some(_)) = (one.from, one.service, one.caller) {
                below[from][to] = true;
            }
        }
        close(&mut below);
        let mut before = vec![vec![false; count]; count];
        for caller in 0..count {
            for callee in 0..count {
                if caller != callee && below[caller][callee] {
                    before[callee][caller] = true;
                }
            }
        }
        for (earlier, later) in siblings(&tries, count) {
            if below[earlier][later] || below[later][earlier] {
                continue;
            }
            before[later][earlier] = true;
        }
        close(&mut before);
        let goes_first = |a: &Peer, b: &Peer| follows(decision, b).contains(a);
        for first in 0..count {
            for second in 0..count {
                if first == second || !before[first][second] || before[second][first] {
                    continue;
                }
                let (a, b) = (self.peer(first), self.peer(second));
                let planned =
                    |peer: &Peer| decision.plan.entries.iter().any(|e| e.service == *peer);
                if planned(&a) && planned(&b) && goes_first(&b, &a) {
                    let words = format!("{event}: {b} is undone before {a}");
                    self.oracle.fail(Condition::WrongOrder, words);
                }
                if planned(&a) && planned(&b) && below[second][first] {
                    let together = decision
                        .plan
                        .entries
                        .iter()
                        .any(|e| e.service == a && e.together.contains(&b));
                    if !together && !goes_first(&a, &b) {
                        let words = format!("{event}: {b} called {a}, and does not wait for it");
                        self.oracle.fail(Condition::WrongOrder, words);
                    } else {
                        self.tally.count("order: callee before caller");
                    }
                } else if planned(&a) && planned(&b) {
                    self.tally.count("order: later sibling before earlier");
                }
            }
        }
    }
}

/// Everything that must be undone before `peer`.
fn follows(decision: &Decision, peer: &Peer) -> BTreeSet<Peer> {
    let mut found: BTreeSet<Peer> = BTreeSet::new();
    let mut next = vec![peer.clone()];
    while let Some(one) = next.pop() {
        let entry = decision
            .plan
            .entries
            .iter()
            .find(|entry| entry.service == one);
        for earlier in entry.into_iter().flat_map(|entry| &entry.after) {
            if found.insert(earlier.clone()) {
                next.push(earlier.clone());
            }
        }
    }
    found
}

/// Services called by one parent, of which everything at the first was over before anything at the second began.
fn siblings(tries: &[Try], count: usize) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    for parent in 0..count {
        // Siblings are told apart by their parent's clock: by that of one of its pods.
        let of_parent = |t: &&Try| t.from == Some(parent) && t.caller.is_some();
        let mut pods: Vec<usize> = tries
            .iter()
            .filter(of_parent)
            .filter_map(|t| t.caller.map(|c| c.0))
            .collect();
        pods.dedup();
        if pods.len() > 1 {
            continue;
        }
        let span = |service: usize| {
            let here = tries
                .iter()
                .filter(of_parent)
                .filter(|t| t.service == Some(service));
            let times = here.map(|t| (t.sent_ms, t.ended.map_or(u64::MAX, |e| e.0)));
            times.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
        };
        for a in 0..count {
            for b in 0..count {
                if let (Some((_, ended)), Some((sent, _))) = (span(a), span(b))
                    && a != b
                    && ended <= sent
                {
                    pairs.push((a, b));
                }
            }
        }
    }
    pairs
}

fn close(relation: &mut [Vec<bool>]) {
    let count = relation.len();
    for middle in 0..count {
        let onward = relation[middle].clone();
        for from in relation.iter_mut().filter(|from| from[middle]) {
            for (reaches, further) in from.iter_mut().zip(&onward) {
                *reaches |= further;
            }
        }
    }
}
