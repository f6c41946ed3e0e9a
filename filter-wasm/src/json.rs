//! JSON, written straight into bytes: what goes out is flat and small, and written by hand it costs a third of the code
//! that the wire's types would bring along. `batch.rs` and its neighbours are held to the wire's types by tests. What comes
//! in is read in `json/read.rs`.

mod read;

pub use read::{Reader, Value, float, read};

/// Numbers below this have at most 15 digits before the point, which a double holds exactly.
const DIGITS_MAX: f64 = 1e15;

/// Writes one JSON text: `key`s and values in the order in which they are given, commas by itself.
#[derive(Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// With room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            out: Vec::with_capacity(bytes),
        }
    }

    /// The text so far.
    pub fn finish(self) -> String {
        // It was written from texts.
        String::from_utf8(self.out).unwrap_or_default()
    }

    /// `{` or `[`.
    pub fn open(&mut self, bracket: u8) {
        self.comma();
        self.out.push(bracket);
    }

    /// `}` or `]`.
    pub fn close(&mut self, bracket: u8) {
        self.out.push(bracket);
    }

    /// A member's name; its value is to follow.
    pub fn key(&mut self, key: &str) -> &mut Self {
        self.plain_text(key);
        self.out.push(b':');
        self
    }

    /// A member's name that may need escaping; its value is to follow.
    pub fn key_text(&mut self, key: &str) {
        self.text(key);
        self.out.push(b':');
    }

    /// A text of which its type says that nothing in it needs escaping.
    #[inline(never)]
    pub fn plain_text(&mut self, text: &str) {
        self.comma();
        self.out.push(b'"');
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b'"');
    }

    /// A text (RFC 8259, 7).
    #[inline(never)]
    pub fn text(&mut self, text: &str) {
        self.comma();
        self.out.push(b'"');
        for &byte in text.as_bytes() {
            if byte >= b' ' && byte != b'"' && byte != b'\\' {
                self.out.push(byte);
            } else {
                let digit = |value: u8| b"0123456789abcdef"[usize::from(value & 0xf)];
                self.out.extend_from_slice(b"\\u00");
                self.out.extend([digit(byte >> 4), digit(byte)]);
            }
        }
        self.out.push(b'"');
    }

    /// A whole number. A report has six of them: a formatter would take most of the time of writing it.
    #[inline(never)]
    pub fn number(&mut self, number: i64) {
        self.comma();
        if number < 0 {
            self.out.push(b'-');
        }
        self.digits(number.unsigned_abs());
    }

    fn digits(&mut self, mut rest: u64) {
        let mut digits = [0; 20];
        let mut first = digits.len();
        for place in digits.iter_mut().rev() {
            *place = b'0' + (rest % 10) as u8;
            rest /= 10;
            first -= 1;
            if rest == 0 {
                break;
            }
        }
        self.out
            .extend_from_slice(digits.get(first..).unwrap_or_default());
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
            self.out
                .extend_from_slice(if exponent < 0 { b"e-" } else { b"e" });
            self.digits(i64::from(exponent).unsigned_abs());
        }
    }

    /// `true`, `false` or `null`.
    pub fn word(&mut self, word: &str) {
        self.comma();
        self.out.extend_from_slice(word.as_bytes());
    }

    /// Parts a value from the one before it.
    fn comma(&mut self) {
        if !matches!(self.out.last(), None | Some(b'{' | b'[' | b':')) {
            self.out.push(b',');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Writer;

    #[test]
    fn what_is_written_reads_the_same_elsewhere() {
        let mut json = Writer::default();
        json.open(b'{');
        json.key("a").open(b'[');
        json.number(-7);
        json.number(i64::MAX);
        json.number(i64::MIN);
        json.number(10);
        json.number(0);
        json.float(0.1);
        json.float(f64::NAN);
        json.open(b'{');
        json.close(b'}');
        json.close(b']');
        json.key("b").text("x\"\\\n\u{1}é:{");
        json.key("c").word("null");
        json.close(b'}');
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
