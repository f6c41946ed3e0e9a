//! A sender of batches, as a filter is one: what is not acknowledged is sent again, the same, for as long as it takes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use kaeru_e2e::clock;
use kaeru_protocol::{
    BatchBuilder, Body, Call, EventReport, Kind, Receipt, Report, Reporter, ReporterId, Word,
};
use reqwest::{Client, StatusCode, header};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::books::Books;

/// One event in so many fails.
const FAILS_EVERY: u64 = 20;
/// Longer than an aggregator may take to say no: two attempts of 15 s each at the database.
const TIMEOUT: Duration = Duration::from_secs(40);
/// As a filter's first back-off, shorter.
const BACK_OFF: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Sender {
    http: Client,
    to: Vec<SocketAddr>,
    reporter: Reporter,
    path: String,
    books: Arc<Books>,
    /// Reports in a batch.
    pub(crate) size: u64,
    /// Some of its events fail.
    pub(crate) fails: bool,
    seq: u64,
    tries: usize,
}

impl Sender {
    pub(crate) fn new(number: u32, to: Vec<SocketAddr>, books: Arc<Books>) -> Result<Self> {
        let (id, _) = uuid::Uuid::new_v4().as_u64_pair();
        let reporter = Reporter {
            id: ReporterId(id),
            proxy: format!("proxy-{id:x}").into(),
            service: format!("break/s{number}").parse()?,
            gateway: false,
        };
        Ok(Self {
            http: Client::builder().no_proxy().timeout(TIMEOUT).build()?,
            to,
            path: format!("/orders/{}", reporter.service),
            reporter,
            books,
            size: 10,
            fails: true,
            seq: 0,
            tries: usize::try_from(number)?,
        })
    }

    /// Sends batch after batch, and the last one until it is acknowledged.
    pub(crate) async fn work(mut self, stopping: watch::Receiver<bool>) {
        while !*stopping.borrow() {
            if let Err(error) = self.one_batch().await {
                self.books.wrong(format!("{error:#}"));
                return;
            }
        }
    }

    async fn one_batch(&mut self) -> Result<()> {
        let mut failed = Vec::new();
        let at_ms = clock::now_ms();
        let mut reports = Vec::new();
        for _ in 0..self.size {
            self.seq += 1;
            let event = format!("e-{}-{}", self.reporter.id, self.seq);
            let mut report = EventReport::new(event.parse()?, Kind::Attempt);
            report.call = Arc::new(Call {
                method: "POST".into(),
                path: self.path.as_str().into(),
                ..Call::default()
            });
            report.ending.status = Some(200);
            if self.fails && self.seq.is_multiple_of(FAILS_EVERY) {
                report.ending.word = Some(Word::Failed);
                failed.push(event);
            }
            let (seq, body) = (self.seq, Body::Event(Box::new(report)));
            reports.push(Report { seq, at_ms, body });
        }
        while !self.deliver(&reports).await? {
            tokio::time::sleep(BACK_OFF).await;
        }
        self.books.acknowledged(reports.len(), failed);
        Ok(())
    }

    /// Whether the batch was acknowledged.
    async fn deliver(&mut self, reports: &[Report]) -> Result<bool> {
        let mut batch = BatchBuilder::new(self.reporter.clone(), clock::now_ms());
        for report in reports {
            batch.push(report);
        }
        let to = self.to[self.tries % self.to.len()];
        let begun = Instant::now();
        let request = self.http.post(format!("http://{to}/v1/reports"));
        let answer = request.json(&batch.finish()).send().await;
        let status = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
        self.books.answered(status, begun.elapsed());
        self.tries += 1;
        let Ok(answer) = answer else {
            return Ok(false);
        };
        match answer.status() {
            StatusCode::OK => {
                // An answer that is cut short is none.
                let Ok(receipt) = answer.json::<Receipt>().await else {
                    return Ok(false);
                };
                if usize::try_from(receipt.accepted)? != reports.len() {
                    self.books.wrong(format!("{receipt:?}"));
                }
                self.tries -= 1;
                Ok(true)
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                if !answer.headers().contains_key(header::RETRY_AFTER) {
                    self.books
                        .wrong(format!("{to}: no Retry-After: {answer:?}"));
                }
                Ok(false)
            }
            _ => {
                let words = answer.text().await.unwrap_or_default();
                self.books.wrong(format!("{to}: {status} {words}"));
                Ok(false)
            }
        }
    }
}
