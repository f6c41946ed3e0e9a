//! A tiny notation for cases: one fact a line, in the words of the field. Tests only.
//!
//! ```text
//! web POST /orders ok               the entry: shop/web answered 200
//! web>backend POST /pay fail        shop/backend, called by shop/web, answered 500
//! backend=>pay.example POST /c 402  what shop/backend's proxy saw of an external host
//! backend=>db POST /rows gone       … of a service
//! job says running                  the status call
//! operator alice: stop it           an operator's demand
//! web refuses POST /orders          a refusal at shop/web
//! web cleans POST /cancel ok        a request that `pass` let through
//! ? 1500                            judge now, at 1500 ms
//! ```
//!
//! Endings: `ok` 200, `fail` 500, `no` 409, `open` (running), `gone` (client away), `silent` (no answer), or a
//! status. Options: `at= took= sent= in= due= try= flags= deadline= word=` (numbers in ms, deadline in s),
//! `by=` another reporter, `as=x` / `of=x` ties an end to its `open`, `type=`, `borrowed`, `handed-over`, `outbound`,
//! `unheard` (never received). Without options each line is 10 ms after the last, took 5 ms, and was received 5 ms later.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use kaeru_protocol::{
    Call, Ending, EventId, EventReport, Kind, Peer, ReporterId, ServiceName, Side, Word, flags,
};

use crate::{
    Decision, Fact, Flow, Heard, Judgement, Loss, Now, Policy, ReportKey, Span, Trace, judge,
};

/// What rules say of an event that gives them nothing to look at; not told.
const NOTHING: [&str; 6] = [
    "no operator demands it",
    "no service says `failed`",
    "no answer has a status that the policy calls fatal",
    "nothing is open",
    "the event has no deadline",
    "not in force yet: flows are learned, not yet acted on",
];

/// A case: its facts in order, and the moments at which it is judged.
#[derive(Debug, Default)]
pub(crate) struct Case {
    pub(crate) facts: Vec<Fact>,
    pub(crate) moments: Vec<(usize, u64)>,
}

/// What surrounds a case.
#[derive(Debug, Default)]
pub(crate) struct Setting {
    pub(crate) policy: Policy,
    pub(crate) flow: Option<Flow>,
    pub(crate) heard: BTreeMap<ReporterId, Heard>,
    pub(crate) outages: Vec<Span>,
    pub(crate) losses: Vec<Loss>,
}

impl Setting {
    pub(crate) fn now(&self, at_ms: u64) -> Now<'_> {
        Now {
            at_ms,
            heard: &self.heard,
            outages: &self.outages,
            losses: &self.losses,
        }
    }
}

pub(crate) fn event() -> EventId {
    "order-1".parse().unwrap()
}

pub(crate) fn service(name: &str) -> ServiceName {
    let full = if name.contains('/') {
        name.to_owned()
    } else {
        format!("shop/{name}")
    };
    full.parse().unwrap()
}

pub(crate) fn peer(name: &str) -> Peer {
    if name.contains('.') {
        Peer::host(name.as_bytes()).unwrap()
    } else {
        service(name).into()
    }
}

impl Case {
    pub(crate) fn parse(text: &str) -> Self {
        let mut case = Self::default();
        let mut seqs: BTreeMap<String, u64> = BTreeMap::new();
        let mut named: BTreeMap<String, u64> = BTreeMap::new();
        for line in text
            .split(['\n', ';'])
            .map(str::trim)
            .filter(|l| !l.is_empty())
        {
            let words: Vec<&str> = line.split_whitespace().collect();
            if words[0] == "?" {
                case.moments
                    .push((case.facts.len(), words[1].parse().unwrap()));
                continue;
            }
            let option = |name: &str| {
                words
                    .iter()
                    .find_map(|w| w.strip_prefix(name)?.strip_prefix('='))
            };
            let number = |name: &str| option(name).map(|v| v.parse::<u64>().unwrap());
            let mut report = EventReport::new(event(), Kind::Attempt);
            let who = subject(&words, line, &mut report);
            let reporter = option("by").unwrap_or(who);
            let seq = seqs.entry(reporter.to_owned()).or_insert(0);
            *seq += 1;
            if let Some(name) = option("as") {
                named.insert(name.to_owned(), *seq);
            }
            report.opened = option("of").map(|name| named[name]);
            report.borrowed = words.contains(&"borrowed");
            report.handed_over = words.contains(&"handed-over");
            if words.contains(&"outbound") {
                report.side = Side::Outbound;
            }
            let at_ms = number("at").unwrap_or(10 * (case.facts.len() as u64 + 1));
            report.duration_ms = u32::try_from(number("took").unwrap_or(5)).unwrap();
            if report.call.from.is_some() || report.kind == Kind::Call {
                report.sent_ms =
                    number("sent").or(Some(at_ms.saturating_sub(u64::from(report.duration_ms))));
            }
            report.due_ms = number("due")
                .map(|n| u32::try_from(n).unwrap())
                .or(report.due_ms);
            report.attempt = u32::try_from(number("try").unwrap_or(1)).unwrap();
            report.ending.flags |= number("flags").unwrap_or(0);
            report.deadline_s = number("deadline").map(|n| u32::try_from(n).unwrap());
            report.call_mut().event_type = option("type").map(|t| t.parse().unwrap());
            if let Some(word) = option("word") {
                report.ending.word = Word::from_bytes(word.as_bytes());
            }
            case.facts.push(Fact {
                key: ReportKey {
                    reporter: id(reporter),
                    seq: *seq,
                },
                service: service(who),
                gateway: who == "gateway",
                at_ms,
                received_ms: number("in").unwrap_or(at_ms + 5),
                report,
            });
        }
        case
    }

    /// Judges at each moment with the facts so far, and tells what became of it.
    pub(crate) fn tell(&self, setting: &Setting) -> String {
        let mut told = String::new();
        let mut before: Option<Decision> = None;
        for (heard, at_ms) in &self.moments {
            let trace = Trace::fold(event(), self.facts[..*heard].to_vec(), &setting.policy);
            let judgement = judge(
                &trace,
                before.as_ref(),
                setting.flow.as_ref(),
                &setting.policy,
                &setting.now(*at_ms),
            );
            write!(told, "{at_ms}: {}", judgement.state).unwrap();
            tell_judgement(&judgement, &trace, *at_ms, &mut told);
            before = judgement.decision.or(before);
        }
        told
    }
}

fn tell_judgement(judgement: &Judgement, trace: &Trace, at_ms: u64, told: &mut String) {
    if let Some(shared) = trace.shared {
        write!(told, ", shared: {shared}").unwrap();
    }
    if judgement.settled {
        told.push_str(", settled");
    }
    if let Some(wake_ms) = judgement.wake_ms {
        write!(told, ", look again after {}", wake_ms - at_ms).unwrap();
    }
    told.push('\n');
    if let Some(decision) = &judgement.decision {
        write!(told, "{decision}").unwrap();
        return;
    }
    let telling = |why: &str| !NOTHING.contains(&why);
    for considered in judgement.considered.iter().filter(|c| telling(&c.why)) {
        writeln!(told, "  {}: {}", considered.rule, considered.why).unwrap();
    }
}

/// The first words of a line: who says what kind of thing of which call.
fn subject<'a>(words: &[&'a str], line: &str, report: &mut EventReport) -> &'a str {
    let ending = |report: &mut EventReport, at: usize| {
        let word = words.get(at).copied().unwrap_or("ok");
        let status = match word {
            "ok" => Some(200),
            "fail" => Some(500),
            "no" => Some(409),
            "open" => {
                report.kind = Kind::Running;
                report.due_ms = Some(1_000);
                None
            }
            "gone" => {
                report.ending.flags = flags::CLIENT_GONE;
                None
            }
            "silent" => None,
            status => Some(
                status
                    .parse()
                    .unwrap_or_else(|_| panic!("{line}: what is `{status}`?")),
            ),
        };
        report.ending = Ending {
            status,
            ..report.ending
        };
    };
    let call = |report: &mut EventReport, at: usize| {
        report.call = Arc::new(Call {
            method: words[at].into(),
            path: words[at + 1].into(),
            ..(*report.call).clone()
        });
    };
    match (words[0], words[1]) {
        ("operator", _) => {
            report.kind = Kind::Operator;
            report.detail = Some(
                words[1..]
                    .iter()
                    .filter(|w| !w.contains('='))
                    .copied()
                    .collect::<Vec<_>>()
                    .join(" ")
                    .into(),
            );
            "kaeru/aggregator"
        }
        (who, "says") => {
            report.kind = Kind::Word;
            report.ending.word = Word::from_bytes(words[2].as_bytes());
            who
        }
        (who, "refuses") => {
            report.kind = Kind::Refused;
            call(report, 2);
            who
        }
        (who, "cleans") => {
            report.kind = Kind::Cleanup;
            call(report, 2);
            ending(report, 4);
            who
        }
        (head, _) => {
            call(report, 1);
            ending(report, 3);
            if let Some((caller, callee)) = head.split_once("=>") {
                report.kind = Kind::Call;
                report.side = Side::Outbound;
                report.call_mut().to = Some(peer(callee));
                caller
            } else if let Some((caller, callee)) = head.split_once('>') {
                report.call_mut().from = Some(service(caller));
                callee
            } else {
                head
            }
        }
    }
}

pub(crate) fn id(name: &str) -> ReporterId {
    ReporterId(name.bytes().fold(7, |hash: u64, b| {
        hash.wrapping_mul(31).wrapping_add(u64::from(b))
    }))
}
