//! The proof's harness: starts real Envoys with the compiled filter, real aggregators on real Postgres and the services
//! of a small shop, or of a [`graph`] of any form, and surely stops them. The scenarios stand in `tests/e2e/`, the story
//! for people in `bin/demo/`; they build a [`world::World`] or a [`graph::Graph`] and speak with it as a customer
//! ([`customer`]) and as an operator ([`api`]).
//!
//! It decides nothing and mocks nothing of Kaeru: what it knows of the truth it learns from the services' own
//! ledgers ([`shop::Ledger`]), never from Kaeru.

pub mod aggregator;
pub mod api;
pub mod certs;
pub mod clock;
pub mod config;
pub mod customer;
pub mod envoy;
pub mod faults;
pub mod graph;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod shop;
pub mod wait;
pub mod world;
