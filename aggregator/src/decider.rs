//! The decider: looks at events that have news or whose time has come, saves what it sees, decides, learns, and
//! tells. It is idempotent and takes no input: what is to do stands in the store. The judgement itself is
//! `kaeru_flow`'s; how a look reads and writes the store is in `decider/look.rs`.

mod look;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use tokio::sync::Notify;

use crate::census::Census;
use crate::clock::{self, timestamp};
use crate::feed::Feed;
use crate::metrics::Metrics;
use crate::policy::Policies;
use crate::pulse::Pulse;
use crate::store::feed::Announced;
use crate::store::{self, Result, Store, events, intake};
use look::Look;

/// Events taken off the list in one round: a look at 2,000 events of 10 reports takes about 0.2 s and 20 MB.
const ROUND_EVENTS_MAX: i64 = 2_000;
/// Events in one entry of the list.
pub(crate) const ENTRY_EVENTS_MAX: usize = 500;
/// How long the decider sleeps at most: no entry is due sooner after it was added, but for those that it is told of.
const SLEEP_MAX: Duration = Duration::from_millis(250);
/// How long an event is left alone that could not be looked at.
const PARKED: TimeDelta = TimeDelta::seconds(60);

/// The decider.
#[derive(Debug)]
pub(crate) struct Decider {
    store: Store,
    policies: Arc<Policies>,
    census: Arc<Census>,
    pulse: Arc<Pulse>,
    feed: Arc<Feed>,
    metrics: Arc<Metrics>,
    verdict_idle: TimeDelta,
    hurry: Notify,
}

/// Events to be looked at.
#[derive(Debug)]
pub(crate) struct Due {
    /// Which: each once, in order, so that deciders wait for each other one way.
    pub(crate) names: Vec<String>,
    /// None of their reports that were not looked at yet is of an earlier time; `None` where there are none.
    pub(crate) since: Option<DateTime<Utc>>,
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
        census: Arc<Census>,
        pulse: Arc<Pulse>,
        feed: Arc<Feed>,
        metrics: Arc<Metrics>,
        verdict_idle: Duration,
    ) -> Self {
        Self {
            store,
            policies,
            census,
            pulse,
            feed,
            metrics,
            verdict_idle: TimeDelta::from_std(verdict_idle).unwrap_or(TimeDelta::MAX),
            hurry: Notify::new(),
        }
    }

    /// There is news that is due at once.
    pub(crate) fn hurry(&self) {
        self.hurry.notify_one();
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
                () = self.hurry.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// One round over what is due on the list.
    async fn round(&self, now_ms: u64) -> Result<Round> {
        let timer = self.metrics.round_seconds.start_timer();
        let mut transaction = self.store.begin().await?;
        let Some(due) = due(&mut transaction, now_ms).await? else {
            timer.stop_and_discard();
            return Ok(Round::Idle);
        };
        match self.decide(&mut transaction, &due, now_ms).await {
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
                if let Some(held) = self::due(&mut transaction, now_ms).await? {
                    self.one_by_one(&held, now_ms).await?;
                }
                transaction.commit().await?;
            }
        }
        timer.observe_duration();
        Ok(Round::More)
    }

    /// Looks at each event alone; one that cannot be looked at is put off, so that it stops no other.
    async fn one_by_one(&self, due: &Due, now_ms: u64) -> Result<()> {
        for name in &due.names {
            let one = Due {
                names: vec![name.clone()],
                since: due.since,
            };
            let mut transaction = self.store.begin().await?;
            match self.decide(&mut transaction, &one, now_ms).await {
                Ok(told) => {
                    transaction.commit().await?;
                    self.told(told);
                }
                Err(error @ store::Error::Unavailable(_)) => return Err(error),
                Err(error) => {
                    transaction.rollback().await?;
                    self.metrics.store_failed(&error, "deciding one event");
                    tracing::error!(event = name, "the event is put off");
                    self.park(&one.names, now_ms).await?;
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

    /// Looks at these events within the caller's transaction, and says what was told. Locks what is in force, the events'
    /// rows, then those of flows, then the feed's: nothing else may be locked after it.
    pub(crate) async fn decide(
        &self,
        connection: &mut PgConnection,
        due: &Due,
        now_ms: u64,
    ) -> Result<Option<Announced>> {
        let held = events::lock(&mut *connection, &due.names, timestamp(now_ms)).await?;
        let in_force = self
            .policies
            .current(&mut *connection, &self.metrics)
            .await?;
        let mut look = Look::new(
            in_force,
            now_ms,
            self.verdict_idle,
            &self.metrics,
            due.since,
        );
        look.at(&mut *connection, held).await?;
        look.finish(connection, &self.census).await
    }

    /// Works off what is due, as a test's moment asks.
    #[cfg(test)]
    pub(crate) async fn decide_once(&self, now_ms: u64) {
        let mut connection = self.store.connection().await.expect("a connection");
        intake::hurry(&mut connection, timestamp(now_ms))
            .await
            .expect("the list");
        while matches!(self.round(now_ms).await, Ok(Round::More)) {}
    }

    /// Whether the store knows of every time in which reports could not be taken.
    pub(crate) fn may_decide(&self, now_ms: u64) -> bool {
        self.pulse.is_fresh(now_ms)
    }

    /// After the commit.
    pub(crate) fn told(&self, announced: Option<Announced>) {
        if let Some(announced) = announced {
            self.feed.told(announced, &self.metrics);
        }
    }

    /// Until the next entry is due.
    async fn sleep(&self) -> Duration {
        let next = async {
            let mut connection = self.store.own().acquire().await?;
            intake::next_due(&mut connection).await
        };
        let Ok(Some(next)) = next.await else {
            return SLEEP_MAX;
        };
        let wait_ms = clock::millis(next).saturating_sub(clock::now_ms());
        Duration::from_millis(wait_ms).clamp(Duration::from_millis(1), SLEEP_MAX)
    }
}

/// What is due: events that have news, and those whose time has come.
async fn due(connection: &mut PgConnection, now_ms: u64) -> Result<Option<Due>> {
    let now = timestamp(now_ms);
    let Some(taken) = intake::take(&mut *connection, now, ROUND_EVENTS_MAX).await? else {
        return Ok(None);
    };
    let mut names = events::due(connection, &taken.wakes, now).await?;
    names.extend(taken.news);
    names.sort_unstable();
    names.dedup();
    Ok(Some(Due {
        names,
        since: taken.since,
    }))
}
