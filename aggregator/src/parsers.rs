//! The aggregator's parsers of outside bytes, each behind a plain function, so that the fuzzing of `e2e/tests/fuzz/`
//! reaches them. Nobody else uses them from outside.

use axum::http::{HeaderMap, HeaderValue};
use kaeru_protocol::headers;

use crate::http::identity;
use crate::ingest::batch;
use crate::policy_file;

/// A batch of reports: how many of it can be stored and how many are rejected alone, or why it is none.
pub fn batch(body: &[u8]) -> Result<(usize, usize), String> {
    let batch = batch::read(body).map_err(|error| error.to_string())?;
    Ok((batch.reports.len(), batch.rejected.len()))
}

/// A policy: nothing, or what is wrong with it.
pub fn policy(text: &str) -> Result<(), String> {
    let policy = policy_file::parse(text).map_err(|complaints| complaints.to_string());
    policy.map(drop)
}

/// Who calls, by the proxy's word: namespace and service account.
pub fn client_certificate(value: &[u8]) -> Option<(String, String)> {
    let mut with = HeaderMap::new();
    with.insert(headers::CLIENT_CERT, HeaderValue::from_bytes(value).ok()?);
    let (namespace, account) = identity::workload(&with)?;
    Some((namespace.to_owned(), account.to_owned()))
}
