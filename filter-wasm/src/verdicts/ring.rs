//! The ring itself: a head, chunks of records, and a version. Written by the proxy's leader alone (a second writer loses
//! by the head's condition), read by all.
//!
//! Order of writing: chunks, head, version. A reader that sees the new version sees the rest.

use kaeru_protocol::{FeedCursor, VerdictPage};

use super::record;
use crate::host::{Host, Refused};

/// An empty value whose write number is the version: reading it costs no copy.
const VERSION: &[u8] = b"kaeru.verdicts";
const HEAD: &[u8] = b"kaeru.head";
/// Bytes after which a chunk is full: what a reader copies to find one record.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks at most: 400,000 verdicts of at most 540 bytes need 3,300.
const CHUNKS: u32 = 4_096;

/// What the ring holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Changes when all before is to be forgotten.
    pub(super) generation: u64,
    /// The oldest chunk's number.
    pub(super) first: u32,
    /// The newest chunk's number.
    pub(super) last: u32,
    /// Records in all chunks.
    records: u32,
    /// Where the feed goes on.
    cursor: FeedCursor,
}

impl Head {
    pub(super) fn read(host: &impl Host) -> Option<Self> {
        Self::decode(&host.shared(HEAD)?.value)
    }

    /// Which chunks it holds, by the 16 bits of their number that readers keep.
    pub(super) fn live(&self) -> impl Fn(u16) -> bool + use<> {
        let (first, count) = ((self.first & 0xffff) as u16, self.last - self.first);
        move |chunk| u32::from(chunk.wrapping_sub(first)) <= count
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (generation, rest) = bytes.split_first_chunk::<8>()?;
        let (first, rest) = rest.split_first_chunk::<4>()?;
        let (last, rest) = rest.split_first_chunk::<4>()?;
        let (records, cursor) = rest.split_first_chunk::<4>()?;
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        (first <= last).then_some(Self {
            generation: u64::from_le_bytes(*generation),
            first,
            last,
            records: u32::from_le_bytes(*records),
            cursor: std::str::from_utf8(cursor).ok()?.parse().ok()?,
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.generation.to_le_bytes().to_vec();
        bytes.extend(self.first.to_le_bytes());
        bytes.extend(self.last.to_le_bytes());
        bytes.extend(self.records.to_le_bytes());
        bytes.extend_from_slice(self.cursor.to_string().as_bytes());
        bytes
    }

    /// Lets the oldest chunk go; gives how many of its records were still in force.
    fn drop_first(&mut self, host: &impl Host, now_ms: u64) -> Result<u64, Refused> {
        let bytes = chunk(host, self.first);
        let all = record::records(&bytes).count();
        let live = record::records(&bytes)
            .filter(|r| r.expires_ms > now_ms)
            .count();
        host.set_shared(&key(self.first), &[], 0)?;
        self.first += 1;
        self.records = self
            .records
            .saturating_sub(u32::try_from(all).unwrap_or(u32::MAX));
        Ok(live as u64)
    }
}

/// What a page did to the ring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Verdicts taken.
    pub taken: u64,
    /// Verdicts in force that had to go for them.
    pub evicted: u64,
}

/// The version now; 0 where nothing was ever written.
pub(super) fn version(host: &impl Host) -> u32 {
    host.shared(VERSION).map_or(0, |shared| shared.cas)
}

/// The bytes of a chunk.
pub(super) fn chunk(host: &impl Host, number: u32) -> Vec<u8> {
    host.shared(&key(number)).unwrap_or_default().value
}

fn key(number: u32) -> Vec<u8> {
    format!("kaeru.ring.{}", number % CHUNKS).into_bytes()
}

/// Where the feed goes on; `None` where nothing was ever written.
pub fn cursor(host: &impl Host) -> Option<FeedCursor> {
    Head::read(host).map(|head| head.cursor)
}

/// Writes a page of the feed; above `max` records the oldest chunks go.
pub fn write(
    host: &impl Host,
    now_ms: u64,
    page: &VerdictPage,
    max: u32,
) -> Result<Written, Refused> {
    let old = host.shared(HEAD).unwrap_or_default();
    let mut written = Written::default();
    let mut head = match Head::decode(&old.value) {
        Some(mut head) if page.reset => {
            while head.first < head.last {
                head.drop_first(host, now_ms)?;
            }
            host.set_shared(&key(head.last), &[], 0)?;
            Head {
                generation: host.random(),
                first: head.last + 1,
                last: head.last + 1,
                records: 0,
                cursor: page.cursor.clone(),
            }
        }
        Some(head) if page.verdicts.is_empty() && head.cursor == page.cursor => return Ok(written),
        Some(mut head) => {
            head.cursor.clone_from(&page.cursor);
            head
        }
        None => Head {
            generation: host.random(),
            first: 0,
            last: 0,
            records: 0,
            cursor: page.cursor.clone(),
        },
    };
    let mut bytes = if page.verdicts.is_empty() {
        Vec::new()
    } else {
        chunk(host, head.last)
    };
    for entry in &page.verdicts {
        if bytes.len() >= CHUNK_BYTES {
            host.set_shared(&key(head.last), &bytes, 0)?;
            bytes.clear();
            head.last += 1;
        }
        record::append(&mut bytes, entry, now_ms);
        head.records += 1;
        written.taken += 1;
    }
    if !bytes.is_empty() {
        host.set_shared(&key(head.last), &bytes, 0)?;
    }
    while head.records > max && head.first < head.last {
        written.evicted += head.drop_first(host, now_ms)?;
    }
    host.set_shared(HEAD, &head.encode(), old.cas)?;
    if page.reset || written.taken > 0 {
        host.set_shared(VERSION, &[], 0)?;
    }
    Ok(written)
}

/// Lets chunks go whose every record has ended.
pub fn sweep(host: &impl Host, now_ms: u64) -> Result<(), Refused> {
    let old = host.shared(HEAD).unwrap_or_default();
    let Some(mut head) = Head::decode(&old.value) else {
        return Ok(());
    };
    let before = head.first;
    while head.first < head.last {
        let bytes = chunk(host, head.first);
        if record::records(&bytes).any(|record| record.expires_ms > now_ms) {
            break;
        }
        head.drop_first(host, now_ms)?;
    }
    if head.first != before {
        host.set_shared(HEAD, &head.encode(), old.cas)?;
        host.set_shared(VERSION, &[], 0)?;
    }
    Ok(())
}
