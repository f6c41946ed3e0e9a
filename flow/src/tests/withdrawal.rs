//! The way back: contested and withdrawn decisions.

use expect_test::expect;
use kaeru_protocol::EventId;

use super::{check, check_in, global};
use crate::notation::{Case, Setting};
use crate::{Contested, Layer, Standing, Trace, Withdrawal, judge};

#[test]
fn an_entry_that_succeeds_after_the_decision_contests_it() {
    let case = "web>backend POST /pay 402 word=failed; ? 20; web POST /orders ok; ? 30";
    check(
        case,
        &expect![[r#"
        20: rolling_back, look again after 1995
        roll back, revision 1: shop/backend says that the event failed for good
          because shop/backend said `failed` (00000041c27640ad/1)
          undo shop/backend (maybe)
        30: rolling_back, look again after 1995
        roll back (contested), revision 2: shop/backend says that the event failed for good
          because shop/backend said `failed` (00000041c27640ad/1)
          undo shop/backend (maybe)
          undo shop/web (yes) after shop/backend
    "#]],
    );
    for contested in [Contested::RollBack, Contested::Withdraw] {
        let told = Case::parse(case).tell(&global(Layer {
            contested: Some(contested),
            ..Layer::default()
        }));
        assert_eq!(
            told.contains("withdrawn by kaeru"),
            contested == Contested::Withdraw,
            "{told}"
        );
        assert!(!told.contains("contested"), "{told}");
    }
    check_in(
        case,
        &Setting::default(),
        &expect![[r#"
        20: rolling_back, look again after 1995
        roll back, revision 1: shop/backend says that the event failed for good
          because shop/backend said `failed` (00000041c27640ad/1)
          undo shop/backend (maybe)
        30: rolling_back, look again after 1995
        roll back (contested), revision 2: shop/backend says that the event failed for good
          because shop/backend said `failed` (00000041c27640ad/1)
          undo shop/backend (maybe)
          undo shop/web (yes) after shop/backend
    "#]],
    );
}

#[test]
fn after_a_withdrawal_only_news_dooms() {
    let event: EventId = crate::notation::event();
    let setting = Setting::default();
    let case = Case::parse(
        "web>db POST /rows ok; web>backend POST /pay 402 word=failed; web POST /orders open due=60000
         web>backend POST /pay 402 word=failed at=5000",
    );
    let trace =
        |facts: usize| Trace::fold(event.clone(), case.facts[..facts].to_vec(), &setting.policy);
    let decided = judge(&trace(3), None, None, &setting.policy, &setting.now(50))
        .decision
        .unwrap();
    let withdrawal = Withdrawal {
        by: "alice".into(),
        reason: "paid by hand".into(),
        at_ms: 100,
    };
    let withdrawn = crate::Decision {
        standing: Standing::Withdrawn(withdrawal),
        ..decided
    };
    let after = |facts: usize, at_ms| {
        judge(
            &trace(facts),
            Some(&withdrawn),
            None,
            &setting.policy,
            &setting.now(at_ms),
        )
        .decision
    };
    assert_eq!(after(3, 200), None);
    assert_eq!(after(4, 5_100).map(|d| d.revision), Some(1));
}
