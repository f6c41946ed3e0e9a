//! What a VM leaves when it goes: at the push of another module Envoy ends the old VMs at once, and a call that they make
//! then is cut off. So each writes its last reports, in batches ready to be sent, into shared data, which outlives it; the
//! proxy's leader sends them as they are. An end without a word (a trap) leaves nothing.

use kaeru_protocol::ReporterId;

use crate::host::Host;

/// An empty value whose write number tells that something was left.
const VERSION: &[u8] = b"kaeru.left";
/// Batches that wait at most: 64 x about 66 KB = 4.2 MB, the full outboxes of four workers.
const SLOTS: u8 = 64;

/// A batch that was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Where it lies.
    pub slot: u8,
    /// The number of its writing.
    pub cas: u32,
    /// How many reports it has.
    pub reports: u32,
    /// The batch as it is to be sent.
    pub batch: Vec<u8>,
}

/// Leaves a batch of so many reports; says whether there was room for it. Each VM begins to look elsewhere, for all go at
/// once, and what is written to a key that is new has no condition: another's may stand there after all.
pub fn leave(host: &impl Host, me: ReporterId, reports: u32, batch: &str) -> bool {
    let mut value = reports.to_le_bytes().to_vec();
    value.extend_from_slice(batch.as_bytes());
    let kept = (0..SLOTS).any(|step| {
        let [first, ..] = me.0.to_le_bytes();
        let key = key(first.wrapping_add(step) % SLOTS);
        let there = host.shared(&key).unwrap_or_default();
        there.value.is_empty()
            && host.set_shared(&key, &value, there.cas).is_ok()
            && host.shared(&key).is_some_and(|now| now.value == value)
    });
    kept && host.set_shared(VERSION, &[], 0).is_ok()
}

/// Changes whenever something was left; 0 before.
pub fn version(host: &impl Host) -> u32 {
    host.shared(VERSION).map_or(0, |shared| shared.cas)
}

/// The first that is there.
pub fn first(host: &impl Host) -> Option<Left> {
    (0..SLOTS).find_map(|slot| {
        let there = host.shared(&key(slot))?;
        let (reports, batch) = there.value.split_first_chunk::<4>()?;
        Some(Left {
            slot,
            cas: there.cas,
            reports: u32::from_le_bytes(*reports),
            batch: batch.to_vec(),
        })
    })
}

/// Lets one go, unless another stands in its place now.
pub fn clear(host: &impl Host, slot: u8, cas: u32) {
    let _ = host.set_shared(&key(slot), &[], cas);
}

fn key(slot: u8) -> [u8; 13] {
    let mut key = *b"kaeru.left.aa";
    key[11] += slot >> 4;
    key[12] += slot & 0xf;
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::simulated::{Proxy, Simulated};

    #[test]
    fn what_is_left_is_found_until_it_is_cleared() {
        let host = Simulated::new(&Proxy::at(0), 1);
        assert_eq!((version(&host), first(&host)), (0, None));
        for number in 0..u32::from(SLOTS) {
            assert!(leave(&host, ReporterId(0), number, "{}"));
        }
        assert!(
            !leave(&host, ReporterId(7), 7, "{}"),
            "no more than there is room for"
        );
        let before = version(&host);
        for number in 0..u32::from(SLOTS) {
            let left = first(&host).unwrap();
            assert_eq!((left.reports, &*left.batch), (number, &b"{}"[..]));
            clear(&host, left.slot, left.cas + 1_000);
            assert_eq!(first(&host), Some(left.clone()), "another stands there");
            clear(&host, left.slot, left.cas);
        }
        assert_eq!((version(&host), first(&host)), (before, None));
        assert!(leave(&host, ReporterId(8), 8, "[]"));
        assert_ne!(version(&host), before);
    }
}
