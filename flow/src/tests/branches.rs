//! Branches that a queue handed over, and events without an entry.

use expect_test::expect;

use super::{check, check_in, for_service};
use crate::Layer;

const PAID: &str = "web>backend POST /pay ok; web POST /orders ok; ";

#[test]
fn a_consumer_whose_call_fails_rolls_nothing_back() {
    check(
        &format!(
            "{PAID} consumer>mail POST /send 500 handed-over; ? 3000; consumer>mail POST /send ok handed-over at=4000; ? 7000"
        ),
        &expect![[r#"
            3000: succeeded, settled
              entry: the entry shop/web succeeded
            7000: succeeded, settled
              entry: the entry shop/web succeeded
        "#]],
    );
}

#[test]
fn a_word_from_a_branch_counts_only_where_it_is_required() {
    let case = format!(
        "{PAID} consumer>mail POST /send 500 handed-over; consumer says failed handed-over; ? 100"
    );
    check(
        &case,
        &expect![[r#"
            100: running, look again after 1945
              word: shop/consumer says `failed`, in a branch that a queue handed over and the policy does not require
              entry: the entry shop/web succeeded
        "#]],
    );
    let required = for_service(
        "consumer",
        Layer {
            required: Some(true),
            ..Layer::default()
        },
    );
    check_in(
        &case,
        &required,
        &expect![[r#"
            100: rolling_back, look again after 1945
            roll back, revision 1: shop/consumer says that the event failed for good
              because shop/consumer said `failed` (000007ffec078cfd/1)
              by policy 3 for shop/consumer: `required: on`
              undo shop/backend (yes)
              undo shop/mail (maybe)
              undo shop/consumer (maybe) after shop/mail
              undo shop/web (yes) after shop/backend
        "#]],
    );
}

#[test]
fn an_event_without_an_entry_is_doomed_by_a_word() {
    check(
        "consumer>mail POST /send ok handed-over; consumer>mail POST /send 500 handed-over; ? 3000
         consumer says failed handed-over at=4000; ? 4010; ? 6005",
        &expect![[r#"
            3000: succeeded, settled
              entry: no call that began the event was reported
            4010: running, look again after 1995
              word: shop/consumer says `failed`, in a branch that a queue handed over; the event's entry may be on its way
              entry: no call that began the event was reported
            6005: rolling_back, settled, look again after 68000
            roll back, revision 1: shop/consumer says that the event failed for good
              because shop/consumer said `failed` (000007ffec078cfd/1)
              undo shop/mail (yes)
              undo shop/consumer (maybe) after shop/mail
        "#]],
    );
}

#[test]
fn a_branch_is_known_by_what_its_proxies_say_not_by_what_has_yet_to_come() {
    // The consumer was quicker than the first word of the entry.
    let quick = "consumer>mail POST /send 500 handed-over word=failed";
    check(
        &format!("{quick}; ? 20; web POST /orders ok at=500; ? 600; ? 9000"),
        &expect![[r#"
            20: running, look again after 1995
              word: shop/mail says `failed`, in a branch that a queue handed over; the event's entry may be on its way
              entry: no call that began the event was reported
            600: running, look again after 1905
              word: shop/mail says `failed`, in a branch that a queue handed over and the policy does not require
              entry: the entry shop/web succeeded
            9000: succeeded, settled
              word: shop/mail says `failed`, in a branch that a queue handed over and the policy does not require
              entry: the entry shop/web succeeded
        "#]],
    );
    // The entry has yet to be heard of, and the branch is its own.
    check(
        "backend>pay POST /charge 500 word=failed; ? 20",
        &expect![[r#"
            20: rolling_back, look again after 1995
            roll back, revision 1: shop/pay says that the event failed for good
              because shop/pay said `failed` (000000000004df41/1)
              undo shop/pay (maybe)
        "#]],
    );
    // A service in a request of the event, before that is reported.
    check(
        "backend says failed; ? 20",
        &expect![[r#"
        20: rolling_back, look again after 1995
        roll back, revision 1: shop/backend says that the event failed for good
          because shop/backend said `failed` (00000041c27640ad/1)
          undo shop/backend (maybe)
    "#]],
    );
    // A job that was called for the event goes on after its answer; its proxy has forgotten by whom.
    check(
        "web>job POST /render 202; web POST /orders ok; job>db POST /rows 500 word=failed handed-over at=900000; ? 900020",
        &expect![[r#"
            900020: rolling_back, look again after 1985
            roll back, revision 1: shop/db says that the event failed for good
              because shop/db said `failed` (00000000000026c5/1)
              undo shop/db (maybe)
              undo shop/job (yes) after shop/db
              undo shop/web (yes) after shop/job
        "#]],
    );
    // A service below the entry that a queue calls too.
    check(
        "web>mail POST /send 500 word=failed; consumer>mail POST /send ok handed-over; web POST /orders open; ? 40",
        &expect![[r#"
            40: rolling_back, look again after 1995
            roll back, revision 1: shop/mail says that the event failed for good
              because shop/mail said `failed` (000000000095aa3e/1)
              undo shop/mail (yes)
              undo shop/web (maybe) after shop/mail
        "#]],
    );
}

#[test]
fn a_service_that_takes_no_part_dooms_nothing() {
    check(
        "web POST /orders ok; stranger says failed handed-over; ? 30",
        &expect![[r#"
            30: running, look again after 1995
              word: shop/stranger says `failed`, but takes no part in the event
              entry: the entry shop/web succeeded
        "#]],
    );
}
