//! Rule by rule: what dooms an event, and what does not yet.

use expect_test::expect;

use super::{check, check_in, for_service, global};
use crate::notation::{Setting, id, service};
use crate::{Heard, Layer, Loss, OutOfTouch, Span};

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
              because host:pay.example answered 402 to POST /charge, as the proxy of shop/backend saw it (00000041c27640ad/1)
              by policy 3 for host:pay.example: `fatal: 402`
              undo shop/db-api (yes)
        "#]],
    );
    check_in(
        case,
        &for_service("pay.example", fatal("4xx")),
        &expect![[r#"
            30: rolling_back, look again after 1995
            roll back, revision 1: host:pay.example answered with a status that the policy calls fatal for it (4xx)
              because host:pay.example answered 402 to POST /charge, as the proxy of shop/backend saw it (00000041c27640ad/1)
              by policy 3 for host:pay.example: `fatal: 4xx`
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
        "web>backend POST /pay ok; web POST /orders 500; ? 30; ? 3024; ? 3025",
        &expect![[r#"
            30: running, look again after 1995
              entry: the entry shop/web failed; it may be tried again within 1s
            3024: running, look again after 1
              entry: the entry shop/web failed; it may be tried again within 1s
            3025: rolling_back, settled, look again after 67000
            roll back, revision 1: the entry shop/web failed and was not tried again in time
              because shop/web answered 500 to POST /orders (000000000004f9ed/1)
              by the built-in `entry_retry_wait: 1s`
              by the built-in `settle: 2s`
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
            30: running, look again after 1995
              entry: the entry shop/web failed; it may be tried again within 1s
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
fn an_attempt_within_the_wait_is_heard_of_a_flush_later() {
    check(
        "web>backend POST /pay ok; web POST /orders 500; ? 1900
         web POST /orders open at=1950 took=950 due=60000 as=x; ? 3025; ? 9000",
        &expect![[r#"
            1900: running, look again after 125
              entry: the entry shop/web failed; it may be tried again within 1s
            3025: running, look again after 930
              entry: the entry shop/web is still open
              stalled: shop/web is open and heard of
            9000: running, look again after 54955
              entry: the entry shop/web is still open
              stalled: shop/web is open and heard of
        "#]],
    );
}

#[test]
fn an_entry_that_gave_no_answer() {
    check(
        "web>backend POST /pay ok; web POST /orders silent; ? 3100",
        &expect![[r#"
            3100: rolling_back, settled, look again after 66925
            roll back, revision 1: the entry shop/web gave no answer and was not tried again in time
              because shop/web answered nothing to POST /orders (000000000004f9ed/1)
              by the built-in `entry_retry_wait: 1s`
              by the built-in `settle: 2s`
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
        "web>backend POST /pay no; web POST /orders 404; ? 1100; ? 3100",
        &expect![[r#"
            1100: running, look again after 925
              entry: the entry shop/web rejected the event; it may be tried again within 1s
            3100: failed, settled
              entry: the entry shop/web rejected the event and nothing is left to undo
        "#]],
    );
}

#[test]
fn a_rejection_with_effects_dooms() {
    check(
        "backend>db POST /rows ok; web>backend POST /pay no; web POST /orders no; ? 1100; ? 3100",
        &expect![[r#"
            1100: running, look again after 935
              entry: the entry shop/web rejected the event; it may be tried again within 1s
            3100: rolling_back, settled, look again after 66935
            roll back, revision 1: the entry shop/web rejected the event after other steps had taken effect
              because shop/web answered 409 to POST /orders (000000000004f9ed/1)
              by the built-in `entry_retry_wait: 1s`
              by the built-in `settle: 2s`
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
        "web POST /orders open deadline=1 took=10 in=100 due=1000; backend>db POST /rows ok; ? 500; ? 3089; ? 3090",
        &expect![[r#"
            500: running, look again after 1600
              entry: the entry shop/web is still open
              stalled: shop/web is open and heard of
              deadline: its 1s are not over
            3089: running, look again after 1
              entry: the entry shop/web is still open
              stalled: shop/web is open and heard of
              deadline: its 1s are not over
            3090: rolling_back, look again after 10
            roll back, revision 1: it took longer than the 1s it was given
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
              deadline: its 5s are not over
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
        "web POST /orders open due=60000; ? 1000; ? 4010",
        &global(layer),
        &expect![[r#"
            1000: running, look again after 1015
              entry: the entry shop/web is still open
              stalled: shop/web is open and heard of
              deadline: its 2s are not over
            4010: rolling_back, look again after 58005
            roll back, revision 1: it took longer than the 2s it was given
              because shop/web was still running (000000000004f9ed/1)
              by policy 3 for everything: `deadline: 2s`
              undo shop/web (maybe)
        "#]],
    );
}

/// The worker's reporter, its proxy last heard of and itself accounted for until then.
fn heard(proxy_ms: u64, accounted_ms: u64) -> Setting {
    let heard = Heard {
        proxy_ms,
        accounted_ms,
    };
    Setting {
        heard: [(id("worker"), heard)].into(),
        ..Setting::default()
    }
}

const JOB: &str = "worker POST /jobs open in=100 due=1000; ? 3000; ? 3100";

#[test]
fn a_step_stalls_when_its_reporter_no_longer_names_it() {
    check_in(
        JOB,
        &heard(3_100, 3_100),
        &expect![[r#"
            3000: running, look again after 100
              entry: the entry shop/worker is still open
              stalled: shop/worker is open and heard of
            3100: rolling_back, look again after 67000
            roll back, revision 1: shop/worker stalled: its proxy still reports but no longer names the running step
              because shop/worker was last named running here, then no more (0000000243adf245/1)
              by the built-in `settle: 2s`
              undo shop/worker (maybe)
        "#]],
    );
    // Its proxy is heard of, but what this reporter said may be on its way.
    check_in(
        JOB,
        &heard(3_100, 3_099),
        &expect![[r#"
        3000: running, look again after 100
          entry: the entry shop/worker is still open
          stalled: shop/worker is open and heard of
        3100: running, look again after 2000
          entry: the entry shop/worker is still open
          stalled: shop/worker is open; its proxy has yet to state that all it said has arrived
    "#]],
    );
    // Its end may be among what was lost.
    let lossy = Setting {
        losses: vec![Loss {
            service: service("worker").into(),
            reporter: Some(id("worker")),
            span: Span {
                from_ms: 50,
                to_ms: 150,
            },
        }],
        ..heard(3_100, 3_100)
    };
    check_in(
        JOB,
        &lossy,
        &expect![[r#"
        3000: running, look again after 100
          entry: the entry shop/worker is still open
          stalled: shop/worker is open and heard of
        3100: running, look again after 1000
          entry: the entry shop/worker is still open
          stalled: shop/worker is out of touch, which dooms nothing by itself
    "#]],
    );
}

#[test]
fn a_silent_proxy_dooms_nothing_unless_the_policy_says_so() {
    check_in(
        JOB,
        &heard(3_099, 100),
        &expect![[r#"
        3000: running, look again after 100
          entry: the entry shop/worker is still open
          stalled: shop/worker is open and heard of
        3100: running, look again after 1000
          entry: the entry shop/worker is still open
          stalled: shop/worker is out of touch, which dooms nothing by itself
    "#]],
    );
    let doom = Layer {
        out_of_touch: Some(OutOfTouch::Doom),
        ..Layer::default()
    };
    let setting = Setting {
        policy: for_service("worker", doom).policy,
        ..heard(100, 100)
    };
    check_in(
        "worker POST /jobs open in=100 due=1000; ? 3100; ? 4100",
        &setting,
        &expect![[r#"
            3100: running, look again after 1000
              entry: the entry shop/worker is still open
              stalled: shop/worker is out of touch
            4100: rolling_back, look again after 66000
            roll back, revision 1: shop/worker is out of touch with a step running, which the policy counts as a stall
              because shop/worker was last named running here, then it was out of touch (0000000243adf245/1)
              by policy 3 for shop/worker: `out_of_touch: doom`
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
    let case = "worker POST /jobs 202 word=running; ? 5015; ? 7015; worker says succeeded at=7020; ? 7030; ? 9900";
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
            5015: running, look again after 2000
              entry: the entry shop/worker is still open
              stalled: shop/worker said `running` and may be silent for 5s
            7015: rolling_back, look again after 63000
            roll back, revision 1: shop/worker stalled: it said `running` and has been silent longer than the policy allows
              because the last word of shop/worker was `running` (0000000243adf245/1)
              by policy 3 for shop/worker: `silence: 5s`
              undo shop/worker (maybe)
            7030: rolling_back, look again after 1995
            roll back, revision 2: shop/worker stalled: it said `running` and has been silent longer than the policy allows
              because the last word of shop/worker was `running` (0000000243adf245/1)
              by policy 3 for shop/worker: `silence: 5s`
              undo shop/worker (yes)
            9900: rolling_back, settled, look again after 67125
              stalled: shop/worker stalled: it said `running` and has been silent longer than the policy allows
        "#]],
    );
    check_in(
        "worker POST /jobs 202 word=running; worker says running at=4000; ? 7015
         worker says succeeded at=7020; ? 7030; ? 9900",
        &patient,
        &expect![[r#"
            7015: running, look again after 3990
              entry: the entry shop/worker is still open
              stalled: shop/worker said `running` and may be silent for 5s
            7030: running, look again after 1995
              entry: the entry shop/worker succeeded
            9900: succeeded, settled
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
