//! What the filter needs from the proxy that runs it. `host/envoy.rs` gives it by the proxy-wasm ABI and is the
//! only file with hostcalls; the tests give it from memory, so everything else runs natively.

use std::fmt;

#[cfg(target_arch = "wasm32")]
pub(crate) mod envoy;
mod headers;
#[cfg(any(test, feature = "simulated"))]
pub mod simulated;

pub use headers::{Headers, pack};

/// How loud a log line is; the ABI's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// For an operator who looks.
    Info = 2,
    /// Something that an operator should change.
    Warn = 3,
}

/// A header map of the current stream or answered call; the ABI's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderMap {
    /// The request.
    Request = 0,
    /// The response.
    Response = 2,
    /// The answer to one of our own calls.
    CallAnswer = 6,
}

/// What a metric is; the ABI's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter = 0,
    /// Grows and shrinks, over all VMs together.
    Gauge = 1,
}

/// A status of the ABI other than "OK"; the host has counted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused(pub u32);

impl Refused {
    /// Of a call: the cluster does not exist.
    pub const BAD_ARGUMENT: Self = Self(2);
    /// Of a write to shared data: someone else wrote in between.
    pub const CAS_MISMATCH: Self = Self(8);
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proxy-wasm status {}", self.0)
    }
}

/// A value of shared data with the number that a conditional write names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shared {
    /// The value.
    pub value: Vec<u8>,
    /// Changes at each write; never 0 for a key that exists.
    pub cas: u32,
}

/// An answer that the proxy gives in the service's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply<'a> {
    /// HTTP status.
    pub status: u16,
    /// What access logs show as `response_code_details`.
    pub details: &'static str,
    /// Headers beside the status.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body (of gRPC: the message).
    pub body: &'a str,
    /// gRPC status, where the request is gRPC.
    pub grpc: Option<u8>,
}

/// One of our own calls to the aggregator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcall<'a> {
    /// Envoy's cluster.
    pub cluster: &'a str,
    /// Headers, pseudo-headers first.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body, if any.
    pub body: &'a [u8],
    /// After this it is answered with 504, ms; above 0.
    pub timeout_ms: u32,
    /// The root context that it is made by and dies with, whoever is being served.
    pub root: u32,
}

/// The proxy. Every method may be called in any phase and never panics.
pub trait Host {
    /// Wall clock, ns since 1970.
    fn now_ns(&self) -> u64;
    /// 64 random bits.
    fn random(&self) -> u64;
    /// Writes a line to the proxy's log.
    fn log(&self, level: Level, text: &str);
    /// How many hostcalls were refused in a way that nobody expects, since the VM began.
    fn faults(&self) -> u64;

    /// The plugin's configuration, as it was pushed; only while configuring.
    fn configuration(&self, size: usize) -> Vec<u8>;
    /// A property, as raw bytes; integers are 8 bytes little-endian. The parts of its path are parted by zeros.
    fn property(&self, path: &str) -> Option<Vec<u8>>;

    /// All headers of a map; none in the wrong phase.
    fn headers(&self, map: HeaderMap) -> Headers;
    /// Sets a header, replacing all of that name.
    fn set_header(&self, map: HeaderMap, name: &str, value: &[u8]);
    /// Takes all headers of that name off.
    fn remove_header(&self, map: HeaderMap, name: &[u8]);
    /// Answers the current request.
    fn reply(&self, reply: &Reply<'_>);

    /// Sends a request of our own; gives the token that its answer names.
    fn call(&self, call: &Outcall<'_>) -> Result<u32, Refused>;
    /// The body of the answer to our call, at most `max` bytes.
    fn call_body(&self, max: usize) -> Vec<u8>;
    /// How often the root context ticks from now on.
    fn set_tick_ms(&self, period: u32);

    /// Reads a key that all VMs of the process share.
    fn shared(&self, key: &[u8]) -> Option<Shared>;
    /// Writes it; `cas` 0 writes in any case.
    fn set_shared(&self, key: &[u8], value: &[u8], cas: u32) -> Result<(), Refused>;

    /// Makes a metric known, or finds it.
    fn define_metric(&self, kind: MetricKind, name: &str) -> Option<u32>;
    /// Adds to it.
    fn add_metric(&self, id: u32, delta: i64);
    /// Its value over all VMs.
    fn metric(&self, id: u32) -> u64;
}
