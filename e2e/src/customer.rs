//! Who sends requests to the shop: anyone from outside over plain HTTP, or a peer of the mesh with a certificate.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::iter;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::http::HeaderMap;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, ClientBuilder, Identity, Method};

use crate::certs;
use crate::shop::{Order, Told};

/// Longer than any order takes, shorter than a person waits.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Every name is this machine: public ones lead to the gateway of a world.
#[derive(Debug)]
struct Here;

impl Resolve for Here {
    fn resolve(&self, _name: Name) -> Resolving {
        let here: Addrs = Box::new(iter::once((Ipv4Addr::LOCALHOST, 0).into()));
        Box::pin(std::future::ready(Ok(here)))
    }
}

/// A sender of requests.
#[derive(Debug, Clone)]
pub struct Customer {
    http: Client,
    scheme: &'static str,
}

impl Customer {
    /// Anyone, from outside the mesh.
    pub fn outside() -> Result<Self> {
        let http = client().build()?;
        let scheme = "http";
        Ok(Self { http, scheme })
    }

    /// Anyone who speaks gRPC's HTTP/2 at once.
    pub fn outside_grpc() -> Result<Self> {
        Ok(Self {
            http: client().http2_prior_knowledge().build()?,
            scheme: "http",
        })
    }

    /// A peer of the mesh. It does not check who answers (workload certificates carry no host names); the sidecar
    /// checks who asks.
    pub fn peer(identity: &certs::Identity) -> Result<Self> {
        let mut pem = fs::read(&identity.certificate)?;
        pem.extend(fs::read(&identity.key)?);
        let http = client().identity(Identity::from_pem(&pem)?);
        Ok(Self {
            http: http.tls_danger_accept_invalid_certs(true).build()?,
            scheme: "https",
        })
    }

    /// Sends one request to a sidecar's inbound listener, or to a public name and the gateway's port.
    pub async fn send(
        &self,
        method: Method,
        to: impl Display,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Result<Told> {
        let url = format!("{}://{to}{path}", self.scheme);
        let mut request = self.http.request(method, &url);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Told::read(request.send().await.context(url)?).await
    }

    /// Sends any headers to a sidecar's inbound listener: values of any bytes that HTTP has, names as often as they come.
    pub async fn send_raw(
        &self,
        to: SocketAddr,
        path: &str,
        headers: HeaderMap,
        body: String,
    ) -> Result<Told> {
        let url = format!("{}://{to}{path}", self.scheme);
        let request = self.http.post(&url).headers(headers).body(body);
        Told::read(request.send().await.context(url)?).await
    }

    /// Sends an order.
    pub async fn order(
        &self,
        to: SocketAddr,
        order: &Order,
        headers: &[(&str, &str)],
    ) -> Result<Told> {
        let body = serde_json::to_string(order)?;
        self.send(Method::POST, to, "/orders", headers, Some(body))
            .await
    }
}

fn client() -> ClientBuilder {
    Client::builder()
        .no_proxy()
        .timeout(TIMEOUT)
        .dns_resolver(Arc::new(Here))
}

/// The event that a service was told its request belongs to.
pub fn event_of(told: &Told) -> Result<String> {
    let body: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(&told.body).with_context(|| format!("{told:?}"))?;
    let event = body.get("event").and_then(serde_json::Value::as_str);
    Ok(event.context("the service saw no event id")?.to_owned())
}
