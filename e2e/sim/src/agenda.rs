//! What happens when: moments in the order of their time, and of their making where that is the same.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The agenda of a world.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    moments: BinaryHeap<Reverse<Moment<T>>>,
    made: u64,
}

#[derive(Debug)]
struct Moment<T> {
    at_ms: u64,
    made: u64,
    what: T,
}

impl<T> PartialEq for Moment<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.at_ms, self.made) == (other.at_ms, other.made)
    }
}

impl<T> Eq for Moment<T> {}

impl<T> PartialOrd for Moment<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Moment<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.made).cmp(&(other.at_ms, other.made))
    }
}

impl<T> Agenda<T> {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self {
            moments: BinaryHeap::new(),
            made: 0,
        }
    }

    /// Puts something on it.
    pub(crate) fn at(&mut self, at_ms: u64, what: T) {
        self.made += 1;
        self.moments.push(Reverse(Moment {
            at_ms,
            made: self.made,
            what,
        }));
    }

    /// Takes what comes next.
    pub(crate) fn next(&mut self) -> Option<(u64, T)> {
        let Reverse(moment) = self.moments.pop()?;
        Some((moment.at_ms, moment.what))
    }
}
