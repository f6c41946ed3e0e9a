//! JSON that comes in (RFC 8259), read strictly and in one pass: a member or element at a time where there are many, as a
//! whole where there are few. A library's reader is three times the code, half of it for reading numbers to their last bit.

/// How deep objects and lists may lie in each other: what we read has four levels, each takes less than 1 KiB of the stack.
const DEPTH_MAX: u32 = 64;

/// Any value; of a member that is there twice the last counts.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number without sign, point and exponent.
    Whole(u64),
    /// Any other number.
    Number(f64),
    /// A text.
    Text(Box<str>),
    /// A list.
    List(Vec<Value>),
    /// An object.
    Object(Vec<(Box<str>, Value)>),
}

impl Value {
    /// A member of an object.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let mut members = self.as_object()?.iter().rev();
        members.find_map(|(known, value)| (**known == *name).then_some(value))
    }

    /// The members, if it is an object.
    pub fn as_object(&self) -> Option<&[(Box<str>, Self)]> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The elements, if it is a list.
    pub fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The truth, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    /// The number, if it is a whole one.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Whole(number) => Some(*number),
            _ => None,
        }
    }

    /// The number, if it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Whole(number) => Some(*number as f64),
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }
}

/// Reads a text that is one value.
pub fn read(text: &[u8]) -> Option<Value> {
    Reader::whole(text, Reader::value)
}

/// A place in a text. Whatever is malformed gives `None`, and nothing after that means anything.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    depth: u32,
}

impl<'a> Reader<'a> {
    /// Reads a text that is one value.
    pub fn whole<T>(text: &'a [u8], value: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let mut reader = Self {
            rest: text,
            depth: 0,
        };
        let value = value(&mut reader)?;
        reader.peek().is_none().then_some(value)
    }

    /// Reads any value.
    pub fn value(&mut self) -> Option<Value> {
        Some(match self.peek()? {
            b'{' => {
                let mut members = Vec::new();
                self.object(|reader, name| {
                    members.push((name, reader.value()?));
                    Some(())
                })?;
                Value::Object(members)
            }
            b'[' => {
                let mut list = Vec::new();
                self.list(|reader| {
                    list.push(reader.value()?);
                    Some(())
                })?;
                Value::List(list)
            }
            b'"' => Value::Text(self.text()?),
            b't' => self.word(b"true", Value::Bool(true))?,
            b'f' => self.word(b"false", Value::Bool(false))?,
            b'n' => self.word(b"null", Value::Null)?,
            _ => self.number()?,
        })
    }

    /// Reads an object: `member` is called with each name and reads its value.
    pub fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Box<str>) -> Option<()>,
    ) -> Option<()> {
        self.items(b'{', b'}', |reader| {
            let name = reader.text()?;
            reader.expect(b':')?;
            member(reader, name)
        })
    }

    /// Reads a list: `element` is called for each and reads it.
    pub fn list(&mut self, element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.items(b'[', b']', element)
    }

    fn items(
        &mut self,
        open: u8,
        close: u8,
        mut item: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        self.expect(open)?;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return None;
        }
        if self.peek()? == close {
            self.next()?;
        } else {
            loop {
                item(self)?;
                self.peek()?;
                match self.next()? {
                    b',' => {}
                    end if end == close => break,
                    _ => return None,
                }
            }
        }
        self.depth -= 1;
        Some(())
    }

    fn text(&mut self) -> Option<Box<str>> {
        self.expect(b'"')?;
        let special = |b: &u8| *b < b' ' || matches!(b, b'"' | b'\\');
        let mut text = Vec::new();
        loop {
            let plain = self.rest.iter().position(special)?;
            let (plain, rest) = self.rest.split_at_checked(plain)?;
            text.extend_from_slice(plain);
            self.rest = rest;
            match self.next()? {
                b'"' => break,
                b'\\' => {
                    let char = self.escaped()?;
                    text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                }
                _ => return None,
            }
        }
        String::from_utf8(text).ok().map(String::into_boxed_str)
    }

    fn escaped(&mut self) -> Option<char> {
        Some(match self.next()? {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.unit()?;
                if !(0xd800..0xdc00).contains(&unit) {
                    return char::from_u32(unit);
                }
                // The first of two.
                let [b'\\', b'u'] = [self.next()?, self.next()?] else {
                    return None;
                };
                let low = self
                    .unit()?
                    .checked_sub(0xdc00)
                    .filter(|low| *low < 0x400)?;
                return char::from_u32(0x1_0000 + ((unit - 0xd800) << 10 | low));
            }
            itself @ (b'"' | b'\\' | b'/') => char::from(itself),
            _ => return None,
        })
    }

    fn unit(&mut self) -> Option<u32> {
        (0..4).try_fold(0, |unit, _| {
            Some(unit << 4 | char::from(self.next()?).to_digit(16)?)
        })
    }

    fn number(&mut self) -> Option<Value> {
        let of_number = |b: &&u8| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        let len = self.rest.iter().take_while(of_number).count();
        let (text, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        let digits = text.strip_prefix(b"-").unwrap_or(text);
        // No zeros before, and digits on both sides of a point, which `float` does not ask for.
        let strict = match digits {
            [b'0', b'0'..=b'9', ..] => false,
            [b'0'..=b'9', ..] => {
                let after = digits.iter().position(|&b| b == b'.').map(|at| at + 1);
                after.is_none_or(|at| digits.get(at).is_some_and(u8::is_ascii_digit))
            }
            _ => false,
        };
        if !strict {
            return None;
        }
        match crate::said::number(text) {
            Some(number) => Some(Value::Whole(number)),
            None => float(text).filter(|n| n.is_finite()).map(Value::Number),
        }
    }

    fn word(&mut self, word: &[u8], value: Value) -> Option<Value> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(value)
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
        self.rest.first().copied()
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.next())?.map(drop)
    }
}

/// A decimal number: sign, digits with at most one point in them, exponent. Exact where it has at most 15 digits and an
/// exponent within 22, else to 15 digits.
pub fn float(text: &[u8]) -> Option<f64> {
    let (negative, mut rest) = match text {
        [sign @ (b'+' | b'-'), rest @ ..] => (*sign == b'-', rest),
        _ => (false, text),
    };
    let (mut digits, mut exponent, mut point, mut any) = (0_u64, 0_i32, false, false);
    while let [byte @ (b'0'..=b'9' | b'.'), after @ ..] = rest {
        rest = after;
        if *byte == b'.' {
            if std::mem::replace(&mut point, true) {
                return None;
            }
            continue;
        }
        any = true;
        // Digits beyond 18 count for the size alone.
        if digits < 100_000_000_000_000_000 {
            digits = digits * 10 + u64::from(byte - b'0');
            exponent = exponent.saturating_sub(i32::from(point));
        } else {
            exponent = exponent.saturating_add(i32::from(!point));
        }
    }
    if let [b'e' | b'E', after @ ..] = rest {
        let (minus, after) = match after {
            [sign @ (b'+' | b'-'), after @ ..] => (*sign == b'-', after),
            _ => (false, after),
        };
        if !after.first().is_some_and(u8::is_ascii_digit) {
            return None;
        }
        let more = after.iter().try_fold(0_i32, |sum, byte| {
            let digit = i32::from(byte.wrapping_sub(b'0'));
            (digit < 10).then(|| sum.saturating_mul(10).saturating_add(digit))
        })?;
        exponent = exponent.saturating_add(if minus { -more } else { more });
        rest = &[];
    }
    if !any || !rest.is_empty() {
        return None;
    }
    let mut number = digits as f64;
    while exponent != 0 && number != 0.0 && number.is_finite() {
        let step = exponent.clamp(-22, 22);
        // Up to 10^22 a double holds it exactly.
        let power = (0..step.abs()).fold(1.0, |power, _| power * 10.0);
        if step > 0 {
            number *= power;
        } else {
            number /= power;
        }
        exponent -= step;
    }
    Some(if negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::{float, read};

    #[test]
    fn what_is_json_is_read_and_nothing_else() {
        for text in [
            "null",
            " true ",
            "false",
            "0",
            "-0",
            "12",
            "1.5e3",
            "1E-2",
            "18446744073709551615",
            "-1",
            "18446744073709551616",
            r#""""#,
            r#""a\"\\\/\b\f\n\r\tA\u00e9\ud83d\ude00é""#,
            "[]",
            "[1,[2],{}]",
            r#"{"a":1,"b":{"c":[null]}}"#,
            " { \"a\" : [ 1 , 2 ] } ",
            "",
            " ",
            "nul",
            "+1",
            "01",
            "1.",
            ".5",
            "1e",
            "1e999",
            "--1",
            "1-1",
            "'a'",
            "\"",
            "\"\n\"",
            r#""\x""#,
            r#""\ud83d""#,
            r#""\ud83dA""#,
            r#""\udc00""#,
            r#""\u12"#,
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":1,}",
            "{a:1}",
            "[1",
            "{\"a\":1",
            "1 1",
            "[]]",
        ] {
            let theirs: Option<serde_json::Value> = serde_json::from_str(text).ok();
            assert_eq!(read(text.as_bytes()).is_some(), theirs.is_some(), "{text}");
            if let Some(serde_json::Value::String(theirs)) = theirs {
                assert_eq!(
                    read(text.as_bytes()).unwrap().as_str(),
                    Some(&*theirs),
                    "{text}"
                );
            }
        }
        assert_eq!(read(b"\"\xff\""), None);
        let twice = read(br#"{"a":1,"a":2}"#).unwrap();
        assert_eq!(twice.get("a").unwrap().as_u64(), Some(2));
        let deep = |levels: usize| [vec![b'['; levels], vec![b']'; levels]].concat();
        assert!(read(&deep(64)).is_some() && read(&deep(65)).is_none());
        assert!(read(&vec![b'['; 1_000_000]).is_none());
    }

    #[test]
    fn numbers_are_read_to_fifteen_digits() {
        for text in [
            "0.4",
            "2.5",
            "-12.25",
            "424.0",
            "1e22",
            "0.0000001",
            "123456789.125",
            "1e15",
            "5e-1",
        ] {
            assert_eq!(float(text.as_bytes()), text.parse().ok(), "{text}");
        }
        for text in [
            "1e300",
            "3.333333333333333333333333",
            "-2.5e-300",
            "1e-320",
            "12345678901234567890123e-5",
        ] {
            let (ours, theirs) = (
                float(text.as_bytes()).unwrap(),
                text.parse::<f64>().unwrap(),
            );
            assert!(
                (ours - theirs).abs() <= theirs.abs() * 1e-14 + f64::from_bits(2),
                "{text} {ours}"
            );
        }
        for (text, number) in [
            ("1e999999999999", f64::INFINITY),
            ("1e-999999999999", 0.0),
            ("0e999", 0.0),
        ] {
            assert_eq!(float(text.as_bytes()), Some(number), "{text}");
        }
        for bad in [
            "", "-", ".", "e5", "1e", "1e+", "1.2.3", "NaN", "inf", "1 ", "0x1", "1e5.0",
        ] {
            assert_eq!(float(bad.as_bytes()), None, "{bad}");
        }
    }
}
