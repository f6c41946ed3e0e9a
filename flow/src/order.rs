//! In which order steps are undone: a partial order over services.
//!
//! A callee is undone before its caller, a later sibling (and with it everything below) before an earlier one
//! and everything below that; siblings that overlapped in time are undone side by side. Siblings are told
//! apart by their parent's clock alone. Where the rules go round in a circle, its services are one group.

use std::collections::{BTreeMap, BTreeSet};

use kaeru_protocol::Peer;

use crate::Trace;

/// What must be undone before a service, and what together with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) after: BTreeSet<Peer>,
    pub(crate) together: BTreeSet<Peer>,
}

/// The place of each service in `wanted`, first to undo first. Services between them count for the order though
/// they are not wanted.
pub(crate) fn order(trace: &Trace, wanted: &BTreeSet<Peer>) -> Vec<(Peer, Place)> {
    let peers: Vec<&Peer> = trace
        .steps
        .iter()
        .flat_map(|(peer, step)| step.parents.iter().chain([peer]))
        .chain(wanted)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let index: BTreeMap<&Peer, usize> = peers.iter().enumerate().map(|(i, p)| (*p, i)).collect();

    // below[a][b]: a (transitively) calls b.
    let mut below = Relation::new(peers.len());
    for (peer, step) in &trace.steps {
        for parent in &step.parents {
            below.set(index[parent], index[peer]);
        }
    }
    below.close();

    // before[a][b]: a is undone before b.
    let mut before = Relation::new(peers.len());
    for a in 0..peers.len() {
        for b in 0..peers.len() {
            if below.has(a, b) && a != b {
                before.set(b, a);
            }
        }
    }
    for (earlier, later) in siblings(trace) {
        let (earlier, later) = (index[earlier], index[later]);
        if below.has(earlier, later) || below.has(later, earlier) {
            continue;
        }
        for node in 0..peers.len() {
            let under_earlier = node == earlier || below.has(earlier, node);
            let apart = node != later && !below.has(later, node) && !below.has(node, later);
            if under_earlier && apart {
                before.set(later, node);
            }
        }
    }
    before.close();
    place(&peers, &before, wanted)
}

/// Pairs of services called by the same parent, of which the first had ended before the second was called.
fn siblings(trace: &Trace) -> Vec<(&Peer, &Peer)> {
    let mut by_parent: BTreeMap<&str, BTreeMap<&Peer, (u64, u64)>> = BTreeMap::new();
    for (peer, step) in &trace.steps {
        for call in &step.calls {
            let Some(parent) = &call.from else { continue };
            for attempt in &call.attempts {
                let Some(sent) = attempt.sent_ms else {
                    continue;
                };
                let end = match attempt.open {
                    None => sent.saturating_add(u64::from(attempt.duration_ms)),
                    Some(_) => u64::MAX,
                };
                let span = by_parent
                    .entry(parent.as_str())
                    .or_default()
                    .entry(peer)
                    .or_insert((sent, end));
                *span = (span.0.min(sent), span.1.max(end));
            }
        }
    }
    let mut pairs = Vec::new();
    for children in by_parent.values() {
        for (a, (_, a_ended)) in children {
            for (b, (b_sent, _)) in children {
                if a != b && a_ended <= b_sent {
                    pairs.push((*a, *b));
                }
            }
        }
    }
    pairs
}

/// Restricts the order to `wanted`, leaves out what follows from the rest, and sorts.
fn place(peers: &[&Peer], before: &Relation, wanted: &BTreeSet<Peer>) -> Vec<(Peer, Place)> {
    let nodes: Vec<usize> = (0..peers.len())
        .filter(|i| wanted.contains(peers[*i]))
        .collect();
    let together = |a: usize, b: usize| a != b && before.has(a, b) && before.has(b, a);
    let strictly = |a: usize, b: usize| before.has(a, b) && !before.has(b, a);
    let mut placed: Vec<(usize, Peer, Place)> = nodes
        .iter()
        .map(|&node| {
            let earlier: Vec<usize> = nodes
                .iter()
                .copied()
                .filter(|&e| strictly(e, node))
                .collect();
            let implied = |e: usize| earlier.iter().any(|&between| strictly(e, between));
            let place = Place {
                after: earlier
                    .iter()
                    .filter(|&&e| !implied(e))
                    .map(|&e| peers[e].clone())
                    .collect(),
                together: nodes
                    .iter()
                    .filter(|&&other| together(node, other))
                    .map(|&other| peers[other].clone())
                    .collect(),
            };
            (earlier.len(), peers[node].clone(), place)
        })
        .collect();
    // What comes strictly earlier has strictly fewer before it.
    placed.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    placed
        .into_iter()
        .map(|(_, peer, place)| (peer, place))
        .collect()
}

/// A relation over at most 256 services (and their callers), as bits.
struct Relation {
    size: usize,
    words: usize,
    bits: Vec<u64>,
}

impl Relation {
    fn new(size: usize) -> Self {
        let words = size.div_ceil(64);
        Self {
            size,
            words,
            bits: vec![0; size * words],
        }
    }

    fn set(&mut self, a: usize, b: usize) {
        self.bits[a * self.words + b / 64] |= 1 << (b % 64);
    }

    fn has(&self, a: usize, b: usize) -> bool {
        self.bits[a * self.words + b / 64] & (1 << (b % 64)) != 0
    }

    /// Transitive closure (Warshall, rows as bit sets).
    fn close(&mut self) {
        for middle in 0..self.size {
            let row: Vec<u64> = self.bits[middle * self.words..(middle + 1) * self.words].to_vec();
            for a in 0..self.size {
                if self.has(a, middle) {
                    let start = a * self.words;
                    for (to, from) in self.bits[start..start + self.words].iter_mut().zip(&row) {
                        *to |= from;
                    }
                }
            }
        }
    }
}
