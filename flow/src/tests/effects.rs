//! What a step may have left behind.

use expect_test::expect;

use super::{check, check_in, for_service};
use crate::Layer;
use crate::notation::Setting;

/// Makes the plan visible by an operator's demand.
fn plan_of(case: &str, setting: &Setting, told: &expect_test::Expect) {
    check_in(
        &format!("{case}; operator alice: show me at=900; ? 1000"),
        setting,
        told,
    );
}

#[test]
fn by_outcome() {
    plan_of(
        "web POST /orders open; web>a POST /x ok; web>b POST /x 500; web>c POST /x silent; web>d POST /x no
         web>e GET /x ok; web>f POST /x 503 flags=32; web>g POST /x 503 flags=64; web=>pay.example POST /c ok",
        &Setting::default(),
        &expect![[r#"
            1000: rolling_back, look again after 1905
            roll back, revision 1: an operator says so: alice: show me
              because an operator demanded it: alice: show me (a5dce45ff975a3ad/1)
              undo shop/g (maybe)
              undo shop/c (maybe) after shop/g
              undo shop/b (maybe) after shop/c
              undo shop/a (yes) after shop/b
              undo shop/web (maybe) after shop/a
        "#]],
    );
}

#[test]
fn what_the_policy_calls_harmless() {
    let case = "web POST /orders ok; web>search POST /search/7 ok; web>search POST /index ok";
    let read_only = Layer {
        read_only: vec!["POST /search/*".parse().unwrap()],
        ..Layer::default()
    };
    plan_of(
        case,
        &for_service("search", read_only),
        &expect![[r#"
            1000: rolling_back, look again after 1905
            roll back, revision 1: an operator says so: alice: show me
              because an operator demanded it: alice: show me (a5dce45ff975a3ad/1)
              undo shop/search (yes)
              undo shop/web (yes) after shop/search
        "#]],
    );
    let nothing = Layer {
        nothing_to_undo: Some(true),
        ..Layer::default()
    };
    plan_of(
        "web POST /orders ok; web>search POST /search/7 ok; web>search POST /index ok",
        &for_service("search", nothing),
        &expect![[r#"
            1000: rolling_back, look again after 1905
            roll back, revision 1: an operator says so: alice: show me
              because an operator demanded it: alice: show me (a5dce45ff975a3ad/1)
              undo shop/web (yes)
        "#]],
    );
}

#[test]
fn a_rejection_may_pass_on_a_failure_from_below() {
    plan_of(
        "c>d POST /x 500; b>c POST /x no; a>b POST /x no; a POST /x no",
        &Setting::default(),
        &expect![[r#"
            1000: rolling_back, look again after 1905
            roll back, revision 1: an operator says so: alice: show me
              because an operator demanded it: alice: show me (a5dce45ff975a3ad/1)
              undo shop/d (maybe)
              undo shop/c (maybe) after shop/d
              undo shop/b (maybe) after shop/c
              undo shop/a (maybe) after shop/b
        "#]],
    );
    plan_of(
        "c>d POST /x no; b>c POST /x no; a>b POST /x no; a POST /x ok",
        &Setting::default(),
        &expect![[r#"
            1000: rolling_back, look again after 1905
            roll back, revision 1: an operator says so: alice: show me
              because an operator demanded it: alice: show me (a5dce45ff975a3ad/1)
              undo shop/a (yes)
        "#]],
    );
}

#[test]
fn a_caller_adds_a_maybe_and_the_callee_clears_it() {
    check(
        "web POST /orders open; web=>db POST /rows 504 sent=20 took=9; operator alice: stop it; ? 50
         web>db POST /rows no sent=20; ? 60",
        &expect![[r#"
            50: rolling_back, look again after 1985
            roll back, revision 1: an operator says so: alice: stop it
              because an operator demanded it: alice: stop it (a5dce45ff975a3ad/1)
              undo shop/db (maybe)
              undo shop/web (maybe) after shop/db
            60: rolling_back, look again after 1985
            roll back, revision 2: an operator says so: alice: stop it
              because an operator demanded it: alice: stop it (a5dce45ff975a3ad/1)
              undo shop/db (no)
              undo shop/web (maybe) after shop/db
        "#]],
    );
    // The callee heard one of three attempts: what became of the others nobody knows.
    plan_of(
        "web>db POST /rows no sent=20; web=>db POST /rows 504 sent=20 try=3; web POST /orders no",
        &Setting::default(),
        &expect![[r#"
            1000: rolling_back, look again after 1905
            roll back, revision 1: an operator says so: alice: show me
              because an operator demanded it: alice: show me (a5dce45ff975a3ad/1)
              undo shop/db (maybe)
              undo shop/web (maybe) after shop/db
        "#]],
    );
}

#[test]
fn what_a_service_says_is_not_taken_back_by_a_caller() {
    // Its caller could not reach it, another attempt did: its own proxy has yet to say so.
    check(
        "web POST /orders ok; stock says succeeded; mail says failed; ? 40
         web=>stock POST /reserve 503 flags=32; ? 60; web>stock POST /reserve ok; ? 80",
        &expect![[r#"
            40: rolling_back, look again after 1995
            roll back, revision 1: shop/mail says that the event failed for good
              because shop/mail said `failed` (000000000095aa3e/1)
              undo shop/mail (maybe)
              undo shop/stock (yes)
              undo shop/web (yes)
            60: rolling_back, look again after 1985
            roll back, revision 2: shop/mail says that the event failed for good
              because shop/mail said `failed` (000000000095aa3e/1)
              undo shop/mail (maybe)
              undo shop/stock (yes)
              undo shop/web (yes) after shop/stock
            80: rolling_back, look again after 1975
              word: shop/mail says that the event failed for good
        "#]],
    );
}

#[test]
fn two_calls_at_once_are_told_apart_by_their_method() {
    // The read was answered; of the write, sent in the same millisecond, only its caller knows.
    plan_of(
        "web>db GET /rows ok sent=20; web=>db POST /rows silent sent=20; web POST /orders no",
        &Setting::default(),
        &expect![[r#"
            1000: rolling_back, look again after 1905
            roll back, revision 1: an operator says so: alice: show me
              because an operator demanded it: alice: show me (a5dce45ff975a3ad/1)
              undo shop/db (maybe)
              undo shop/web (maybe) after shop/db
        "#]],
    );
}

#[test]
fn a_clean_up_that_undoes() {
    let undoes = Layer {
        undoes: vec!["POST /cancel".parse().unwrap()],
        ..Layer::default()
    };
    let case = "web>db POST /rows ok; web POST /orders 500; db cleans POST /cancel ok; ? 3100";
    check_in(
        case,
        &for_service("db", undoes.clone()),
        &expect![[r#"
            3100: rolling_back, settled, look again after 66935
            roll back, revision 1: the entry shop/web failed and was not tried again in time
              because shop/web answered 500 to POST /orders (000000000004f9ed/1)
              by the built-in `entry_retry_wait: 1s`
              by the built-in `settle: 2s`
              undo shop/web (maybe)
        "#]],
    );
    // What a service asks of another undoes nothing of its own.
    check_in(
        &case.replace("/cancel ok", "/cancel ok outbound"),
        &for_service("db", undoes.clone()),
        &expect![[r#"
            3100: rolling_back, settled, look again after 66935
            roll back, revision 1: the entry shop/web failed and was not tried again in time
              because shop/web answered 500 to POST /orders (000000000004f9ed/1)
              by the built-in `entry_retry_wait: 1s`
              by the built-in `settle: 2s`
              undo shop/db (yes)
              undo shop/web (maybe) after shop/db
        "#]],
    );
    check_in(
        &case.replace("/cancel ok", "/cancel 500"),
        &for_service("db", undoes),
        &expect![[r#"
            3100: rolling_back, settled, look again after 66935
            roll back, revision 1: the entry shop/web failed and was not tried again in time
              because shop/web answered 500 to POST /orders (000000000004f9ed/1)
              by the built-in `entry_retry_wait: 1s`
              by the built-in `settle: 2s`
              undo shop/db (yes)
              undo shop/web (maybe) after shop/db
        "#]],
    );
}

#[test]
fn a_step_that_ends_after_the_decision_joins() {
    check(
        "web>db POST /rows ok; web>backend POST /pay 402 word=failed; ? 30
         web>stock POST /reserve ok; ? 50; web>mail POST /send silent; ? 60",
        &expect![[r#"
            30: rolling_back, look again after 1995
            roll back, revision 1: shop/backend says that the event failed for good
              because shop/backend said `failed` (00000041c27640ad/1)
              undo shop/backend (maybe)
              undo shop/db (yes) after shop/backend
            50: rolling_back, look again after 1985
            roll back, revision 2: shop/backend says that the event failed for good
              because shop/backend said `failed` (00000041c27640ad/1)
              undo shop/stock (yes)
              undo shop/backend (maybe) after shop/stock
              undo shop/db (yes) after shop/backend
            60: rolling_back, look again after 1985
            roll back, revision 3: shop/backend says that the event failed for good
              because shop/backend said `failed` (00000041c27640ad/1)
              undo shop/mail (maybe)
              undo shop/stock (yes) after shop/mail
              undo shop/backend (maybe) after shop/stock
              undo shop/db (yes) after shop/backend
        "#]],
    );
}
