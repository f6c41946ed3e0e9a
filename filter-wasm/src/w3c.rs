//! Trace ids and baggage in other people's headers, to the letter of their specifications: W3C Trace Context,
//! W3C Baggage, `OpenZipkin`'s B3, and Envoy's `x-request-id`. Only reads and writes values; who may set them is
//! not decided here.

use std::borrow::Cow;

/// Bytes of a `baggage` value up to which ours is added (W3C Baggage 3.3.2: at least 8,192 are to be propagated).
pub const BAGGAGE_BYTES_MAX: usize = 8_192;

/// The trace id of a `traceparent` (W3C Trace Context, 3.2): 32 lower-case hex digits, not all zero. Of a newer
/// version the fields of version 00 are read, where a dash follows them.
pub fn traceparent(value: &[u8]) -> Option<&[u8]> {
    let version = value.get(..2)?;
    let dashes = [2, 35, 52].iter().all(|&at| value.get(at) == Some(&b'-'));
    let tail = match (version, value.get(55)) {
        (b"ff", _) => false,
        (b"00", after) => after.is_none(),
        (_, after) => after.is_none_or(|&b| b == b'-'),
    };
    let (trace, parent, flags) = (value.get(3..35)?, value.get(36..52)?, value.get(53..55)?);
    let valid = dashes
        && tail
        && [version, trace, parent, flags].iter().all(|f| is_hex(f))
        && !is_zero(trace)
        && !is_zero(parent);
    valid.then_some(trace)
}

/// The trace id of a single `b3` header: `{trace}-{span}[-{sampled}[-{parent}]]`. A lone sampling decision (`0`,
/// `1`, `d`) has none, which is no error.
pub fn b3(value: &[u8]) -> Option<&[u8]> {
    let mut fields = value.split(|&b| b == b'-');
    let trace = b3_trace(fields.next()?)?;
    let span = fields.next()?;
    let sampled = fields
        .next()
        .is_none_or(|s| matches!(s, b"0" | b"1" | b"d"));
    let parent = fields.next().is_none_or(|p| p.len() == 16 && is_hex(p));
    let valid = span.len() == 16 && is_hex(span) && sampled && parent && fields.next().is_none();
    valid.then_some(trace)
}

/// Whether a `b3` header says only whether to sample.
pub fn is_b3_decision(value: &[u8]) -> bool {
    matches!(value, b"0" | b"1" | b"d")
}

/// A B3 trace id: 16 or 32 lower-case hex digits, not all zero.
pub fn b3_trace(value: &[u8]) -> Option<&[u8]> {
    let valid = matches!(value.len(), 16 | 32) && is_hex(value) && !is_zero(value);
    valid.then_some(value)
}

/// Envoy packs its trace decision into the version digit of the UUID that it makes (index 14: `4` becomes `9`, `a`
/// or `b`); set back, the id is the same at every hop.
pub fn request_id(value: &[u8]) -> Cow<'_, [u8]> {
    let uuid = value.len() == 36 && [8, 13, 18, 23].iter().all(|&at| value[at] == b'-');
    if uuid && matches!(value[14], b'9' | b'a' | b'b') {
        let mut value = value.to_vec();
        value[14] = b'4';
        Cow::Owned(value)
    } else {
        Cow::Borrowed(value)
    }
}

/// The value of a member of a `baggage` header, percent-decoded, without its properties.
pub fn baggage_member<'a>(baggage: &'a [u8], key: &str) -> Option<Cow<'a, [u8]>> {
    baggage_members(baggage, key).next()
}

/// The values of all members of this key.
pub fn baggage_members<'a>(baggage: &'a [u8], key: &str) -> impl Iterator<Item = Cow<'a, [u8]>> {
    let members = baggage.split(|&b| b == b',');
    members.filter_map(move |member| value_of(member, key))
}

/// The baggage without the members of this key, and with `value` for it if given and if there is room; `None` where nothing
/// changes. The others stay as they were, byte for byte.
pub fn with_member(baggage: &[u8], key: &str, value: Option<&str>) -> Option<Vec<u8>> {
    let members = || baggage.split(|&b| b == b',');
    let mut there = members().filter_map(|member| value_of(member, key));
    let (first, second) = (there.next(), there.next());
    if second.is_none() && first.as_deref() == value.map(str::as_bytes) {
        return None;
    }
    let mut kept: Vec<&[u8]> = members()
        .filter(|member| value_of(member, key).is_none() && !member.trim_ascii().is_empty())
        .collect();
    let ours = value.map(|value| [key.as_bytes(), b"=", value.as_bytes()].concat());
    kept.extend(ours.as_deref());
    let joined = kept.join(&b","[..]);
    if ours.is_none() || joined.len() <= BAGGAGE_BYTES_MAX {
        return Some(joined);
    }
    // There is no room for ours. What is there under its name says something else, and goes all the same.
    kept.pop();
    first.map(|_| kept.join(&b","[..]))
}

/// The value of this member, if it is of this key.
fn value_of<'a>(member: &'a [u8], key: &str) -> Option<Cow<'a, [u8]>> {
    let (name, value) = split_member(member)?;
    (name == key.as_bytes()).then(|| percent_decoded(value))
}

/// `key=value;properties` as key and value, trimmed; the value may contain `=`.
fn split_member(member: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = member.iter().position(|&b| b == b'=')?;
    let (name, rest) = (&member[..equals], &member[equals + 1..]);
    let value = rest.split(|&b| b == b';').next().unwrap_or_default();
    Some((name.trim_ascii(), value.trim_ascii()))
}

/// Percent-decoding (RFC 3986, 2.1); a stray `%` stays as it is.
pub fn percent_decoded(value: &[u8]) -> Cow<'_, [u8]> {
    if !value.contains(&b'%') {
        return Cow::Borrowed(value);
    }
    let digit = |at: usize| {
        let byte = value.get(at).copied().map(char::from);
        byte.and_then(|c| c.to_digit(16))
    };
    let mut decoded = Vec::with_capacity(value.len());
    let mut at = 0;
    while let Some(&byte) = value.get(at) {
        let pair = (byte == b'%').then(|| Some(digit(at + 1)? * 16 + digit(at + 2)?));
        if let Some(Ok(code)) = pair.flatten().map(u8::try_from) {
            decoded.push(code);
            at += 3;
        } else {
            decoded.push(byte);
            at += 1;
        }
    }
    Cow::Owned(decoded)
}

fn is_hex(text: &[u8]) -> bool {
    text.iter().all(|&b| HEX[usize::from(b)])
}

/// Which bytes are lower-case hex digits: looked up, for every `traceparent` has 52.
const HEX: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0_u8);
    loop {
        table[byte as usize] = matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if byte == u8::MAX {
            break table;
        }
        byte += 1;
    }
};

fn is_zero(text: &[u8]) -> bool {
    text.iter().all(|&b| b == b'0')
}

#[cfg(test)]
mod tests;
