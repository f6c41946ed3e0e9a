//! The lines of a policy, to be quoted: which one says what a decision relied on.

use super::{Complaints, Scope, Section, node, read};

/// Bytes of a line that are quoted.
const QUOTE_MAX: usize = 200;

/// A policy's text, with what stands on which line.
#[derive(Debug)]
pub(crate) struct Lines {
    sections: Vec<Section>,
    text: Vec<Box<str>>,
}

/// One line as it stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Counted from 1.
    pub(crate) number: u64,
    /// Without the white space around it.
    pub(crate) text: String,
}

impl Lines {
    /// Reads a policy as the store keeps it.
    pub(crate) fn read(text: &str) -> Result<Self, Complaints> {
        Ok(Self {
            sections: read::sections(&node::parse(text)?)?,
            text: text.lines().map(Into::into).collect(),
        })
    }

    /// The line on which the section of this scope says this of this key: that of the member where the key has
    /// several (`fatal 402`, `rules entry`), else that of the key.
    pub(crate) fn find(&self, scope: &Scope, key: &str, says: &str) -> Option<Line> {
        let section = self.sections.iter().find(|s| s.scope == *scope)?;
        // `entry: off` among `rules` stands under `rules entry`, `409: rejected` among `outcomes` under its status.
        let member = says.rsplit_once(": ").map_or(says, |(member, _)| member);
        let of = |name: &str| section.lines.get(&format!("{key} {name}")).copied();
        let number = of(says)
            .or_else(|| of(member))
            .or_else(|| section.lines.get(key).copied())?;
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        let text = self.text.get(index)?.trim();
        Some(Line {
            number,
            text: text[..text.floor_char_boundary(QUOTE_MAX)].to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Lines, Scope};

    const POLICY: &str = "\
# Refuse further work.
mode: enforce
rules:
  stalled: off
services:
  host:payments.example.com:
    fatal: [402, 409]   # no retry helps
  shop/render:
    silence: 15m
event_types:
  order.placed:
    fatal:
      - 402
      - grpc:9
    outcomes: { 404: failed,
                4xx: rejected }
    entry_retry_wait: 2s
    read_only:
      - POST /search/*
";

    #[test]
    fn what_a_policy_says_is_found_on_its_line() {
        let lines = Lines::read(POLICY).unwrap();
        let payments = Scope::Service("host:payments.example.com".parse().unwrap());
        let render = Scope::Service("shop/render".parse().unwrap());
        let placed = Scope::EventType("order.placed".parse().unwrap());
        for (scope, key, says, number, text) in [
            (&Scope::Global, "mode", "enforce", 2, "mode: enforce"),
            (&Scope::Global, "rules", "stalled: off", 4, "stalled: off"),
            (&Scope::Global, "rules", "stalled", 4, "stalled: off"),
            (
                &payments,
                "fatal",
                "402",
                7,
                "fatal: [402, 409]   # no retry helps",
            ),
            (&render, "silence", "15m", 9, "silence: 15m"),
            (&placed, "fatal", "402", 13, "- 402"),
            (&placed, "fatal", "grpc:9", 14, "- grpc:9"),
            (&placed, "outcomes", "4xx: rejected", 16, "4xx: rejected }"),
            (
                &placed,
                "entry_retry_wait",
                "2s",
                17,
                "entry_retry_wait: 2s",
            ),
            (
                &placed,
                "entry_retry_wait",
                "2000 ms",
                17,
                "entry_retry_wait: 2s",
            ),
            (
                &placed,
                "read_only",
                "POST /search/*",
                19,
                "- POST /search/*",
            ),
        ] {
            let line = lines.find(scope, key, says).unwrap();
            assert_eq!(
                (line.number, line.text.as_str()),
                (number, text),
                "{key} {says}"
            );
        }
    }

    #[test]
    fn what_a_policy_does_not_say_is_not_found() {
        let lines = Lines::read(POLICY).unwrap();
        let nobody = Scope::Service("shop/nobody".parse().unwrap());
        assert_eq!(lines.find(&nobody, "fatal", "402"), None);
        assert_eq!(lines.find(&Scope::Global, "fatal", "402"), None);
        assert!(Lines::read("mode: loudly").is_err());
    }
}
