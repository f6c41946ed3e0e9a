//! Who called whom, as a tree: each attempt under the attempt of its caller that was open when it was sent.

use anyhow::{Context, Result};
use chrono::DateTime;
use kaeru_e2e::api::{Attempt, Event};

/// One line of the tree.
#[derive(Debug)]
pub(crate) struct Node {
    /// The service that did it, or that wanted to and was refused.
    pub(crate) service: String,
    /// Method and path.
    pub(crate) what: String,
    /// How it ended, in words.
    pub(crate) ending: String,
    /// It took effect.
    pub(crate) good: bool,
    /// How long it took, ms; a refusal takes none.
    pub(crate) duration_ms: Option<u64>,
    /// When its caller sent it (the entry: when its sidecar got it), ms.
    begun_ms: i64,
    from: Option<String>,
    /// What it called.
    pub(crate) below: Vec<Node>,
}

/// The event's attempts and refusals as trees, in the order of time; usually one.
pub(crate) fn grow(event: &Event) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    for step in &event.steps {
        for call in &step.calls {
            for attempt in &call.attempts {
                nodes.push(Node {
                    service: step.service.clone(),
                    what: format!("{} {}", call.method, call.path),
                    ending: ending(attempt),
                    good: attempt.outcome == "succeeded",
                    duration_ms: Some(attempt.duration_ms),
                    begun_ms: ms(attempt.sent.as_ref().unwrap_or(&attempt.at))?,
                    from: call.from.clone(),
                    below: Vec::new(),
                });
            }
        }
    }
    for refusal in event.refusals.iter().filter(|refusal| refusal.enforced) {
        let (outbound, service) = (refusal.side == "outbound", refusal.service.clone());
        nodes.push(Node {
            ending: format!("refused by the sidecar of {service}"),
            service: if outbound {
                refusal.to.clone().unwrap_or_default()
            } else {
                service.clone()
            },
            what: format!("{} {}", refusal.method, refusal.path),
            good: false,
            duration_ms: None,
            begun_ms: ms(&refusal.at)?,
            from: if outbound {
                Some(service)
            } else {
                refusal.from.clone()
            },
            below: Vec::new(),
        });
    }
    nodes.sort_by_key(|node| node.begun_ms);
    // A caller begins before those it calls, so from the last to the first every node is whole when it is hung up.
    let mut roots = Vec::new();
    while let Some(mut node) = nodes.pop() {
        node.below.sort_by_key(|below| below.begun_ms);
        let caller = nodes.iter_mut().rev().find(|other| {
            other.duration_ms.is_some() && Some(&other.service) == node.from.as_ref()
        });
        match caller {
            Some(caller) => caller.below.push(node),
            None => roots.push(node),
        }
    }
    roots.reverse();
    Ok(roots)
}

fn ending(attempt: &Attempt) -> String {
    let status = attempt
        .status
        .map_or("no answer".into(), |status| status.to_string());
    let seen = match attempt.seen_by.as_str() {
        "caller" => ", as its caller's sidecar saw it",
        _ => "",
    };
    format!("{}, {status}{seen}", attempt.outcome)
}

/// A time of the API, ms since 1970.
pub(crate) fn ms(time: &str) -> Result<i64> {
    let time = DateTime::parse_from_rfc3339(time).with_context(|| format!("the time {time}"))?;
    Ok(time.timestamp_millis())
}
