//! What no key can say alone: keys that cannot hold together, within a section and in every stack of sections
//! that one step can fall under.

use std::collections::BTreeSet;

use kaeru_flow::{Layer, Operation, OutOfTouch, Policy, Rule, StatusPattern};
use kaeru_protocol::{Ending, EventType, Outcome, Peer, is_safe_method};

use super::{Complaint, Scope, Section};

/// Every contradiction, once, by line.
pub(super) fn find(sections: &[Section], policy: &Policy) -> Vec<Complaint> {
    let mut found = BTreeSet::new();
    for section in sections {
        found.extend(within(section));
        found.extend(switched_off(section, policy));
    }
    for stack in stacks(sections) {
        found.extend(fatal_success(&stack, policy));
        found.extend(overlaps(&stack));
        found.extend(late_retry(&stack));
    }
    found.into_iter().collect()
}

/// Sections that can hold for one step, the most specific first.
struct Stack<'a>(Vec<&'a Section>);

/// Every section over the global one, and each pair of a service and an event type over it.
fn stacks(sections: &[Section]) -> Vec<Stack<'_>> {
    let of = |wanted: fn(&Scope) -> bool| sections.iter().filter(move |s| wanted(&s.scope));
    let global = || of(|scope| *scope == Scope::Global);
    let types = || of(|scope| matches!(scope, Scope::EventType(_)));
    let services = of(|scope| matches!(scope, Scope::Service(_)));
    let mut stacks: Vec<Stack<'_>> = global().map(|section| Stack(vec![section])).collect();
    stacks.extend(types().map(|section| Stack(std::iter::once(section).chain(global()).collect())));
    for service in services {
        stacks.push(Stack(std::iter::once(service).chain(global()).collect()));
        // Two sections that cannot touch each other need no look at each of their pairs.
        let pairs = types().filter(|event_type| can_touch(&service.layer, &event_type.layer));
        stacks.extend(
            pairs.map(|event_type| {
                Stack([service, event_type].into_iter().chain(global()).collect())
            }),
        );
    }
    stacks
}

fn can_touch(service: &Layer, event_type: &Layer) -> bool {
    let statuses = |a: &Layer, b: &Layer| !a.fatal.is_empty() && !b.outcomes.is_empty();
    let operations = |a: &Layer, b: &Layer| !a.undoes.is_empty() && !b.read_only.is_empty();
    let times = |a: &Layer, b: &Layer| a.deadline_ms.is_some() && b.entry_retry_wait_ms.is_some();
    [statuses, operations, times]
        .iter()
        .any(|touch| touch(service, event_type) || touch(event_type, service))
}

impl Stack<'_> {
    fn event_type(&self) -> Option<&EventType> {
        self.0.iter().find_map(|section| match &section.scope {
            Scope::EventType(event_type) => Some(event_type),
            _ => None,
        })
    }

    fn service(&self) -> Option<&Peer> {
        self.0.iter().find_map(|section| match &section.scope {
            Scope::Service(peer) => Some(peer),
            _ => None,
        })
    }
}

/// Keys of one section that exclude each other.
fn within(section: &Section) -> Vec<Complaint> {
    let mut found = Vec::new();
    let line = |key: &str| section.line(key);
    let layer = &section.layer;
    if layer.nothing_to_undo == Some(true) && !layer.undoes.is_empty() {
        found.push(Complaint {
            line: line("undoes"),
            words: format!(
                "`undoes` names operations that undo, but `nothing_to_undo` (line {}) says that there is nothing",
                line("nothing_to_undo")
            ),
        });
    }
    for operation in layer
        .undoes
        .iter()
        .filter(|operation| is_safe_method(&method(operation)))
    {
        found.push(Complaint {
            line: line(&format!("undoes {operation}")),
            words: format!("`undoes` has `{operation}`, but a safe method changes nothing, so it undoes nothing"),
        });
    }
    if layer.rules.get(&Rule::Learned) == Some(&true) {
        found.push(Complaint {
            line: line("rules learned"),
            words: "the rule `learned` cannot be switched on: flows are learned, not yet acted on"
                .to_owned(),
        });
    }
    found
}

/// A key that feeds a rule which is off wherever the key holds.
fn switched_off(section: &Section, policy: &Policy) -> Vec<Complaint> {
    let layer = &section.layer;
    let fed = [
        (Rule::Fatal, "fatal", !layer.fatal.is_empty()),
        (
            Rule::Entry,
            "entry_retry_wait",
            layer.entry_retry_wait_ms.is_some(),
        ),
        (Rule::Deadline, "deadline", layer.deadline_ms.is_some()),
        (Rule::Stalled, "silence", layer.silence_ms.is_some()),
        (
            Rule::Stalled,
            "out_of_touch",
            layer.out_of_touch == Some(OutOfTouch::Doom),
        ),
    ];
    fed.into_iter()
        .filter(|(rule, _, named)| *named && is_off_for(&section.scope, *rule, policy))
        .map(|(rule, key, _)| Complaint {
            line: section.line(key),
            words: format!(
                "`{key}` can have no effect: the rule `{rule}` that reads it is off for {}",
                section.scope
            ),
        })
        .collect()
}

/// Whether the rule is off for every event that the section can hold for.
fn is_off_for(scope: &Scope, rule: Rule, policy: &Policy) -> bool {
    let said = |layer: &Layer| layer.rules.get(&rule).copied();
    let otherwise = said(&policy.global).unwrap_or(rule != Rule::Learned);
    match scope {
        Scope::EventType(name) => !policy
            .event_types
            .get(name)
            .and_then(said)
            .unwrap_or(otherwise),
        Scope::Global | Scope::Service(_) => {
            !otherwise
                && !policy
                    .event_types
                    .values()
                    .any(|layer| said(layer) == Some(true))
        }
    }
}

/// A status that dooms the event though the step that answered it counts as succeeded.
fn fatal_success(stack: &Stack<'_>, policy: &Policy) -> Vec<Complaint> {
    // A stack without a service still has a step, of a service that no section names.
    let nobody = || "-/-".parse::<Peer>();
    let Ok(peer) = stack.service().cloned().map_or_else(nobody, Ok) else {
        return Vec::new();
    };
    let step = policy.for_step(stack.event_type(), &peer);
    let mut found = Vec::new();
    for section in &stack.0 {
        for fatal in &section.layer.fatal {
            let Some(ending) = endings(*fatal, stack)
                .into_iter()
                .find(|ending| step.outcome(ending) == Outcome::Succeeded)
            else {
                continue;
            };
            let status = ending.grpc.map_or_else(
                || {
                    ending
                        .status
                        .map_or_else(String::new, |status| status.to_string())
                },
                |grpc| format!("grpc:{grpc}"),
            );
            let by = stack
                .0
                .iter()
                .find_map(|section| named_outcome(section, &ending));
            let why = match by {
                Some(line) => format!("line {line} makes a success of {status}"),
                None => format!("{status} is a success unless `outcomes` says otherwise"),
            };
            found.push(Complaint {
                line: section.line(&format!("fatal {fatal}")),
                words: format!("`fatal` has {fatal}, but {why}: an event cannot be doomed by a step that succeeded"),
            });
        }
    }
    found
}

/// The line on which the section names the outcome of the ending.
fn named_outcome(section: &Section, ending: &Ending) -> Option<u64> {
    let patterns = || {
        section
            .layer
            .outcomes
            .keys()
            .filter(|pattern| pattern.matches(ending))
    };
    let exact = patterns().find(|pattern| !matches!(pattern, StatusPattern::Family(_)));
    exact
        .or_else(|| patterns().next())
        .map(|pattern| section.line(&format!("outcomes {pattern}")))
}

/// An ending for each way in which the stack can read the status: of a family, one status for each that a section
/// names exactly, and one that none does (the defaults make no difference between those that succeed).
fn endings(pattern: StatusPattern, stack: &Stack<'_>) -> Vec<Ending> {
    let http = |status| Ending {
        status: Some(status),
        ..Ending::default()
    };
    match pattern {
        StatusPattern::Http(status) => vec![http(status)],
        StatusPattern::Family(digit) => {
            let first = u16::from(digit) * 100;
            let named: BTreeSet<u16> = stack
                .0
                .iter()
                .flat_map(|section| section.layer.outcomes.keys())
                .filter_map(|pattern| match pattern {
                    StatusPattern::Http(status) if status / 100 == u16::from(digit) => {
                        Some(*status)
                    }
                    _ => None,
                })
                .collect();
            let unnamed = (first..first + 100).find(|status| !named.contains(status));
            named.into_iter().chain(unnamed).map(http).collect()
        }
        StatusPattern::Grpc(code) => vec![Ending {
            status: Some(200),
            grpc: Some(code),
            ..Ending::default()
        }],
    }
}

/// An operation that changes nothing and undoes something.
fn overlaps(stack: &Stack<'_>) -> Vec<Complaint> {
    let mut found = Vec::new();
    for undoing in &stack.0 {
        for undoes in &undoing.layer.undoes {
            for reading in &stack.0 {
                for read_only in reading
                    .layer
                    .read_only
                    .iter()
                    .filter(|op| can_be_one(op, undoes))
                {
                    found.push(Complaint {
                        line: undoing.line(&format!("undoes {undoes}")),
                        words: format!(
                            "`undoes` has `{undoes}`, but line {} says of `{read_only}` that it changes nothing",
                            reading.line(&format!("read_only {read_only}"))
                        ),
                    });
                }
            }
        }
    }
    found
}

/// Whether one request can match both.
fn can_be_one(a: &Operation, b: &Operation) -> bool {
    let method = if method(a) == "*" {
        method(b)
    } else {
        method(a)
    };
    let is_both = |path: &str| a.matches(&method, path) && b.matches(&method, path);
    is_both(&shortest_path(a)) || is_both(&shortest_path(b))
}

fn method(operation: &Operation) -> String {
    operation
        .to_string()
        .split(' ')
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The shortest path that the operation matches: of two that overlap, one matches the other's.
fn shortest_path(operation: &Operation) -> String {
    operation
        .to_string()
        .split(' ')
        .next_back()
        .unwrap_or_default()
        .trim_end_matches('*')
        .to_owned()
}

/// A second try that could only come after the deadline.
fn late_retry(stack: &Stack<'_>) -> Option<Complaint> {
    let named = |value: fn(&Layer) -> Option<u64>, key: &str| {
        stack
            .0
            .iter()
            .find_map(|section| Some((value(&section.layer)?, section.line(key))))
    };
    let (deadline_ms, deadline_line) = named(|layer| layer.deadline_ms, "deadline")?;
    let (wait_ms, wait_line) = named(|layer| layer.entry_retry_wait_ms, "entry_retry_wait")?;
    (wait_ms >= deadline_ms).then(|| Complaint {
        line: wait_line.max(deadline_line),
        words: format!(
            "`entry_retry_wait` of {wait_ms} ms (line {wait_line}) is not over before the `deadline` of \
             {deadline_ms} ms (line {deadline_line})"
        ),
    })
}
