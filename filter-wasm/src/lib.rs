//! The proxy-wasm filter: says what happens to each event at this proxy, and refuses work for events that must be rolled
//! back. It never fails a request by itself: whatever goes wrong in here, requests pass.
//!
//! Data moves one way: a request is read ([`request`]), its event found ([`identity`], [`kin`]), ruled on ([`verdicts`],
//! [`refuse`]); its end becomes a report ([`vm`], [`orca`]), which waits in the [`outbox`]. Beside that the leader among the
//! proxy's VMs ([`leader`]) polls for verdicts and states the proxy's status ([`roll`]).
//!
//! `host/envoy.rs` is the only file with hostcalls and `exports.rs` the only one that Envoy calls; both exist only in the
//! Wasm build. All else is plain code over the [`host::Host`] trait and runs in native tests.

pub mod answer;
pub mod backoff;
pub mod batch;
pub mod calls;
pub mod config;
#[cfg(all(feature = "crash", target_arch = "wasm32"))]
mod crash;
pub mod estate;
#[cfg(target_arch = "wasm32")]
mod exports;
pub mod fingerprint;
pub mod host;
pub mod identity;
pub mod json;
pub mod kin;
pub mod leader;
pub mod metrics;
pub mod orca;
pub mod outbox;
pub mod page;
pub mod path;
pub mod refuse;
pub mod report;
pub mod request;
pub mod roll;
pub mod said;
pub mod verdicts;
pub mod vm;
pub mod w3c;
