//! The aggregator: takes reports, keeps them in Postgres, decides, tells proxies and people.
//!
//! Data moves one way: `http::reports` → `ingest` → `store` (commit) → `decider` → `feed` → `http::verdicts`.

mod accounts;
mod app;
mod breaker;
mod census;
mod clock;
pub mod config;
mod decider;
mod embedded;
mod feed;
mod http;
mod ingest;
pub mod logic;
mod metrics;
mod ops;
pub mod parsers;
mod policy;
pub mod policy_file;
mod pulse;
pub mod serve;
mod store;
#[cfg(test)]
mod testing;
mod tick;
mod withdrawal;
