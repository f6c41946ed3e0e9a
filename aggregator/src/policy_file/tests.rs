//! Policies as people write them, and what they are told.
#![expect(
    clippy::needless_raw_string_hashes,
    reason = "expect-test writes its snapshots so"
)]

use expect_test::{Expect, expect};
use kaeru_flow::{Contested, OutOfTouch, Policy, Rule};
use kaeru_protocol::{Ending, Mode, Outcome};

use super::{check, parse};

fn refused(text: &str, expected: &Expect) {
    expected.assert_eq(&parse(text).unwrap_err().to_string());
}

#[test]
fn the_example_is_valid_and_names_every_key() {
    let text = include_str!("../../../manifests/policy.yaml");
    let policy = parse(text).unwrap();
    let order = "order.placed".parse().unwrap();
    let of_orders = policy.for_event(Some(&order), None);
    assert_eq!(
        (of_orders.mode(), of_orders.deadline().map(|(ms, _)| ms)),
        (Mode::Enforce, Some(120_000))
    );
    assert_eq!(policy.for_event(None, None).mode(), Mode::Shadow);
    let payments = "host:payments.example.com".parse().unwrap();
    let declined = Ending {
        status: Some(402),
        ..Ending::default()
    };
    assert!(
        policy
            .for_step(Some(&order), &payments)
            .fatal(&declined)
            .is_some()
    );
    let mailer = policy
        .for_step(None, &"shop/mailer".parse().unwrap())
        .has_nothing_to_undo();
    let render = policy
        .for_step(None, &"shop/render".parse().unwrap())
        .silence_ms();
    assert_eq!((mailer, render), (true, Some(900_000)));
    for key in super::read::every_key() {
        assert!(text.contains(&format!("{key}:")), "{key} is not explained");
    }
}

#[test]
fn an_empty_policy_is_the_default() {
    for text in ["", "\n# nothing yet\n", "services:\nevent_types:\n", "{}"] {
        assert_eq!(parse(text), Ok(Policy::default()), "{text:?}");
    }
}

#[test]
fn a_deep_policy_is_refused_before_the_stack_is_full() {
    // A worker of the runtime has 2 MiB; this test has as much.
    for word in ["- ", ": ", "? ", "[", "{a: "] {
        assert!(parse(&word.repeat(1_000)).is_err(), "{word}");
    }
}

#[test]
fn every_key_is_read() {
    let policy = parse(
        "{mode: off, rules: {fatal: off, operator: on}, doomed_max: 5 %, reports_max: 7, contested: withdraw,\n\
         entry_retry_wait: 250ms, settle: 3 s, deadline: 1h, outcomes: {4xx: failed, 404: succeeded, grpc:5: unknown},\n\
         read_only: ['POST /q'], undoes: ['* /undo/*'], required: true, silence: 2d, nothing_to_undo: off,\n\
         out_of_touch: doom}",
    )
    .unwrap();
    let layer = &policy.global;
    assert_eq!(
        (layer.mode, layer.doomed_max_percent, layer.reports_max),
        (Some(Mode::Off), Some(5), Some(7))
    );
    assert_eq!(
        layer.rules,
        [(Rule::Fatal, false), (Rule::Operator, true)].into()
    );
    assert_eq!(
        (layer.contested, layer.out_of_touch),
        (Some(Contested::Withdraw), Some(OutOfTouch::Doom))
    );
    assert_eq!(
        (layer.entry_retry_wait_ms, layer.settle_ms),
        (Some(250), Some(3_000))
    );
    assert_eq!(
        (layer.deadline_ms, layer.silence_ms),
        (Some(3_600_000), Some(172_800_000))
    );
    assert_eq!(
        (layer.required, layer.nothing_to_undo),
        (Some(true), Some(false))
    );
    let service = "a/b".parse().unwrap();
    let step = policy.for_step(None, &service);
    let of = |status| {
        step.outcome(&Ending {
            status: Some(status),
            ..Ending::default()
        })
    };
    assert_eq!((of(404), of(403)), (Outcome::Succeeded, Outcome::Failed));
    assert!(step.is_read_only("POST", "/q") && step.undoes("PUT", "/undo/7"));
}

#[test]
fn unknown_keys_are_named_with_what_is_allowed() {
    refused(
        "mode: shadow\nmoed: off\nservices:\n  shop/web:\n    fatl: [402]\n    mode: off\n  host:pay.example:\n    silence: 1m\n",
        &expect![[r#"
            line 2: `moed` is unknown in the global section; allowed: mode, rules, doomed_max, reports_max, contested, entry_retry_wait, settle, deadline, outcomes, fatal, read_only, required, nothing_to_undo, undoes, silence, out_of_touch, event_types, services
            line 5: `fatl` is unknown in service shop/web; allowed: entry_retry_wait, settle, deadline, outcomes, fatal, read_only, required, nothing_to_undo, undoes, silence, out_of_touch
            line 6: `mode` cannot stand in service shop/web; allowed: entry_retry_wait, settle, deadline, outcomes, fatal, read_only, required, nothing_to_undo, undoes, silence, out_of_touch
            line 8: `silence` cannot stand in service host:pay.example; allowed: outcomes, fatal, read_only, required, nothing_to_undo"#]],
    );
    refused(
        "services:\n  web:\n    required: on\nevent_types:\n  'a\\b':\n    mode: off\n",
        &expect![[r#"
        line 2: `web` is not a valid peer: namespace/name, or host:<authority> of [A-Za-z0-9._:-]
        line 5: `a\b` is not a valid event type: 1 to 128 printable ASCII characters without quotes or backslash"#]],
    );
}

#[test]
fn wrong_values_are_named_with_what_is_allowed() {
    refused(
        "mode: on\nrules:\n  fatal: never\n  luck: on\ndoomed_max: 20\nreports_max: 0\ncontested: maybe\n\
         deadline: 30\nsettle: 31d\nentry_retry_wait: soon\noutcomes:\n  404: fine\n  4x: failed\n\
         fatal: 402\nread_only:\n  - POST search\n  - POST /a\n  - POST /a\nsilence:\nrequired: [on]\nundoes: {a: b}\n\
         out_of_touch: 1\nevent_types: [a]\n",
        &expect![[r#"
            line 1: `mode` is `on`; allowed: off, shadow, enforce
            line 3: `fatal` is `never`; allowed: on, off, true, false
            line 4: a rule is `luck`; allowed: operator, word, fatal, entry, stalled, deadline, learned
            line 5: `doomed_max` is `20`; allowed: 1% to 100%
            line 6: `reports_max` is `0`; allowed: 1 to 100000
            line 7: `contested` is `maybe`; allowed: wait, roll_back, withdraw
            line 8: `deadline` is `30`; allowed: 1ms to 30d: a whole number and ms, s, m, h or d
            line 9: `settle` is `31d`; allowed: 1ms to 30d: a whole number and ms, s, m, h or d
            line 10: `entry_retry_wait` is `soon`; allowed: 1ms to 30d: a whole number and ms, s, m, h or d
            line 12: `outcomes 404` is `fine`; allowed: succeeded, rejected, failed, unknown
            line 13: `outcomes` has `4x`; a status is 100 to 599, a family 1xx to 5xx, or grpc:0 to grpc:16
            line 14: `fatal` must be a list, as in [402, 5xx, grpc:9]
            line 16: `read_only` has `POST search`; an operation is a method (or *) and a path that begins with /, as in `POST /search/*`
            line 18: `read_only` has `POST /a` twice
            line 19: `silence` is nothing; allowed: 1ms to 30d: a whole number and ms, s, m, h or d
            line 20: `required` is a list; allowed: on, off, true, false
            line 21: `undoes` must be a list, as in [POST /cancel/*]
            line 22: `out_of_touch` is `1`; allowed: show, doom
            line 23: `event_types` must be a map of `key: value` lines"#]],
    );
}

#[test]
fn broken_yaml_is_said_with_its_line() {
    refused(
        "mode: shadow\nmode: off\n",
        &expect!["line 2: `mode` stands twice in one section"],
    );
    refused(
        "mode: shadow\n  rules: off\n",
        &expect!["line 2: not YAML: mapping values are not allowed in this context"],
    );
    refused(
        "rules: {word: on\nmode: off\n",
        &expect![
            "line 2: not YAML: while parsing a flow mapping, did not find expected ',' or '}'"
        ],
    );
    refused(
        "- mode\n",
        &expect!["line 1: a policy must be a map of `key: value` lines"],
    );
    refused(
        "fatal: *statuses\n",
        &expect!["line 1: not YAML: alias references unknown anchor"],
    );
    refused(
        "mode: off\n---\nmode: shadow\n",
        &expect!["line 3: a second document begins; a policy is one"],
    );
    refused(
        &" ".repeat(300_000),
        &expect!["the policy has 300000 bytes; at most 262144 are allowed"],
    );
}

#[test]
fn a_status_cannot_be_fatal_and_a_success() {
    refused(
        "fatal: [402]\noutcomes:\n  402: succeeded\n",
        &expect![
            "line 1: `fatal` has 402, but line 3 makes a success of 402: an event cannot be doomed by a step that succeeded"
        ],
    );
    refused(
        "fatal:\n  - 4xx\noutcomes:\n  404: succeeded\n  4xx: failed\n",
        &expect![
            "line 2: `fatal` has 4xx, but line 4 makes a success of 404: an event cannot be doomed by a step that succeeded"
        ],
    );
    refused(
        "fatal: [200, grpc:0]\n",
        &expect![[r#"
        line 1: `fatal` has 200, but 200 is a success unless `outcomes` says otherwise: an event cannot be doomed by a step that succeeded
        line 1: `fatal` has grpc:0, but grpc:0 is a success unless `outcomes` says otherwise: an event cannot be doomed by a step that succeeded"#]],
    );
    refused(
        "event_types:\n  order:\n    outcomes:\n      409: succeeded\nservices:\n  shop/db:\n    fatal: [409]\n  shop/x:\n    fatal: [410]\n",
        &expect![
            "line 7: `fatal` has 409, but line 4 makes a success of 409: an event cannot be doomed by a step that succeeded"
        ],
    );
    refused(
        "fatal: [404]\nservices:\n  shop/db:\n    outcomes: {4xx: succeeded}\n",
        &expect![
            "line 1: `fatal` has 404, but line 4 makes a success of 404: an event cannot be doomed by a step that succeeded"
        ],
    );
    // The more specific section takes the success back.
    assert!(
        parse(
            "outcomes: {402: succeeded}\nservices: {a/b: {fatal: [402], outcomes: {402: failed}}}"
        )
        .is_ok()
    );
    assert!(parse("fatal: [402]\noutcomes: {4xx: succeeded, 402: rejected}").is_ok());
}

#[test]
fn what_undoes_something_changes_something() {
    refused(
        "nothing_to_undo: on\nundoes: [POST /cancel]\n",
        &expect![
            "line 2: `undoes` names operations that undo, but `nothing_to_undo` (line 1) says that there is nothing"
        ],
    );
    refused(
        "undoes:\n  - GET /cancel\n",
        &expect![
            "line 2: `undoes` has `GET /cancel`, but a safe method changes nothing, so it undoes nothing"
        ],
    );
    refused(
        "read_only:\n  - POST /search/*\nservices:\n  a/b:\n    undoes:\n      - '* /search/cancel'\n",
        &expect![
            "line 6: `undoes` has `* /search/cancel`, but line 2 says of `POST /search/*` that it changes nothing"
        ],
    );
    refused(
        "event_types: {order: {read_only: [POST /a/b/*]}}\nservices: {a/b: {undoes: [POST /a/*]}}\n",
        &expect![
            "line 2: `undoes` has `POST /a/*`, but line 1 says of `POST /a/b/*` that it changes nothing"
        ],
    );
    assert!(
        parse("read_only: [POST /search/*]\nundoes: [POST /cancel/*, DELETE /search/*]\n").is_ok()
    );
}

#[test]
fn a_key_that_feeds_a_rule_that_is_off_does_nothing() {
    refused(
        "rules: {fatal: off, deadline: off, stalled: off, entry: off}\nentry_retry_wait: 1s\nout_of_touch: doom\n\
         services:\n  a/b:\n    fatal: [402]\n    deadline: 3s\n    silence: 1m\n",
        &expect![[r#"
            line 2: `entry_retry_wait` can have no effect: the rule `entry` that reads it is off for the global section
            line 3: `out_of_touch` can have no effect: the rule `stalled` that reads it is off for the global section
            line 6: `fatal` can have no effect: the rule `fatal` that reads it is off for service a/b
            line 7: `deadline` can have no effect: the rule `deadline` that reads it is off for service a/b
            line 8: `silence` can have no effect: the rule `stalled` that reads it is off for service a/b"#]],
    );
    refused(
        "rules: {fatal: off}\nevent_types:\n  a: {fatal: [402]}\n  b: {rules: {fatal: on}}\n",
        &expect![
            "line 3: `fatal` can have no effect: the rule `fatal` that reads it is off for event type a"
        ],
    );
    refused(
        "rules:\n  learned: on\n",
        &expect![
            "line 2: the rule `learned` cannot be switched on: flows are learned, not yet acted on"
        ],
    );
    assert!(
        parse("rules: {fatal: off}\nfatal: [402]\nevent_types: {a: {rules: {fatal: on}}}\n")
            .is_ok()
    );
    assert!(parse("deadline: 5s\nevent_types: {a: {rules: {deadline: off}}}\n").is_ok());
}

#[test]
fn a_retry_comes_before_the_deadline() {
    refused(
        "deadline: 500ms\nservices:\n  a/b:\n    entry_retry_wait: 1s\n",
        &expect![
            "line 4: `entry_retry_wait` of 1000 ms (line 4) is not over before the `deadline` of 500 ms (line 1)"
        ],
    );
    assert!(parse("deadline: 2s\nentry_retry_wait: 1s\n").is_ok());
}

#[test]
fn the_check_says_file_and_line() {
    let said = |name: &str, text: Option<&str>| {
        let path =
            std::env::temp_dir().join(format!("kaeru-policy-check-{}-{name}", std::process::id()));
        text.inspect(|text| std::fs::write(&path, text).unwrap());
        let mut out = Vec::new();
        let valid = check(&path, &mut out).unwrap();
        let _ = std::fs::remove_file(&path);
        (
            valid,
            String::from_utf8(out)
                .unwrap()
                .replace(&path.display().to_string(), "FILE"),
        )
    };
    let (valid, words) = said("good", Some("services: {a/b: {required: on}}"));
    assert!(valid);
    expect![[r#"
        FILE: valid; sections for 0 event types and 1 services
    "#]]
    .assert_eq(&words);
    let (valid, words) = said("bad", Some("mode: off\nmood: on\n"));
    assert!(!valid);
    expect![[r#"
        FILE:2: `mood` is unknown in the global section; allowed: mode, rules, doomed_max, reports_max, contested, entry_retry_wait, settle, deadline, outcomes, fatal, read_only, required, nothing_to_undo, undoes, silence, out_of_touch, event_types, services
    "#]].assert_eq(&words);
    let (valid, words) = said("none", None);
    assert!(!valid);
    assert!(words.contains("cannot be read"), "{words}");
}

#[test]
fn the_number_of_sections_is_bounded() {
    use std::fmt::Write as _;

    let policy = |services: usize, types: usize| {
        let mut text = "services:\n".to_owned();
        for n in 0..services {
            let _ = writeln!(text, "  shop/s{n}: {{fatal: [5xx], undoes: [POST /u/*]}}");
        }
        text.push_str("event_types:\n");
        for n in 0..types {
            let _ = writeln!(
                text,
                "  type.{n}: {{outcomes: {{503: failed}}, read_only: [POST /r/*]}}"
            );
        }
        text
    };
    assert!(parse(&policy(70, 70)).is_ok());
    let words = parse(&policy(500, 500)).unwrap_err().to_string();
    assert_eq!(
        words,
        "line 1: the policy has 1001 sections; at most 1000 are allowed"
    );
}
