//! The feed in memory: the newest verdict of each event, following the store. Long polls are answered from it
//! alone. It decides nothing and writes nothing.

pub(crate) mod live;
pub(crate) mod telling;
#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use kaeru_protocol::{FeedCursor, VerdictPage};
use sqlx::postgres::PgListener;
use tokio::sync::{Notify, watch};

use crate::metrics::Metrics;
use crate::store::feed::{self, Announced, Head, Told};
use crate::store::{Result, Store, patiently};
use live::{Live, VERDICTS_MAX};

/// How often the store is asked when nothing wakes.
const POLL: Duration = Duration::from_secs(1);

/// The feed.
#[derive(Debug)]
pub(crate) struct Feed {
    live: RwLock<Live>,
    changed: watch::Sender<u64>,
    looked: watch::Sender<u64>,
    wake: Notify,
}

impl Feed {
    /// An empty feed that has not seen the store yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            live: RwLock::default(),
            changed: watch::Sender::new(0),
            looked: watch::Sender::new(0),
            wake: Notify::new(),
        })
    }

    /// Something was told: look at the store now.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// What a transaction of ours told, which is committed. Mostly it is all that we do not know yet: then it need not be read,
    /// and polls hear of it at once. Sequences are given in the order of commits, so nothing can be between.
    pub(crate) fn told(&self, announced: Announced, metrics: &Metrics) {
        let mut live = self.live_mut();
        match live.take_next(&announced.head, announced.told) {
            Some(evicted) => self.changed(live, evicted, metrics),
            None => self.wake(),
        }
    }

    /// What was told after `cursor`; `None` while the store has not been seen.
    pub(crate) fn page(&self, cursor: Option<&FeedCursor>, now_ms: u64) -> Option<VerdictPage> {
        self.live().page(cursor, now_ms)
    }

    /// Whether the cursor is of another history, or further than we have read: another aggregator told it a moment ago (it
    /// may have seen a failover before us), or the store was put back.
    pub(crate) fn is_behind(&self, cursor: &FeedCursor) -> bool {
        self.live().is_behind(cursor)
    }

    /// Waits until the store was read anew, from now on.
    pub(crate) async fn look_again(&self) {
        let mut looked = self.looked.subscribe();
        // The first look may have begun before now.
        for _ in 0..2 {
            self.wake();
            // The sender lives as long as we do.
            let _ = looked.changed().await;
        }
    }

    /// Marks each change of the feed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Follows the store for ever: woken by our own commits, by those of others, and by a timer.
    pub(crate) async fn follow(&self, store: &Store, metrics: &Metrics) {
        let mut listener = None;
        loop {
            if listener.is_none() {
                listener = listen(store).await;
            }
            match patiently(self.refresh(store, metrics)).await {
                Ok(()) => self.looked.send_modify(|looks| *looks += 1),
                Err(error) => {
                    metrics.store_failed(&error, "following the feed");
                    listener = None;
                }
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = self.notified(&mut listener) => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// Waits for a notification of what we do not know yet, which is most often our own; a lost connection counts as one, and no
    /// listener as none.
    async fn notified(&self, listener: &mut Option<PgListener>) {
        let Some(connected) = listener else {
            return std::future::pending().await;
        };
        loop {
            match connected.try_recv().await {
                Ok(Some(notification)) if self.knows(notification.payload()) => {}
                Ok(Some(_)) => return,
                Ok(None) | Err(_) => {
                    *listener = None;
                    return;
                }
            }
        }
    }

    /// Whether we know all that was told up to here; never of what does not say how far.
    fn knows(&self, told: &str) -> bool {
        let told = told.parse();
        told.is_ok_and(|told: FeedCursor| !self.is_behind(&told))
    }

    /// Catches up with the store.
    pub(crate) async fn refresh(&self, store: &Store, metrics: &Metrics) -> Result<()> {
        let mut connection = store.own().acquire().await?;
        loop {
            let known = self.live().head();
            let (head, told) = feed::after(&mut connection, &known, VERDICTS_MAX).await?;
            if self.take(&known, &head, told, metrics) {
                return Ok(());
            }
        }
    }

    /// Takes in what was read when the feed in memory stood at `known`; whether it still does. Where it went on meanwhile, by
    /// what we told ourselves, what was read may be older.
    fn take(&self, known: &Head, head: &Head, told: Vec<Told>, metrics: &Metrics) -> bool {
        let mut live = self.live_mut();
        if live.head() != *known {
            return false;
        }
        if head != known {
            let is_new_history = live.position_in(head).is_none();
            let evicted = live.take(head, is_new_history, told);
            self.changed(live, evicted, metrics);
        }
        true
    }

    /// Something new is in memory: polls hear of it.
    fn changed(&self, live: RwLockWriteGuard<'_, Live>, evicted: u64, metrics: &Metrics) {
        metrics.feed_evicted.inc_by(evicted);
        metrics.feed_seq.set(live.head().seq);
        metrics
            .feed_verdicts
            .set(i64::try_from(live.len()).unwrap_or(i64::MAX));
        drop(live);
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// Drops verdicts that ran out.
    pub(crate) fn expire(&self, now_ms: u64) {
        self.live_mut().expire(now_ms);
    }

    fn live(&self) -> RwLockReadGuard<'_, Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn live_mut(&self) -> RwLockWriteGuard<'_, Live> {
        self.live.write().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn listen(store: &Store) -> Option<PgListener> {
    let mut listener = PgListener::connect_with(store.own()).await.ok()?;
    listener.listen(feed::CHANNEL).await.ok()?;
    Some(listener)
}
