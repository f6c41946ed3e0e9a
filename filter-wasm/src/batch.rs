//! Reports as one batch on the wire: what `kaeru_protocol::BatchBuilder` writes, member for member, without copying a
//! report. A test holds the two together.

use std::num::{NonZeroU32, NonZeroU64};
use std::rc::Rc;

use kaeru_protocol::{
    Counts, EventType, Kind, PROTOCOL_VERSION, Peer, Reporter, ServiceName, Side, Word,
};

use crate::calls::Call;
use crate::json::Writer;
use crate::report::{Body, Event, Report, Status};

/// Bytes that a report usually takes, and those of the batch around them: a batch's memory is taken in one piece.
const REPORT_BYTES: usize = 128;
/// See [`REPORT_BYTES`].
const AROUND_BYTES: usize = 1_024;

/// Writes reports, in sequence order, as the JSON of one batch packed at `sent_ms`.
pub fn encode(reporter: &Reporter, sent_ms: u64, reports: &[Report]) -> String {
    let mut json = Writer::with_capacity(AROUND_BYTES + reports.len() * REPORT_BYTES);
    json.open(b'{');
    json.key("protocol").number(PROTOCOL_VERSION.into());
    json.key("reporter").open(b'{');
    json.key("id").text(&reporter.id.to_string());
    json.key("proxy").text(&reporter.proxy);
    json.key("service").text(reporter.service.as_str());
    truth(&mut json, "gateway", reporter.gateway);
    json.close(b'}');
    json.key("sent_ms").number(signed(sent_ms));
    let mut calls = Calls::default();
    json.key("reports").open(b'[');
    for report in reports {
        json.open(b'{');
        json.key("seq").number(signed(report.seq));
        json.key("at").number(offset(report.at_ms, sent_ms));
        match &report.body {
            Body::Event(event) => write_event(&mut json, event, sent_ms, &mut calls),
            Body::Proxy(status) => write_status(&mut json, status),
        }
        json.close(b'}');
    }
    json.close(b']');
    json.key("calls").open(b'[');
    for call in calls.table {
        write_call(&mut json, call);
    }
    json.close(b']');
    json.close(b'}');
    json.finish()
}

/// The calls that reports point to, each once. Most share theirs, so they are found without a look into them.
#[derive(Default)]
struct Calls<'a> {
    table: Vec<&'a Rc<Call>>,
}

impl<'a> Calls<'a> {
    fn index(&mut self, call: &'a Rc<Call>) -> usize {
        let same = self.table.iter().position(|known| Rc::ptr_eq(known, call));
        let known = same.or_else(|| self.table.iter().position(|known| known.says_same(call)));
        known.unwrap_or_else(|| {
            self.table.push(call);
            self.table.len() - 1
        })
    }
}

fn write_event<'a>(json: &mut Writer, event: &'a Event, sent_ms: u64, calls: &mut Calls<'a>) {
    let facts = &event.facts;
    json.key("event").plain_text(facts.event.as_str());
    truth(json, "borrowed", facts.borrowed);
    if event.kind != Kind::default() {
        json.key("kind").plain_text(kind(event.kind));
    }
    if facts.side == Side::Outbound {
        json.key("side").plain_text("outbound");
    }
    if !facts.call.says_same(&Call::default()) {
        json.key("call")
            .number(signed(calls.index(&facts.call) as u64));
    }
    let ending = &event.ending;
    let sent = facts.sent_ms.map(|ms| offset(ms.get(), sent_ms));
    maybe(json, "sent", sent);
    truth(json, "handed_over", facts.handed_over);
    let opened = event.opened.map(NonZeroU64::get);
    maybe(json, "opened", opened.map(signed));
    let attempt = (facts.attempt != 1).then_some(facts.attempt);
    maybe(json, "attempt", attempt);
    maybe(json, "status", ending.status);
    maybe(json, "grpc", ending.grpc);
    let flags = (ending.flags != 0).then(|| signed(ending.flags));
    maybe(json, "flags", flags);
    let took_ms = (event.duration_ms != 0).then_some(event.duration_ms);
    maybe(json, "ms", took_ms);
    maybe(json, "due", event.due_ms.map(NonZeroU32::get));
    maybe_text(json, "word", ending.word.map(word));
    if let Some(more) = &event.more {
        if let Some(progress) = more.progress {
            json.key("progress").float(f64::from(progress));
        }
        if let Some(cost) = more.cost {
            json.key("cost").float(cost);
        }
        if let Some(decision) = &more.decision {
            json.key("decision").plain_text(decision.as_str());
        }
    }
    maybe(json, "deadline", facts.deadline_s.map(NonZeroU32::get));
}

fn write_status(json: &mut Writer, status: &Status) {
    json.key("proxy").open(b'{');
    json.key("due_ms").number(status.due_ms.into());
    json.key("in_flight").number(signed(status.in_flight));
    json.key("oldest_ms").number(signed(status.oldest_ms));
    let Counts {
        succeeded,
        rejected,
        failed,
        unknown,
        refused,
        possible_splits,
        invalid_ids,
        dropped,
    } = status.counts;
    json.key("counts").open(b'{');
    for (name, count) in [
        ("succeeded", succeeded),
        ("rejected", rejected),
        ("failed", failed),
        ("unknown", unknown),
        ("refused", refused),
        ("possible_splits", possible_splits),
        ("invalid_ids", invalid_ids),
        ("dropped", dropped),
    ] {
        maybe(json, name, (count != 0).then(|| signed(count)));
    }
    json.close(b'}');
    json.key("load").open(b'{');
    for (name, value) in &status.load {
        json.key_text(name);
        json.float(*value);
    }
    json.close(b'}');
    json.key("reporters").open(b'[');
    for mark in &status.reporters {
        json.open(b'{');
        json.key("id").text(&mark.id.to_string());
        json.key("seq").number(signed(mark.seq));
        maybe(
            json,
            "dropped",
            (mark.dropped != 0).then(|| signed(mark.dropped)),
        );
        truth(json, "gone", mark.gone);
        json.close(b'}');
    }
    json.close(b']');
    json.close(b'}');
}

fn write_call(json: &mut Writer, call: &Call) {
    json.open(b'{');
    maybe_text(
        json,
        "type",
        call.event_type.as_ref().map(EventType::as_str),
    );
    maybe_text(json, "from", call.from.as_ref().map(ServiceName::as_str));
    maybe_text(json, "to", call.to.as_ref().map(Peer::as_str));
    json.key("method").text(&call.method);
    json.key("path").text(&call.path);
    json.close(b'}');
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Attempt => "attempt",
        Kind::Running => "running",
        Kind::Call => "call",
        Kind::Refused => "refused",
        Kind::WouldRefuse => "would_refuse",
        Kind::Cleanup => "cleanup",
        Kind::Undo => "undo",
        Kind::Word => "word",
        Kind::Operator => "operator",
    }
}

fn word(word: Word) -> &'static str {
    match word {
        Word::Running => "running",
        Word::Succeeded => "succeeded",
        Word::Rejected => "rejected",
        Word::Failed => "failed",
    }
}

fn truth(json: &mut Writer, key: &str, truth: bool) {
    if truth {
        json.key(key).word("true");
    }
}

fn maybe(json: &mut Writer, key: &str, number: Option<impl Into<i64>>) {
    if let Some(number) = number {
        json.key(key).number(number.into());
    }
}

fn maybe_text(json: &mut Writer, key: &str, text: Option<&str>) {
    if let Some(text) = text {
        json.key(key).text(text);
    }
}

/// Counters, times and flag bits all stay below 2^63.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn offset(ms: u64, base_ms: u64) -> i64 {
    ms.cast_signed().wrapping_sub(base_ms.cast_signed())
}

#[cfg(test)]
mod tests;
