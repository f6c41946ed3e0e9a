//! JSON, written straight into bytes. What comes in is read by `serde_json`; what goes out is flat and small, and written
//! by hand it costs a third of the code that the wire's types would bring along. `batch.rs` and its neighbours are held to
//! the wire's types by tests.

use std::fmt::Write;

use serde_json::Value;

/// Numbers below this have at most 15 digits before the point, which a double holds exactly.
const DIGITS_MAX: f64 = 1e15;

/// Reads a text (RFC 8259). One place, so that the reader stands in the module once.
pub fn read(text: &[u8]) -> Option<Value> {
    serde_json::from_slice(text).ok()
}

/// Writes one JSON text: `key`s and values in the order in which they are given, commas by itself.
#[derive(Debug, Default)]
pub struct Writer {
    out: String,
}

impl Writer {
    /// The text so far.
    pub fn finish(self) -> String {
        self.out
    }

    /// `{` or `[`.
    pub fn open(&mut self, bracket: char) {
        self.comma();
        self.out.push(bracket);
    }

    /// `}` or `]`.
    pub fn close(&mut self, bracket: char) {
        self.out.push(bracket);
    }

    /// A member's name; its value is to follow.
    pub fn key(&mut self, key: &str) -> &mut Self {
        self.comma();
        self.out.push('"');
        self.out.push_str(key);
        self.out.push_str("\":");
        self
    }

    /// A member's name that may need escaping; its value is to follow.
    pub fn key_text(&mut self, key: &str) {
        self.text(key);
        self.out.push(':');
    }

    /// A text (RFC 8259, 7).
    pub fn text(&mut self, text: &str) {
        self.comma();
        self.out.push('"');
        let plain = |b: u8| b >= b' ' && b != b'"' && b != b'\\';
        if text.bytes().all(plain) {
            self.out.push_str(text);
        } else {
            for c in text.chars() {
                if u8::try_from(c).map_or(true, plain) {
                    self.out.push(c);
                } else {
                    let _ = write!(self.out, "\\u{:04x}", u32::from(c));
                }
            }
        }
        self.out.push('"');
    }

    /// A whole number. A report has six of them: a formatter would take most of the time of writing it.
    pub fn number(&mut self, number: i64) {
        self.comma();
        if number < 0 {
            self.out.push('-');
        }
        let mut rest = number.unsigned_abs();
        let mut digits = [0; 20];
        let mut first = digits.len();
        for (place, digit) in digits.iter_mut().enumerate().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
            first = place;
            if rest == 0 {
                break;
            }
        }
        let digits = digits.get(first..).unwrap_or_default();
        self.out
            .push_str(std::str::from_utf8(digits).unwrap_or("0"));
    }

    /// A number to 15 digits, at most 1e300; what JSON does not have is written as 0. (The standard library's shortest form is
    /// 15 kB of code.)
    pub fn float(&mut self, number: f64) {
        let finite = if number.is_finite() { number } else { 0.0 };
        let mut digits = finite.clamp(-1e300, 1e300);
        let mut exponent = 0;
        while digits.abs() >= DIGITS_MAX {
            digits /= 10.0;
            exponent += 1;
        }
        while digits.fract() != 0.0 && digits.abs() < DIGITS_MAX / 10.0 {
            digits *= 10.0;
            exponent -= 1;
        }
        #[expect(clippy::cast_possible_truncation, reason = "below 10^15")]
        self.number(digits.round() as i64);
        if exponent != 0 {
            let _ = write!(self.out, "e{exponent}");
        }
    }

    /// `true`, `false` or `null`.
    pub fn word(&mut self, word: &str) {
        self.comma();
        self.out.push_str(word);
    }

    /// Parts a value from the one before it.
    fn comma(&mut self) {
        if !matches!(self.out.as_bytes().last(), None | Some(b'{' | b'[' | b':')) {
            self.out.push(',');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Writer;

    #[test]
    fn what_is_written_reads_the_same_elsewhere() {
        let mut json = Writer::default();
        json.open('{');
        json.key("a").open('[');
        json.number(-7);
        json.number(i64::MAX);
        json.number(i64::MIN);
        json.number(10);
        json.number(0);
        json.float(0.1);
        json.float(f64::NAN);
        json.open('{');
        json.close('}');
        json.close(']');
        json.key("b").text("x\"\\\n\u{1}é:{");
        json.key("c").word("null");
        json.close('}');
        let text = json.finish();
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            read,
            serde_json::json!({"a": [-7, i64::MAX, i64::MIN, 10, 0, 0.1, 0, {}], "b": "x\"\\\n\u{1}é:{", "c": null})
        );
        assert!(super::read(text.as_bytes()).is_some());
    }

    #[test]
    fn floats_keep_fifteen_digits() {
        for number in [
            0.0,
            0.4,
            -0.57,
            12.0,
            1.0 / 3.0,
            2.5e-7,
            1e-300,
            123_456_789.125,
            9e15,
            -0.9e300,
            f64::MIN_POSITIVE,
        ] {
            let mut json = Writer::default();
            json.float(number);
            let read: f64 = serde_json::from_str(&json.finish()).unwrap();
            assert!(
                (read - number).abs() <= number.abs() * 3e-14,
                "{number} {read}"
            );
        }
        let mut json = Writer::default();
        json.float(0.4);
        assert_eq!(json.finish(), "4e-1");
    }
}
