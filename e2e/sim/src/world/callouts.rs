//! What VMs send to aggregators and what comes back: batches, polls; lost, delayed, doubled, out of order.

use kaeru_protocol::{Batch as WireBatch, Body, FeedCursor, ReporterId};

use super::{Moment, World};

/// How long a poll's answer may take beyond its wait, ms (`vm/poll.rs`).
const POLL_GRACE_MS: u64 = 5_000;

/// One call of a VM.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) proxy: usize,
    pub(crate) worker: usize,
    lives: u32,
    token: u32,
    pub(crate) reporter: ReporterId,
    pub(crate) what: Cargo,
    sent_ms: u64,
    /// It was, or may have been, answered: nothing more comes.
    pub(crate) is_over: bool,
    /// The network hindered it.
    hindered: bool,
    /// Its answer gets lost.
    loses_answer: bool,
}

/// What it carries.
#[derive(Debug)]
pub(crate) enum Cargo {
    Batch(Vec<u8>),
    Poll {
        after: Option<FeedCursor>,
        wait_ms: u64,
    },
}

impl Flight {
    /// It is under way, and the network holds it up.
    pub(crate) fn is_hindered(&self) -> bool {
        self.hindered && !self.is_over && matches!(self.what, Cargo::Batch(_))
    }
}

impl World {
    /// A VM's call leaves.
    pub(super) fn fly(
        &mut self,
        proxy: usize,
        worker: usize,
        token: u32,
        path: &str,
        body: Vec<u8>,
    ) {
        let what = if path == "/v1/reports" {
            Cargo::Batch(body)
        } else {
            let query = |name: &str| {
                path.split(['?', '&'])
                    .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
            };
            Cargo::Poll {
                after: query("after").and_then(|text| text.parse().ok()),
                wait_ms: query("wait_ms")
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(0),
            }
        };
        let timeout_ms = match &what {
            Cargo::Batch(_) => self.shape.report_timeout_ms,
            Cargo::Poll { wait_ms, .. } => wait_ms + POLL_GRACE_MS,
        };
        let place = &self.proxies[proxy].workers[worker];
        let reporter = place.vm.as_ref().map_or(ReporterId(0), |vm| vm.seen().id);
        let rough = self.shape.rough * 2 * u64::from(self.age_ms() < super::HEALED_MS);
        let flight = self.flights.len();
        let mut one = Flight {
            proxy,
            worker,
            lives: place.lives,
            token,
            reporter,
            what,
            sent_ms: self.now_ms,
            is_over: false,
            hindered: false,
            loses_answer: false,
        };
        if let Cargo::Batch(body) = &one.what {
            self.oracle.check_batch(body);
        }
        self.after(
            timeout_ms,
            Moment::Reply {
                flight,
                status: 504,
                body: Vec::new(),
            },
        );
        let aggregator = self.choose_aggregator();
        let transit_ms = self.chance.within(1..=3);
        if self.proxies[proxy].is_cut_off {
            one.hindered = true;
        } else if self.chance.permille(rough) {
            self.tally.count("fault: callout lost");
            one.hindered = true;
        } else {
            if self.chance.permille(rough) {
                self.tally.count("fault: callout's answer lost");
                one.hindered = true;
                one.loses_answer = true;
            }
            let mut wait_ms = transit_ms;
            if self.chance.permille(rough) {
                self.tally.count("fault: callout delayed");
                one.hindered = true;
                wait_ms += self.chance.within(50..=4_000);
            }
            self.after(wait_ms, Moment::Land { flight, aggregator });
            if self.chance.permille(rough) {
                self.tally.count("fault: callout doubled");
                let again_ms = self.chance.within(0..=1_500);
                let other = self.choose_aggregator();
                self.after(
                    wait_ms + again_ms,
                    Moment::Land {
                        flight,
                        aggregator: other,
                    },
                );
            }
        }
        self.flights.push(one);
    }

    fn choose_aggregator(&mut self) -> usize {
        let count = self.aggregators.len();
        let first = self.chance.below(count);
        // A balancer soon leaves out who is down, but not always; who stops in good order says so first.
        let one = &self.aggregators[first];
        if !one.is_leaving && (one.is_up || self.chance.percent(20)) {
            first
        } else {
            (first + 1) % count
        }
    }

    /// A call arrives at an aggregator.
    pub(super) fn land(&mut self, flight: usize, aggregator: usize) {
        if !self.aggregators[aggregator].is_up {
            return self.send_reply(flight, 503, Vec::new());
        }
        match &self.flights[flight].what {
            Cargo::Batch(body) => {
                let body = body.clone();
                self.take_batch(aggregator, flight, &body);
            }
            Cargo::Poll { .. } => self.take_poll(aggregator, flight),
        }
    }

    /// An aggregator answers.
    pub(super) fn send_reply(&mut self, flight: usize, status: u16, body: Vec<u8>) {
        if self.flights[flight].loses_answer || self.proxies[self.flights[flight].proxy].is_cut_off
        {
            self.flights[flight].hindered = true;
            return;
        }
        let wait_ms = self.chance.within(1..=3);
        self.after(
            wait_ms,
            Moment::Reply {
                flight,
                status,
                body,
            },
        );
    }

    /// The answer arrives at the VM, or its patience is over.
    pub(super) fn reply(&mut self, flight: usize, status: u16, body: &[u8]) {
        let one = &mut self.flights[flight];
        if one.is_over {
            return;
        }
        one.is_over = true;
        let (proxy, worker, token, lives) = (one.proxy, one.worker, one.token, one.lives);
        let (reporter, sent_ms, hindered) = (one.reporter, one.sent_ms, one.hindered);
        let batch = match &one.what {
            Cargo::Batch(batch) if (200..300).contains(&status) => Some(batch.clone()),
            _ => None,
        };
        let is_batch = matches!(one.what, Cargo::Batch(_));
        if hindered && is_batch {
            // Until a batch gets through, what is kept behind it is late by the network's fault.
            let times = self.truth.hindered.entry(reporter).or_default();
            times.push((sent_ms, u64::MAX));
        }
        if batch.is_some() {
            for time in self.truth.hindered.entry(reporter).or_default() {
                time.1 = time.1.min(self.now_ms);
            }
        }
        if self.proxies[proxy].workers[worker].lives != lives {
            return;
        }
        if let Some(batch) = batch {
            self.check_receipt(&batch, body);
            self.count_statuses(proxy, &batch);
        }
        self.give_answer(proxy, worker, token, status, body);
        if status == 200 && !is_batch {
            self.note_page(proxy, body);
        }
    }

    fn count_statuses(&mut self, proxy: usize, batch: &[u8]) {
        if self.age_ms() < super::HEALED_MS {
            return;
        }
        let Ok(batch) = serde_json::from_slice::<WireBatch>(batch) else {
            return;
        };
        let dropped_ms = self.proxies[proxy].dropped_ms;
        let count = batch
            .into_reports()
            .filter_map(Result::ok)
            .filter(|report| matches!(report.body, Body::Proxy(_)) && report.at_ms > dropped_ms)
            .count();
        self.proxies[proxy].statuses += u32::try_from(count).unwrap_or(0);
    }
}
