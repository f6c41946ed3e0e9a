//! The shop: `web` → `backend` → `db-api` → `db`, and `backend` → an external payment API without a proxy. Beside them
//! `mailer`, which nobody calls: it takes orders off a queue and calls an external mail API.
//!
//! One small program plays all of them. It knows nothing of Kaeru but the one word that a backend may say, and forwards
//! only the headers that its order names, as services with one or another tracing library do. What an order makes the
//! services do stands in the order itself, so that many kinds go through one running shop side by side.

mod job;
mod ledger;
mod order;
pub(crate) mod outward;
mod service;

pub use ledger::{Arrival, Ledger};
pub use order::{Forward, Order};
pub use service::{Asked, Told, serve};

use serde::{Deserialize, Serialize};

/// The mesh namespace of the shop.
pub const NAMESPACE: &str = "shop";
/// The port that every service of the shop has in the mesh.
pub const PORT: u16 = 8080;
/// The payment API's host name, outside the mesh.
pub const PAYMENT_HOST: &str = "payments.example.com";
/// The mail API's host name, outside the mesh.
pub const MAIL_HOST: &str = "mail.example.com";

/// Who the program plays.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Takes the customer's order.
    Web,
    /// Runs it: reserves, charges, confirms.
    Backend,
    /// Keeps the stock, on top of the database.
    DbApi,
    /// The database's front.
    Db,
    /// The external payment API.
    Payment,
    /// Takes orders off a queue and has their mails sent.
    Mailer,
    /// The external mail API.
    Mail,
}

impl Role {
    /// Those in the mesh that an order goes through, callers first.
    pub const MESH: [Self; 4] = [Self::Web, Self::Backend, Self::DbApi, Self::Db];
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Web,
        Self::Backend,
        Self::DbApi,
        Self::Db,
        Self::Payment,
        Self::Mailer,
        Self::Mail,
    ];

    /// Its name; in the mesh, where it is there.
    pub fn name(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Backend => "backend",
            Self::DbApi => "db-api",
            Self::Db => "db",
            Self::Payment => "payment",
            Self::Mailer => "mailer",
            Self::Mail => "mail",
        }
    }

    /// The host name of those outside the mesh.
    pub fn outside_host(self) -> Option<&'static str> {
        match self {
            Self::Payment => Some(PAYMENT_HOST),
            Self::Mail => Some(MAIL_HOST),
            _ => None,
        }
    }

    /// `namespace/name`, as Kaeru calls it; those outside the mesh by their host.
    pub fn peer(self) -> String {
        match self.outside_host() {
            Some(host) => format!("host:{host}"),
            None => format!("{NAMESPACE}/{}", self.name()),
        }
    }

    /// The authority that callers use.
    pub fn host(self) -> String {
        match self.outside_host() {
            Some(host) => host.into(),
            None => format!("{}:{PORT}", self.name()),
        }
    }
}
