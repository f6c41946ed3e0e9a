//! Requests that stay open: a service that never answers, and those who ask it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use axum::http::Method;
use kaeru_e2e::customer::Customer;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

/// Requests over one connection: Envoy allows as many.
const STREAMS: u64 = 100;

/// A service that takes requests, one a connection, and answers none.
pub(super) struct Service {
    pub(super) at: SocketAddr,
    arrived: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Service {
    pub(super) async fn start(at: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(at).await?;
        let arrived = Arc::new(AtomicU64::new(0));
        let count = arrived.clone();
        let task = tokio::spawn(async move {
            // What is open ends with it.
            let mut open = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let count = count.clone();
                open.spawn(async move {
                    let mut head = [0; 4_096];
                    let mut first = true;
                    while matches!(stream.read(&mut head).await, Ok(1..)) {
                        count.fetch_add(u64::from(std::mem::take(&mut first)), Ordering::Relaxed);
                    }
                });
            }
        });
        Ok(Self {
            at,
            arrived,
            task: task.abort_handle(),
        })
    }

    /// How many requests came.
    pub(super) fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// So many requests, each of an event of its own, that are open until this is dropped, a minute at most.
pub(super) fn ask(to: SocketAddr, count: u64) -> Result<JoinSet<()>> {
    let mut open = JoinSet::new();
    for first in (0..count).step_by(usize::try_from(STREAMS)?) {
        // Over HTTP/2.
        let peer = Customer::outside_grpc()?;
        for number in first..(first + STREAMS).min(count) {
            let peer = peer.clone();
            open.spawn(async move {
                let event = format!("0198c3a2-1111-7222-8333-{number:012x}");
                let headers = [
                    ("x-event-id", &*event),
                    ("x-event-type", "order.placed"),
                    ("x-event-from", "shop/till;t=1795500000000"),
                ];
                // An answer would be a failure, and is seen as a request that is not open.
                let path = format!("/orders/{number}");
                drop(peer.send(Method::POST, to, &path, &headers, None).await);
            });
        }
    }
    Ok(open)
}
