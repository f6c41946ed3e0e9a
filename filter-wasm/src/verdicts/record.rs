//! One verdict as it stands in a chunk: length (2 bytes), end of its life (8), verdict and mode (1), lengths of event and
//! decision (1 each), then event, decision and the failed step as text.

use kaeru_protocol::{DecisionId, EventId, Mode, Peer, Verdict, VerdictEntry};

const FIXED: usize = 11;
const ROLL_BACK: u8 = 0x10;

/// A record in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) expires_ms: u64,
    bits: u8,
    pub(super) event: &'a [u8],
    decision: &'a [u8],
    failed: &'a [u8],
}

impl Record<'_> {
    /// In full, with the rest of its life; `None` when that is over.
    pub(super) fn entry(&self, now_ms: u64) -> Option<VerdictEntry> {
        let ttl_ms = self.expires_ms.checked_sub(now_ms).filter(|&ttl| ttl > 0)?;
        Some(VerdictEntry {
            event: EventId::from_bytes(self.event).ok()?,
            verdict: if self.bits & ROLL_BACK != 0 {
                Verdict::RollBack
            } else {
                Verdict::Proceed
            },
            decision: DecisionId::from_bytes(self.decision).ok()?,
            failed: Peer::from_bytes(self.failed).ok(),
            mode: match self.bits & 0xf {
                0 => Mode::Off,
                1 => Mode::Shadow,
                _ => Mode::Enforce,
            },
            ttl_ms,
        })
    }
}

/// Writes an entry behind the others. Its texts are bounded by their types, so the lengths fit.
pub(super) fn append(chunk: &mut Vec<u8>, entry: &VerdictEntry, now_ms: u64) {
    let (event, decision) = (entry.event.as_str(), entry.decision.as_str());
    let failed = entry.failed.as_ref().map_or("", Peer::as_str);
    let len = FIXED + event.len() + decision.len() + failed.len();
    let short = |len: usize| u8::try_from(len).unwrap_or(u8::MAX);
    let verdict = match entry.verdict {
        Verdict::RollBack => ROLL_BACK,
        Verdict::Proceed | Verdict::Unknown => 0,
    };
    chunk.extend(u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes());
    chunk.extend(now_ms.saturating_add(entry.ttl_ms).to_le_bytes());
    chunk.extend([
        verdict | entry.mode as u8,
        short(event.len()),
        short(decision.len()),
    ]);
    for text in [event, decision, failed] {
        chunk.extend_from_slice(text.as_bytes());
    }
}

/// The records of a chunk, in order; what is malformed ends them.
pub(super) fn records(chunk: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = chunk;
    std::iter::from_fn(move || {
        let (len, after) = rest.split_first_chunk::<2>()?;
        let (body, after) = after.split_at_checked(u16::from_le_bytes(*len).into())?;
        rest = after;
        let (expires, body) = body.split_first_chunk::<8>()?;
        let (&[bits, event, decision], body) = body.split_first_chunk::<3>()?;
        let (event, body) = body.split_at_checked(event.into())?;
        let (decision, failed) = body.split_at_checked(decision.into())?;
        Some(Record {
            expires_ms: u64::from_le_bytes(*expires),
            bits,
            event,
            decision,
            failed,
        })
    })
}
