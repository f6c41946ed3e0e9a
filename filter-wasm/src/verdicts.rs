//! The verdict cache of a proxy. Its leader writes what the feed tells into a ring in shared data; every worker keeps a
//! set of fingerprints of it and looks up the whole record only on a hit. A request of an event without a verdict costs
//! one hostcall that returns a number.
//!
//! Shared data cannot forget a key, so the keys are few and are used again: the ring's chunks by their number.

mod record;
mod ring;

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, Hasher};

use kaeru_protocol::{EventId, VerdictEntry};

pub use ring::{Written, cursor, sweep, write};

use crate::fingerprint::fingerprint;
use crate::host::Host;

/// Parts of a view: 64 x 1,563 of 100,000 prints.
const PARTS: usize = 64;

/// One worker's view of the ring.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// The ring's version when it was last read; compared for equality only.
    version: u32,
    generation: u64,
    first: u32,
    /// Up to where it was read: a chunk and the bytes of it.
    read: (u32, usize),
    prints: Prints,
}

impl Verdicts {
    /// How many verdicts it knows.
    pub fn len(&self) -> usize {
        self.prints.len
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.prints.len == 0
    }

    /// The verdict on an event, if one is in force.
    pub fn find(&mut self, host: &impl Host, now_ms: u64, event: &EventId) -> Option<VerdictEntry> {
        self.refresh(host);
        let chunk = self
            .prints
            .get(Print::of(event.as_str().as_bytes(), 0))?
            .chunk();
        let bytes = ring::chunk(host, chunk.into());
        record::records(&bytes)
            .filter(|record| record.event == event.as_str().as_bytes())
            .last()?
            .entry(now_ms)
    }

    /// Takes up what the leader wrote since the last time.
    pub fn refresh(&mut self, host: &impl Host) {
        let version = ring::version(host);
        if version == self.version {
            return;
        }
        let Some(head) = ring::Head::read(host) else {
            return;
        };
        if head.generation != self.generation {
            *self = Self {
                generation: head.generation,
                first: head.first,
                read: (head.first, 0),
                ..Self::default()
            };
        } else if head.first != self.first {
            self.first = head.first;
            let live = head.live();
            self.prints.retain(live);
        }
        let (mut number, mut from) = self.read;
        if number < head.first {
            (number, from) = (head.first, 0);
        }
        for number in number..=head.last {
            let bytes = ring::chunk(host, number);
            let start = if number == self.read.0 { from } else { 0 };
            for record in record::records(bytes.get(start..).unwrap_or_default()) {
                self.prints.put(Print::of(record.event, number));
            }
            self.read = (number, bytes.len());
        }
        self.version = version;
    }
}

/// 48 bits of an event's fingerprint and 16 of its chunk's number; equal where the event is. Two of 100,000 events
/// share a print with probability 2e-5, and then the older of the two is forgotten.
#[derive(Debug, Clone, Copy)]
struct Print(u64);

impl Print {
    fn of(event: &[u8], chunk: u32) -> Self {
        Self((fingerprint(event) & !0xffff) | u64::from(chunk & 0xffff))
    }

    fn part(self) -> usize {
        (self.0 >> 58) as usize
    }

    fn chunk(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}

impl PartialEq for Print {
    fn eq(&self, other: &Self) -> bool {
        self.0 >> 16 == other.0 >> 16
    }
}

impl Eq for Print {}

impl Hash for Print {
    fn hash<S: Hasher>(&self, state: &mut S) {
        state.write_u64(self.0 >> 16);
    }
}

/// All prints, in parts that grow one by one: where a table of 100,000 doubles, the old one leaves a hole of half a
/// megabyte in a VM, whose memory never shrinks.
#[derive(Debug)]
struct Prints {
    parts: Box<[HashSet<Print, ByPrint>]>,
    len: usize,
}

impl Prints {
    fn get(&self, print: Print) -> Option<&Print> {
        self.parts.get(print.part())?.get(&print)
    }

    fn put(&mut self, print: Print) {
        if let Some(part) = self.parts.get_mut(print.part()) {
            self.len += usize::from(part.replace(print).is_none());
        }
    }

    fn retain(&mut self, live: impl Fn(u16) -> bool) {
        for part in &mut self.parts {
            part.retain(|print| live(print.chunk()));
        }
        self.len = self.parts.iter().map(HashSet::len).sum();
    }
}

impl Default for Prints {
    fn default() -> Self {
        Self {
            parts: (0..PARTS).map(|_| HashSet::default()).collect(),
            len: 0,
        }
    }
}

/// A print is a hash already: it is spread over the upper bits and used as it is.
#[derive(Debug, Default, Clone, Copy)]
struct ByPrint(u64);

impl BuildHasher for ByPrint {
    type Hasher = Self;
    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl Hasher for ByPrint {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0 << 8 | u64::from(byte));
        }
    }
    fn write_u64(&mut self, print: u64) {
        self.0 = print ^ (print << 16);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests;
