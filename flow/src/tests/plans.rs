//! The order of undo: partial, by parents and their clocks.

use expect_test::expect;

use super::check;

fn plan_of(case: &str, told: &expect_test::Expect) {
    check(
        &format!("{case}; operator alice: show me at=9000; ? 9010"),
        told,
    );
}

#[test]
fn callees_before_callers_and_later_siblings_before_earlier() {
    plan_of(
        "db-api>db POST /rows ok sent=12 took=2; backend>db-api POST /items ok sent=10 took=10
         backend>stock POST /reserve ok sent=25 took=5; web>backend POST /pay ok sent=5 took=30
         web POST /orders ok took=40 at=50",
        &expect![[r#"
            9010: rolling_back, look again after 1995
            roll back, revision 1: an operator says so: alice: show me
              because an operator demanded it: alice: show me (a5dce45ff975a3ad/1)
              undo shop/stock (yes)
              undo shop/db (yes) after shop/stock
              undo shop/db-api (yes) after shop/db
              undo shop/backend (yes) after shop/db-api
              undo shop/web (yes) after shop/backend
        "#]],
    );
}

#[test]
fn overlapping_siblings_side_by_side() {
    plan_of(
        "a>b POST /x ok sent=10 took=20; a>c POST /x ok sent=15 took=20; a>d POST /x ok sent=40 took=1; a POST /x ok took=60",
        &expect![[r#"
            9010: rolling_back, look again after 1995
            roll back, revision 1: an operator says so: alice: show me
              because an operator demanded it: alice: show me (a5dce45ff975a3ad/1)
              undo shop/d (yes)
              undo shop/b (yes) after shop/d
              undo shop/c (yes) after shop/d
              undo shop/a (yes) after shop/b, shop/c
        "#]],
    );
}

#[test]
fn siblings_are_ordered_by_their_parents_clock() {
    // b's clock is minutes ahead of c's; a called b first.
    plan_of(
        "a>b POST /x ok sent=10 took=5 at=400000; a>c POST /x ok sent=20 took=5 at=30; a POST /x ok at=60 took=50",
        &expect![[r#"
            9010: rolling_back, look again after 392995
            roll back, revision 1: an operator says so: alice: show me
              because an operator demanded it: alice: show me (a5dce45ff975a3ad/1)
              undo shop/c (yes)
              undo shop/b (yes) after shop/c
              undo shop/a (yes) after shop/b
        "#]],
    );
}

#[test]
fn a_diamond() {
    plan_of(
        "b>d POST /1 ok sent=12 took=2; c>d POST /2 ok sent=22 took=2; a>b POST /x ok sent=10 took=8
         a>c POST /x ok sent=20 took=8; a POST /x ok took=40 at=50",
        &expect![[r#"
            9010: rolling_back, look again after 1995
            roll back, revision 1: an operator says so: alice: show me
              because an operator demanded it: alice: show me (a5dce45ff975a3ad/1)
              undo shop/d (yes)
              undo shop/c (yes) after shop/d
              undo shop/b (yes) after shop/c
              undo shop/a (yes) after shop/b
        "#]],
    );
}

#[test]
fn a_loop_is_one_group() {
    plan_of(
        "b>a POST /back ok sent=12; a>b POST /x ok sent=10 took=8; a POST /x ok took=40 at=50",
        &expect![[r#"
            9010: rolling_back, look again after 1995
            roll back, revision 1: an operator says so: alice: show me
              because an operator demanded it: alice: show me (a5dce45ff975a3ad/1)
              undo shop/a (yes) together with shop/b
              undo shop/b (yes) together with shop/a
        "#]],
    );
}

#[test]
fn services_without_effect_still_order_the_rest() {
    plan_of(
        "b>c POST /x ok; a>b GET /x ok; a POST /x ok",
        &expect![[r#"
            9010: rolling_back, look again after 1995
            roll back, revision 1: an operator says so: alice: show me
              because an operator demanded it: alice: show me (a5dce45ff975a3ad/1)
              undo shop/c (yes)
              undo shop/a (yes) after shop/c
        "#]],
    );
}

#[test]
fn gateways_and_external_hosts_are_in_no_plan() {
    plan_of(
        "backend=>pay.example POST /charge ok; gateway>web POST /orders ok; gateway POST /orders ok",
        &expect![[r#"
            9010: rolling_back, look again after 1995
            roll back, revision 1: an operator says so: alice: show me
              because an operator demanded it: alice: show me (a5dce45ff975a3ad/1)
              undo shop/web (yes)
        "#]],
    );
}

#[test]
fn a_chain_of_twenty_and_a_fan_out_of_fifty() {
    let chain: Vec<String> = (1..20)
        .map(|i| format!("s{:02}>s{i:02} POST /x ok;", i - 1))
        .collect();
    let fan_out: Vec<String> = (0..50)
        .map(|i| format!("s19>f{i:02} POST /x ok sent=200 took=9;"))
        .collect();
    let case = crate::notation::Case::parse(&format!(
        "s00 POST /x ok;{}{} operator a: b; ? 9000",
        chain.concat(),
        fan_out.concat()
    ));
    let told = case.tell(&crate::notation::Setting::default());
    assert_eq!(
        told.lines()
            .filter(|l| l.trim_start().starts_with("undo shop/f"))
            .count(),
        50
    );
    let place = |name: &str| told.find(&format!("undo shop/{name} ")).unwrap();
    assert!((1..20).all(|i| place(&format!("s{i:02}")) < place(&format!("s{:02}", i - 1))));
    assert!((0..50).all(|i| place(&format!("f{i:02}")) < place("s19")));
}
