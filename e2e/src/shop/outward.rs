//! How a service calls the next one: through its sidecar's outbound listener, by the Host header.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use reqwest::{Client, Response};

use super::{Forward, Order};

/// Between two tries of one call.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The service's HTTP client.
#[derive(Debug, Clone)]
pub(crate) struct Outward {
    /// The outbound listener of the service's own sidecar.
    pub(crate) sidecar: SocketAddr,
    /// The connections to it.
    pub(crate) client: Client,
}

impl Outward {
    /// Passes the order on; tries again as the order says. The status of the last try, `None` without an answer.
    pub(super) async fn pass_on(
        &self,
        host: &str,
        path: &str,
        order: &Order,
        came_with: &HeaderMap,
    ) -> Option<u16> {
        let headers = forwarded(&order.forward, came_with);
        let body = serde_json::to_string(order).unwrap_or_default();
        let mut tries_left = order.retries;
        loop {
            let call = self.call(
                Method::POST,
                host,
                path,
                headers.clone(),
                Some(body.clone()),
            );
            let status = call.await.ok().map(|answer| answer.status().as_u16());
            if tries_left == 0 || status.is_some_and(|s| s < 500) {
                return status;
            }
            tries_left -= 1;
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// One call, as it is.
    pub(crate) async fn call(
        &self,
        method: Method,
        host: &str,
        path: &str,
        headers: HeaderMap,
        body: Option<String>,
    ) -> reqwest::Result<Response> {
        let url = format!("http://{}{path}", self.sidecar);
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        request.header("host", host).headers(headers).send().await
    }
}

/// The headers of `came_with` that a service forwards.
pub(crate) fn forwarded(forward: &[Forward], came_with: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in came_with {
        let kind = match name.as_str() {
            "traceparent" | "tracestate" => Forward::Traceparent,
            "baggage" => Forward::Baggage,
            "x-request-id" => Forward::RequestId,
            b3 if b3 == "b3" || b3.starts_with("x-b3-") => Forward::B3,
            _ => continue,
        };
        if forward.contains(&kind) {
            headers.append(name.clone(), child(name, value));
        }
    }
    headers
}

/// A trace header as a child span passes it on: the same trace, a new span.
fn child(name: &HeaderName, value: &HeaderValue) -> HeaderValue {
    let own = (name.as_str() == "traceparent")
        .then(|| value.to_str().ok())
        .flatten()
        .and_then(|text| {
            let (version_and_trace, flags) = (text.get(..35)?, text.get(53..55)?);
            let span = &uuid::Uuid::new_v4().simple().to_string()[..16];
            HeaderValue::try_from(format!("{version_and_trace}-{span}-{flags}")).ok()
        });
    own.unwrap_or_else(|| value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_goes_on() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut came = HeaderMap::new();
        for (name, value) in [
            ("traceparent", trace),
            ("x-event-id", "order-7"),
            ("x-request-id", "r"),
            ("x-b3-traceid", "t"),
            ("baggage", "a=b"),
        ] {
            came.insert(name, HeaderValue::from_static(value));
        }
        assert!(forwarded(&[], &came).is_empty());
        let traced = forwarded(&[Forward::Traceparent], &came);
        let child = traced["traceparent"].to_str().unwrap();
        assert_eq!((traced.len(), &child[..35]), (1, &trace[..35]));
        assert_ne!(child, trace);
        assert_eq!(forwarded(&Forward::ALL, &came).len(), 4);
    }
}
