//! What senders remember: what was acknowledged, and how they were answered otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};

/// The books of all senders.
#[derive(Debug, Default)]
pub(crate) struct Books(Mutex<Account>);

/// What stands in them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Account {
    /// Reports that were acknowledged.
    pub(crate) reports: u64,
    /// Acknowledged events that failed.
    pub(crate) failed: BTreeSet<String>,
    /// Answers by status; 0 is none.
    pub(crate) answers: BTreeMap<u16, u64>,
    /// The longest that an answer took.
    pub(crate) slowest: Duration,
    /// What must not be.
    wrong: Vec<String>,
}

impl Books {
    pub(crate) fn acknowledged(&self, reports: usize, failed: Vec<String>) {
        self.write(|account| {
            account.reports += u64::try_from(reports).unwrap_or(u64::MAX);
            account.failed.extend(failed);
        });
    }

    pub(crate) fn answered(&self, status: u16, took: Duration) {
        self.write(|account| {
            *account.answers.entry(status).or_default() += 1;
            account.slowest = account.slowest.max(took);
        });
    }

    pub(crate) fn wrong(&self, what: String) {
        self.write(|account| account.wrong.push(what));
    }

    /// How often this status was the answer.
    pub(crate) fn answers(&self, status: u16) -> u64 {
        self.write(|account| account.answers.get(&status).copied().unwrap_or(0))
    }

    /// What stands in them, or what is wrong.
    pub(crate) fn account(&self) -> Result<Account> {
        let account = self.write(|account| account.clone());
        if !account.wrong.is_empty() {
            bail!("{:#?}", account.wrong);
        }
        Ok(account)
    }

    fn write<T>(&self, change: impl FnOnce(&mut Account) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (reports, failed) = (self.reports, self.failed.len());
        let (answers, slowest) = (&self.answers, self.slowest);
        write!(
            f,
            "{reports} reports acknowledged and stored once, {failed} failures decided once; "
        )?;
        write!(f, "answers {answers:?}, the slowest after {slowest:.1?}")
    }
}
