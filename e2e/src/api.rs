//! Kaeru's REST API as an operator uses it.

mod views;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Client, Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use views::{
    Attempt, Call, Considered, Decision, Edge, Event, Flow, Operation, Plan, PlanEntry, Proxy,
    Reason, Refusal, Reporter, Service, ServiceSummary, Step, Summary, VerdictView,
};

use crate::wait::{self, Seen};

/// No page takes longer; a long poll is asked with a shorter wait.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One aggregator's API.
#[derive(Debug, Clone)]
pub struct Api {
    http: Client,
    base: String,
    ops: String,
}

impl Api {
    /// The API at `listen`, the operations at `ops_listen`.
    pub fn new(listen: SocketAddr, ops_listen: SocketAddr) -> Result<Self> {
        let http = Client::builder().no_proxy().timeout(TIMEOUT).build()?;
        Ok(Self {
            http,
            base: format!("http://{listen}"),
            ops: format!("http://{ops_listen}"),
        })
    }

    /// Whether it says that it is ready.
    pub fn is_ready(&self) -> impl Future<Output = Result<bool>> + use<> {
        let ask = self.http.get(format!("{}/readyz", self.ops)).send();
        async move { Ok(ask.await?.status() == StatusCode::OK) }
    }

    /// Its metrics, as Prometheus reads them.
    pub async fn metrics(&self) -> Result<String> {
        let answer = self.http.get(format!("{}/metrics", self.ops)).send();
        Ok(answer.await?.error_for_status()?.text().await?)
    }

    /// The value of one metric without labels; an absent one is 0.
    pub async fn metric(&self, name: &str) -> Result<u64> {
        let metrics = self.metrics().await?;
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(Ok(0), |value| Ok(value.trim().parse()?))
    }

    /// One event; `None` where nobody reported it.
    pub async fn event(&self, id: &str) -> Result<Option<Event>> {
        self.find(&format!("/v1/events/{id}")).await
    }

    /// The first page of the events that a query selects.
    pub async fn events(&self, query: &str) -> Result<Vec<Summary>> {
        let mut page: Value = self.get(&format!("/v1/events?{query}")).await?;
        Ok(serde_json::from_value(page["events"].take())?)
    }

    /// Waits until an event is as `holds` says.
    pub async fn event_when(
        &self,
        id: &str,
        what: &str,
        holds: impl Fn(&Event) -> bool,
    ) -> Result<Event> {
        wait::until(&format!("event {id}: {what}"), || async {
            Ok(match self.event(id).await? {
                None => Seen::NotYet("no such event".into()),
                Some(event) => Seen::when(holds(&event), event),
            })
        })
        .await
    }

    /// Waits until an event has a live decision.
    pub async fn decision_of(&self, id: &str) -> Result<Decision> {
        let decided = |event: &Event| event.decision.is_some();
        let event = self.event_when(id, "a decision", decided).await?;
        event.decision.context("it was there a moment ago")
    }

    /// One decision.
    pub async fn decision(&self, id: &str) -> Result<Decision> {
        self.get(&format!("/v1/decisions/{id}")).await
    }

    /// The first page of the decisions that a query selects.
    pub async fn decisions(&self, query: &str) -> Result<Vec<Decision>> {
        let mut page: Value = self.get(&format!("/v1/decisions?{query}")).await?;
        Ok(serde_json::from_value(page["decisions"].take())?)
    }

    /// Withdraws a decision.
    pub async fn withdraw(&self, id: &str, by: &str, reason: &str) -> Result<Decision> {
        let body = json!({ "by": by, "reason": reason });
        self.post(&format!("/v1/decisions/{id}/withdraw"), body)
            .await
    }

    /// Demands that an event be rolled back.
    pub async fn roll_back(&self, id: &str, by: &str, reason: &str) -> Result<Value> {
        let body = json!({ "by": by, "reason": reason });
        self.post(&format!("/v1/events/{id}/rollback"), body).await
    }

    /// All services.
    pub async fn services(&self) -> Result<Vec<ServiceSummary>> {
        let mut page: Value = self.get("/v1/services").await?;
        Ok(serde_json::from_value(page["services"].take())?)
    }

    /// One service; `None` where it was never seen.
    pub async fn service(&self, name: &str) -> Result<Option<Service>> {
        self.find(&format!("/v1/services/{name}")).await
    }

    /// The flow of one event type; `None` where none was learned.
    pub async fn flow(&self, event_type: &str) -> Result<Option<Flow>> {
        let name: Vec<String> = event_type.bytes().map(|b| format!("%{b:02X}")).collect();
        let name = name.concat();
        self.find(&format!("/v1/flows/{name}")).await
    }

    /// The whole feed as this aggregator tells it, read from its beginning.
    pub async fn feed(&self) -> Result<kaeru_protocol::VerdictPage> {
        self.get("/v1/verdicts?service=shop/web&wait_ms=0").await
    }

    /// What this aggregator told after a page of the feed.
    pub async fn feed_after(
        &self,
        page: &kaeru_protocol::VerdictPage,
    ) -> Result<kaeru_protocol::VerdictPage> {
        let cursor = page.cursor.to_string();
        self.get(&format!(
            "/v1/verdicts?after={cursor}&service=shop/web&wait_ms=0"
        ))
        .await
    }

    /// Any page as JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let found = self.find(path).await?;
        found.with_context(|| format!("GET {path}: 404"))
    }

    async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>> {
        match self.ask(Method::GET, path, None).await? {
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (_, body) => read(path, &body).map(Some),
        }
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: Value) -> Result<T> {
        let (_, answer) = self.ask(Method::POST, path, Some(body)).await?;
        read(path, &answer)
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, String)> {
        let mut request = self
            .http
            .request(method.clone(), format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if !status.is_success() && status != StatusCode::NOT_FOUND {
            bail!("{method} {path}: {status} {text}");
        }
        Ok((status, text))
    }
}

fn read<T: DeserializeOwned>(path: &str, body: &str) -> Result<T> {
    serde_json::from_str(body).with_context(|| format!("{path} answered {body}"))
}
