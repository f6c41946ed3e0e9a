//! The roll of a proxy's reporters: each VM's mark (how far its sequence came, what it dropped, since when its oldest
//! request is open) in shared data, where it outlives the VM. The leader reads it into the proxy's status, so the tail of
//! a dead VM is seen as lost.

use kaeru_protocol::limits::REPORTERS_MAX;
use kaeru_protocol::{ReporterId, ReporterMark};

use crate::host::Host;

/// The ids of all reporters, 8 bytes each; a place in it is the number of a mark's key. Bounded by [`REPORTERS_MAX`]:
/// 256 x (8 + 40) bytes; beyond that the place of the one heard longest ago is taken.
const DIRECTORY: &[u8] = b"kaeru.roll";

/// What a VM notes of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Note {
    /// The last sequence that it gave out.
    pub seq: u64,
    /// Reports that it dropped.
    pub dropped: u64,
    /// When its oldest open request began, ms; 0 where none is open.
    pub oldest_ms: u64,
    /// When it was written, ms.
    pub at_ms: u64,
}

/// The place of this VM on the roll.
#[derive(Debug, Default)]
pub struct Roll {
    place: Option<Place>,
}

/// Its number, and the key of it: a note is written for each report.
#[derive(Debug)]
struct Place {
    number: usize,
    key: Vec<u8>,
}

impl Roll {
    /// Writes this VM's note; joins the roll before the first one.
    pub fn note(&mut self, host: &impl Host, me: ReporterId, note: Note) {
        if self.place.is_none() {
            self.join(host, me, note.at_ms);
        }
        if let Some(place) = &self.place {
            let words = [me.0, note.seq, note.dropped, note.oldest_ms, note.at_ms];
            let value = words.map(u64::to_le_bytes);
            let _ = host.set_shared(&place.key, value.as_flattened(), 0);
        }
    }

    /// Looks whether the roll still names this VM at its place: of two that began it at once only one does.
    pub fn check(&mut self, host: &impl Host, me: ReporterId) {
        let ids = host.shared(DIRECTORY).unwrap_or_default().value;
        self.place
            .take_if(|place| id_at(&ids, place.number) != Some(me.0));
    }

    fn join(&mut self, host: &impl Host, me: ReporterId, now_ms: u64) {
        let directory = host.shared(DIRECTORY).unwrap_or_default();
        let mut ids = directory.value;
        let count = ids.len() / 8;
        let place = if count < REPORTERS_MAX {
            ids.truncate(count * 8);
            ids.extend(me.0.to_le_bytes());
            count
        } else {
            let age = |place: &usize| {
                let heard = read(host, *place).map_or(0, |(_, note)| note.at_ms);
                now_ms.saturating_sub(heard)
            };
            let oldest = (0..REPORTERS_MAX).max_by_key(age).unwrap_or(0);
            if let Some(slot) = ids.get_mut(oldest * 8..oldest * 8 + 8) {
                slot.copy_from_slice(&me.0.to_le_bytes());
            }
            oldest
        };
        if host.set_shared(DIRECTORY, &ids, directory.cas).is_ok() {
            self.place = Some(Place {
                number: place,
                key: key(place),
            });
        }
    }
}

/// Every reporter's mark, and since when the oldest request of those heard since `since_ms` is open. One that wrote
/// nothing since `silent_ms` is gone.
pub fn call(host: &impl Host, since_ms: u64, silent_ms: u64) -> (Vec<ReporterMark>, Option<u64>) {
    let ids = host.shared(DIRECTORY).unwrap_or_default().value;
    let notes = (0..ids.len() / 8).filter_map(|place| {
        let (id, note) = read(host, place)?;
        (id_at(&ids, place) == Some(id)).then_some((id, note))
    });
    let mut oldest: Option<u64> = None;
    let marks = notes
        .map(|(id, note)| {
            if note.oldest_ms > 0 && note.at_ms >= since_ms {
                oldest = Some(oldest.map_or(note.oldest_ms, |o| o.min(note.oldest_ms)));
            }
            ReporterMark {
                id: ReporterId(id),
                seq: note.seq,
                dropped: note.dropped,
                gone: note.at_ms < silent_ms,
            }
        })
        .take(REPORTERS_MAX)
        .collect();
    (marks, oldest)
}

fn key(place: usize) -> Vec<u8> {
    format!("kaeru.roll.{place}").into_bytes()
}

fn id_at(ids: &[u8], place: usize) -> Option<u64> {
    let id = ids.get(place * 8..place * 8 + 8)?.try_into().ok()?;
    Some(u64::from_le_bytes(id))
}

fn read(host: &impl Host, place: usize) -> Option<(u64, Note)> {
    let value = host.shared(&key(place))?.value;
    let note = Note {
        seq: id_at(&value, 1)?,
        dropped: id_at(&value, 2)?,
        oldest_ms: id_at(&value, 3)?,
        at_ms: id_at(&value, 4)?,
    };
    Some((id_at(&value, 0)?, note))
}
