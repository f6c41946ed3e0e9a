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
        let number =
            |bytes: [u8; 4]| usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
        let (count, rest) = self.0.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
        let lengths = number(*count).saturating_mul(8);
        let (lengths, mut texts) = rest.split_at_checked(lengths).unwrap_or_default();
        lengths
            .as_chunks::<8>()
            .0
            .iter()
            .map_while(move |&[a, b, c, d, e, f, g, h]| {
                let (name, after) = texts.split_at_checked(number([a, b, c, d]))?;
                let (value, after) = after.get(1..)?.split_at_checked(number([e, f, g, h]))?;
                texts = after.get(1..).unwrap_or_default();
                Some((name, value))
            })
    }

    /// The first value of a header.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find_map(|(n, value)| (n == name.as_bytes()).then_some(value))
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
