//! What is to be done, as a tree that a test writes down in a few lines: each service finds its own part in the body of
//! its request and passes the parts below on.
//!
//! ```
//! use kaeru_e2e::graph::at;
//! // a calls b, then c and d side by side; b calls c, too.
//! let work = at("a")
//!     .calls(at("b").calls(at("c").on("/first")))
//!     .calls_together([at("c").on("/second"), at("d")]);
//! assert_eq!(work.requests(), 5);
//! ```

use serde::{Deserialize, Serialize};

use crate::shop::Forward;

/// One request and what its service does with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Act {
    /// The service.
    pub at: String,
    /// The request's method.
    pub method: String,
    /// The request's path.
    pub path: String,
    /// The caller says that this is an event of its own, of this id.
    pub event: Option<String>,
    /// How often the caller tries while it hears a 5xx or nothing.
    pub tries: usize,
    /// The statuses of the first, second, … answer, the last again and again; empty: 201, or 500 where a call took no
    /// effect.
    pub answers: Vec<u16>,
    /// What the service says of the event.
    pub says: Option<String>,
    /// The service waits for its release before it makes a call or answers.
    pub holds: bool,
    /// Its calls: one group after the other, those of a group side by side.
    pub calls: Vec<Vec<Act>>,
}

/// A request to a service: `POST /work`, answered by 201.
pub fn at(service: &str) -> Act {
    Act {
        at: service.into(),
        method: "POST".into(),
        path: "/work".into(),
        event: None,
        tries: 1,
        answers: Vec::new(),
        says: None,
        holds: false,
        calls: Vec::new(),
    }
}

impl Act {
    /// Under this path.
    #[must_use]
    pub fn on(mut self, path: &str) -> Self {
        self.path = path.into();
        self
    }

    /// As an event of its own.
    #[must_use]
    pub fn under(mut self, event: &str) -> Self {
        self.event = Some(event.into());
        self
    }

    /// Up to so many times.
    #[must_use]
    pub fn tried(mut self, times: usize) -> Self {
        self.tries = times;
        self
    }

    /// With these statuses, one after the other.
    #[must_use]
    pub fn answers(mut self, statuses: &[u16]) -> Self {
        self.answers = statuses.into();
        self
    }

    /// Saying this of the event.
    #[must_use]
    pub fn says(mut self, word: &str) -> Self {
        self.says = Some(word.into());
        self
    }

    /// Not before it is released.
    #[must_use]
    pub fn holds(mut self) -> Self {
        self.holds = true;
        self
    }

    /// After what it does so far, one more call.
    #[must_use]
    pub fn calls(self, call: Self) -> Self {
        self.calls_together([call])
    }

    /// After what it does so far, these calls side by side.
    #[must_use]
    pub fn calls_together(mut self, calls: impl IntoIterator<Item = Self>) -> Self {
        self.calls.push(calls.into_iter().collect());
        self
    }

    /// How many requests this is in all, where nothing is tried twice.
    pub fn requests(&self) -> usize {
        1 + self.below().map(Self::requests).sum::<usize>()
    }

    /// Its calls.
    pub fn below(&self) -> impl Iterator<Item = &Self> {
        self.calls.iter().flatten()
    }
}

/// What travels as the body of each request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Work {
    /// By what the services tell one run of an act from another; Kaeru never reads it.
    pub run: String,
    /// Which headers the services forward.
    pub forward: Vec<Forward>,
    /// The part that is to be done here.
    pub act: Act,
}

impl Work {
    /// A new run of an act by services that forward everything.
    pub fn new(act: Act) -> Self {
        Self {
            run: uuid::Uuid::new_v4().to_string(),
            forward: Forward::ALL.to_vec(),
            act,
        }
    }
}
