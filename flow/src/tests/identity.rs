//! Shared ids are not events.

use expect_test::expect;

use super::{check, check_in, global};
use crate::Layer;

#[test]
fn a_borrowed_id_with_a_second_unsafe_entry_is_shared() {
    check(
        "web POST /orders ok borrowed; web POST /orders 500 borrowed; ? 1100; ? 3000",
        &expect![[r#"
            1100: running, shared: a borrowed id with a second unsafe entry that is no retry, look again after 925
              operator: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              word: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              fatal: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              entry: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              stalled: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              deadline: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              learned: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
            3000: succeeded, shared: a borrowed id with a second unsafe entry that is no retry, settled
              operator: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              word: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              fatal: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              entry: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              stalled: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              deadline: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              learned: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
        "#]],
    );
    check(
        "web POST /orders 500 borrowed; web POST /refunds 500 borrowed; ? 3000",
        &expect![[r#"
            3000: failed, shared: a borrowed id with a second unsafe entry that is no retry, settled
              operator: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              word: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              fatal: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              entry: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              stalled: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              deadline: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              learned: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
        "#]],
    );
}

#[test]
fn one_reporter_that_knows_is_enough() {
    // The application forwarded only the `x-event-id` that Kaeru had handed on.
    check(
        "web>db POST /rows ok; web POST /orders ok borrowed; web POST /orders 500 borrowed; ? 3000",
        &expect![[r#"
            3000: succeeded, shared: a borrowed id with a second unsafe entry that is no retry, settled
              operator: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              word: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              fatal: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              entry: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              stalled: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              deadline: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              learned: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
        "#]],
    );
}

#[test]
fn retries_do_not_make_an_id_shared() {
    check(
        "web>db POST /rows ok borrowed; web POST /orders 500 borrowed; web POST /orders 500 borrowed; ? 3100",
        &expect![[r#"
            3100: rolling_back, settled, look again after 66935
            roll back, revision 1: the entry shop/web failed and was not tried again in time
              because shop/web answered 500 to POST /orders (000000000004f9ed/2)
              by the built-in `entry_retry_wait: 1s`
              by the built-in `settle: 2s`
              undo shop/db (yes)
              undo shop/web (maybe) after shop/db
        "#]],
    );
    check(
        "web GET /orders ok borrowed; web>db POST /rows ok borrowed; web POST /orders 500 borrowed; ? 3100",
        &expect![[r#"
            3100: rolling_back, settled, look again after 66935
            roll back, revision 1: the entry shop/web failed and was not tried again in time
              because shop/web answered 500 to POST /orders (000000000004f9ed/2)
              by the built-in `entry_retry_wait: 1s`
              by the built-in `settle: 2s`
              undo shop/db (yes)
              undo shop/web (maybe) after shop/db
        "#]],
    );
}

#[test]
fn an_attempt_whose_end_is_on_its_way_overlaps_nothing_yet() {
    let case = |then: &str| {
        format!(
            "web POST /orders open borrowed as=x; web POST /orders open borrowed at=400 took=100; ? 500; {then}; ? 600"
        )
    };
    // It had failed before the retry began.
    check(
        &case("web POST /orders 500 borrowed at=200 in=550 of=x"),
        &expect![[r#"
            500: running, look again after 1905
              entry: the entry shop/web is still open
              stalled: shop/web is open and heard of
            600: running, look again after 1950
              entry: the entry shop/web is still open
              stalled: shop/web is open and heard of
        "#]],
    );
    // It was still open.
    check(
        &case("web POST /orders open borrowed at=510 took=505 of=x"),
        &expect![[r#"
            500: running, look again after 1905
              entry: the entry shop/web is still open
              stalled: shop/web is open and heard of
            600: running, shared: a borrowed id with a second unsafe entry that is no retry, look again after 1915
              operator: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              word: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              fatal: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              entry: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              stalled: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              deadline: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
              learned: the id is shared (a borrowed id with a second unsafe entry that is no retry): no rule applies
        "#]],
    );
}

#[test]
fn a_chosen_id_may_have_two_entries() {
    check(
        "web>db POST /rows ok; web POST /orders ok; web POST /refunds 500; ? 3000",
        &expect![[r#"
            3000: succeeded, settled
              entry: the entry shop/web succeeded
        "#]],
    );
}

#[test]
fn a_live_decision_of_a_shared_id_is_withdrawn() {
    check(
        "web>db POST /rows ok borrowed; web POST /orders 500 borrowed; ? 3100; web POST /orders 200 borrowed at=4000; web POST /orders 200 borrowed at=4100; ? 4200",
        &expect![[r#"
            3100: rolling_back, settled, look again after 66925
            roll back, revision 1: the entry shop/web failed and was not tried again in time
              because shop/web answered 500 to POST /orders (000000000004f9ed/1)
              by the built-in `entry_retry_wait: 1s`
              by the built-in `settle: 2s`
              undo shop/db (yes)
              undo shop/web (maybe) after shop/db
            4200: running, shared: a borrowed id with a second unsafe entry that is no retry, look again after 1905
            withdrawn by kaeru: the id is shared: a borrowed id with a second unsafe entry that is no retry, revision 2: the entry shop/web failed and was not tried again in time
              because shop/web answered 500 to POST /orders (000000000004f9ed/1)
              by the built-in `entry_retry_wait: 1s`
              by the built-in `settle: 2s`
              undo shop/db (yes)
              undo shop/web (yes) after shop/db
        "#]],
    );
}

#[test]
fn too_many_reports_are_no_event() {
    let few = Layer {
        reports_max: Some(2),
        ..Layer::default()
    };
    check_in(
        "web>db POST /rows ok; web>db POST /rows ok; web POST /orders 500; ? 3000",
        &global(few),
        &expect![[r#"
            3000: failed, shared: more reports than one event can have, settled
              operator: the id is shared (more reports than one event can have): no rule applies
              word: the id is shared (more reports than one event can have): no rule applies
              fatal: the id is shared (more reports than one event can have): no rule applies
              entry: the id is shared (more reports than one event can have): no rule applies
              stalled: the id is shared (more reports than one event can have): no rule applies
              deadline: the id is shared (more reports than one event can have): no rule applies
              learned: the id is shared (more reports than one event can have): no rule applies
        "#]],
    );
}

#[test]
fn a_call_past_a_dead_filter_is_no_entry_where_others_called_its_service() {
    // By clocks that differ, `db` was first; `web` called it once more, and nobody called `web`.
    check(
        "db POST /rows ok at=10; web POST /orders 500 at=30; web>db POST /rows ok at=25; ? 3100",
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
    // Of a loop each was called by somebody: the first it is.
    check(
        "web POST /orders 500 at=30; web>db POST /rows ok at=25; db>web POST /orders ok at=24; ? 3100",
        &expect![[r#"
            3100: rolling_back, settled, look again after 66935
            roll back, revision 1: the entry shop/web failed and was not tried again in time
              because shop/web answered 500 to POST /orders (000000000004f9ed/1)
              by the built-in `entry_retry_wait: 1s`
              by the built-in `settle: 2s`
              undo shop/db (yes) together with shop/web
              undo shop/web (yes) together with shop/db
        "#]],
    );
}
