//! The lines of a policy, to be quoted: which one says what a decision relied on.

use kaeru_flow::Ground;

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

    /// The line that says it: that of the member where the key has several (`fatal 402`, `rules entry`), else that
    /// of the key. None says what is built in.
    pub(crate) fn find(&self, ground: &Ground) -> Option<Line> {
        let Ground { scope, key, says } = ground;
        let scope = match scope.clone() {
            kaeru_flow::Scope::Default => return None,
            kaeru_flow::Scope::Global => Scope::Global,
            kaeru_flow::Scope::EventType(event_type) => Scope::EventType(event_type),
            kaeru_flow::Scope::Service(peer) => Scope::Service(peer),
        };
        let section = self.sections.iter().find(|s| s.scope == scope)?;
        // `entry: off` among `rules` stands under `rules entry`, `409: rejected` among `outcomes` under its status.
        let member = says.rsplit_once(": ").map_or(&**says, |(member, _)| member);
        let of = |name: &str| section.lines.get(&format!("{key} {name}")).copied();
        let number = of(says)
            .or_else(|| of(member))
            .or_else(|| section.lines.get(&**key).copied())?;
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
    use kaeru_flow::{Ground, Scope};

    use super::Lines;

    fn ground(scope: &Scope, key: &str, says: &str) -> Ground {
        Ground {
            scope: scope.clone(),
            key: key.into(),
            says: says.into(),
        }
    }

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
            let line = lines.find(&ground(scope, key, says)).unwrap();
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
        assert_eq!(lines.find(&ground(&nobody, "fatal", "402")), None);
        assert_eq!(lines.find(&ground(&Scope::Global, "fatal", "402")), None);
        assert_eq!(
            lines.find(&ground(&Scope::Default, "mode", "enforce")),
            None
        );
        assert!(Lines::read("mode: loudly").is_err());
    }
}
