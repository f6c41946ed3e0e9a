//! The JSON in the docs: whole, and what is said to be on the wire is read by the wire's own types.

use kaeru_protocol::{Batch, Problem, Refusal, VerdictPage};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::repo::{Doc, docs};

/// The fenced blocks of JSON, in order.
fn blocks(doc: &Doc) -> Vec<&str> {
    let fences = doc.text.split("```json\n").skip(1);
    fences
        .filter_map(|rest| rest.split("\n```").next())
        .collect()
}

fn read<T: DeserializeOwned>(doc: &Doc, block: &str) -> T {
    serde_json::from_str(block).unwrap_or_else(|error| panic!("{}: {error} in {block}", doc.path))
}

#[test]
fn examples_are_json() {
    let mut count = 0;
    for doc in docs() {
        for block in blocks(&doc) {
            read::<Value>(&doc, block);
            count += 1;
        }
    }
    assert!(count > 4, "only {count} examples were found");
}

#[test]
fn examples_of_the_protocol_are_read() {
    let doc = Doc::at("docs/PROTOCOL.md");
    let blocks = blocks(&doc);
    let [batch, page, refusal] = blocks[..] else {
        panic!("a batch, a page and a refusal, not {}", blocks.len());
    };
    let batch: Batch = read(&doc, batch);
    for report in batch.into_reports() {
        report.unwrap();
    }
    assert_eq!(read::<VerdictPage>(&doc, page).verdicts.len(), 1);
    let refused: Refusal = read(&doc, refusal);
    let problem: Problem = read(&doc, refusal);
    assert_eq!(problem.status, refused.status);
    assert_eq!(refused.detail, problem.detail);
}
