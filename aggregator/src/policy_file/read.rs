//! From the tree to layers: which keys there are, where each may stand, and which values it takes.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use kaeru_flow::{Contested, Layer, OutOfTouch, Rule};
use kaeru_protocol::{Mode, Outcome};

use super::node::{Node, Value};
use super::{Complaint, Complaints, Scope, Section};

/// Most sections: of 500 event types and 500 services 250,000 pairs are checked, at some microseconds each.
const SECTIONS_MAX: usize = 1_000;
/// Longest duration: decisions are kept 30 days.
const DURATION_MAX_MS: u64 = 30 * 24 * 3_600_000;
/// Most reports of one event that a policy may ask for: read whole at each look, at some 500 bytes each, 50 MB.
const REPORTS_MAX: u64 = 100_000;

/// Keys about a whole event: how it is treated cannot depend on one service.
const OF_EVENTS: &[&str] = &["mode", "rules", "doomed_max", "reports_max", "contested"];
/// Keys that are looked up with the service at which an event began.
const OF_ENTRIES: &[&str] = &["entry_retry_wait", "settle", "deadline"];
/// Keys about any step.
const OF_STEPS: &[&str] = &[
    "outcomes",
    "fatal",
    "read_only",
    "required",
    "nothing_to_undo",
];
/// Keys about a step of a service with a proxy: an external host has none and says no words.
const OF_SERVICES: &[&str] = &["undoes", "silence", "out_of_touch"];

impl Scope {
    fn keys(&self) -> Vec<&'static str> {
        let groups: &[&[&str]] = match self {
            Self::Global | Self::EventType(_) => &[OF_EVENTS, OF_ENTRIES, OF_STEPS, OF_SERVICES],
            Self::Service(peer) if peer.is_external() => &[OF_STEPS],
            Self::Service(_) => &[OF_ENTRIES, OF_STEPS, OF_SERVICES],
        };
        groups.concat()
    }
}

/// Every section of the file, the global one first.
pub(super) fn sections(root: &Node) -> Result<Vec<Section>, Complaints> {
    let mut reader = Reader::default();
    let sections = reader.file(root);
    if sections.len() > SECTIONS_MAX {
        let words = format!(
            "the policy has {} sections; at most {SECTIONS_MAX} are allowed",
            sections.len()
        );
        reader.complain(root.line, words);
    }
    reader.complaints.sort();
    match reader.complaints {
        none if none.is_empty() => Ok(sections),
        complaints => Err(Complaints(complaints)),
    }
}

/// Reads on after a complaint, so that one look at the file shows them all.
#[derive(Default)]
struct Reader {
    complaints: Vec<Complaint>,
}

impl Reader {
    fn complain(&mut self, line: u64, words: impl Into<String>) {
        self.complaints.push(Complaint {
            line,
            words: words.into(),
        });
    }

    fn file(&mut self, root: &Node) -> Vec<Section> {
        let mut global = Section {
            scope: Scope::Global,
            layer: Layer::default(),
            lines: [].into(),
        };
        let mut sections = Vec::new();
        for (key, line, node) in self.map("a policy", root) {
            match key.as_str() {
                "event_types" => sections.extend(self.named(key, node, Scope::EventType)),
                "services" => sections.extend(self.named(key, node, Scope::Service)),
                _ => self.key(&mut global, key, *line, node),
            }
        }
        sections.insert(0, global);
        sections
    }

    fn named<N>(&mut self, key: &str, node: &Node, scope: impl Fn(N) -> Scope) -> Vec<Section>
    where
        N: FromStr<Err: fmt::Display>,
    {
        let mut sections = Vec::new();
        for (name, line, node) in self.map(&format!("`{key}`"), node) {
            match name.parse() {
                Err(rule) => self.complain(*line, format!("`{name}` is {rule}")),
                Ok(name) => {
                    let mut section = Section {
                        scope: scope(name),
                        layer: Layer::default(),
                        lines: [].into(),
                    };
                    for (key, line, node) in self.map(&section.scope.to_string(), node) {
                        self.key(&mut section, key, *line, node);
                    }
                    sections.push(section);
                }
            }
        }
        sections
    }

    fn key(&mut self, section: &mut Section, key: &str, line: u64, node: &Node) {
        let allowed = section.scope.keys();
        if !allowed.contains(&key) {
            let also = if section.scope == Scope::Global {
                ", event_types, services"
            } else {
                ""
            };
            let elsewhere = [OF_EVENTS, OF_ENTRIES, OF_SERVICES].concat().contains(&key);
            let what = if elsewhere {
                "cannot stand in"
            } else {
                "is unknown in"
            };
            let allowed = allowed.join(", ");
            return self.complain(
                line,
                format!("`{key}` {what} {}; allowed: {allowed}{also}", section.scope),
            );
        }
        section.lines.insert(key.to_owned(), line);
        let layer = &mut section.layer;
        match key {
            "mode" => layer.mode = self.mode(key, node),
            "rules" => {
                for (name, line, node) in self.map("`rules`", node) {
                    let rule = self.word(
                        "a rule",
                        *line,
                        name,
                        &Rule::ALL.map(|rule| (rule.as_str(), rule)),
                    );
                    let on = self.switch(name, node);
                    layer.rules.extend(rule.zip(on));
                    section.lines.insert(format!("rules {name}"), *line);
                }
            }
            "doomed_max" => layer.doomed_max_percent = self.percent(key, node),
            "reports_max" => {
                layer.reports_max = self
                    .count(key, node, REPORTS_MAX)
                    .and_then(|n| usize::try_from(n).ok());
            }
            "contested" => layer.contested = self.contested(key, node),
            "entry_retry_wait" => layer.entry_retry_wait_ms = self.duration(key, node),
            "settle" => layer.settle_ms = self.duration(key, node),
            "deadline" => layer.deadline_ms = self.duration(key, node),
            "outcomes" => {
                for (status, line, node) in self.map("`outcomes`", node) {
                    let pattern = self.parsed(key, *line, status);
                    let outcome = self.outcome(&format!("{key} {status}"), node);
                    layer.outcomes.extend(pattern.zip(outcome));
                    if let Some(pattern) = pattern {
                        section.lines.insert(format!("outcomes {pattern}"), *line);
                    }
                }
            }
            "fatal" => {
                for (pattern, line) in self.list(key, "[402, 5xx, grpc:9]", node) {
                    layer.fatal.insert(pattern);
                    section.lines.insert(format!("fatal {pattern}"), line);
                }
            }
            "read_only" => {
                let members = self.list(key, "[POST /search/*]", node);
                section.lines.extend(
                    members
                        .iter()
                        .map(|(op, line)| (format!("read_only {op}"), *line)),
                );
                layer.read_only = members
                    .into_iter()
                    .map(|(operation, _)| operation)
                    .collect();
            }
            "undoes" => {
                let members = self.list(key, "[POST /cancel/*]", node);
                section.lines.extend(
                    members
                        .iter()
                        .map(|(op, line)| (format!("undoes {op}"), *line)),
                );
                layer.undoes = members
                    .into_iter()
                    .map(|(operation, _)| operation)
                    .collect();
            }
            "required" => layer.required = self.switch(key, node),
            "silence" => layer.silence_ms = self.duration(key, node),
            "nothing_to_undo" => layer.nothing_to_undo = self.switch(key, node),
            "out_of_touch" => layer.out_of_touch = self.out_of_touch(key, node),
            _ => {}
        }
    }

    fn mode(&mut self, key: &str, node: &Node) -> Option<Mode> {
        let words = [
            ("off", Mode::Off),
            ("shadow", Mode::Shadow),
            ("enforce", Mode::Enforce),
        ];
        self.word_of(key, node, &words)
    }

    fn contested(&mut self, key: &str, node: &Node) -> Option<Contested> {
        let words = [
            ("wait", Contested::Wait),
            ("roll_back", Contested::RollBack),
            ("withdraw", Contested::Withdraw),
        ];
        self.word_of(key, node, &words)
    }

    fn out_of_touch(&mut self, key: &str, node: &Node) -> Option<OutOfTouch> {
        self.word_of(
            key,
            node,
            &[("show", OutOfTouch::Show), ("doom", OutOfTouch::Doom)],
        )
    }

    fn outcome(&mut self, key: &str, node: &Node) -> Option<Outcome> {
        let words = [
            ("succeeded", Outcome::Succeeded),
            ("rejected", Outcome::Rejected),
            ("failed", Outcome::Failed),
            ("unknown", Outcome::Unknown),
        ];
        self.word_of(key, node, &words)
    }

    fn switch(&mut self, key: &str, node: &Node) -> Option<bool> {
        self.word_of(
            key,
            node,
            &[
                ("on", true),
                ("off", false),
                ("true", true),
                ("false", false),
            ],
        )
    }

    fn duration(&mut self, key: &str, node: &Node) -> Option<u64> {
        self.number(
            key,
            node,
            "1ms to 30d: a whole number and ms, s, m, h or d",
            |number, unit| {
                let unit_ms = match unit {
                    "ms" => 1,
                    "s" => 1_000,
                    "m" => 60_000,
                    "h" => 3_600_000,
                    "d" => 24 * 3_600_000,
                    _ => return None,
                };
                number
                    .checked_mul(unit_ms)
                    .filter(|ms| (1..=DURATION_MAX_MS).contains(ms))
            },
        )
    }

    fn percent(&mut self, key: &str, node: &Node) -> Option<u8> {
        self.number(key, node, "1% to 100%", |number, unit| {
            u8::try_from(number)
                .ok()
                .filter(|n| unit == "%" && (1..=100).contains(n))
        })
    }

    fn count(&mut self, key: &str, node: &Node, max: u64) -> Option<u64> {
        self.number(key, node, &format!("1 to {max}"), |number, unit| {
            (unit.is_empty() && (1..=max).contains(&number)).then_some(number)
        })
    }

    fn number<T>(
        &mut self,
        key: &str,
        node: &Node,
        allowed: &str,
        read: impl Fn(u64, &str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(key, allowed, node)?;
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let value = number
            .parse()
            .ok()
            .and_then(|number| read(number, unit.trim_start()));
        if value.is_none() {
            self.complain(
                node.line,
                format!("`{key}` is `{text}`; allowed: {allowed}"),
            );
        }
        value
    }

    fn word_of<T: Copy>(&mut self, key: &str, node: &Node, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key, &names(words), node)?;
        self.word(&format!("`{key}`"), node.line, text, words)
    }

    fn word<T: Copy>(
        &mut self,
        what: &str,
        line: u64,
        text: &str,
        words: &[(&str, T)],
    ) -> Option<T> {
        let value = words
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value);
        if value.is_none() {
            self.complain(
                line,
                format!("{what} is `{text}`; allowed: {}", names(words)),
            );
        }
        value
    }

    fn parsed<T: FromStr<Err: fmt::Display>>(
        &mut self,
        key: &str,
        line: u64,
        text: &str,
    ) -> Option<T> {
        text.parse()
            .map_err(|rule| self.complain(line, format!("`{key}` has `{text}`; {rule}")))
            .ok()
    }

    /// The members of a list with their lines, each standing once.
    fn list<T>(&mut self, key: &str, example: &str, node: &Node) -> Vec<(T, u64)>
    where
        T: FromStr<Err: fmt::Display> + Ord + Clone,
    {
        let Value::List(nodes) = &node.value else {
            self.complain(
                node.line,
                format!("`{key}` must be a list, as in {example}"),
            );
            return Vec::new();
        };
        let mut seen = BTreeSet::new();
        let mut members = Vec::new();
        for node in nodes {
            let Some(text) = self.text(key, &format!("a list, as in {example}"), node) else {
                continue;
            };
            let Some(member) = self.parsed::<T>(key, node.line, text) else {
                continue;
            };
            if seen.insert(member.clone()) {
                members.push((member, node.line));
            } else {
                self.complain(node.line, format!("`{key}` has `{text}` twice"));
            }
        }
        members
    }

    fn text<'n>(&mut self, key: &str, allowed: &str, node: &'n Node) -> Option<&'n str> {
        let what = match &node.value {
            Value::Text(text) => return Some(text),
            Value::Nothing => "nothing",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        };
        self.complain(node.line, format!("`{key}` is {what}; allowed: {allowed}"));
        None
    }

    fn map<'n>(&mut self, what: &str, node: &'n Node) -> &'n [(String, u64, Node)] {
        match &node.value {
            Value::Map(entries) => entries,
            Value::Nothing => &[],
            Value::Text(_) | Value::List(_) => {
                self.complain(
                    node.line,
                    format!("{what} must be a map of `key: value` lines"),
                );
                &[]
            }
        }
    }
}

fn names<T>(words: &[(&str, T)]) -> String {
    words
        .iter()
        .map(|(word, _)| *word)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Every key, for the check that the example explains each.
#[cfg(test)]
pub(super) fn every_key() -> Vec<&'static str> {
    Scope::Global.keys()
}
