//! When each proxy polled, and from where it went on, as the aggregator logs it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kaeru_e2e::clock::logged_us;

use crate::clock;

/// What makes the aggregator log them.
pub(super) const LOGGED: &str = "RUST_LOG=info,sqlx=warn,kaeru_aggregator::http::verdicts=debug";
/// Between two looks at the log.
const LOOK: Duration = Duration::from_millis(3);
/// How long polls may take to come.
const PATIENCE: Duration = Duration::from_secs(5);

/// The log as far as it was read.
pub(super) struct Polls {
    log: File,
    line: Vec<u8>,
    last: BTreeMap<String, Poll>,
}

#[derive(Debug, Clone, Copy)]
struct Poll {
    /// µs since 1970.
    at: u64,
    /// The last verdict that it knows of.
    seq: u64,
}

impl Polls {
    pub(super) fn of(log: &Path) -> Result<Self> {
        Ok(Self {
            log: File::open(log).context("the aggregator's log")?,
            line: Vec::new(),
            last: BTreeMap::new(),
        })
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

    /// Takes up what was logged since the last time.
    fn read(&mut self) -> Result<()> {
        self.log.read_to_end(&mut self.line)?;
        let Some(end) = self.line.iter().rposition(|&byte| byte == b'\n') else {
            return Ok(());
        };
        let rest = self.line.split_off(end + 1);
        let lines = std::mem::replace(&mut self.line, rest);
        for line in String::from_utf8_lossy(&lines).lines() {
            if let Some((service, poll)) = polled(line) {
                // The same poll again, after one that was held to its end, is no news.
                let is_news = self
                    .last
                    .get(service)
                    .is_none_or(|last| last.seq < poll.seq);
                if is_news {
                    self.last.insert(service.to_owned(), poll);
                }
            }
        }
        Ok(())
    }
}

/// `<time> DEBUG kaeru_aggregator::http::verdicts: polls service=<service> after=<epoch>:<seq>`; a first poll has no `after`.
fn polled(line: &str) -> Option<(&str, Poll)> {
    let (head, said) = line.split_once(": polls service=")?;
    let (service, after) = said.split_once(" after=")?;
    let poll = Poll {
        at: logged_us(head.split(' ').next()?)?,
        seq: after.rsplit_once(':')?.1.parse().ok()?,
    };
    Some((service, poll))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_knows_what_since_when() {
        let line = "2026-01-01T00:00:00.000123Z DEBUG kaeru_aggregator::http::verdicts: polls service=shop/s3 after=ab-1-40:17";
        let (service, poll) = polled(line).unwrap();
        assert_eq!(
            (service, poll.seq, poll.at % 1_000_000),
            ("shop/s3", 17, 123)
        );
        assert!(polled("2026-01-01T00:00:00Z  INFO kaeru_aggregator: ready").is_none());
    }
}
