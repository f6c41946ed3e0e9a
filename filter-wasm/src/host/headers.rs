//! Header maps as the ABI packs them: a count, the lengths of all names and values, then the bytes, each text
//! followed by a zero. Read in place: one allocation for a whole map.

/// A packed header map. Malformed bytes read as fewer headers, never as a fault.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<u8>);

impl Headers {
    /// Takes the bytes that the host gave.
    pub fn new(packed: Vec<u8>) -> Self {
        Self(packed)
    }

    /// Names and values in order; names are lower case, values any bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let count = self.number(0).unwrap_or(0);
        let mut at = 4 + count.saturating_mul(8);
        (0..count).map_while(move |index| {
            let name_end = at.checked_add(self.number(4 + 8 * index)?)?;
            let value_end = name_end.checked_add(1 + self.number(8 + 8 * index)?)?;
            let name = self.0.get(at..name_end)?;
            let value = self.0.get(name_end + 1..value_end)?;
            at = value_end + 1;
            Some((name, value))
        })
    }

    /// The first value of a header.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find_map(|(n, value)| (n == name.as_bytes()).then_some(value))
    }

    fn number(&self, at: usize) -> Option<usize> {
        let bytes = self.0.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    }
}

/// Packs headers as the ABI wants them.
pub fn pack<'a>(headers: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone) -> Vec<u8> {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    let mut packed = number(headers.clone().count()).to_vec();
    for (name, value) in headers.clone() {
        packed.extend(number(name.len()));
        packed.extend(number(value.len()));
    }
    for (name, value) in headers {
        for text in [name, value] {
            packed.extend_from_slice(text);
            packed.push(0);
        }
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::{Headers, pack};

    #[test]
    fn packed_maps_round_trip_and_malformed_ones_end_early() {
        let pairs: [(&[u8], &[u8]); 3] = [(b":path", b"/"), (b"x-a", b"\xff"), (b"x-b", b"")];
        let packed = pack(pairs.into_iter());
        let headers = Headers::new(packed.clone());
        assert_eq!(headers.iter().collect::<Vec<_>>(), pairs);
        assert_eq!(headers.get("x-a"), Some(&b"\xff"[..]));
        for cut in 0..packed.len() {
            assert!(Headers::new(packed[..cut].to_vec()).iter().count() <= 3);
        }
        let mut wild = packed;
        wild[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Headers::new(wild).iter().count(), 0);
        assert_eq!(Headers::new(vec![0xff; 4]).iter().count(), 0);
    }
}
