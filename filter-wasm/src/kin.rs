//! What the proxy knows of its open requests' events, for every worker: the event that an id means, and its type. Where a
//! request carried a trace id beside its event id, an outbound request that brings only the trace id finds the event.
//! Slots in shared data, the newest wins; what is lost by that shows as a possible split. So does an id that stands for two
//! events at a time (orders of one batch, an event within another): it means neither, for taking one for the other could
//! roll the wrong one back.

use kaeru_protocol::limits::{EVENT_ID_MAX, EVENT_TYPE_MAX};
use kaeru_protocol::{EventId, EventType};

use crate::fingerprint::fingerprint;
use crate::host::Host;
use crate::report::Facts;

/// Slots: a proxy that takes 1,000 requests/s with two ids each overwrites 3 % of them between two flushes, each of which
/// writes those of open requests anew. At most 65,536 x (34 + 256 + about 100 bytes kept by Envoy) = 25 MiB; with ids and
/// types of usual length half of that.
const SLOTS: u64 = 65_536;
/// Slots for requests that are over: a VM's requests have them one after the other, so at 1,000 requests/s an end is
/// known for 16 s, longer than anybody asks for it. 16,384 x about 110 bytes kept by Envoy = 1.8 MiB.
const ENDS: u64 = 16_384;
/// How long after its last writing an id is believed, ms: longer than any heartbeat, shorter than forever.
const KIN_LIFE_MS: u64 = 600_000;
/// Bytes of a slot: four numbers, flags, the length of the type, the type and the event.
const SLOT_BYTES_MAX: usize = 34 + EVENT_TYPE_MAX + EVENT_ID_MAX;
/// A slot's flags.
const BORROWED: u8 = 1;
/// See [`BORROWED`].
const HANDED_OVER: u8 = 2;

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

/// What an id means here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// No event that is known.
    Unknown,
    /// This one.
    Event(Kin),
    /// One of several that are open: it cannot be said which.
    Many,
}

impl Meaning {
    /// The one event that it is.
    pub fn event(self) -> Option<Kin> {
        match self {
            Self::Event(kin) => Some(kin),
            Self::Unknown | Self::Many => None,
        }
    }
}

/// Which slot an alias has, and how it is told from others of the same slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alias(u64);

impl Alias {
    /// The alias of an id.
    pub fn of(id: &[u8]) -> Self {
        Self(fingerprint(id) & !SHARED)
    }

    /// What it means.
    fn key(self) -> Key {
        slot_key(*b"kaeru.kin.aaaa", self.0 % SLOTS)
    }
}

/// A slot's key: four letters say which. A formatter would cost as much as the hostcall.
type Key = [u8; 14];

fn slot_key(mut key: Key, slot: u64) -> Key {
    for (letter, shift) in key.iter_mut().rev().zip([0, 4, 8, 12]) {
        *letter = b'a' + (slot >> shift & 0xf) as u8;
    }
    key
}

/// The bit of [`Carried`] that no alias has.
const SHARED: u64 = 1 << 63;

/// An id that an open request carries: its alias, and in [`SHARED`] whether it was made for something else than this event,
/// so that other events may carry it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried(u64);

impl Carried {
    /// The event's own id, or a borrowed one that names it: whatever else came along with it before, it means itself.
    pub fn own(id: &[u8]) -> Self {
        Self(Alias::of(id).0)
    }

    /// An id beside the event's own.
    pub fn beside(id: &[u8]) -> Self {
        Self(Alias::of(id).0 | SHARED)
    }

    fn alias(self) -> Alias {
        Alias(self.0 & !SHARED)
    }

    fn is_shared(self) -> bool {
        self.0 & SHARED != 0
    }
}

/// A request of this proxy, told from all others: by its VM's reporter id and its number there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestMark(pub u64);

impl RequestMark {
    /// Where its end is told: one write for all its ids, whoever wrote their slots meanwhile.
    fn end_key(self) -> Key {
        slot_key(*b"kaeru.end.aaaa", self.0 % ENDS)
    }
}

/// What a slot holds.
#[derive(Debug, Clone, Copy)]
struct Slot<'a> {
    written_ms: u64,
    /// When a request of another event, that was not over then, wrote the same id last; 0: never.
    other_ms: u64,
    /// Who wrote it.
    request: RequestMark,
    borrowed: bool,
    handed_over: bool,
    event_type: &'a [u8],
    event: &'a [u8],
}

impl<'a> Slot<'a> {
    /// What is written there for this alias.
    fn read(value: &'a [u8], alias: Alias) -> Option<Self> {
        let (print, rest) = value.split_first_chunk::<8>()?;
        let (written, rest) = rest.split_first_chunk::<8>()?;
        let (other, rest) = rest.split_first_chunk::<8>()?;
        let (request, rest) = rest.split_first_chunk::<8>()?;
        let (&[flags, len], rest) = rest.split_first_chunk::<2>()?;
        let (event_type, event) = rest.split_at_checked(len.into())?;
        (u64::from_le_bytes(*print) == alias.0).then_some(Self {
            written_ms: u64::from_le_bytes(*written),
            other_ms: u64::from_le_bytes(*other),
            request: RequestMark(u64::from_le_bytes(*request)),
            borrowed: flags & BORROWED != 0,
            handed_over: flags & HANDED_OVER != 0,
            event_type,
            event,
        })
    }

    fn write(&self, host: &impl Host, alias: Alias, key: &Key) {
        let mut value = [0; SLOT_BYTES_MAX];
        let mut len = 0;
        let mut put = |bytes: &[u8]| {
            if let Some(place) = value.get_mut(len..len + bytes.len()) {
                place.copy_from_slice(bytes);
                len += bytes.len();
            }
        };
        for word in [alias.0, self.written_ms, self.other_ms, self.request.0] {
            put(&word.to_le_bytes());
        }
        let flags = [(self.borrowed, BORROWED), (self.handed_over, HANDED_OVER)];
        let flags = flags.iter().map(|(is, flag)| u8::from(*is) * flag).sum();
        put(&[
            flags,
            u8::try_from(self.event_type.len()).unwrap_or_default(),
        ]);
        put(self.event_type);
        put(self.event);
        // The newest wins: no condition, so it cannot be refused for a reason that matters.
        let _ = host.set_shared(key, value.get(..len).unwrap_or_default(), 0);
    }

    /// The request that wrote it is over. Where another one of the same end's slot ended since, that cannot be seen: then
    /// it counts as open for as long as one that says no more.
    fn is_over(&self, host: &impl Host) -> bool {
        let ended = host.shared(&self.request.end_key()).unwrap_or_default();
        ended.value == self.request.0.to_le_bytes()
    }
}

/// Says that the id means the event of this request, which is open. One that says no more for `open_ms` is over.
pub fn remember(
    host: &impl Host,
    now_ms: u64,
    open_ms: u64,
    carried: Carried,
    request: RequestMark,
    facts: &Facts,
) {
    let event = facts.event.as_str().as_bytes();
    let alias = carried.alias();
    let key = alias.key();
    let value = if carried.is_shared() {
        host.shared(&key).unwrap_or_default().value
    } else {
        Vec::new()
    };
    let other_ms = match Slot::read(&value, alias) {
        Some(slot) if slot.event != event && !slot.is_over(host) => slot.written_ms,
        Some(slot) => slot.other_ms,
        None => 0,
    };
    let is_near = now_ms.saturating_sub(other_ms) <= open_ms;
    let event_type = facts.call.known_type();
    let slot = Slot {
        written_ms: now_ms,
        other_ms: if is_near { other_ms } else { 0 },
        request,
        borrowed: facts.borrowed,
        handed_over: facts.handed_over,
        event_type: event_type.map_or(b"", |t| t.as_str().as_bytes()),
        event,
    };
    slot.write(host, alias, &key);
}

/// Says that this request is over: the next event under one of its ids is no second one.
pub fn part(host: &impl Host, ids: &[Carried], request: RequestMark) {
    // Whether an event's own id is over nobody asks.
    if ids.iter().any(|id| id.is_shared()) {
        let _ = host.set_shared(&request.end_key(), &request.0.to_le_bytes(), 0);
    }
}

/// What `alias` means. A request that wrote nothing for `open_ms` is over.
pub fn recall(host: &impl Host, now_ms: u64, open_ms: u64, alias: Alias) -> Meaning {
    let value = host.shared(&alias.key()).unwrap_or_default().value;
    let since = |ms: u64| now_ms.saturating_sub(ms);
    let slot = Slot::read(&value, alias).filter(|slot| since(slot.written_ms) <= KIN_LIFE_MS);
    let Some(slot) = slot else {
        return Meaning::Unknown;
    };
    if slot.other_ms > 0 && since(slot.other_ms) <= open_ms {
        return Meaning::Many;
    }
    EventId::from_bytes(slot.event).map_or(Meaning::Unknown, |event| {
        Meaning::Event(Kin {
            event,
            borrowed: slot.borrowed,
            handed_over: slot.handed_over,
            event_type: EventType::from_bytes(slot.event_type).ok(),
        })
    })
}
