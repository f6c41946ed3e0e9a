//! Traffic of a small mesh, as its proxies report it: the rows that are multiplied.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use kaeru_e2e::clock;
use kaeru_protocol::{
    BatchBuilder, Body, Call, EventReport, Kind, Report, Reporter, ReporterId, Word,
};

use crate::talk::Talk;

/// Events of the seed.
pub(super) const EVENTS: u64 = 10_000;
/// Services that one event goes through: a report each.
pub(super) const STEPS: u64 = 4;
/// Kinds of events.
const TYPES: u64 = 20;
/// Services of the mesh, with two proxies each.
const SERVICES: u64 = 40;
/// One event in so many goes through [`RARE`].
const RARELY: u64 = 125;
/// A service that takes part in few events, none of which fails.
pub(super) const RARE: &str = "shop/rare";

/// States the seed: every event in four reports. Of 100 events 5 fail with something to undo, 2 are turned down before
/// anything happened; half of their ids are ordered by time, half random and borrowed, as request ids are.
pub(super) async fn state(talk: &mut Talk) -> Result<()> {
    let began_ms = clock::now_ms() - 2_000;
    let mut by_reporter: BTreeMap<(String, u64), Vec<Report>> = BTreeMap::new();
    for number in 0..EVENTS {
        for step in 0..STEPS {
            let (service, report) = report(number, step, began_ms)?;
            let of = (service, number / TYPES % 2);
            by_reporter.entry(of).or_default().push(report);
        }
    }
    for (id, ((service, proxy), reports)) in (1..).zip(by_reporter) {
        let reporter = Reporter {
            id: ReporterId(id),
            proxy: format!("sidecar~127.0.0.1~{proxy}.{service}").into(),
            service: service.parse()?,
            gateway: false,
        };
        let mut batch = BatchBuilder::new(reporter, clock::now_ms());
        for (seq, report) in (1..).zip(reports) {
            batch.push(&Report { seq, ..report });
        }
        let body = serde_json::to_string(&batch.finish())?;
        let request = format!(
            "POST /v1/reports HTTP/1.1\r\nhost: kaeru\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let status = talk.ask(request.as_bytes()).await?;
        ensure!(status == 200, "a batch of the seed was answered {status}");
    }
    Ok(())
}

/// The type of an event and the services that it goes through, entry first.
pub(super) fn flow(number: u64) -> (String, [String; 4]) {
    let kind = number % TYPES;
    let service = |step: u64| format!("shop/s{}", (kind * 7 + step * 11) % SERVICES);
    let mut services = [0, 1, 2, 3].map(service);
    if number.is_multiple_of(RARELY) {
        RARE.clone_into(&mut services[3]);
    }
    (format!("order.{kind}"), services)
}

fn report(number: u64, step: u64, began_ms: u64) -> Result<(String, Report)> {
    let (event_type, services) = flow(number);
    let place = usize::try_from(step)?;
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let is_borrowed = spread >> 63 == 1;
    let version = if is_borrowed { 4 } else { 7 };
    let (high, low) = (spread >> 32 & 0xffff_ffff, number);
    let event = format!("{high:08x}-0000-{version}000-8333-{low:012x}");
    let began_ms = began_ms + number % 1_000;
    let mut report = EventReport::new(event.parse()?, Kind::Attempt);
    report.borrowed = is_borrowed;
    report.call = Call {
        event_type: Some(event_type.parse()?),
        from: place
            .checked_sub(1)
            .map(|at| services[at].parse())
            .transpose()?,
        to: None,
        method: "POST".into(),
        path: "/orders/{id}".into(),
    }
    .into();
    report.sent_ms = (step > 0).then_some(began_ms + step);
    report.duration_ms = u32::try_from(50 - step * 10)?;
    let fails = !number.is_multiple_of(RARELY);
    report.ending.status = Some(match spread >> 40 & 127 {
        chance if fails && chance < 6 && step == STEPS - 1 => {
            report.ending.word = Some(Word::Failed);
            500
        }
        chance if fails && (6..9).contains(&chance) => 409,
        _ => 201,
    });
    let report = Report {
        seq: 0,
        at_ms: began_ms + 60 - step,
        body: Body::Event(Box::new(report)),
    };
    Ok((services[place].clone(), report))
}
