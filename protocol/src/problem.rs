//! Everything that can be wrong with a request, as RFC 9457 problems. `docs/problems.md` has one heading
//! per type.

use serde::{Deserialize, Serialize};

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident = $slug:literal, $status:literal, $title:literal;)*) => {
        /// A kind of problem; its URI never changes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ProblemType { $($(#[$doc])* $name),* }

        impl ProblemType {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The stable part of the URI.
            pub fn slug(self) -> &'static str {
                match self { $(Self::$name => $slug),* }
            }

            /// The stable URI, `urn:kaeru:problem:<slug>`.
            pub fn uri(self) -> &'static str {
                match self { $(Self::$name => concat!("urn:kaeru:problem:", $slug)),* }
            }

            /// The HTTP status it comes with (a refusal's can be configured).
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status),* }
            }

            /// What it says in short.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title),* }
            }
        }
    };
}

problems! {
    /// A request of an event that must be rolled back was refused.
    EventRolledBack = "event-rolled-back", 424, "The event is being rolled back";
    /// No event has this id.
    EventNotFound = "event-not-found", 404, "No such event";
    /// No decision has this id.
    DecisionNotFound = "decision-not-found", 404, "No such decision";
    /// No service of this name was seen.
    ServiceNotFound = "service-not-found", 404, "No such service";
    /// No flow of this event type was learned.
    FlowNotFound = "flow-not-found", 404, "No such flow";
    /// No breaker of this event type has tripped under the policy in force.
    BreakerNotFound = "breaker-not-found", 404, "No such breaker";
    /// No route has this path.
    RouteNotFound = "route-not-found", 404, "No such route";
    /// The route does not take this method.
    MethodNotAllowed = "method-not-allowed", 405, "Method not allowed";
    /// A path or query parameter is not what it must be.
    InvalidParameter = "invalid-parameter", 400, "Invalid parameter";
    /// The body is not what it must be.
    InvalidBody = "invalid-body", 400, "Invalid body";
    /// The body is above its limit.
    BodyTooLarge = "body-too-large", 413, "Body too large";
    /// The batch holds more reports than the limit.
    BatchTooLarge = "batch-too-large", 413, "Too many reports in one batch";
    /// The caller may not speak for this service.
    IdentityMismatch = "identity-mismatch", 403, "Not your service";
    /// The decision can no longer be changed that way.
    DecisionSettled = "decision-settled", 409, "The decision can no longer be changed";
    /// The event cannot be rolled back by hand now.
    NotRollable = "not-rollable", 409, "The event cannot be rolled back";
    /// The breaker was closed before.
    BreakerClosed = "breaker-closed", 409, "The breaker is closed";
    /// More than the aggregator can take now; see `Retry-After`.
    TooManyRequests = "too-many-requests", 429, "Too many requests";
    /// The service, or its namespace, has as many proxies or reporters as it may have; see `Retry-After`.
    ShareUsedUp = "share-used-up", 429, "Its share is used up";
    /// The store cannot be reached; nothing was taken; see `Retry-After`.
    StoreUnavailable = "store-unavailable", 503, "The store is unavailable";
    /// A fault of Kaeru's own.
    Internal = "internal", 500, "Internal error";
}

/// The body of every error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Its URI.
    #[serde(rename = "type")]
    pub problem_type: Box<str>,
    /// Short, the same each time.
    pub title: Box<str>,
    /// The HTTP status.
    pub status: u16,
    /// This case in words.
    pub detail: Box<str>,
}

impl Problem {
    /// A problem of this type with this case's words.
    pub fn new(problem: ProblemType, detail: impl Into<Box<str>>) -> Self {
        Self {
            problem_type: problem.uri().into(),
            title: problem.title().into(),
            status: problem.status(),
            detail: detail.into(),
        }
    }
}
