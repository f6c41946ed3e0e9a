//! Bytes that nobody sends in good faith: seeds, cut, spliced, repeated and sprinkled with what parsers look for. The same
//! number gives the same bytes.

/// Bytes of one input: as much as Envoy lets into all headers of a request by default.
pub(crate) const BYTES_MAX: usize = 60 * 1024;

/// Makes inputs out of seeds.
pub(crate) struct Mutator<'a> {
    seeds: &'a [&'a [u8]],
    words: &'a [&'a [u8]],
    state: u64,
}

impl<'a> Mutator<'a> {
    /// A stream of inputs; `words` are what the parser looks for.
    pub(crate) fn new(seeds: &'a [&'a [u8]], words: &'a [&'a [u8]], number: u64) -> Self {
        let state = number;
        Self {
            seeds,
            words,
            state,
        }
    }

    /// The next input. One of 512 is long.
    pub(crate) fn next(&mut self, input: &mut Vec<u8>) {
        input.clear();
        input.extend_from_slice(self.pick(self.seeds));
        for _ in 0..=self.below(6) {
            self.change(input);
        }
        if self.below(512) == 0 && !input.is_empty() {
            let times = 1 + self.below(BYTES_MAX / input.len() + 1);
            *input = input.repeat(times);
            self.change(input);
        }
        input.truncate(BYTES_MAX);
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let end = at + self.below(input.len() + 1 - at);
        match self.below(9) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = self.byte(),
            2 => input.insert(at, self.byte()),
            3 => drop(input.drain(at..end)),
            4 => {
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            5 => {
                let other = self.pick(self.seeds);
                let from = self.below(other.len() + 1);
                input.splice(at..end, other[from..].iter().copied());
            }
            6 => input.truncate(at),
            _ => {
                let word = self.pick(self.words);
                input.splice(at..at, word.iter().copied());
            }
        }
    }

    /// Any byte, but half of the time one that stands for something.
    fn byte(&mut self) -> u8 {
        const TELLING: &[u8] =
            b"\0\t\n\r \"%'*+,-./0149:;<=>@AZ[\\]_`az{|}~\x7f\x80\xbf\xc3\xed\xff";
        if self.below(2) == 0 {
            TELLING[self.below(TELLING.len())]
        } else {
            self.random().to_le_bytes()[0]
        }
    }

    fn pick(&mut self, from: &'a [&'a [u8]]) -> &'a [u8] {
        from[self.below(from.len())]
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.random() % end as u64).unwrap_or_default()
    }

    /// Sebastiano Vigna's `SplitMix64`.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
