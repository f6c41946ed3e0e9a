//! What flows learn.

use crate::notation::{Case, event, peer};
use crate::{EventState, Flow, Policy, Trace};

fn trace(case: &str) -> Trace {
    Trace::fold(event(), Case::parse(case).facts, &Policy::default())
}

#[test]
fn a_flow_counts_services_edges_order_and_failures() {
    let good = trace(
        "backend>db POST /rows ok; backend=>pay.example POST /c ok; web>backend POST /pay ok took=30; web POST /orders ok",
    );
    let bad = trace("web>backend POST /pay 500; web POST /orders 500");
    let mut flow = Flow::of(&good, EventState::Succeeded).unwrap();
    flow.add(&Flow::of(&bad, EventState::Failed).unwrap());
    assert_eq!(flow.event_type.as_str(), "POST shop/web /orders");
    assert_eq!(
        (flow.version, flow.events, flow.succeeded, flow.failed),
        (2, 2, 1, 1)
    );
    let backend = flow.steps[&peer("backend")];
    assert_eq!(
        (
            backend.events,
            backend.failed,
            backend.failed_undecided,
            backend.failed_whole
        ),
        (2, 1, 1, 1)
    );
    assert_eq!((backend.total_ms, backend.timed), (35, 2));
    let places: Vec<(String, u64, u64)> = flow
        .edges
        .iter()
        .map(|(k, e)| (k.to.to_string(), e.count, e.positions))
        .collect();
    assert_eq!(
        places,
        [
            ("shop/web".to_owned(), 2, 0),
            ("host:pay.example".to_owned(), 1, 1),
            ("shop/db".to_owned(), 1, 0),
            ("shop/backend".to_owned(), 2, 0),
        ]
    );
}

#[test]
fn decided_events_are_no_samples_of_the_learned_rule() {
    let bad = trace("web>backend POST /pay 500; web POST /orders 500");
    let flow = Flow::of(&bad, EventState::RollingBack).unwrap();
    let backend = flow.steps[&peer("backend")];
    assert_eq!(
        (
            flow.doomed,
            backend.failed,
            backend.failed_undecided,
            backend.failed_whole
        ),
        (1, 1, 0, 0)
    );
}

#[test]
fn a_shared_id_teaches_nothing() {
    let shared = trace("web POST /orders ok borrowed; web POST /orders ok borrowed");
    assert!(Flow::of(&shared, EventState::Succeeded).is_none());
}
