//! Where proxies send what they have to tell, Kaeru's reports or OpenTelemetry's spans and log records (over HTTP or gRPC):
//! takes it, counts it (bytes as they come off the socket, HTTP's heads included), and answers well. All are measured
//! against the same server.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Result;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use http_body::Frame;
use kaeru_protocol::{Mode, Verdict, VerdictEntry, VerdictPage, limits};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
/// Of a gRPC message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// A running sink.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sink {
    bytes: Arc<AtomicU64>,
    told: Arc<AtomicU64>,
    running: Arc<AtomicU64>,
    verdicts: u64,
    /// Reports by reporter and sequence.
    seen: Arc<Mutex<HashSet<(String, u64)>>>,
}

impl Sink {
    /// Listens until the runtime ends; polls are told of so many verdicts.
    pub(crate) async fn start(at: SocketAddr, verdicts: u64) -> Result<Self> {
        let sink = Self {
            verdicts,
            ..Self::default()
        };
        let listener = Counted {
            listener: TcpListener::bind(at).await?,
            bytes: sink.bytes.clone(),
        };
        let routes = Router::new()
            .route("/v1/reports", post(reports))
            .route("/v1/traces", post(spans))
            .route("/v1/verdicts", get(verdicts_page))
            .route(TRACES, post(exported))
            .route(LOGS, post(exported))
            .layer(DefaultBodyLimit::disable())
            .with_state(sink.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok(sink)
    }

    /// Bytes that came, and reports or spans that they told.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.bytes), read(&self.told))
    }

    /// Reports that told of an open request.
    pub(crate) fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }
}

async fn reports(State(sink): State<Sink>, body: Bytes) -> Json<Value> {
    let batch: Value = serde_json::from_slice(&body).unwrap_or_default();
    let reports = batch["reports"].as_array().map_or(&[][..], Vec::as_slice);
    // Each request ends once, however often its report is sent; one that a flush finds open is told of as `running`, too.
    let ended = |r: &&Value| r.get("event").is_some() && r.get("kind").is_none();
    let running = reports.iter().filter(|r| r["kind"] == "running").count();
    sink.running.fetch_add(running as u64, Ordering::Relaxed);
    let reporter = batch["reporter"]["id"].as_str().unwrap_or_default();
    let mut seen = sink.seen.lock().unwrap_or_else(PoisonError::into_inner);
    for report in reports.iter().filter(ended) {
        if seen.insert((reporter.to_owned(), report["seq"].as_u64().unwrap_or(0))) {
            sink.told.fetch_add(1, Ordering::Relaxed);
        }
    }
    Json(json!({ "accepted": reports.len() }))
}

async fn spans(State(sink): State<Sink>, body: Bytes) {
    sink.take_export(&body);
}

/// One unary gRPC call: a message each way, then the status as a trailer.
async fn exported(State(sink): State<Sink>, body: Bytes) -> Response {
    sink.take_export(body.get(PREFIX_BYTES..).unwrap_or_default());
    let mut answer = Response::new(Body::new(Answer::default()));
    let grpc = HeaderValue::from_static("application/grpc");
    answer.headers_mut().insert(header::CONTENT_TYPE, grpc);
    answer
}

impl Sink {
    /// `ExportTraceServiceRequest`: `resource_spans` (1), `scope_spans` (2), `spans` (2); `ExportLogsServiceRequest` has
    /// the same numbers.
    fn take_export(&self, message: &[u8]) {
        let told = (fields(message, 1).into_iter())
            .flat_map(|resource| fields(resource, 2))
            .map(|scope| fields(scope, 2).len());
        let told = told.sum::<usize>() as u64;
        self.told.fetch_add(told, Ordering::Relaxed);
    }
}

/// An empty message, then `grpc-status: 0`.
#[derive(Default)]
struct Answer {
    frames: u8,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.frames += 1;
        Poll::Ready(match self.frames {
            1 => Some(Ok(Frame::data(Bytes::from_static(&[0; PREFIX_BYTES])))),
            2 => {
                let ok = (
                    HeaderName::from_static("grpc-status"),
                    HeaderValue::from_static("0"),
                );
                Some(Ok(Frame::trailers(HeaderMap::from_iter([ok]))))
            }
            _ => None,
        })
    }
}

/// The length-delimited fields of this number in a protobuf message that has no other kinds at this level.
fn fields(message: &[u8], number: u64) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let mut rest = message;
    while let Some(key) = varint(&mut rest) {
        let Some(length) = varint(&mut rest).and_then(|n| usize::try_from(n).ok()) else {
            break;
        };
        let Some((field, after)) = rest.split_at_checked(length) else {
            break;
        };
        if key == number << 3 | 2 {
            found.push(field);
        }
        rest = after;
    }
    found
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[derive(serde::Deserialize)]
struct Asked {
    after: Option<String>,
    wait_ms: Option<u64>,
}

async fn verdicts_page(State(sink): State<Sink>, Query(poll): Query<Asked>) -> Json<VerdictPage> {
    let after = poll
        .after
        .as_deref()
        .and_then(|a| a.strip_prefix("bench:")?.parse().ok());
    let seen: u64 = after.unwrap_or(0);
    let until = sink.verdicts.min(seen + limits::PAGE_VERDICTS_MAX as u64);
    if seen == until {
        tokio::time::sleep(Duration::from_millis(poll.wait_ms.unwrap_or(0))).await;
    }
    let verdict = |n: u64| {
        Some(VerdictEntry {
            event: format!("doomed-{n:028}").parse().ok()?,
            verdict: Verdict::RollBack,
            decision: format!("0198c3a2-1111-7222-8333-{n:012}").parse().ok()?,
            failed: "shop/payment".parse().ok(),
            mode: Mode::Enforce,
            ttl_ms: 3_600_000,
        })
    };
    Json(VerdictPage {
        cursor: kaeru_protocol::FeedCursor {
            epoch: "bench".into(),
            seq: until,
        },
        reset: after.is_none(),
        more: until < sink.verdicts,
        verdicts: (seen..until).filter_map(verdict).collect(),
    })
}

struct Counted {
    listener: TcpListener,
    bytes: Arc<AtomicU64>,
}

impl axum::serve::Listener for Counted {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        let (stream, from) = axum::serve::Listener::accept(&mut self.listener).await;
        let bytes = self.bytes.clone();
        (Stream { stream, bytes }, from)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

struct Stream {
    stream: TcpStream,
    bytes: Arc<AtomicU64>,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let count = buf.filled().len() - before;
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
