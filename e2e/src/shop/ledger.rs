//! What a service really got: the truth that Kaeru's pages are compared with.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// One request that reached the service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Arrival {
    /// When, ms since 1970.
    pub at_ms: u64,
    /// Its method.
    pub method: String,
    /// Its path.
    pub path: String,
    /// Its headers; repeated ones joined by commas.
    pub headers: BTreeMap<String, String>,
}

/// Arrivals and holds by order number.
#[derive(Debug, Default)]
pub struct Ledger {
    pages: Mutex<HashMap<String, Page>>,
}

#[derive(Debug, Default)]
struct Page {
    arrivals: Vec<Arrival>,
    released: watch::Sender<bool>,
}

impl Ledger {
    /// Notes one request of an order.
    pub fn note(&self, order: &str, at_ms: u64, method: &str, path: &str, headers: &HeaderMap) {
        let mut named = BTreeMap::<String, String>::new();
        for (name, value) in headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            let joined = named.entry(name.to_string()).or_default();
            if !joined.is_empty() {
                joined.push(',');
            }
            joined.push_str(&value);
        }
        let arrival = Arrival {
            at_ms,
            method: method.into(),
            path: path.into(),
            headers: named,
        };
        let mut pages = self.lock();
        pages
            .entry(order.into())
            .or_default()
            .arrivals
            .push(arrival);
    }

    /// What arrived for an order, in order of arrival.
    pub fn arrivals(&self, order: &str) -> Vec<Arrival> {
        let pages = self.lock();
        pages
            .get(order)
            .map_or_else(Vec::new, |p| p.arrivals.clone())
    }

    /// Lets an order go on, now and whenever it comes again.
    pub fn release(&self, order: &str) {
        let mut pages = self.lock();
        let page = pages.entry(order.into()).or_default();
        page.released.send_replace(true);
    }

    /// Waits until the order is released.
    pub async fn released(&self, order: &str) {
        let mut released = {
            let mut pages = self.lock();
            let page = pages.entry(order.into()).or_default();
            page.released.subscribe()
        };
        // The sender lives in the ledger, which never forgets a page.
        let _ = released.wait_for(|released| *released).await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Page>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
