//! What must be done again and again: say that we are alive, watch the policy and the breakers, let go of what is
//! old.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Days, TimeDelta, Utc};

use crate::app::Parts;
use crate::breaker;
use crate::clock::{self, timestamp};
use crate::embedded::Cluster;
use crate::policy::{InForce, Watched};
use crate::pulse::BEAT_MS;
use crate::store::days::{self, Kept, day_of};
use crate::store::history::{self, History};
use crate::store::{
    Result, aggregators, breakers, calls, decisions, events, excesses, feed, flows, losses,
    patiently, reporters,
};

/// Beats between two rounds of letting go.
const CLEAN_EVERY: u32 = 60;
/// Rows deleted at once, so that no statement runs long.
const DELETE_MAX: i64 = 10_000;

/// The ticking part of an aggregator.
#[derive(Debug)]
pub(crate) struct Tick {
    parts: Arc<Parts>,
    cluster: Option<Arc<Cluster>>,
    watched: Watched,
    told_modes: Option<Arc<InForce>>,
    history: Option<History>,
}

impl Tick {
    /// Over these parts, and the Postgres that is ours, if it is.
    pub(crate) fn new(parts: Arc<Parts>, cluster: Option<Arc<Cluster>>) -> Self {
        Self {
            parts,
            cluster,
            watched: Watched::default(),
            told_modes: None,
            history: None,
        }
    }

    /// Ticks for ever.
    pub(crate) async fn work(mut self) {
        let mut beats = tokio::time::interval(Duration::from_millis(BEAT_MS));
        beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut until_clean = CLEAN_EVERY;
        loop {
            beats.tick().await;
            until_clean -= 1;
            if let Err(error) = patiently(self.tick(until_clean == 0)).await {
                self.parts.metrics.beats_missed.inc();
                self.parts.metrics.store_failed(&error, "ticking");
                self.revive().await;
            }
            if until_clean == 0 {
                until_clean = CLEAN_EVERY;
            }
        }
    }

    /// One beat.
    pub(crate) async fn tick(&mut self, clean: bool) -> Result<()> {
        self.follow_store().await?;
        let now_ms = clock::now_ms();
        let now = timestamp(now_ms);
        let parts = &self.parts;
        parts.pulse.beat(&parts.store, now_ms).await?;
        if let Some(file) = &parts.config.policy {
            self.watched
                .look(file, &parts.store, &parts.metrics, now)
                .await?;
        }
        let in_force = breaker::check(parts, now).await?;
        if self
            .told_modes
            .as_ref()
            .is_none_or(|told| *told != in_force)
        {
            breaker::tell_modes_again(parts, &in_force, now).await?;
            self.told_modes = Some(in_force);
        }
        let noted = parts.census.noted();
        if !noted.is_empty() {
            let mut connection = parts.store.connection().await?;
            excesses::add(&mut connection, &noted, now).await?;
        }
        parts.feed.expire(now_ms);
        if clean {
            self.clean(now).await?;
        }
        Ok(())
    }

    /// Reads the store's clock, by which all aggregators judge; a restored store gets the policy and the modes anew.
    async fn follow_store(&mut self) -> Result<()> {
        let mut connection = self.parts.store.own().acquire().await?;
        let asked_ms = clock::machine_ms();
        let store_ms = clock::millis(aggregators::time(&mut connection).await?);
        clock::follow(asked_ms, store_ms, clock::machine_ms());
        let current = Some(history::current(&mut connection).await?);
        if self.history != current {
            self.watched = Watched::default();
            self.told_modes = None;
            self.history = current;
        }
        Ok(())
    }

    /// Makes the partitions that will be needed next.
    pub(crate) async fn make_days(&self, now: DateTime<Utc>) -> Result<()> {
        let today = day_of(now);
        for day in [today, today + Days::new(1)] {
            days::make(self.parts.store.own(), day).await?;
        }
        Ok(())
    }

    /// Lets go of what is old.
    async fn clean(&self, now: DateTime<Utc>) -> Result<()> {
        self.make_days(now).await?;
        let parts = &self.parts;
        let config = &parts.config;
        let kept = Kept::new(now, config.retention_days);
        let reports_from = now - TimeDelta::days(i64::from(config.retention_days) + 1);
        let decisions_from = now - TimeDelta::days(config.decision_days.into());
        let idle = TimeDelta::from_std(config.verdict_idle()).unwrap_or_default();
        let mut connection = parts.store.own().acquire().await?;
        for day in days::drop_old(&mut connection, kept).await? {
            tracing::info!(%day, "the reports of this day were let go");
        }
        feed::forget(&mut connection, now - idle).await?;
        aggregators::forget(&mut connection, now).await?;
        losses::forget(&mut connection, reports_from).await?;
        reporters::forget(&mut connection, reports_from).await?;
        calls::forget(&mut connection, kept.first_day() - Days::new(1)).await?;
        excesses::forget(&mut connection, reports_from).await?;
        flows::forget(&mut connection, decisions_from).await?;
        excesses::count(&mut connection, &parts.census).await?;
        events::forget(&mut connection, decisions_from, DELETE_MAX).await?;
        decisions::forget(&mut connection, decisions_from, DELETE_MAX).await?;
        let version = parts.policies.last_known().version();
        breakers::forget(&mut connection, decisions_from, version).await?;
        Ok(())
    }

    /// Starts our own Postgres again, if that is what is wrong.
    async fn revive(&self) {
        let Some(cluster) = &self.cluster else {
            return;
        };
        if let Err(error) = cluster.ensure_running().await {
            tracing::error!("the embedded Postgres cannot be started: {error}");
        }
    }
}
