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
            8000: rolling_back, settled
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
            8000: rolling_back
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
            2000: running, look again after 1095
              entry: the entry shop/web is still open
              stalled: shop/web is open and heard of
              deadline: its 1s are not over
            5001: running, look again after 1999
              entry: the entry shop/web is still open
              stalled: shop/web is open and heard of
              deadline: its time is up, but what is open is out of touch
        "#]],
    );
}

#[test]
fn losses_make_a_plan_incomplete() {
    let loss = |from_ms, to_ms| Loss {
        service: service("db").into(),
        reporter: None,
        span: Span { from_ms, to_ms },
    };
    let case = "web>db POST /rows ok; web>backend POST /pay 402 word=failed; ? 30";
    let setting = Setting {
        losses: vec![loss(0, 40)],
        ..Setting::default()
    };
    check_in(
        case,
        &setting,
        &expect![[r#"
        30: rolling_back, look again after 1995
        roll back, revision 1: shop/backend says that the event failed for good
          because shop/backend said `failed` (00000041c27640ad/1)
          undo shop/backend (maybe)
          undo shop/db (yes) after shop/backend
          incomplete: not all was heard of shop/db
    "#]],
    );
    let setting = Setting {
        losses: vec![loss(5_000, 6_000)],
        ..Setting::default()
    };
    check_in(
        case,
        &setting,
        &expect![[r#"
        30: rolling_back, look again after 1995
        roll back, revision 1: shop/backend says that the event failed for good
          because shop/backend said `failed` (00000041c27640ad/1)
          undo shop/backend (maybe)
          undo shop/db (yes) after shop/backend
    "#]],
    );
}
