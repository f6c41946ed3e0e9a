//! What the proxy knows of its open requests' events, for every worker: the event that an id means, and its type. Where a
//! request carried a trace id beside its event id, an outbound request that brings only the trace id finds the event.
//! Slots in shared data, the newest wins; what is lost by that shows as a possible split.

use kaeru_protocol::{EventId, EventReport, EventType};

use crate::fingerprint::fingerprint;
use crate::host::Host;

/// Slots: a proxy that takes 1,000 requests/s with two ids each overwrites 3 % of them between two flushes, each of which
/// writes those of open requests anew. At most 65,536 x (18 + 256 + about 100 bytes kept by Envoy) = 24 MiB; with ids and
/// types of usual length a third of that.
const SLOTS: u64 = 65_536;
/// How long after its last writing an id is believed, ms: longer than any heartbeat, shorter than forever.
const KIN_LIFE_MS: u64 = 600_000;

/// The event that an id means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kin {
    /// The event.
    pub event: EventId,
    /// Its id is borrowed.
    pub borrowed: bool,
    /// The service works for it in a branch that a queue handed over.
    pub handed_over: bool,
    /// Its type, as far as it is known here.
    pub event_type: Option<EventType>,
}

impl Kin {
    /// An event of which no more is known than its id: nobody called the service for it, so it took the work off a
    /// queue or a clock.
    pub fn unknown(event: EventId, borrowed: bool) -> Self {
        Self {
            event,
            borrowed,
            handed_over: true,
            event_type: None,
        }
    }
}

/// Which slot an alias has, and how it is told from others of the same slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alias(u64);

impl Alias {
    /// The alias of an id.
    pub fn of(id: &[u8]) -> Self {
        Self(fingerprint(b"kin", id))
    }

    fn key(self) -> String {
        format!("kaeru.kin.{:x}", self.0 % SLOTS)
    }
}

/// Says that `alias` means the event of this report.
pub fn remember(
    host: &impl Host,
    now_ms: u64,
    alias: Alias,
    report: &EventReport,
    event_type: Option<&EventType>,
) {
    let event = &report.event;
    let event_type = event_type.map_or("", EventType::as_str);
    let mut value = Vec::with_capacity(18 + event_type.len() + event.as_str().len());
    value.extend(alias.0.to_le_bytes());
    value.extend(now_ms.to_le_bytes());
    value.push(u8::from(report.borrowed) | (u8::from(report.handed_over) << 1));
    // A type has at most 128 bytes.
    value.push(u8::try_from(event_type.len()).unwrap_or_default());
    value.extend_from_slice(event_type.as_bytes());
    value.extend_from_slice(event.as_str().as_bytes());
    // The newest wins: no condition, so it cannot be refused for a reason that matters.
    let _ = host.set_shared(&alias.key(), &value, 0);
}

/// The event that `alias` means, if that is known.
pub fn recall(host: &impl Host, now_ms: u64, alias: Alias) -> Option<Kin> {
    let value = host.shared(&alias.key())?.value;
    let (print, rest) = value.split_first_chunk::<8>()?;
    let (written, rest) = rest.split_first_chunk::<8>()?;
    let (&[marks, len], rest) = rest.split_first_chunk::<2>()?;
    let (event_type, event) = rest.split_at_checked(len.into())?;
    let age = now_ms.saturating_sub(u64::from_le_bytes(*written));
    if u64::from_le_bytes(*print) != alias.0 || age > KIN_LIFE_MS {
        return None;
    }
    Some(Kin {
        event: EventId::from_bytes(event).ok()?,
        borrowed: marks & 1 != 0,
        handed_over: marks & 2 != 0,
        event_type: EventType::from_bytes(event_type).ok(),
    })
}
