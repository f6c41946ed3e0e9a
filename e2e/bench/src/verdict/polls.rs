//! When each proxy polled, and from where it went on, as the aggregator logs it or the floor says it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kaeru_e2e::clock::logged_us;

use super::floor::Polled;
use crate::clock;

/// What makes the aggregator log them.
pub(super) const LOGGED: &str = "RUST_LOG=info,sqlx=warn,kaeru_aggregator::http::verdicts=debug";
/// Between two looks at the log.
const LOOK: Duration = Duration::from_millis(3);
/// How long polls may take to come.
const PATIENCE: Duration = Duration::from_secs(5);

/// The polls as far as they were read.
pub(super) struct Polls {
    source: Source,
    last: BTreeMap<String, Poll>,
}

enum Source {
    /// An aggregator's log, and the beginning of its next line.
    Log(File, Vec<u8>),
    Floor(Polled),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Poll {
    /// µs since 1970.
    pub(super) at: u64,
    /// The last verdict that it knows of.
    pub(super) seq: u64,
}

impl Polls {
    pub(super) fn of(log: &Path) -> Result<Self> {
        let log = File::open(log).context("the aggregator's log")?;
        Ok(Self {
            source: Source::Log(log, Vec::new()),
            last: BTreeMap::new(),
        })
    }

    pub(super) fn of_floor(polled: Polled) -> Self {
        Self {
            source: Source::Floor(polled),
            last: BTreeMap::new(),
        }
    }

    /// Only these proxies go on.
    pub(super) fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        self.last.retain(|service, _| is_there(service));
    }

    /// Waits until so many proxies wait for the same verdict to come; says which was the last before it.
    pub(super) async fn settled(&mut self, proxies: usize) -> Result<u64> {
        let until = clock::now() + PATIENCE;
        loop {
            self.read()?;
            let most = self.last.values().map(|poll| poll.seq).max().unwrap_or(0);
            if self.last.len() == proxies && self.last.values().all(|poll| poll.seq == most) {
                return Ok(most);
            }
            ensure!(
                clock::now() < until,
                "not every proxy polls: {:?}",
                self.last
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// When each of so many proxies knew the one verdict that was told after this one, µs since 1970.
    pub(super) async fn after(
        &mut self,
        told: u64,
        proxies: usize,
    ) -> Result<BTreeMap<String, u64>> {
        let until = clock::now() + PATIENCE;
        loop {
            self.read()?;
            if let Some(poll) = self.last.values().find(|poll| poll.seq > told + 1) {
                bail!("more was told than the failure: {} after {told}", poll.seq);
            }
            let know = self.last.iter().filter(|(_, poll)| poll.seq > told);
            let know: BTreeMap<String, u64> = know.map(|(who, p)| (who.clone(), p.at)).collect();
            if know.len() == proxies {
                return Ok(know);
            }
            ensure!(
                clock::now() < until,
                "not every proxy heard of it: {know:?}"
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Takes up what came since the last time.
    fn read(&mut self) -> Result<()> {
        let news = match &mut self.source {
            Source::Floor(polled) => {
                std::mem::take(&mut *polled.lock().unwrap_or_else(PoisonError::into_inner))
            }
            Source::Log(log, line) => {
                log.read_to_end(line)?;
                let end = line.iter().rposition(|&byte| byte == b'\n');
                let rest = line.split_off(end.map_or(0, |end| end + 1));
                let lines = std::mem::replace(line, rest);
                String::from_utf8_lossy(&lines)
                    .lines()
                    .filter_map(polled)
                    .collect()
            }
        };
        for (service, poll) in news {
            // The same poll again, after one that was held to its end, is no news.
            let last = self.last.get(&service);
            if last.is_none_or(|last| last.seq < poll.seq) {
                self.last.insert(service, poll);
            }
        }
        Ok(())
    }
}

/// `<time> DEBUG kaeru_aggregator::http::verdicts: polls service=<service> after=<epoch>:<seq>`; a first poll has no `after`.
fn polled(line: &str) -> Option<(String, Poll)> {
    let (head, said) = line.split_once(": polls service=")?;
    let (service, after) = said.split_once(" after=")?;
    let poll = Poll {
        at: logged_us(head.split(' ').next()?)?,
        seq: after.rsplit_once(':')?.1.parse().ok()?,
    };
    Some((service.to_owned(), poll))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_knows_what_since_when() {
        let line = "2026-01-01T00:00:00.000123Z DEBUG kaeru_aggregator::http::verdicts: polls service=shop/s3 after=ab-1-40:17";
        let (service, poll) = polled(line).unwrap();
        assert_eq!(
            (service.as_str(), poll.seq, poll.at % 1_000_000),
            ("shop/s3", 17, 123)
        );
        assert!(polled("2026-01-01T00:00:00Z  INFO kaeru_aggregator: ready").is_none());
    }
}
