//! What the aggregator answers: receipts and pages of verdicts. Unknown members are ignored, and a verdict that this
//! version cannot read is left out alone, so that an older filter survives a newer aggregator.

use std::borrow::Cow;

use kaeru_protocol::{FeedCursor, Mode, Verdict, VerdictEntry, VerdictPage};

use crate::json::{self, Reader, Value};

/// How many reports a receipt rejects; `None` if it is no receipt.
pub fn rejected(body: &[u8]) -> Option<u64> {
    let receipt = json::read(body)?;
    receipt.get("accepted")?.as_u64()?;
    match receipt.get("rejected") {
        None => Some(0),
        Some(rejected) => Some(rejected.as_list()?.len() as u64),
    }
}

/// A page of verdicts, of those that this version knows. One is read at a time: there may be a thousand.
pub fn verdicts(body: &[u8]) -> Option<VerdictPage> {
    let (mut cursor, mut verdicts) = (None, None);
    let (mut reset, mut more) = (false, false);
    Reader::whole(body, |page| {
        page.object(|page, name| {
            match &*name {
                "cursor" => cursor = page.value()?.as_str()?.parse::<FeedCursor>().ok(),
                "reset" => reset = page.value()?.as_bool().unwrap_or_default(),
                "more" => more = page.value()?.as_bool().unwrap_or_default(),
                "verdicts" => {
                    let mut read = Vec::new();
                    page.list(|page| {
                        read.extend(entry(&page.value()?));
                        Some(())
                    })?;
                    verdicts = Some(read);
                }
                _ => drop(page.value()?),
            }
            Some(())
        })
    })?;
    Some(VerdictPage {
        cursor: cursor?,
        reset,
        more,
        verdicts: verdicts?,
    })
}

fn entry(value: &Value) -> Option<VerdictEntry> {
    let text = |key| value.get(key).and_then(Value::as_str);
    Some(VerdictEntry {
        event: text("event")?.parse().ok()?,
        verdict: match text("verdict")? {
            "roll_back" => Verdict::RollBack,
            "proceed" => Verdict::Proceed,
            _ => return None,
        },
        decision: text("decision")?.parse().ok()?,
        failed: text("failed").and_then(|peer| peer.parse().ok()),
        mode: text("mode")
            .map(|mode| Mode::from(Cow::from(mode)))
            .unwrap_or_default(),
        ttl_ms: value.get("ttl_ms")?.as_u64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_read_as_the_protocol_writes_them() {
        let golden = include_bytes!("../../protocol/tests/golden/verdicts.json");
        let theirs: VerdictPage = serde_json::from_slice(golden).unwrap();
        assert_eq!(verdicts(golden), Some(theirs));
    }

    #[test]
    fn what_is_new_is_left_out_alone() {
        let page = verdicts(
            br#"{"cursor":"e:2","new":[{}],"verdicts":[
                {"event":"a","verdict":"pause","decision":"d","ttl_ms":1},
                {"event":"b","verdict":"roll_back","decision":"d","failed":"?","mode":"new","ttl_ms":1,"new":{}},
                {"event":"c d","verdict":"roll_back","decision":"d","ttl_ms":1},{}]}"#,
        )
        .unwrap();
        assert_eq!(page.verdicts.len(), 1);
        assert_eq!(page.verdicts[0].mode, Mode::Shadow);
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"cursor":"e:2"}"#,
            r#"{"cursor":"e","verdicts":[]}"#,
        ] {
            assert_eq!(verdicts(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn receipts_say_how_many_were_rejected() {
        let golden = include_bytes!("../../protocol/tests/golden/receipt.json");
        assert_eq!(rejected(golden), Some(1));
        assert_eq!(rejected(br#"{"accepted":3}"#), Some(0));
        for bad in ["", "<html>", "{}", r#"{"accepted":"3"}"#] {
            assert_eq!(rejected(bad.as_bytes()), None, "{bad}");
        }
    }
}
