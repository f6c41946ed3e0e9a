//! The names of things, each parsed once at the edge.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidId {
    what: &'static str,
    rule: &'static str,
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a valid {}: {}", self.what, self.rule)
    }
}

impl std::error::Error for InvalidId {}

/// A text newtype that is valid by construction and (de)serializes as its text.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "Cow<'_, str>", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Whether these bytes are one.
            pub fn is_valid(bytes: &[u8]) -> bool {
                let valid: fn(&[u8]) -> bool = $valid;
                valid(bytes)
            }

            /// Reads an id from raw header bytes.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidId> {
                match std::str::from_utf8(bytes) {
                    Ok(text) if Self::is_valid(bytes) => Ok(Self(text.into())),
                    _ => Err(InvalidId { what: $what, rule: $rule }),
                }
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::from_bytes(text.as_bytes())
            }
        }

        impl TryFrom<Cow<'_, str>> for $name {
            type Error = InvalidId;
            fn try_from(text: Cow<'_, str>) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.into_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn sized(bytes: &[u8], max: usize) -> bool {
    !bytes.is_empty() && bytes.len() <= max
}

/// The bytes of event ids, looked up: proxies read some in each request.
const EVENT_ID_BYTES: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0_u8);
    loop {
        table[byte as usize] =
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'~' | b'-');
        if byte == u8::MAX {
            break table;
        }
        byte += 1;
    }
};

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

fn is_service_name(bytes: &[u8]) -> bool {
    let mut parts = bytes.split(|&b| b == b'/');
    let named = |part: Option<&[u8]>| {
        part.is_some_and(|p| !p.is_empty() && p.iter().copied().all(is_name_byte))
    };
    sized(bytes, limits::SERVICE_NAME_MAX)
        && named(parts.next())
        && named(parts.next())
        && parts.next().is_none()
}

text_id! {
    /// The id of one event: 1 to 128 characters of `[A-Za-z0-9._:~-]`.
    EventId, "event id", "1 to 128 characters of [A-Za-z0-9._:~-]",
    |b| sized(b, limits::EVENT_ID_MAX) && b.iter().all(|&b| EVENT_ID_BYTES[usize::from(b)])
}

text_id! {
    /// The type of an event (`order.placed`), or the entry it was learned from (`POST shop/web /orders`):
    /// 1 to 128 printable ASCII characters other than quotes and backslash.
    EventType, "event type", "1 to 128 printable ASCII characters without quotes or backslash",
    |b| sized(b, limits::EVENT_TYPE_MAX)
        && b.iter().all(|c| matches!(c, b' '..=b'~') && !matches!(c, b'"' | b'\\'))
        && b.first() != Some(&b' ') && b.last() != Some(&b' ')
}

text_id! {
    /// A workload of the mesh by its canonical name, `namespace/name`.
    ServiceName, "service name", "namespace/name of [A-Za-z0-9._-], at most 317 characters",
    is_service_name
}

text_id! {
    /// The far side of a call: a service (`namespace/name`) or an external host (`host:<authority>`).
    Peer, "peer", "namespace/name, or host:<authority> of [A-Za-z0-9._:-]",
    |b| match b.strip_prefix(b"host:") {
        Some(host) => sized(host, limits::SERVICE_NAME_MAX)
            && host.iter().all(|&c| is_name_byte(c) || matches!(c, b':' | b'[' | b']')),
        None => is_service_name(b),
    }
}

text_id! {
    /// The id of one decision: 1 to 64 characters of `[A-Za-z0-9-]`.
    DecisionId, "decision id", "1 to 64 characters of [A-Za-z0-9-]",
    |b| sized(b, 64) && b.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'-')
}

impl Peer {
    /// Whether this is a host outside the mesh.
    pub fn is_external(&self) -> bool {
        self.0.starts_with("host:")
    }

    /// The external host of an authority as its caller named it.
    pub fn host(authority: &[u8]) -> Result<Self, InvalidId> {
        Self::from_bytes(&[b"host:", authority].concat())
    }
}

impl From<ServiceName> for Peer {
    fn from(service: ServiceName) -> Self {
        Self(service.0)
    }
}

/// One Wasm VM in one proxy (or one aggregator process): 64 random bits, written as 16 hex digits.
///
/// A million reporters collide with probability 3e-8 (birthday bound), and a collision matters only
/// within one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Cow<'_, str>", into = "String")]
pub struct ReporterId(pub u64);

impl FromStr for ReporterId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let digits =
            text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match u64::from_str_radix(text, 16) {
            Ok(bits) if digits => Ok(Self(bits)),
            _ => Err(InvalidId {
                what: "reporter id",
                rule: "16 lowercase hex digits",
            }),
        }
    }
}

impl TryFrom<Cow<'_, str>> for ReporterId {
    type Error = InvalidId;
    fn try_from(text: Cow<'_, str>) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<ReporterId> for String {
    fn from(id: ReporterId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for ReporterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A place in the feed: `<epoch>:<seq>`. A new epoch begins after a restore or failover.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Cow<'_, str>", into = "String")]
pub struct FeedCursor {
    /// Which history of the store the sequence counts in: 1 to 64 characters of `[A-Za-z0-9-]`.
    pub epoch: Box<str>,
    /// The feed sequence up to which everything was read.
    pub seq: u64,
}

impl FromStr for FeedCursor {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let parsed = text.split_once(':').and_then(|(epoch, seq)| {
            let valid = sized(epoch.as_bytes(), 64)
                && epoch
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-');
            let seq = seq.parse().ok()?;
            valid.then(|| Self {
                epoch: epoch.into(),
                seq,
            })
        });
        parsed.ok_or(InvalidId {
            what: "feed cursor",
            rule: "<epoch>:<seq>, as the feed gave it",
        })
    }
}

impl TryFrom<Cow<'_, str>> for FeedCursor {
    type Error = InvalidId;
    fn try_from(text: Cow<'_, str>) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<FeedCursor> for String {
    fn from(cursor: FeedCursor) -> Self {
        cursor.to_string()
    }
}

impl fmt::Display for FeedCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_ids_follow_their_grammar() {
        for good in [
            "a",
            "0198c3a2-1111-7222-8333-444455556666",
            "order:7~x_y.z",
            &"x".repeat(128),
        ] {
            assert!(good.parse::<EventId>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\"", "a/b", "ä", "a\n", &"x".repeat(129)] {
            assert!(bad.parse::<EventId>().is_err(), "{bad:?}");
        }
        assert!(EventId::from_bytes(&[0xff, 0x41]).is_err());
    }

    #[test]
    fn services_and_hosts_are_peers() {
        assert!(!"shop/web".parse::<Peer>().unwrap().is_external());
        assert!(Peer::host(b"pay.example:8443").unwrap().is_external());
        for bad in ["web", "a/b/c", "/web", "shop/", "host:", "host:a/b"] {
            assert!(bad.parse::<Peer>().is_err(), "{bad}");
        }
    }

    #[test]
    fn reporters_and_cursors_round_trip() {
        let id = ReporterId(0x9f);
        assert_eq!(id.to_string(), "000000000000009f");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("9F".parse::<ReporterId>().is_err());
        assert!("+00000000000009f".parse::<ReporterId>().is_err());
        let cursor: FeedCursor = "7f3a-1:42".parse().unwrap();
        assert_eq!((cursor.seq, cursor.to_string().as_str()), (42, "7f3a-1:42"));
        for bad in ["", "42", ":42", "a:", "a b:1", "a:-1"] {
            assert!(bad.parse::<FeedCursor>().is_err(), "{bad}");
        }
    }
}
