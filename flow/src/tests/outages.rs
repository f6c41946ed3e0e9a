//! What was not heard is no evidence.

use std::collections::BTreeMap;

use expect_test::expect;
use kaeru_protocol::ReporterId;

use super::check_in;
use crate::notation::{Setting, id, service};
use crate::{Heard, Loss, Span};

fn outage(from_ms: u64, to_ms: u64) -> Setting {
    Setting {
        outages: vec![Span { from_ms, to_ms }],
        ..Setting::default()
    }
}

/// Something of `db` is lost between these times.
fn lossy(from_ms: u64, to_ms: u64) -> Setting {
    Setting {
        losses: vec![Loss {
            service: service("db").into(),
            reporter: None,
            span: Span { from_ms, to_ms },
        }],
        ..Setting::default()
    }
}

fn accounted(ms: u64) -> BTreeMap<ReporterId, Heard> {
    let heard = Heard {
        proxy_ms: ms,
        accounted_ms: ms,
    };
    [(id("worker"), heard)].into()
}

#[test]
fn an_outage_puts_off_every_rule_that_reads_silence() {
    // The retry may have come while nothing could be heard.
    check_in(
        "web>db POST /rows ok; web POST /orders 500; ? 3100; ? 7999; ? 8000",
        &outage(500, 5_000),
        &expect![[r#"
            3100: running, look again after 3900
              entry: the entry shop/web failed; it may be tried again within 1s
            7999: running, look again after 1
              entry: the entry shop/web failed; it may be tried again within 1s
            8000: rolling_back, settled, look again after 62025
            roll back, revision 1: the entry shop/web failed and was not tried again in time
              because shop/web answered 500 to POST /orders (000000000004f9ed/1)
              by the built-in `entry_retry_wait: 1s`
              by the built-in `settle: 2s`
              undo shop/db (yes)
              undo shop/web (maybe) after shop/db
        "#]],
    );
    let mut setting = outage(500, 5_000);
    setting.heard = accounted(5_001);
    check_in(
        "worker POST /jobs open in=100 due=1000; ? 5001; ? 7999",
        &setting,
        &expect![[r#"
            5001: running, look again after 1999
              entry: the entry shop/worker is still open
              stalled: shop/worker is open and heard of
            7999: running, look again after 1
              entry: the entry shop/worker is still open
              stalled: shop/worker is open and heard of
        "#]],
    );
    setting.heard = accounted(8_000);
    check_in(
        "worker POST /jobs open in=100 due=1000; ? 8000",
        &setting,
        &expect![[r#"
            8000: rolling_back, look again after 62100
            roll back, revision 1: shop/worker stalled: its proxy still reports but no longer names the running step
              because shop/worker was last named running here, then no more (0000000243adf245/1)
              by the built-in `settle: 2s`
              undo shop/worker (maybe)
        "#]],
    );
    check_in(
        "web POST /orders open deadline=1 in=100 due=60000; ? 2000; ? 5001",
        &outage(500, 5_000),
        &expect![[r#"
            2000: running, look again after 5000
              entry: the entry shop/web is still open
              stalled: shop/web is open and heard of
              deadline: its 1s are not over
            5001: running, look again after 1999
              entry: the entry shop/web is still open
              stalled: shop/web is open and heard of
              deadline: its 1s are not over
        "#]],
    );
}

#[test]
fn losses_make_a_plan_incomplete() {
    let case = "web>db POST /rows ok; web>backend POST /pay 402 word=failed; ? 30";
    check_in(
        case,
        &lossy(0, 40),
        &expect![[r#"
        30: rolling_back, look again after 1995
        roll back, revision 1: shop/backend says that the event failed for good
          because shop/backend said `failed` (00000041c27640ad/1)
          undo shop/backend (maybe)
          undo shop/db (yes) after shop/backend
          incomplete: not all was heard of shop/db
    "#]],
    );
    check_in(
        case,
        &lossy(5_000, 6_000),
        &expect![[r#"
        30: rolling_back, look again after 1995
        roll back, revision 1: shop/backend says that the event failed for good
          because shop/backend said `failed` (00000041c27640ad/1)
          undo shop/backend (maybe)
          undo shop/db (yes) after shop/backend
    "#]],
    );
}

#[test]
fn of_a_service_that_lost_all_a_refusal_says_that_it_is_one_of_the_events() {
    check_in(
        "web>backend POST /pay 402 word=failed; ? 30; db refuses POST /rows; ? 40",
        &lossy(0, 40),
        &expect![[r#"
            30: rolling_back, look again after 1985
            roll back, revision 1: shop/backend says that the event failed for good
              because shop/backend said `failed` (00000041c27640ad/1)
              undo shop/backend (maybe)
            40: rolling_back, look again after 1985
            roll back, revision 2: shop/backend says that the event failed for good
              because shop/backend said `failed` (00000041c27640ad/1)
              undo shop/backend (maybe)
              incomplete: not all was heard of shop/db
        "#]],
    );
}

#[test]
fn an_end_from_the_time_of_an_outage_may_come_after_it() {
    // A job says `running`; its deadline passes while nothing can be heard, its last word comes later.
    check_in(
        "web POST /orders 202 deadline=2 word=running; ? 12000; web says succeeded at=1500 in=12500; ? 14000",
        &outage(1_000, 11_000),
        &expect![[r#"
            12000: running, look again after 1000
              entry: the entry shop/web is still open
              stalled: shop/web said `running`, and the policy lets it be silent
              deadline: its 2s are not over
            14000: running, look again after 500
              entry: the entry shop/web succeeded
        "#]],
    );
}

#[test]
fn an_event_may_have_begun_before_its_reports_came() {
    check_in(
        "web>db POST /rows ok at=3000 in=9000; web>backend POST /pay 402 word=failed at=3010 in=9000; ? 9000",
        &lossy(0, 4_000),
        &expect![[r#"
            9000: rolling_back, look again after 2000
            roll back, revision 1: shop/backend says that the event failed for good
              because shop/backend said `failed` (00000041c27640ad/1)
              undo shop/backend (maybe)
              undo shop/db (yes) after shop/backend
              incomplete: not all was heard of shop/db
        "#]],
    );
}
