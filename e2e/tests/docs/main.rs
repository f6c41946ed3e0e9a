//! Checks that what the docs and manifests say is true of the code: names in both directions, links, the layering of
//! the crates, the manifests against Istio's schemas. Needs nothing started: it only reads the repository.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod examples;
mod layering;
mod links;
mod manifests;
mod names;
mod repo;
mod rules;
mod schema;
