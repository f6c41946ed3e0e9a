//! Golden files: what is on the wire, read and written back byte for byte (as JSON values), and what an
//! older reader does with a newer writer's words.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::fs;
use std::path::Path;

use kaeru_protocol::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn round_trip<T: Serialize + DeserializeOwned>(file: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(file);
    let text = fs::read_to_string(&path).unwrap();
    let read: T = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
    let golden: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        serde_json::to_value(&read).unwrap(),
        golden,
        "{file} does not round-trip"
    );
    read
}

#[test]
fn a_batch_unpacks_and_packs_again() {
    let batch: Batch = round_trip("batch.json");
    let reports: Vec<Report> = (batch.clone().into_reports()).map(Result::unwrap).collect();
    assert_eq!(reports[0].at_ms, 1_767_225_599_900);
    let mut builder = BatchBuilder::new(batch.reporter.clone(), batch.sent_ms);
    for report in &reports {
        builder.push(report);
    }
    assert_eq!(builder.finish(), batch);
    // Packed later, the offsets differ and the times do not.
    let mut later = BatchBuilder::new(batch.reporter.clone(), batch.sent_ms + 5_000);
    for report in &reports {
        later.push(report);
    }
    let later = later.finish();
    let again: Vec<Report> = later.into_reports().map(Result::unwrap).collect();
    assert_eq!(again, reports);
}

#[test]
fn receipts_pages_refusals_and_problems() {
    let receipt: Receipt = round_trip("receipt.json");
    assert_eq!(receipt.rejected[0].seq, Some(18));
    let page: VerdictPage = round_trip("verdicts.json");
    assert_eq!(page.verdicts[0].mode, Mode::Enforce);
    let refusal: Refusal = round_trip("refusal.json");
    assert_eq!(refusal, Refusal::new(&page.verdicts[0], 424));
    let problem: Problem = round_trip("problem.json");
    assert_eq!(
        problem.problem_type.as_ref(),
        ProblemType::StoreUnavailable.uri()
    );
}

#[test]
fn a_quick_report_is_small() {
    let batch: Batch = round_trip("batch.json");
    let bytes = serde_json::to_string(&batch.reports[0]).unwrap().len();
    assert!(bytes <= 120, "{bytes} bytes");
}

#[test]
fn an_older_reader_survives_a_newer_writer() {
    let page: VerdictPage = serde_json::from_value(json!({
        "cursor": "e1:7", "colour": "blue",
        "verdicts": [{"event": "a", "verdict": "pause", "decision": "d", "mode": "strict", "ttl_ms": 1, "x": 1}]
    }))
    .unwrap();
    assert_eq!(page.verdicts[0].verdict, Verdict::Unknown);
    assert_eq!(page.verdicts[0].mode, Mode::Shadow);
    let report: WireReport =
        serde_json::from_value(json!({"seq": 1, "at": 0, "event": "a", "colour": "blue"})).unwrap();
    assert!(report.unpack(&[], 1).is_ok());
    // An unknown kind makes that one report unreadable.
    assert!(
        serde_json::from_value::<WireReport>(json!({"seq": 1, "event": "a", "kind": "x"})).is_err()
    );
}

#[test]
fn unreadable_reports_say_why() {
    let unpack = |value: Value| {
        serde_json::from_value::<WireReport>(value)
            .unwrap()
            .unpack(&[], 1_000)
            .unwrap_err()
    };
    for (value, reason) in [
        (json!({"seq": 3}), "neither"),
        (
            json!({"seq": 3, "event": "a", "call": 0}),
            "outside the table",
        ),
        (json!({"seq": 3, "event": "a", "at": -2000}), "before 1970"),
        (
            json!({"seq": 3, "event": "a", "detail": "x".repeat(5000)}),
            "4 KiB",
        ),
        (
            json!({"seq": 3, "event": "a", "proxy": {"due_ms": 1, "in_flight": 0}}),
            "both",
        ),
    ] {
        let rejection = unpack(value);
        assert_eq!(rejection.seq, Some(3));
        assert!(rejection.reason.contains(reason), "{}", rejection.reason);
    }
}
