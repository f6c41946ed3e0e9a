//! A poller of verdicts, as a proxy's leader is one, that asks another aggregator each time and checks the feed's
//! promises: it never goes back within an epoch, begins anew only with another one, forgets nothing that is live, and
//! tells one decision for each event.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use kaeru_protocol::{FeedCursor, Verdict, VerdictPage};
use tokio::sync::watch;
use tokio::time::Instant;

const BACK_OFF: Duration = Duration::from_millis(50);

/// What was told, and what was wrong with it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    notes: Mutex<Notes>,
    /// The store was put back to an older copy: what was told since may be forgotten, in the same epoch.
    pub(crate) may_go_back: AtomicBool,
}

#[derive(Debug, Default)]
struct Notes {
    /// Decision and end of life by event.
    told: BTreeMap<String, (String, Instant)>,
    /// What a reset has not told again yet.
    to_repeat: BTreeSet<String>,
    cursor: Option<FeedCursor>,
    pages: u64,
    resets: u64,
    epochs: BTreeSet<String>,
    wrong: Vec<String>,
}

/// Polls until it is told to stop.
pub(crate) fn work(
    ask: Vec<SocketAddr>,
    seen: Arc<Seen>,
    stopping: watch::Receiver<bool>,
) -> Result<impl Future<Output = ()> + Send> {
    let http = reqwest::Client::builder().no_proxy();
    let http = http.timeout(Duration::from_secs(5)).build()?;
    Ok(async move {
        for turn in 0_usize.. {
            if *stopping.borrow() {
                return;
            }
            let cursor = seen.write(|notes| notes.cursor.clone());
            let mut query = vec![
                ("service", "break/web".to_owned()),
                ("wait_ms", "500".to_owned()),
            ];
            query.extend(cursor.map(|cursor| ("after", cursor.to_string())));
            let url = format!("http://{}/v1/verdicts", ask[turn % ask.len()]);
            let answer = http.get(url).query(&query).send().await;
            let answer = answer.and_then(reqwest::Response::error_for_status);
            let page = match answer {
                Ok(answer) => answer.json::<VerdictPage>().await,
                Err(error) => Err(error),
            };
            match page {
                Ok(page) => seen.take(page),
                Err(_) => tokio::time::sleep(BACK_OFF).await,
            }
        }
    })
}

impl Seen {
    /// The events that were told to be rolled back.
    pub(crate) fn events(&self) -> BTreeSet<String> {
        self.write(|notes| notes.told.keys().cloned().collect())
    }

    /// How many histories were told.
    pub(crate) fn epochs(&self) -> usize {
        self.write(|notes| notes.epochs.len())
    }

    /// An error where a promise was broken.
    pub(crate) fn check(&self) -> Result<()> {
        self.write(|notes| {
            ensure!(notes.wrong.is_empty(), "{:#?}", notes.wrong);
            ensure!(notes.pages > 0, "nothing was ever told");
            Ok(())
        })
    }

    fn take(&self, page: VerdictPage) {
        let may_go_back = self.may_go_back.load(Ordering::Relaxed);
        self.write(|notes| notes.take(page, may_go_back));
    }

    fn write<T>(&self, change: impl FnOnce(&mut Notes) -> T) -> T {
        change(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Notes {
    fn take(&mut self, page: VerdictPage, may_go_back: bool) {
        let now = Instant::now();
        self.pages += 1;
        let same = |before: &FeedCursor| before.epoch == page.cursor.epoch;
        if let Some(before) = self.cursor.take() {
            if page.reset {
                self.resets += 1;
                if same(&before) && !may_go_back {
                    self.wrong
                        .push(format!("begins anew after {before}: {}", page.cursor));
                }
            } else if !same(&before) || page.cursor.seq < before.seq {
                self.wrong
                    .push(format!("went from {before} to {}", page.cursor));
            }
        }
        if page.reset {
            let live = self.told.iter().filter(|(_, (_, until))| *until > now);
            self.to_repeat = live.map(|(event, _)| event.clone()).collect();
        }
        for entry in page.verdicts {
            let event = entry.event.to_string();
            self.to_repeat.remove(&event);
            let decision = entry.decision.to_string();
            let until = now + Duration::from_millis(entry.ttl_ms);
            if entry.verdict != Verdict::RollBack {
                self.wrong.push(format!("{event} may {:?}", entry.verdict));
            }
            if let Some((before, _)) = self.told.insert(event.clone(), (decision.clone(), until))
                && before != decision
                && !may_go_back
            {
                self.wrong
                    .push(format!("{event}: {before}, then {decision}"));
            }
        }
        if !page.more {
            let forgotten = std::mem::take(&mut self.to_repeat);
            if !forgotten.is_empty() && !may_go_back {
                self.wrong.push(format!("forgot {forgotten:?}"));
            }
        }
        self.epochs.insert(page.cursor.epoch.to_string());
        self.cursor = Some(page.cursor);
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(|notes| {
            let (told, pages, resets) = (notes.told.len(), notes.pages, notes.resets);
            let epochs = notes.epochs.len();
            write!(
                f,
                "{told} verdicts told on {pages} pages, {resets} resets, {epochs} epochs"
            )
        })
    }
}
