//! The shop: `web` → `backend` → `db-api` → `db`, and `backend` → an external payment API without a proxy.
//!
//! One small program plays all of them. It knows nothing of Kaeru but the one word that a backend may say, and forwards
//! only the headers that its order names, as services with one or another tracing library do. What an order makes the
//! services do stands in the order itself, so that many kinds go through one running shop side by side.

mod ledger;
mod outward;
mod service;

pub use ledger::{Arrival, Ledger};
pub use service::{Asked, Told, serve};

use serde::{Deserialize, Serialize};

/// The mesh namespace of the shop.
pub const NAMESPACE: &str = "shop";
/// The port that every service of the shop has in the mesh.
pub const PORT: u16 = 8080;
/// The payment API's host name, outside the mesh.
pub const PAYMENT_HOST: &str = "payments.example.com";

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
}

impl Role {
    /// Those with a sidecar, callers first.
    pub const MESH: [Self; 4] = [Self::Web, Self::Backend, Self::DbApi, Self::Db];
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Web,
        Self::Backend,
        Self::DbApi,
        Self::Db,
        Self::Payment,
    ];

    /// Its name in the mesh (the payment API has none).
    pub fn name(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Backend => "backend",
            Self::DbApi => "db-api",
            Self::Db => "db",
            Self::Payment => "payment",
        }
    }

    /// `namespace/name`, as Kaeru calls it; the payment API by its host.
    pub fn peer(self) -> String {
        match self {
            Self::Payment => format!("host:{PAYMENT_HOST}"),
            _ => format!("{NAMESPACE}/{}", self.name()),
        }
    }

    /// The authority that callers use.
    pub fn host(self) -> String {
        match self {
            Self::Payment => PAYMENT_HOST.into(),
            _ => format!("{}:{PORT}", self.name()),
        }
    }
}

/// What trace context a service's library forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forward {
    /// W3C Trace Context: the trace id goes on under a new span id.
    Traceparent,
    /// B3, in whichever form it came.
    B3,
    /// `x-request-id`, the least that Istio asks of applications.
    RequestId,
    /// W3C Baggage.
    Baggage,
}

impl Forward {
    /// What a service with OpenTelemetry and Istio's advice forwards.
    pub const ALL: [Self; 4] = [Self::Traceparent, Self::B3, Self::RequestId, Self::Baggage];
}

/// One order, passed on as the body of each unsafe request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Order {
    /// The shop's own key, by which its services count; Kaeru never reads it.
    pub number: String,
    /// Which headers the services forward.
    pub forward: Vec<Forward>,
    /// Whether the payment API answers 402.
    pub declined: bool,
    /// Whether the backend says `x-event-status: failed` when the payment was declined.
    pub says_failed: bool,
    /// How often the services try a call again that failed with a 5xx or without an answer, 50 ms apart.
    pub retries: u32,
    /// These wait for their release before their last call (before their answer, where they make none).
    pub hold: Vec<Role>,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            number: uuid::Uuid::new_v4().to_string(),
            forward: Forward::ALL.to_vec(),
            declined: false,
            says_failed: false,
            retries: 0,
            hold: Vec::new(),
        }
    }
}
