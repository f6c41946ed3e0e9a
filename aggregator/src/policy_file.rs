//! The policy as its YAML file says it: text in, [`Policy`] out, or every complaint with its line.
//!
//! Three passes, each in its file: `node` reads YAML with lines, `read` makes layers of it and refuses what
//! no key means, `contradictions` refuses what cannot hold together. Where a policy comes from (a file, the
//! database) and when it is read again is not decided here. Keys are documented in `manifests/policy.yaml`.

mod contradictions;
mod lines;
mod node;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use kaeru_flow::{Layer, Policy};
use kaeru_protocol::{EventType, Peer};

pub(crate) use lines::{Line, Lines};

/// Bytes of a policy: 1,000 sections of 256 bytes.
const POLICY_BYTES_MAX: usize = 256 * 1024;

/// What is wrong at one line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Complaint {
    /// Counted from 1; 0 where the text has no such line.
    pub(crate) line: u64,
    /// In words, with what is allowed.
    pub(crate) words: String,
}

/// Everything that is wrong with one policy, in the order of its lines; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) struct Complaints(pub(crate) Vec<Complaint>);

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Complaint { line, words }) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            match line {
                0 => write!(f, "{separator}{words}")?,
                line => write!(f, "{separator}line {line}: {words}")?,
            }
        }
        Ok(())
    }
}

/// The layer that one section of the file says, and on which lines.
#[derive(Debug, Clone)]
struct Section {
    scope: Scope,
    layer: Layer,
    /// By key, and by key and member (`fatal 402`).
    lines: BTreeMap<String, u64>,
}

/// What a section speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    Global,
    EventType(EventType),
    Service(Peer),
}

impl Section {
    fn line(&self, key: &str) -> u64 {
        self.lines.get(key).copied().unwrap_or(0)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("the global section"),
            Self::EventType(event_type) => write!(f, "event type {event_type}"),
            Self::Service(peer) => write!(f, "service {peer}"),
        }
    }
}

/// The policy that `text` says, as version 0: the store gives it its version.
pub(crate) fn parse(text: &str) -> Result<Policy, Complaints> {
    if text.len() > POLICY_BYTES_MAX {
        let words = format!(
            "the policy has {} bytes; at most {POLICY_BYTES_MAX} are allowed",
            text.len()
        );
        return Err(Complaints(vec![Complaint { line: 0, words }]));
    }
    let sections = read::sections(&node::parse(text)?)?;
    let policy = assemble(&sections);
    match contradictions::find(&sections, &policy) {
        found if found.is_empty() => Ok(policy),
        found => Err(Complaints(found)),
    }
}

/// `kaeru policy check FILE`: says whether the file is a valid policy, and if not, why. Returns whether it is.
pub fn check(path: &Path, out: &mut impl Write) -> io::Result<bool> {
    let shown = path.display();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            writeln!(out, "{shown}: cannot be read: {error}")?;
            return Ok(false);
        }
    };
    match parse(&text) {
        Ok(policy) => {
            let (types, services) = (policy.event_types.len(), policy.services.len());
            writeln!(
                out,
                "{shown}: valid; sections for {types} event types and {services} services"
            )?;
            Ok(true)
        }
        Err(Complaints(complaints)) => {
            for Complaint { line, words } in complaints {
                writeln!(out, "{shown}:{line}: {words}")?;
            }
            Ok(false)
        }
    }
}

fn assemble(sections: &[Section]) -> Policy {
    let mut policy = Policy::default();
    for Section { scope, layer, .. } in sections {
        match scope {
            Scope::Global => policy.global = layer.clone(),
            Scope::EventType(event_type) => {
                policy.event_types.insert(event_type.clone(), layer.clone());
            }
            Scope::Service(peer) => {
                policy.services.insert(peer.clone(), layer.clone());
            }
        }
    }
    policy
}
