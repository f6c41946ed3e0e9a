//! One service of the shop: its routes, and what it does with an order.
//!
//! | route | what |
//! | --- | --- |
//! | `POST` anything | does this service's part of the order in the body |
//! | `GET` anything`/{number}` | reads the order here and at the services below |
//! | `GET /control/orders/{number}` | the ledger's page, for whoever checks |
//! | `POST /control/orders/{number}/release` | lets a held order go on |
//! | `POST /control/call` | makes one call ([`Asked`]) through the sidecar and tells the answer ([`Told`]) |

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use kaeru_protocol::headers;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;

use super::outward::{Outward, forwarded};
use super::{Arrival, Forward, Ledger, Order, Role, job};
use crate::clock;

/// Bytes of an order; the shop's own are below 1 KiB.
const ORDER_BYTES_MAX: usize = 64 * 1024;

/// A call to make through the sidecar.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Its method.
    pub method: String,
    /// The authority.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
    /// Its body; `None` sends none.
    pub body: Option<String>,
}

/// What came back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Told {
    /// The status.
    pub status: u16,
    /// The headers that are text.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

#[derive(Debug, Clone)]
struct Service {
    role: Role,
    outward: Outward,
    ledger: Arc<Ledger>,
}

/// Plays `role` on `listen` until the process ends. `sidecar` is where its outbound calls go.
pub async fn serve(role: Role, listen: SocketAddr, sidecar: SocketAddr) -> Result<()> {
    // reqwest wants a provider chosen even where all is plain HTTP; a second choice is no harm.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // By its name its callees' ledgers know who called.
    let client = reqwest::Client::builder().user_agent(role.name());
    let client = client.no_proxy().build()?;
    let service = Service {
        role,
        outward: Outward { sidecar, client },
        ledger: Arc::default(),
    };
    let routes = axum::Router::new()
        .route("/control/orders/{number}", get(page))
        .route("/control/orders/{number}/release", post(release))
        .route("/control/call", post(call))
        .fallback(any(handle))
        .with_state(service);
    let listener = TcpListener::bind(listen).await;
    let listener = listener.with_context(|| format!("listen on {listen}"))?;
    axum::serve(listener, routes).await.context("serve")
}

async fn page(State(service): State<Service>, Path(number): Path<String>) -> Json<Vec<Arrival>> {
    Json(service.ledger.arrivals(&number))
}

async fn release(State(service): State<Service>, Path(number): Path<String>) {
    service.ledger.release(&number);
}

async fn call(State(service): State<Service>, Json(asked): Json<Asked>) -> Response {
    match service.call(asked).await {
        Ok(told) => Json(told).into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    }
}

async fn handle(State(service): State<Service>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let safe = parts.method.is_safe();
    let order = if safe {
        let number = parts.uri.path().rsplit('/').next().unwrap_or_default();
        Some(Order {
            number: number.into(),
            ..Order::default()
        })
    } else {
        let body = axum::body::to_bytes(body, ORDER_BYTES_MAX).await;
        body.ok().and_then(|b| serde_json::from_slice(&b).ok())
    };
    let Some(order) = order else {
        return (StatusCode::BAD_REQUEST, "the body is no order").into_response();
    };
    service.note(&order, &parts.method, &parts.uri, &parts.headers);
    if safe {
        service.read(&order, &parts.headers).await
    } else {
        service.work(&order, parts.uri.path(), &parts.headers).await
    }
}

impl Service {
    fn note(&self, order: &Order, method: &Method, uri: &Uri, headers: &HeaderMap) {
        let (now, method) = (clock::now_ms(), method.as_str());
        self.ledger
            .note(&order.number, now, method, uri.path(), headers);
    }

    /// This service's part of the order, unless the order says what it answers.
    async fn work(&self, order: &Order, path: &str, came_with: &HeaderMap) -> Response {
        let first = order.first_answers.get(&self.role);
        let told = first.and_then(|&status| StatusCode::from_u16(status).ok());
        if let Some(status) = told.filter(|_| self.ledger.arrivals(&order.number).len() == 1) {
            return status.into_response();
        }
        let mut response = self.part(order, path, came_with).await;
        if order.hold_answer.contains(&self.role) {
            self.ledger.released(&order.number).await;
        }
        let told = order.answers.get(&self.role);
        if let Some(status) = told.and_then(|&status| StatusCode::from_u16(status).ok()) {
            *response.status_mut() = status;
        }
        response
    }

    async fn part(&self, order: &Order, path: &str, came_with: &HeaderMap) -> Response {
        match self.role {
            Role::Web => self.hand_on(order, came_with, Role::Backend, path).await,
            Role::Backend if order.as_job => self.begin(order, came_with).await,
            Role::Backend => self.run(order, came_with).await,
            Role::DbApi => {
                let row = format!("/rows{path}");
                self.hand_on(order, came_with, Role::Db, &row).await
            }
            Role::Db => {
                self.hold(order).await;
                let mut response = answer(came_with, &[]);
                response.headers_mut().extend(said(&order.says));
                response
            }
            Role::Payment if order.declined => StatusCode::PAYMENT_REQUIRED.into_response(),
            Role::Payment | Role::Mail | Role::Mailer => StatusCode::CREATED.into_response(),
        }
    }

    /// The backend's part as a job: reserve, say that the order is running, and go on with it.
    async fn begin(&self, order: &Order, came_with: &HeaderMap) -> Response {
        let (host, path) = (Role::DbApi.host(), "/reservations");
        let reserved = self.outward.pass_on(&host, path, order, came_with).await;
        let mut response = answer(came_with, &[reserved]);
        if took_effect(reserved) {
            for (name, value) in [
                (headers::EVENT_STATUS, "running"),
                (headers::EVENT_PROGRESS, "1/4"),
            ] {
                let value = HeaderValue::from_static(value);
                response.headers_mut().insert(name, value);
            }
            let (service, order, came_with) = (self.clone(), order.clone(), came_with.clone());
            tokio::spawn(async move {
                job::go_on(&service.outward, &service.ledger, &order, &came_with).await;
            });
        }
        response
    }

    /// The backend's part: reserve, charge, then confirm, or note that it failed (or cancel the reservation).
    async fn run(&self, order: &Order, came_with: &HeaderMap) -> Response {
        let pass_on = |callee: Role, path| {
            let host = callee.host();
            async move { self.outward.pass_on(&host, path, order, came_with).await }
        };
        let mut took = vec![pass_on(Role::DbApi, "/reservations").await];
        if !took_effect(took[0]) {
            return answer(came_with, &took);
        }
        let paid = pass_on(Role::Payment, "/charges").await;
        self.hold(order).await;
        let last = match took_effect(paid) {
            true => "/confirmations",
            false if order.compensates => "/cancellations",
            false => "/notes",
        };
        took.extend([paid, pass_on(Role::DbApi, last).await]);
        let mut response = answer(came_with, &took);
        if !took_effect(paid) && order.says_failed {
            let word = HeaderValue::from_static("failed");
            response.headers_mut().insert(headers::EVENT_STATUS, word);
        }
        response
    }

    /// The part of a service that only hands on.
    async fn hand_on(
        &self,
        order: &Order,
        came_with: &HeaderMap,
        callee: Role,
        path: &str,
    ) -> Response {
        self.hold(order).await;
        let host = callee.host();
        let took = self.outward.pass_on(&host, path, order, came_with).await;
        answer(came_with, &[took])
    }

    async fn hold(&self, order: &Order) {
        if order.hold.contains(&self.role) {
            self.ledger.released(&order.number).await;
        }
    }

    /// Reads the order at the service below, if there is one.
    async fn read(&self, order: &Order, came_with: &HeaderMap) -> Response {
        let below = match self.role {
            Role::Web => Role::Backend,
            Role::Backend => Role::DbApi,
            Role::DbApi => Role::Db,
            Role::Db | Role::Payment | Role::Mailer | Role::Mail => {
                return StatusCode::OK.into_response();
            }
        };
        let path = format!("/orders/{}", order.number);
        let headers = forwarded(&Forward::ALL, came_with);
        let host = below.host();
        let read = self.outward.call(Method::GET, &host, &path, headers, None);
        let status = read
            .await
            .map_or(StatusCode::BAD_GATEWAY, |answer| answer.status());
        status.into_response()
    }

    async fn call(&self, asked: Asked) -> Result<Told> {
        let mut headers = HeaderMap::new();
        for (name, value) in &asked.headers {
            let (name, value) = (HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
            headers.insert(name, value);
        }
        let method = Method::from_bytes(asked.method.as_bytes())?;
        let call = self
            .outward
            .call(method, &asked.host, &asked.path, headers, asked.body);
        Told::read(call.await?).await
    }
}

impl Told {
    /// Reads a whole answer.
    pub async fn read(response: reqwest::Response) -> Result<Self> {
        let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
        Ok(Self {
            status: response.status().as_u16(),
            headers: (response.headers().iter())
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
            body: response.text().await?,
        })
    }

    /// A header of the answer.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What a service says of itself, as far as HTTP has it.
fn said(says: &[(String, String)]) -> HeaderMap {
    let header = |(name, value): &(String, String)| {
        let bytes: Option<Vec<u8>> = value.chars().map(|c| u8::try_from(c).ok()).collect();
        let value = HeaderValue::from_bytes(&bytes?).ok()?;
        Some((HeaderName::try_from(name).ok()?, value))
    };
    says.iter().filter_map(header).collect()
}

fn took_effect(status: Option<u16>) -> bool {
    status.is_some_and(|s| (200..300).contains(&s))
}

/// 201 where every call took effect; else 500, as a service that cannot help itself answers. The body tells which event
/// the service was told that this is, and how its calls ended.
fn answer(came_with: &HeaderMap, took: &[Option<u16>]) -> Response {
    let event = came_with.get(headers::EVENT_ID);
    let event = event.and_then(|value| value.to_str().ok());
    let status = if took.iter().copied().all(took_effect) {
        StatusCode::CREATED
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    (status, Json(json!({ "event": event, "calls": took }))).into_response()
}
