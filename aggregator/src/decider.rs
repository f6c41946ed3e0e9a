//! The decider: looks at events that have news or whose time has come, saves what it sees, decides, learns, and
//! tells. It is idempotent and takes no input: what is to do stands in the store. The judgement itself is
//! `kaeru_flow`'s; how a look reads and writes the store is in `decider/look.rs`.

mod look;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use sqlx::PgConnection;
use tokio::sync::Notify;

use crate::clock::{self, timestamp};
use crate::feed::Feed;
use crate::metrics::Metrics;
use crate::policy::Policies;
use crate::pulse::Pulse;
use crate::store::{self, Result, Store, events, intake};
use look::Look;

/// Entries of the to-do list taken in one round, and events whose time has come: a look at 2,000 events of 10
/// reports takes about 0.2 s and 20 MB.
const ENTRIES_MAX: i64 = 4;
/// Events in one entry of the to-do list.
pub(crate) const ENTRY_EVENTS_MAX: usize = 500;
/// Events whose time has come, looked at in one round.
const DUE_MAX: i64 = 500;
/// How long the decider sleeps at most.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// How long an event is left alone that could not be looked at.
const PARKED: TimeDelta = TimeDelta::seconds(60);

/// The decider.
#[derive(Debug)]
pub(crate) struct Decider {
    store: Store,
    policies: Arc<Policies>,
    pulse: Arc<Pulse>,
    feed: Arc<Feed>,
    metrics: Arc<Metrics>,
    verdict_idle: TimeDelta,
    wake: Notify,
}

/// What a round left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    /// There may be more at once.
    More,
    /// Nothing was due.
    Idle,
}

impl Decider {
    /// A decider over this store.
    pub(crate) fn new(
        store: Store,
        policies: Arc<Policies>,
        pulse: Arc<Pulse>,
        feed: Arc<Feed>,
        metrics: Arc<Metrics>,
        verdict_idle: Duration,
    ) -> Self {
        Self {
            store,
            policies,
            pulse,
            feed,
            metrics,
            verdict_idle: TimeDelta::from_std(verdict_idle).unwrap_or(TimeDelta::MAX),
            wake: Notify::new(),
        }
    }

    /// There is news.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Works for ever.
    pub(crate) async fn work(&self) {
        loop {
            let now_ms = clock::now_ms();
            // Until our own outage is written down, silence would be taken for evidence.
            if self.pulse.is_fresh(now_ms) {
                match store::patiently(self.round(now_ms)).await {
                    Ok(Round::More) => continue,
                    Ok(Round::Idle) => {}
                    Err(error) => self.metrics.store_failed(&error, "deciding"),
                }
            }
            let sleep = self.sleep().await;
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// One round over news and one over events whose time has come.
    async fn round(&self, now_ms: u64) -> Result<Round> {
        let timer = self.metrics.round_seconds.start_timer();
        let news = self.round_of_news(now_ms).await?;
        let due = self.round_of_due(now_ms).await?;
        if news + due == 0 {
            timer.stop_and_discard();
            return Ok(Round::Idle);
        }
        timer.observe_duration();
        Ok(Round::More)
    }

    async fn round_of_news(&self, now_ms: u64) -> Result<usize> {
        let mut transaction = self.store.begin().await?;
        let names = intake::take(&mut transaction, ENTRIES_MAX).await?;
        if names.is_empty() {
            return Ok(0);
        }
        match self.decide(&mut transaction, &names, now_ms).await {
            Ok(told) => {
                transaction.commit().await?;
                self.told(told);
            }
            Err(error @ store::Error::Unavailable(_)) => return Err(error),
            Err(error) => {
                self.metrics.store_failed(&error, "deciding a round");
                transaction.rollback().await?;
                // The entries are held while their events are looked at one by one.
                let mut transaction = self.store.begin().await?;
                let names = intake::take(&mut transaction, ENTRIES_MAX).await?;
                self.one_by_one(&names, now_ms).await?;
                transaction.commit().await?;
            }
        }
        Ok(names.len())
    }

    async fn round_of_due(&self, now_ms: u64) -> Result<usize> {
        let mut transaction = self.store.begin().await?;
        let names = events::due(&mut transaction, timestamp(now_ms), DUE_MAX).await?;
        if names.is_empty() {
            return Ok(0);
        }
        match self.decide(&mut transaction, &names, now_ms).await {
            Ok(told) => {
                transaction.commit().await?;
                self.told(told);
            }
            Err(error @ store::Error::Unavailable(_)) => return Err(error),
            Err(error) => {
                self.metrics.store_failed(&error, "deciding a round");
                transaction.rollback().await?;
                self.one_by_one(&names, now_ms).await?;
            }
        }
        Ok(names.len())
    }

    /// Looks at each event alone; one that cannot be looked at is put off, so that it stops no other.
    async fn one_by_one(&self, names: &[String], now_ms: u64) -> Result<()> {
        for name in names {
            let one = std::slice::from_ref(name);
            let mut transaction = self.store.begin().await?;
            match self.decide(&mut transaction, one, now_ms).await {
                Ok(told) => {
                    transaction.commit().await?;
                    self.told(told);
                }
                Err(error @ store::Error::Unavailable(_)) => return Err(error),
                Err(error) => {
                    transaction.rollback().await?;
                    self.metrics.store_failed(&error, "deciding one event");
                    tracing::error!(event = name, "the event is put off");
                    self.park(one, now_ms).await?;
                }
            }
        }
        Ok(())
    }

    async fn park(&self, one: &[String], now_ms: u64) -> Result<()> {
        let now = timestamp(now_ms);
        let mut transaction = self.store.begin().await?;
        for held in events::lock(&mut transaction, one, now).await? {
            events::park(&mut transaction, &held.event, Some(now + PARKED)).await?;
        }
        transaction.commit().await?;
        self.metrics.events_parked.inc();
        Ok(())
    }

    /// Looks at these events within the caller's transaction, and says whether anything was told. Locks their
    /// rows, then those of flows, then the feed's: nothing else may be locked after it.
    pub(crate) async fn decide(
        &self,
        connection: &mut PgConnection,
        names: &[String],
        now_ms: u64,
    ) -> Result<bool> {
        let in_force = self
            .policies
            .current(&mut *connection, &self.metrics)
            .await?;
        let mut look = Look::new(in_force, now_ms, self.verdict_idle, &self.metrics);
        let mut names = names.to_vec();
        names.sort_unstable();
        names.dedup();
        for chunk in names.chunks(ENTRY_EVENTS_MAX) {
            look.at(&mut *connection, chunk).await?;
        }
        look.finish(connection).await
    }

    /// Works off what is due, as a test's moment asks.
    #[cfg(test)]
    pub(crate) async fn decide_once(&self, now_ms: u64) {
        while matches!(self.round(now_ms).await, Ok(Round::More)) {}
    }

    /// Whether the store knows of every time in which reports could not be taken.
    pub(crate) fn may_decide(&self, now_ms: u64) -> bool {
        self.pulse.is_fresh(now_ms)
    }

    /// After the commit.
    pub(crate) fn told(&self, told: bool) {
        if told {
            self.feed.wake();
        }
    }

    /// Until the next event is due.
    async fn sleep(&self) -> Duration {
        let next = async {
            let mut connection = self.store.pool().acquire().await?;
            events::next_due(&mut connection).await
        };
        let Ok(Some(next)) = next.await else {
            return SLEEP_MAX;
        };
        let wait_ms = clock::millis(next).saturating_sub(clock::now_ms());
        Duration::from_millis(wait_ms).clamp(Duration::from_millis(1), SLEEP_MAX)
    }
}
