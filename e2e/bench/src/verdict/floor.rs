//! An aggregator that neither stores nor decides: it tells of a failure as soon as a report names it. What is left is what
//! proxies, loopback and cores take, so no aggregator is quicker on this machine.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use kaeru_protocol::{EventId, FeedCursor, Mode, Verdict, VerdictEntry, VerdictPage};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::polls::Poll;
use crate::clock;

const EPOCH: &str = "floor";

/// What it knows.
#[derive(Clone)]
pub(super) struct Floor {
    doomed: watch::Sender<Vec<EventId>>,
    polls: Polled,
}

/// Polls that came and were not looked at yet, by service.
pub(super) type Polled = Arc<Mutex<Vec<(String, Poll)>>>;

#[derive(serde::Deserialize)]
struct Asked {
    after: Option<FeedCursor>,
    service: String,
    wait_ms: u64,
}

impl Floor {
    /// Listens until the runtime ends; what it is polled.
    pub(super) async fn start(at: SocketAddr) -> Result<Polled> {
        let floor = Self {
            doomed: watch::Sender::default(),
            polls: Polled::default(),
        };
        let polls = floor.polls.clone();
        let listener = TcpListener::bind(at).await?.tap_io(|stream| {
            // Without it answers are late, and this would be no floor.
            let _ = stream.set_nodelay(true);
        });
        let routes = Router::new()
            .route("/v1/reports", post(reports))
            .route("/v1/verdicts", get(page))
            .with_state(floor);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(polls)
    }

    fn note(&self, service: String, seq: u64) {
        let poll = Poll {
            at: clock::now_us(),
            seq,
        };
        let mut polls = self.polls.lock().unwrap_or_else(PoisonError::into_inner);
        polls.push((service, poll));
    }
}

async fn reports(State(floor): State<Floor>, body: Bytes) -> Json<Value> {
    let batch: Value = serde_json::from_slice(&body).unwrap_or_default();
    let reports = batch["reports"].as_array().map_or(&[][..], Vec::as_slice);
    let failed = reports.iter().filter(|report| report["status"] == 500);
    for id in failed.filter_map(|report| report["event"].as_str()?.parse().ok()) {
        floor.doomed.send_modify(|doomed| doomed.push(id));
    }
    Json(json!({ "accepted": reports.len() }))
}

async fn page(State(floor): State<Floor>, Query(asked): Query<Asked>) -> Json<VerdictPage> {
    let after = asked.after.filter(|cursor| &*cursor.epoch == EPOCH);
    let reset = after.is_none();
    let seq = after.map_or(0, |cursor| cursor.seq);
    floor.note(asked.service, seq);
    let known = usize::try_from(seq).unwrap_or(usize::MAX);
    let mut doomed = floor.doomed.subscribe();
    if !reset {
        let news = doomed.wait_for(|doomed| doomed.len() > known);
        let wait = Duration::from_millis(asked.wait_ms);
        // What there is by then is told, be it nothing.
        drop(tokio::time::timeout(wait, news).await);
    }
    let doomed = doomed.borrow();
    let verdicts = doomed.iter().skip(known).filter_map(verdict);
    Json(VerdictPage {
        cursor: FeedCursor {
            epoch: EPOCH.into(),
            seq: doomed.len() as u64,
        },
        reset,
        more: false,
        verdicts: verdicts.collect(),
    })
}

fn verdict(event: &EventId) -> Option<VerdictEntry> {
    Some(VerdictEntry {
        event: event.clone(),
        verdict: Verdict::RollBack,
        decision: "0198c3a2-1111-7222-8333-000000000000".parse().ok()?,
        failed: "shop/s0".parse().ok(),
        mode: Mode::Enforce,
        ttl_ms: 600_000,
    })
}
