//! What proxies and services say in single values: the parent header, progress, numbers. Lenient about white space,
//! strict about everything else.

use kaeru_protocol::ServiceName;

use crate::json;

/// Seconds an entry may give its event: a year.
const DEADLINE_S_MAX: u32 = 366 * 24 * 3_600;

/// The caller of a request, as its proxy says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From<'a> {
    /// Who; a valid name.
    pub service: &'a str,
    /// When it was sent, by that proxy's clock, ms.
    pub sent_ms: u64,
    /// The call belongs to a branch that a queue handed over.
    pub handed_over: bool,
}

/// `x-event-from`: `<namespace>/<service>;t=<ms>`, and `;handed-over` where that holds.
pub fn from(value: &[u8]) -> Option<From<'_>> {
    let mut fields = value.split(|&b| b == b';').map(<[u8]>::trim_ascii);
    let service = fields.next().filter(|name| ServiceName::is_valid(name))?;
    let (mut sent, mut handed_over) = (None, false);
    for field in fields {
        match field {
            [b't', b'=', ms @ ..] => sent = sent.or(Some(ms)),
            _ => handed_over |= field == b"handed-over",
        }
    }
    Some(From {
        service: std::str::from_utf8(service).ok()?,
        sent_ms: number(sent?)?,
        handed_over,
    })
}

/// `x-event-progress`: `0.4` or `2/5`, as 0 to 1.
pub fn progress(value: &[u8]) -> Option<f32> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let progress = match text.split_once('/') {
        None => json::float(text.as_bytes())?,
        Some((done, of)) => {
            let number = |text: &str| json::float(text.trim().as_bytes());
            number(done)? / number(of)?
        }
    };
    #[expect(clippy::cast_possible_truncation, reason = "a share, to 7 digits")]
    (0.0..=1.0).contains(&progress).then_some(progress as f32)
}

/// `x-event-deadline`: whole seconds, at least 1.
pub fn deadline_s(value: &[u8]) -> Option<u32> {
    let seconds = u32::try_from(number(value)?).ok()?;
    (1..=DEADLINE_S_MAX).contains(&seconds).then_some(seconds)
}

/// Decimal digits and nothing else.
pub fn number(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    let mut number: u64 = 0;
    for digit in digits {
        let value = digit.wrapping_sub(b'0');
        if value > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(value.into())?;
    }
    (!digits.is_empty()).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents() {
        let web = From {
            service: "shop/web",
            sent_ms: 1_767_225_600_123,
            handed_over: false,
        };
        assert_eq!(from(b"shop/web;t=1767225600123"), Some(web));
        let odd = from(b"shop/web; new=1; t=7 ; handed-over").unwrap();
        assert_eq!((odd.sent_ms, odd.handed_over), (7, true));
        for bad in [
            &b"shop/web"[..],
            b"web;t=1",
            b"shop/web;t=",
            b"shop/web;t=-1",
            b"\xff/a;t=1",
        ] {
            assert_eq!(from(bad), None);
        }
    }

    #[test]
    fn progress_is_a_share() {
        assert_eq!(progress(b"0.4"), Some(0.4));
        assert_eq!(progress(b" 2/5 "), Some(0.4));
        for bad in [&b"1.1"[..], b"-0.1", b"NaN", b"1/0", b"0/0", b"half", b""] {
            assert_eq!(progress(bad), None);
        }
    }

    #[test]
    fn deadlines_are_whole_seconds() {
        assert_eq!(deadline_s(b"30"), Some(30));
        for bad in [&b"0"[..], b"-1", b"1.5", b"99999999999", b"+1"] {
            assert_eq!(deadline_s(bad), None);
        }
    }
}
