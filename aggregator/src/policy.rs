//! The policy in force: the newest version in the database, with the breakers that are open under it. The file
//! given to this aggregator becomes a new version when it changes and is valid; a wrong one changes nothing.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::iter;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use kaeru_flow::{Policy, defaults};
use kaeru_protocol::{EventType, Mode, Peer};
use sqlx::PgConnection;

use crate::metrics::Metrics;
use crate::policy_file;
use crate::store::{Result, Store, policies};

/// What decisions are made by.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct InForce {
    /// The policy, under its version.
    pub(crate) policy: Arc<Policy>,
    /// Event types that fell back to shadow; the empty one stands for events of no type.
    pub(crate) tripped: BTreeSet<String>,
}

/// The policy in force as this aggregator last saw it.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    in_force: Arc<InForce>,
    /// The newest edition that was looked at, valid or not.
    looked_at: policies::Edition,
}

impl InForce {
    /// How far Kaeru goes for an event of this type with this entry. While no report has said its type, it may yet
    /// turn out to be of one that fell back to shadow.
    pub(crate) fn mode(&self, event_type: Option<&EventType>, entry: Option<&Peer>) -> Mode {
        let mode = self.policy.for_event(event_type, entry).mode();
        let is_tripped = match event_type {
            Some(event_type) => self.tripped.contains(event_type.as_str()),
            None => !self.tripped.is_empty(),
        };
        if is_tripped {
            mode.min(Mode::Shadow)
        } else {
            mode
        }
    }

    /// The most reports that any event may have before its id counts as shared.
    pub(crate) fn reports_max(&self) -> usize {
        let policy = &self.policy;
        iter::once(&policy.global)
            .chain(policy.event_types.values())
            .chain(policy.services.values())
            .filter_map(|layer| layer.reports_max)
            .fold(defaults::REPORTS_MAX, usize::max)
    }

    /// The number of the policy's version as the store writes it.
    pub(crate) fn version(&self) -> i64 {
        self.policy.version.cast_signed()
    }
}

impl Policies {
    /// What was in force when the store was last asked.
    pub(crate) fn last_known(&self) -> Arc<InForce> {
        self.known().in_force.clone()
    }

    /// What is in force by the store: the newest version that this Kaeru can read. It stays so to the end of a transaction
    /// that has locked events.
    pub(crate) async fn current(
        &self,
        connection: &mut PgConnection,
        metrics: &Metrics,
    ) -> Result<Arc<InForce>> {
        let (mut policy, looked_at) = {
            let known = self.known();
            (known.in_force.policy.clone(), known.looked_at)
        };
        let version = |policy: &Policy| policy.version.cast_signed();
        let (newest, mut tripped) = policies::in_force(&mut *connection, version(&policy)).await?;
        if newest != looked_at {
            policy = newest_readable(&mut *connection, newest.0, metrics).await?;
            (_, tripped) = policies::in_force(connection, version(&policy)).await?;
        }
        metrics.policy_version.set(policy.version.cast_signed());
        metrics
            .breakers_open
            .set(i64::try_from(tripped.len()).unwrap_or(i64::MAX));
        let mut known = self.known();
        known.looked_at = newest;
        let in_force = InForce { policy, tripped };
        if *known.in_force != in_force {
            known.in_force = Arc::new(in_force);
        }
        Ok(known.in_force.clone())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The newest version up to this one that can be read here; the built-in policy where there is none. Another one than
/// the newest only while aggregators of different releases share a store.
async fn newest_readable(
    connection: &mut PgConnection,
    newest: i64,
    metrics: &Metrics,
) -> Result<Arc<Policy>> {
    let mut up_to = newest;
    while let Some((version, yaml)) = policies::up_to(&mut *connection, up_to).await? {
        match policy_file::parse(&yaml) {
            Ok(read) => {
                let version = version.cast_unsigned();
                return Ok(Arc::new(Policy { version, ..read }));
            }
            Err(complaints) => {
                metrics.policies_refused.inc();
                tracing::error!(version, "this policy cannot be read here: {complaints}");
            }
        }
        up_to = version - 1;
    }
    Ok(Arc::default())
}

/// The policy file of this aggregator, as it was last read.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    seen: Option<String>,
}

impl Watched {
    /// Reads the file, and if its text is new and valid makes it the newest version.
    pub(crate) async fn look(
        &mut self,
        file: &Path,
        store: &Store,
        metrics: &Metrics,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let text = match tokio::fs::read_to_string(file).await {
            Ok(text) => text,
            Err(error) => {
                // Said once: the file may be on its way back.
                if self.seen.take().is_some() {
                    metrics.policies_refused.inc();
                    tracing::error!("the policy {} cannot be read: {error}", file.display());
                }
                return Ok(());
            }
        };
        if self.seen.as_ref() == Some(&text) {
            return Ok(());
        }
        if let Err(complaints) = policy_file::parse(&text) {
            metrics.policies_refused.inc();
            tracing::error!(
                "the policy {} is refused, the old one stays in force: {complaints}",
                file.display()
            );
        } else {
            let mut transaction = store.begin().await?;
            let version = policies::put(&mut transaction, &text, now).await?;
            transaction.commit().await?;
            if let Some(version) = version {
                tracing::info!(version, "the policy {} is in force", file.display());
            }
        }
        self.seen = Some(text);
        Ok(())
    }
}
