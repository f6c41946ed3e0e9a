//! Layers of a policy, and its patterns.

use kaeru_protocol::{Ending, Mode, Outcome};

use crate::notation::peer;
use crate::{Layer, Operation, Policy, Rule, StatusPattern};

fn outcomes(rules: &[(&str, Outcome)]) -> Layer {
    Layer {
        outcomes: rules
            .iter()
            .map(|(p, o)| (p.parse().unwrap(), *o))
            .collect(),
        ..Layer::default()
    }
}

#[test]
fn the_most_specific_layer_wins_and_an_exact_status_beats_its_family() {
    let policy = Policy {
        global: outcomes(&[
            ("5xx", Outcome::Rejected),
            ("503", Outcome::Unknown),
            ("404", Outcome::Succeeded),
        ]),
        services: [(
            peer("db"),
            outcomes(&[("5xx", Outcome::Failed), ("grpc:9", Outcome::Failed)]),
        )]
        .into(),
        ..Policy::default()
    };
    let outcome = |name: &str, status, grpc| {
        let ending = Ending {
            status: Some(status),
            grpc,
            ..Ending::default()
        };
        policy.for_step(None, &peer(name)).outcome(&ending)
    };
    assert_eq!(outcome("web", 500, None), Outcome::Rejected);
    assert_eq!(outcome("web", 503, None), Outcome::Unknown);
    assert_eq!(outcome("web", 404, None), Outcome::Succeeded);
    assert_eq!(outcome("db", 503, None), Outcome::Failed);
    assert_eq!(outcome("db", 200, Some(9)), Outcome::Failed);
    assert_eq!(outcome("web", 200, Some(9)), Outcome::Rejected);
    let cut_short = Ending {
        status: Some(404),
        flags: 0x80_0000,
        ..Ending::default()
    };
    assert_eq!(
        policy.for_step(None, &peer("web")).outcome(&cut_short),
        Outcome::Unknown
    );
}

#[test]
fn patterns_say_what_they_are() {
    for text in ["402", "5xx", "grpc:9"] {
        assert_eq!(text.parse::<StatusPattern>().unwrap().to_string(), text);
    }
    for text in ["", "99", "600", "6xx", "x", "grpc:17", "grpc:", "+200x"] {
        assert!(text.parse::<StatusPattern>().is_err(), "{text}");
    }
    let search: Operation = "POST /search/*".parse().unwrap();
    assert!(search.matches("POST", "/search/7") && !search.matches("PUT", "/search/7"));
    assert!("* /x".parse::<Operation>().unwrap().matches("PUT", "/x"));
    for text in ["POST", "POST x", "post /x", "POST /a*b", "POST /a b", " /x"] {
        assert!(text.parse::<Operation>().is_err(), "{text}");
    }
}

#[test]
fn an_event_of_unknown_type_is_judged_by_the_most_careful_layer() {
    let layer = |mode, word| Layer {
        mode: Some(mode),
        rules: [(Rule::Word, word)].into(),
        ..Layer::default()
    };
    let policy = Policy {
        global: layer(Mode::Enforce, true),
        event_types: [("order.test".parse().unwrap(), layer(Mode::Off, false))].into(),
        ..Policy::default()
    };
    let typed = |name: &str| policy.for_event(Some(&name.parse().unwrap()), None).mode();
    assert_eq!(typed("order.placed"), Mode::Enforce);
    assert_eq!(typed("order.test"), Mode::Off);
    let untyped = policy.for_event(None, None);
    assert_eq!(untyped.mode(), Mode::Off);
    assert!(!untyped.is_on(Rule::Word) && untyped.is_on(Rule::Fatal));
}
