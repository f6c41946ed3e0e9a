//! Rule by rule: what dooms an event, and what does not yet.

use expect_test::expect;

use super::{check, check_in, for_service, global};
use crate::notation::Setting;
use crate::{Layer, OutOfTouch};

#[test]
fn an_order_goes_through() {
    check(
        "db-api>db POST /rows ok; backend>db-api POST /items ok; backend=>pay.example POST /charge ok
         web>backend POST /pay ok; web POST /orders ok; ? 60; ? 2100",
        &expect![[r#"
            60: running, look again after 1995
              entry: the entry shop/web succeeded
            2100: succeeded, settled
              entry: the entry shop/web succeeded
        "#]],
    );
}

#[test]
fn a_service_says_failed() {
    check(
        "backend>db-api POST /items ok; web>backend POST /pay 402 word=failed; ? 30
         web POST /orders 500; ? 40",
        &expect![[r#"
            30: rolling_back, look again after 1995
            roll back, revision 1: shop/backend says that the event failed for good
              because shop/backend said `failed` (00000041c27640ad/1)
              undo shop/db-api (yes)
              undo shop/backend (maybe) after shop/db-api
            40: rolling_back, look again after 1995
            roll back, revision 2: shop/backend says that the event failed for good
              because shop/backend said `failed` (00000041c27640ad/1)
              undo shop/db-api (yes)
              undo shop/backend (maybe) after shop/db-api
              undo shop/web (maybe) after shop/backend
        "#]],
    );
}

#[test]
fn a_fatal_status_of_an_external_host_counts_as_its_caller_saw_it() {
    let fatal = |status: &str| Layer {
        fatal: [status.parse().unwrap()].into(),
        ..Layer::default()
    };
    let case = "backend>db-api POST /items ok; backend=>pay.example POST /charge 402; ? 30";
    check_in(
        case,
        &for_service("pay.example", fatal("402")),
        &expect![[r#"
            30: rolling_back, look again after 1995
            roll back, revision 1: host:pay.example answered with a status that the policy calls fatal for it (402)
              because host:pay.example answered 402 to POST /charge (00000041c27640ad/1)
              undo shop/db-api (yes)
        "#]],
    );
    check_in(
        case,
        &for_service("pay.example", fatal("4xx")),
        &expect![[r#"
            30: rolling_back, look again after 1995
            roll back, revision 1: host:pay.example answered with a status that the policy calls fatal for it (4xx)
              because host:pay.example answered 4xx to POST /charge (00000041c27640ad/1)
              undo shop/db-api (yes)
        "#]],
    );
    // Nobody calls it fatal: not doom.
    check(
        case,
        &expect![[r#"
            30: running, look again after 1995
              entry: no call that began the event was reported
        "#]],
    );
    // A caller never speaks for a service of the mesh.
    let case = "backend=>db-api POST /items 402; ? 30";
    check_in(
        case,
        &for_service("db-api", fatal("402")),
        &expect![[r#"
            30: running, look again after 1985
              entry: no call that began the event was reported
        "#]],
    );
}

#[test]
fn an_entry_that_fails_waits_for_a_retry() {
    check(
        "web>backend POST /pay ok; web POST /orders 500; ? 30; ? 1024; ? 1025",
        &expect![[r#"
            30: running, look again after 995
              entry: the entry shop/web failed; it may be tried again within 1000 ms
            1024: running, look again after 1
              entry: the entry shop/web failed; it may be tried again within 1000 ms
            1025: rolling_back, look again after 1000
            roll back, revision 1: the entry shop/web failed and was not tried again in time
              because shop/web ended POST /orders with 500 (000000000004f9ed/1)
              undo shop/backend (yes)
              undo shop/web (maybe) after shop/backend
        "#]],
    );
}

#[test]
fn an_entry_that_is_tried_again_in_time_dooms_nothing() {
    check(
        "web>backend POST /pay ok; web POST /orders 500; ? 30; web POST /orders open at=500 as=x; ? 1100
         web POST /orders ok at=1200 took=700 of=x; ? 1300; ? 3300",
        &expect![[r#"
            30: running, look again after 995
              entry: the entry shop/web failed; it may be tried again within 1000 ms
            1100: running, look again after 1405
              entry: the entry shop/web is still open
              stalled: shop/web is open and heard of
            1300: running, look again after 1905
              entry: the entry shop/web succeeded
            3300: succeeded, settled
              entry: the entry shop/web succeeded
        "#]],
    );
}

#[test]
fn an_entry_that_gave_no_answer() {
    check(
        "web>backend POST /pay ok; web POST /orders silent; ? 1100",
        &expect![[r#"
            1100: rolling_back, look again after 925
            roll back, revision 1: the entry shop/web gave no answer and was not tried again in time
              because shop/web ended POST /orders without an answer (000000000004f9ed/1)
              undo shop/backend (yes)
              undo shop/web (maybe) after shop/backend
        "#]],
    );
}

#[test]
fn a_client_that_went_away_dooms_nothing_by_itself() {
    check(
        "web>backend POST /pay ok; web POST /orders gone; ? 1100; ? 2100",
        &expect![[r#"
            1100: running, look again after 925
              entry: the client went away, which dooms nothing by itself
            2100: abandoned, settled
              entry: the client went away, which dooms nothing by itself
        "#]],
    );
}

#[test]
fn a_rejection_without_effects_is_a_failure_and_feeds_nothing() {
    check(
        "web>backend POST /pay no; web POST /orders 404; ? 1100; ? 2100",
        &expect![[r#"
            1100: running, look again after 925
              entry: the entry shop/web rejected the event; it may be tried again within 2000 ms
            2100: failed, settled
              entry: the entry shop/web rejected the event and nothing is left to undo
        "#]],
    );
}

#[test]
fn a_rejection_with_effects_dooms() {
    check(
        "backend>db POST /rows ok; web>backend POST /pay no; web POST /orders no; ? 1100; ? 2100",
        &expect![[r#"
            1100: running, look again after 935
              entry: the entry shop/web rejected the event; it may be tried again within 2000 ms
            2100: rolling_back, settled
            roll back, revision 1: the entry shop/web rejected the event after other steps had taken effect
              because shop/web ended POST /orders with 409 (000000000004f9ed/1)
              undo shop/db (yes)
              undo shop/backend (maybe) after shop/db
              undo shop/web (maybe) after shop/backend
        "#]],
    );
}

#[test]
fn a_failure_below_the_entry_is_not_yet_doom() {
    check(
        "web>backend POST /pay 503; ? 30; web>backend POST /pay ok try=2; web POST /orders ok; ? 2100",
        &expect![[r#"
            30: running, look again after 1985
              entry: no call that began the event was reported
            2100: succeeded, settled
              entry: the entry shop/web succeeded
        "#]],
    );
}

#[test]
fn a_deadline_passes_while_a_step_runs() {
    check(
        "web POST /orders open deadline=1 took=10 in=100 due=1000; backend>db POST /rows ok; ? 500; ? 1091",
        &expect![[r#"
            500: running, look again after 590
              entry: the entry shop/web is still open
              stalled: shop/web is open and heard of
              deadline: its 1000 ms are not over
            1091: rolling_back, look again after 1009
            roll back, revision 1: it took longer than the 1000 ms it was given
              because shop/web was still running (000000000004f9ed/1)
              undo shop/db (yes)
              undo shop/web (maybe)
        "#]],
    );
    // What is open but not heard of may have ended.
    check(
        "web POST /orders open deadline=5 took=10 in=100 due=1000; ? 5091",
        &expect![[r#"
            5091: running, look again after 1000
              entry: the entry shop/web is still open
              stalled: shop/web is out of touch, which dooms nothing by itself
              deadline: its time is up, but what is open is out of touch
        "#]],
    );
    // Over in time.
    check(
        "web POST /orders ok deadline=1; ? 5000",
        &expect![[r#"
            5000: succeeded, settled
              entry: the entry shop/web succeeded
        "#]],
    );
}

#[test]
fn a_policy_can_give_a_deadline() {
    let layer = Layer {
        deadline_ms: Some(2_000),
        ..Layer::default()
    };
    check_in(
        "web POST /orders open due=60000; ? 1000; ? 2010",
        &global(layer),
        &expect![[r#"
            1000: running, look again after 1010
              entry: the entry shop/web is still open
              stalled: shop/web is open and heard of
              deadline: its 2000 ms are not over
            2010: rolling_back, look again after 5
            roll back, revision 1: it took longer than the 2000 ms it was given
              because shop/web was still running (000000000004f9ed/1)
              undo shop/web (maybe)
        "#]],
    );
}

#[test]
fn a_step_stalls_when_its_proxy_reports_but_no_longer_names_it() {
    let heard = |ms| Setting {
        heard: [("worker".into(), ms)].into(),
        ..Setting::default()
    };
    let case = "worker POST /jobs open in=100 due=1000; ? 3000; ? 3100";
    check_in(
        case,
        &heard(3_100),
        &expect![[r#"
            3000: running, look again after 100
              entry: the entry shop/worker is still open
              stalled: shop/worker is open and heard of
            3100: rolling_back
            roll back, revision 1: shop/worker stalled: its proxy still reports but no longer names the running step
              because shop/worker was last named running here, then no more (0000000243adf245/1)
              undo shop/worker (maybe)
        "#]],
    );
    // Silent proxies doom nothing …
    check_in(
        case,
        &heard(3_099),
        &expect![[r#"
            3000: running, look again after 100
              entry: the entry shop/worker is still open
              stalled: shop/worker is open and heard of
            3100: running, look again after 1000
              entry: the entry shop/worker is still open
              stalled: shop/worker is out of touch, which dooms nothing by itself
        "#]],
    );
    // … unless the policy says so.
    let mut setting = for_service(
        "worker",
        Layer {
            out_of_touch: Some(OutOfTouch::Doom),
            ..Layer::default()
        },
    );
    setting.heard = heard(100).heard;
    check_in(
        "worker POST /jobs open in=100 due=1000; ? 3100; ? 4100",
        &setting,
        &expect![[r#"
            3100: running, look again after 1000
              entry: the entry shop/worker is still open
              stalled: shop/worker is out of touch
            4100: rolling_back
            roll back, revision 1: shop/worker is out of touch with a step running, which the policy counts as a stall
              because the proxy of shop/worker was last heard of here (0000000243adf245/1)
              undo shop/worker (maybe)
        "#]],
    );
}

#[test]
fn a_job_that_said_running_owes_a_word() {
    let patient = for_service(
        "worker",
        Layer {
            silence_ms: Some(5_000),
            ..Layer::default()
        },
    );
    let case = "worker POST /jobs 202 word=running; ? 4000; ? 5015; worker says succeeded at=5020; ? 5030; ? 8000";
    check(
        "worker POST /jobs 202 word=running; ? 99999",
        &expect![[r#"
            99999: running
              entry: the entry shop/worker is still open
              stalled: shop/worker said `running`, and the policy lets it be silent
        "#]],
    );
    check_in(
        case,
        &patient,
        &expect![[r#"
            4000: running, look again after 1015
              entry: the entry shop/worker is still open
              stalled: shop/worker said `running` and may be silent for 5000 ms
            5015: rolling_back
            roll back, revision 1: shop/worker stalled: it said `running` and has been silent longer than the policy allows
              because the last word of shop/worker was `running` (0000000243adf245/1)
              undo shop/worker (maybe)
            5030: rolling_back, look again after 1995
            roll back, revision 2: shop/worker stalled: it said `running` and has been silent longer than the policy allows
              because the last word of shop/worker was `running` (0000000243adf245/1)
              undo shop/worker (yes)
            8000: rolling_back, settled
              stalled: shop/worker stalled: it said `running` and has been silent longer than the policy allows
        "#]],
    );
    check_in(
        "worker POST /jobs 202 word=running; worker says running at=4000; ? 5015
         worker says succeeded at=5020; ? 5030; ? 8000",
        &patient,
        &expect![[r#"
            5015: running, look again after 990
              entry: the entry shop/worker is still open
              stalled: shop/worker said `running` and may be silent for 5000 ms
            5030: running, look again after 1995
              entry: the entry shop/worker succeeded
            8000: succeeded, settled
              entry: the entry shop/worker succeeded
        "#]],
    );
}

#[test]
fn an_operator_says_so() {
    check(
        "web POST /orders ok; ? 3000; operator alice: charged back at=4000; ? 4010",
        &expect![[r#"
            3000: succeeded, settled
              entry: the entry shop/web succeeded
            4010: rolling_back, look again after 1995
            roll back, revision 1: an operator says so: alice: charged back
              because an operator demanded it: alice: charged back (a5dce45ff975a3ad/1)
              undo shop/web (yes)
        "#]],
    );
}

#[test]
fn rules_can_be_switched_off() {
    let off = Layer {
        rules: [(crate::Rule::Word, false)].into(),
        ..Layer::default()
    };
    check_in(
        "web>backend POST /pay 402 word=failed; ? 30",
        &global(off),
        &expect![[r#"
            30: running, look again after 1985
              word: switched off by the policy
              entry: no call that began the event was reported
        "#]],
    );
}
