//! The aggregator: takes reports, keeps them in Postgres, decides, tells proxies and people.
//!
//! Data moves one way: `http::reports` → `ingest` → `store` (commit) → `decider` → `feed` → `http::verdicts`.

mod app;
mod clock;
pub mod config;
mod http;
mod metrics;
pub mod policy_file;
pub mod serve;
mod store;
