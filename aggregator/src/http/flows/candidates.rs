//! Calls that look as if they changed nothing though their method is unsafe. A proposal by names alone: a person
//! writes it into the policy, or does not.

use kaeru_protocol::is_safe_method;
use serde::Serialize;
use utoipa::ToSchema;

use crate::store::flow_pages::EdgeRow;

/// What reading calls are named after.
const READING: [&str; 14] = [
    "check", "count", "describe", "exists", "export", "fetch", "find", "get", "list", "lookup",
    "preview", "query", "search", "validate",
];

/// One proposal, as the policy would name it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[schema(as = ReadOnlyCandidate)]
pub(super) struct Candidate {
    service: String,
    /// Method and folded path.
    #[schema(example = "POST /products/search")]
    operation: String,
}

/// The proposals for these calls.
pub(super) fn of(edges: &[EdgeRow]) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = edges
        .iter()
        .filter(|edge| {
            !is_safe_method(&edge.method) && edge.method != "DELETE" && is_reading(&edge.path)
        })
        .map(|edge| Candidate {
            service: edge.callee.clone(),
            operation: format!("{} {}", edge.method, edge.path),
        })
        .collect();
    candidates.sort();
    candidates.dedup();
    candidates
}

/// Whether the last part of the path begins with a word for reading: `/orders/search`, `/shop.Stock/GetItem`.
fn is_reading(path: &str) -> bool {
    let last = path
        .rsplit(['/', ':'])
        .find(|part| !part.is_empty() && !part.starts_with('{'));
    let Some(name) = last else { return false };
    let word_end = name
        .char_indices()
        .skip(1)
        .find(|(_, c)| !c.is_ascii_lowercase())
        .map_or(name.len(), |(at, _)| at);
    READING.contains(&name[..word_end].to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::is_reading;

    #[test]
    fn names_of_reading_calls() {
        for path in [
            "/orders/search",
            "/shop.Stock/GetItem",
            "/v1/items:list",
            "/query",
            "/check-stock",
            "/find/{id}",
        ] {
            assert!(is_reading(path), "{path}");
        }
        for path in [
            "/orders",
            "/shop.Stock/Reserve",
            "/",
            "/{id}",
            "/getaway",
            "/listings/{id}",
            "/orders/{id}/pay",
        ] {
            assert!(!is_reading(path), "{path}");
        }
    }
}
