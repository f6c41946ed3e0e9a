//! Reading: the whole text is checked once, then its values are slices of it, looked into when asked.

use std::borrow::Cow;

/// How deep arrays and objects may stand in each other.
const DEPTH_MAX: usize = 32;

/// A value within a JSON text that is known to be valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a>(&'a [u8]);

impl<'a> Value<'a> {
    /// Checks a text (RFC 8259); `None` if it is not JSON, or deeper than 32.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let mut scan = Scan(text);
        let value = scan.value(0)?;
        scan.space();
        scan.0.is_empty().then_some(value)
    }

    /// The members of an object, in order; `None` of anything else.
    pub fn members(self) -> Option<impl Iterator<Item = (Cow<'a, str>, Self)>> {
        let mut scan = Scan(self.0.strip_prefix(b"{")?);
        Some(std::iter::from_fn(move || {
            scan.skip(b',');
            let key = scan.value(0)?.text()?;
            scan.skip(b':');
            Some((key, scan.value(0)?))
        }))
    }

    /// The first member of that name.
    pub fn get(self, key: &str) -> Option<Self> {
        self.members()?
            .find_map(|(k, value)| (k == key).then_some(value))
    }

    /// The values of an array; `None` of anything else.
    pub fn items(self) -> Option<impl Iterator<Item = Self>> {
        let mut scan = Scan(self.0.strip_prefix(b"[")?);
        Some(std::iter::from_fn(move || {
            scan.skip(b',');
            scan.value(0)
        }))
    }

    /// A text; `None` of anything else, and of half a surrogate pair.
    pub fn text(self) -> Option<Cow<'a, str>> {
        let raw = self.0.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        if !raw.contains(&b'\\') {
            return std::str::from_utf8(raw).ok().map(Cow::Borrowed);
        }
        unescaped(raw).map(Cow::Owned)
    }

    /// A number.
    pub fn number(self) -> Option<f64> {
        let first = self.0.first()?;
        (first.is_ascii_digit() || *first == b'-')
            .then(|| std::str::from_utf8(self.0).ok()?.parse().ok())
            .flatten()
    }

    /// A whole number that is not negative, exact to 2^53.
    pub fn whole(self) -> Option<u64> {
        let number = self.number()?;
        let whole = (0.0..9_007_199_254_740_992.0).contains(&number) && number.fract() == 0.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number from 0 to 2^53"
        )]
        whole.then_some(number as u64)
    }

    /// `true` or `false`.
    pub fn boolean(self) -> Option<bool> {
        match self.0 {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }
}

fn unescaped(raw: &[u8]) -> Option<String> {
    let mut text = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            text.push(byte);
            continue;
        }
        let (&escape, after) = rest.split_first()?;
        rest = after;
        let c = match escape {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => {
                let first = code_unit(&mut rest)?;
                let second = if (0xd800..0xdc00).contains(&first) {
                    rest = rest.strip_prefix(b"\\u")?;
                    code_unit(&mut rest)
                } else {
                    None
                };
                let units = std::iter::once(first).chain(second);
                char::decode_utf16(units).next()?.ok()?
            }
            other => other.into(),
        };
        text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    String::from_utf8(text).ok()
}

/// Four hex digits.
fn code_unit(rest: &mut &[u8]) -> Option<u16> {
    let (digits, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    let digits = std::str::from_utf8(digits).ok()?;
    u16::from_str_radix(digits.strip_prefix('+').map_or(digits, |_| ""), 16).ok()
}

/// What is left of a text.
struct Scan<'a>(&'a [u8]);

impl<'a> Scan<'a> {
    fn space(&mut self) {
        while let Some((b' ' | b'\t' | b'\n' | b'\r', rest)) = self.0.split_first() {
            self.0 = rest;
        }
    }

    /// Takes a byte if it is next, and white space around it.
    fn skip(&mut self, byte: u8) -> bool {
        self.space();
        let found = self.0.first() == Some(&byte);
        if found {
            self.0 = &self.0[1..];
            self.space();
        }
        found
    }

    /// Takes a whole value.
    fn value(&mut self, depth: usize) -> Option<Value<'a>> {
        self.space();
        let all = self.0;
        match all.first()? {
            b'{' if depth < DEPTH_MAX => self.many(b'{', b'}', |scan| {
                let key = matches!(scan.0.first(), Some(b'"')) && scan.value(depth + 1).is_some();
                key && scan.skip(b':') && scan.value(depth + 1).is_some()
            })?,
            b'[' if depth < DEPTH_MAX => {
                self.many(b'[', b']', |scan| scan.value(depth + 1).is_some())?;
            }
            b'"' => self.string()?,
            b'-' | b'0'..=b'9' => self.digits()?,
            _ => {
                let words: [&[u8]; 3] = [b"true", b"false", b"null"];
                self.0 = words.iter().find_map(|word| all.strip_prefix(*word))?;
            }
        }
        Some(Value(&all[..all.len() - self.0.len()]))
    }

    fn many(&mut self, open: u8, close: u8, mut one: impl FnMut(&mut Self) -> bool) -> Option<()> {
        self.skip(open);
        if self.0.first() == Some(&close) {
            self.0 = &self.0[1..];
            return Some(());
        }
        loop {
            if !one(self) {
                return None;
            }
            if self.skip(b',') {
                continue;
            }
            self.0 = self.0.strip_prefix(&[close])?;
            return Some(());
        }
    }

    fn string(&mut self) -> Option<()> {
        let mut at = 1;
        loop {
            match self.0.get(at)? {
                b'"' => break,
                b'\\' => {
                    let escape = self.0.get(at + 1)?;
                    if !b"\"\\/bfnrtu".contains(escape) {
                        return None;
                    }
                    at += 2;
                }
                0..0x20 => return None,
                _ => at += 1,
            }
        }
        self.0 = &self.0[at + 1..];
        Some(())
    }

    /// The grammar of numbers is stricter than what `f64` reads: no leading zeros, digits on both sides of the point.
    fn digits(&mut self) -> Option<()> {
        let unsigned = self.0.strip_prefix(b"-").unwrap_or(self.0);
        if let [b'0', b'0'..=b'9', ..] = unsigned {
            return None;
        }
        let mut left = after_digits(unsigned)?;
        if let Some(fraction) = left.strip_prefix(b".") {
            left = after_digits(fraction)?;
        }
        if let [b'e' | b'E', exponent @ ..] = left {
            let sign = exponent.iter().take(1).filter(|b| b"+-".contains(b));
            left = after_digits(&exponent[sign.count()..])?;
        }
        self.0 = left;
        Some(())
    }
}

/// What follows at least one digit.
fn after_digits(text: &[u8]) -> Option<&[u8]> {
    let count = text.iter().take_while(|b| b.is_ascii_digit()).count();
    (count > 0).then(|| &text[count..])
}

#[cfg(test)]
mod tests;
