//! Reports as one batch on the wire: what `kaeru_protocol::BatchBuilder` writes, member for member, without copying a
//! report. A test holds the two together.

use std::sync::Arc;

use kaeru_protocol::{
    Body, Call, Counts, DecisionId, EventReport, EventType, Kind, PROTOCOL_VERSION, Peer,
    ProxyStatus, Report, Reporter, ServiceName, Side, Word,
};

use crate::json::Writer;

/// Writes reports, in sequence order, as the JSON of one batch packed at `sent_ms`.
pub fn encode(reporter: &Reporter, sent_ms: u64, reports: &[Report]) -> String {
    let mut json = Writer::default();
    json.open('{');
    json.key("protocol").number(PROTOCOL_VERSION.into());
    json.key("reporter").open('{');
    json.key("id").text(&reporter.id.to_string());
    json.key("proxy").text(&reporter.proxy);
    json.key("service").text(reporter.service.as_str());
    truth(&mut json, "gateway", reporter.gateway);
    json.close('}');
    json.key("sent_ms").number(signed(sent_ms));
    let mut calls = Calls::default();
    json.key("reports").open('[');
    for report in reports {
        json.open('{');
        json.key("seq").number(signed(report.seq));
        json.key("at").number(offset(report.at_ms, sent_ms));
        match &report.body {
            Body::Event(event) => write_event(&mut json, event, sent_ms, &mut calls),
            Body::Proxy(status) => write_status(&mut json, status),
        }
        json.close('}');
    }
    json.close(']');
    json.key("calls").open('[');
    for call in calls.table {
        write_call(&mut json, call);
    }
    json.close(']');
    json.close('}');
    json.finish()
}

/// The calls that reports point to, each once. Most share theirs, so they are found without a look into them.
#[derive(Default)]
struct Calls<'a> {
    table: Vec<&'a Arc<Call>>,
}

impl<'a> Calls<'a> {
    fn index(&mut self, call: &'a Arc<Call>) -> usize {
        let same = self.table.iter().position(|known| Arc::ptr_eq(known, call));
        let known = same.or_else(|| self.table.iter().position(|known| *known == call));
        known.unwrap_or_else(|| {
            self.table.push(call);
            self.table.len() - 1
        })
    }
}

fn write_event<'a>(json: &mut Writer, event: &'a EventReport, sent_ms: u64, calls: &mut Calls<'a>) {
    json.key("event").text(event.event.as_str());
    truth(json, "borrowed", event.borrowed);
    if event.kind != Kind::default() {
        json.key("kind").text(kind(event.kind));
    }
    if event.side == Side::Outbound {
        json.key("side").text("outbound");
    }
    if *event.call != Call::default() {
        json.key("call")
            .number(signed(calls.index(&event.call) as u64));
    }
    let ending = &event.ending;
    maybe(json, "sent", event.sent_ms.map(|ms| offset(ms, sent_ms)));
    truth(json, "handed_over", event.handed_over);
    maybe(json, "opened", event.opened.map(signed));
    maybe(
        json,
        "attempt",
        (event.attempt != 1).then_some(event.attempt),
    );
    maybe(json, "status", ending.status);
    maybe(json, "grpc", ending.grpc);
    maybe(
        json,
        "flags",
        (ending.flags != 0).then(|| signed(ending.flags)),
    );
    maybe(
        json,
        "ms",
        (event.duration_ms != 0).then_some(event.duration_ms),
    );
    maybe(json, "due", event.due_ms);
    maybe_text(json, "word", ending.word.map(word));
    if let Some(progress) = event.progress {
        json.key("progress").float(f64::from(progress));
    }
    if let Some(cost) = event.cost {
        json.key("cost").float(cost);
    }
    maybe(json, "deadline", event.deadline_s);
    maybe_text(
        json,
        "decision",
        event.decision.as_ref().map(DecisionId::as_str),
    );
    maybe_text(json, "detail", event.detail.as_deref());
}

fn write_status(json: &mut Writer, status: &ProxyStatus) {
    json.key("proxy").open('{');
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
    json.key("counts").open('{');
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
    json.close('}');
    json.key("load").open('{');
    for (name, value) in &status.load {
        json.key_text(name);
        json.float(*value);
    }
    json.close('}');
    json.key("reporters").open('[');
    for mark in &status.reporters {
        json.open('{');
        json.key("id").text(&mark.id.to_string());
        json.key("seq").number(signed(mark.seq));
        maybe(
            json,
            "dropped",
            (mark.dropped != 0).then(|| signed(mark.dropped)),
        );
        truth(json, "gone", mark.gone);
        json.close('}');
    }
    json.close(']');
    json.close('}');
}

fn write_call(json: &mut Writer, call: &Call) {
    json.open('{');
    maybe_text(
        json,
        "type",
        call.event_type.as_ref().map(EventType::as_str),
    );
    maybe_text(json, "from", call.from.as_ref().map(ServiceName::as_str));
    maybe_text(json, "to", call.to.as_ref().map(Peer::as_str));
    json.key("method").text(&call.method);
    json.key("path").text(&call.path);
    json.close('}');
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
