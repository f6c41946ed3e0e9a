//! What was really exercised: how often each kind of thing occurred.

use std::collections::BTreeMap;
use std::fmt;

/// Counts by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<String, u64>);

impl Tally {
    /// Once more.
    pub(crate) fn count(&mut self, what: &str) {
        self.add(what, 1);
    }

    /// So many more.
    pub(crate) fn add(&mut self, what: &str, more: u64) {
        if let Some(count) = self.0.get_mut(what) {
            *count += more;
        } else {
            self.0.insert(what.to_owned(), more);
        }
    }

    /// How often.
    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Takes in what another schedule counted.
    pub fn join(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            self.add(what, *count);
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.0 {
            writeln!(f, "  {count:>10}  {what}")?;
        }
        Ok(())
    }
}
