//! What a judgement rests on beside reports: which layer of the policy says which key, or that it is built in.

use std::fmt;

use kaeru_protocol::{EventType, Peer};

/// Something that the policy says and a rule relied on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ground {
    /// Who says it.
    pub scope: Scope,
    /// The policy's key: `fatal`, `entry_retry_wait`, ….
    pub key: Box<str>,
    /// What it says, in the policy's words: `402`, `1s`, `entry: off`.
    pub says: Box<str>,
}

/// A layer of the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// None: it is built in.
    Default,
    /// The layer for everything.
    Global,
    /// That of one event type.
    EventType(EventType),
    /// That of one service or external host.
    Service(Peer),
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}: {}`", self.key, self.says)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("by default"),
            Self::Global => f.write_str("for everything"),
            Self::EventType(event_type) => write!(f, "for {event_type}"),
            Self::Service(peer) => write!(f, "for {peer}"),
        }
    }
}

/// A duration as a policy writes it: the largest unit that leaves a whole number.
pub(crate) fn duration(ms: u64) -> String {
    let units = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
    ];
    units
        .into_iter()
        .find(|(_, unit)| ms >= *unit && ms.is_multiple_of(*unit))
        .map_or_else(
            || format!("{ms}ms"),
            |(name, unit)| format!("{}{name}", ms / unit),
        )
}
