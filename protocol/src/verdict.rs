//! What proxies are told, and what they answer in Kaeru's place.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{DecisionId, EventId, FeedCursor, Peer};

/// What proxies may do for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Go on.
    Proceed,
    /// No more work: the event must be rolled back.
    RollBack,
    /// A word that this version does not know; read as `proceed`.
    #[serde(other)]
    Unknown,
}

/// How far Kaeru goes. Ordered: a ceiling is `min`.
/// A word that this version does not know reads as `shadow`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case", from = "Cow<'_, str>")]
pub enum Mode {
    /// Neither counted nor refused.
    Off,
    /// Counted and listed, never refused.
    #[default]
    Shadow,
    /// Refused.
    Enforce,
}

impl From<Cow<'_, str>> for Mode {
    fn from(word: Cow<'_, str>) -> Self {
        match word.as_ref() {
            "off" => Self::Off,
            "enforce" => Self::Enforce,
            _ => Self::Shadow,
        }
    }
}

/// One verdict on a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictEntry {
    /// The event.
    pub event: EventId,
    /// What proxies may do for it.
    pub verdict: Verdict,
    /// The decision behind it.
    pub decision: DecisionId,
    /// The service or external host whose step failed, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Peer>,
    /// The mode in force for this event; the plugin's own mode is the ceiling.
    #[serde(default)]
    pub mode: Mode,
    /// How much longer to keep it, ms.
    pub ttl_ms: u64,
}

/// `GET /v1/verdicts`: a stretch of the feed, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictPage {
    /// Where to go on: the next `after`.
    pub cursor: FeedCursor,
    /// The cursor that was sent is not of this epoch, or none was: forget every verdict, then take these.
    #[serde(default)]
    pub reset: bool,
    /// There is more behind the cursor: ask again at once.
    #[serde(default)]
    pub more: bool,
    /// The verdicts; a later one of the same event replaces an earlier one. At most 1,024.
    pub verdicts: Vec<VerdictEntry>,
}

/// The body of a refusal: problem+json (RFC 9457) with the decision as extension members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// [`crate::ProblemType::EventRolledBack`].
    #[serde(rename = "type")]
    pub problem_type: Box<str>,
    /// Short, the same each time.
    pub title: Box<str>,
    /// The HTTP status, 424 unless configured.
    pub status: u16,
    /// This case in words.
    pub detail: Box<str>,
    /// The event.
    pub event: EventId,
    /// The decision; an undo call names it in `x-event-undo`.
    pub decision: DecisionId,
    /// The step that failed, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Peer>,
}

impl Refusal {
    /// The refusal that `entry` asks for, with this HTTP status.
    pub fn new(entry: &VerdictEntry, status: u16) -> Self {
        let problem = crate::ProblemType::EventRolledBack;
        let because = match &entry.failed {
            Some(step) => format!(" because {step} failed"),
            None => String::new(),
        };
        Self {
            problem_type: problem.uri().into(),
            title: problem.title().into(),
            status,
            detail: format!(
                "Event {} is being rolled back{because}; no more work is accepted for it.",
                entry.event
            )
            .into(),
            event: entry.event.clone(),
            decision: entry.decision.clone(),
            failed: entry.failed.clone(),
        }
    }
}
