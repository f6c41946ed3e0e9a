//! From when the aggregators were last alive to the times in which reports could not be taken. Pure.

use std::collections::BTreeMap;

use kaeru_flow::Span;

/// An aggregator that did not commit for this long could not take reports, ms.
pub(crate) const SILENCE_MS: u64 = 2_000;
/// One that begins finds what was silent for more than a beat and a little: it may be what it takes the place of, ms.
const SILENCE_BEFORE_MS: u64 = 1_100;
/// After this long its reporters have found another one, ms.
const SILENCE_MAX_MS: u64 = 60_000;

/// The first wait of a reporter's back-off, and what a batch takes, ms (`filter-wasm/src/backoff.rs`).
const BACK_OFF_FIRST_MS: u64 = 2_000;
/// The longest, ms.
const BACK_OFF_MAX_MS: u64 = 30_000;

/// An aggregator, and when it was last able to commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alive {
    /// Which.
    pub id: i64,
    /// When, ms.
    pub alive_ms: u64,
    /// It said goodbye.
    pub has_left: bool,
}

/// What `me` finds at its beat: times in which reports could not be taken, each once by its beginning. Nobody was
/// alive, it was not itself, or another fell silent without goodbye.
pub fn quiet(known: &[Alive], me: i64, now_ms: u64) -> Vec<Span> {
    let begins = !known.iter().any(|one| one.id == me);
    let silence_ms = if begins {
        SILENCE_BEFORE_MS
    } else {
        SILENCE_MS
    };
    let anybody = known.iter().map(|one| one.alive_ms).max();
    let myself = known.iter().filter(|one| one.id == me);
    let without_goodbye = known.iter().filter(|one| !one.has_left);
    let spans = anybody
        .into_iter()
        .chain(myself.map(|one| one.alive_ms))
        .map(|since_ms| (since_ms, now_ms))
        .chain(without_goodbye.map(|one| {
            let until_ms = now_ms.min(one.alive_ms.saturating_add(SILENCE_MAX_MS));
            (one.alive_ms, until_ms)
        }));
    let mut longest: BTreeMap<u64, u64> = BTreeMap::new();
    for (since_ms, until_ms) in spans {
        if since_ms.saturating_add(silence_ms) < now_ms {
            let known = longest.entry(since_ms).or_default();
            *known = until_ms.max(*known);
        }
    }
    longest
        .into_iter()
        .map(|(from_ms, to_ms)| Span { from_ms, to_ms })
        .collect()
}

/// Times in which nothing could be heard, from outages in the order of their beginning; what touches is one. An outage
/// lasts until its reporters have come back: each waits longer after each failure, at most about as long again as it
/// has been failing, and a little.
pub fn unheard(outages: impl Iterator<Item = Span>) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for outage in outages {
        let lasted_ms = outage.to_ms.saturating_sub(outage.from_ms);
        let back_ms = (2 * lasted_ms + BACK_OFF_FIRST_MS).min(BACK_OFF_MAX_MS);
        let span = Span {
            from_ms: outage.from_ms,
            to_ms: outage.to_ms.saturating_add(back_ms),
        };
        match spans.last_mut() {
            Some(last) if span.from_ms <= last.to_ms => last.to_ms = last.to_ms.max(span.to_ms),
            _ => spans.push(span),
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(id: i64, alive_ms: u64, has_left: bool) -> Alive {
        Alive {
            id,
            alive_ms,
            has_left,
        }
    }

    fn found(known: &[Alive], now_ms: u64) -> Vec<(u64, u64)> {
        let spans = quiet(known, 1, now_ms);
        spans.iter().map(|s| (s.from_ms, s.to_ms)).collect()
    }

    #[test]
    fn silence_begins_after_two_seconds() {
        assert_eq!(found(&[], 10_000), []);
        assert_eq!(found(&[alive(1, 8_000, false)], 10_000), []);
        assert_eq!(found(&[alive(1, 7_999, false)], 10_000), [(7_999, 10_000)]);
    }

    #[test]
    fn who_begins_finds_a_short_silence_too() {
        let other = alive(2, 8_800, false);
        assert_eq!(found(&[other], 10_000), [(8_800, 10_000)]);
        assert_eq!(found(&[other, alive(1, 9_000, false)], 10_000), []);
    }

    #[test]
    fn another_counts_until_its_reporters_have_left_it_unless_it_said_goodbye() {
        let now_ms = 200_000;
        let me = alive(1, now_ms - 1_000, false);
        assert_eq!(
            found(&[me, alive(2, 100_000, false)], now_ms),
            [(100_000, 160_000)]
        );
        assert_eq!(found(&[me, alive(2, 100_000, true)], now_ms), []);
        // Nobody was alive: that one said goodbye changes nothing.
        assert_eq!(
            found(&[alive(2, 100_000, true)], now_ms),
            [(100_000, now_ms)]
        );
    }

    #[test]
    fn an_outage_lasts_until_its_reporters_are_back_and_what_touches_is_one() {
        let span = |from_ms, to_ms| Span { from_ms, to_ms };
        let times = [span(0, 1_000), span(4_000, 4_100), span(50_000, 90_000)];
        assert_eq!(
            unheard(times.into_iter()),
            [span(0, 6_300), span(50_000, 120_000)]
        );
    }
}
