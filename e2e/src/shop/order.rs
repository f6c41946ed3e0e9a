//! An order: what it makes the services of the shop do stands in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Role;

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
    /// Whether the backend cancels the reservation by itself when the payment was declined.
    pub compensates: bool,
    /// Whether the backend answers at once that the order is `running`, and goes on by itself.
    pub as_job: bool,
    /// Whether that job says again and again that it is running.
    pub talks: bool,
    /// How often the services try a call again that failed with a 5xx or without an answer, 50 ms apart.
    pub retries: u32,
    /// These wait for their release before their last call (before their answer, where they make none).
    pub hold: Vec<Role>,
    /// These wait for their release before their answer, when all else is done.
    pub hold_answer: Vec<Role>,
    /// What these answer, however their calls ended.
    pub answers: BTreeMap<Role, u16>,
    /// What these answer at once when the order first comes to them.
    pub first_answers: BTreeMap<Role, u16>,
    /// Headers that the database answers with, one byte a character: what it says of itself may be anything.
    pub says: Vec<(String, String)>,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            number: uuid::Uuid::new_v4().to_string(),
            forward: Forward::ALL.to_vec(),
            declined: false,
            says_failed: false,
            compensates: false,
            as_job: false,
            talks: false,
            retries: 0,
            hold: Vec::new(),
            says: Vec::new(),
            hold_answer: Vec::new(),
            answers: BTreeMap::new(),
            first_answers: BTreeMap::new(),
        }
    }
}
