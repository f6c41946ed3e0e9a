use kaeru_flow::{Decision, Effect, Plan, PlanEntry, Reason, Standing, Withdrawal};

use super::{between, first};

fn plan(entries: &[(&str, Effect)], missing: &[&str]) -> Plan {
    let entry = |(service, effect): &(&str, Effect)| PlanEntry {
        service: service.parse().unwrap(),
        effect: *effect,
        by_hand: true,
        after: [].into(),
        together: [].into(),
    };
    Plan {
        entries: entries.iter().map(entry).collect(),
        missing: missing.iter().map(|name| name.parse().unwrap()).collect(),
    }
}

fn decision(plan: Plan, standing: Standing) -> Decision {
    Decision {
        revision: 1,
        standing,
        reason: Reason::Deadline { given_ms: 1_000 },
        evidence: Vec::new(),
        grounds: Vec::new(),
        plan,
        policy_version: 1,
        plan_policy_version: 1,
        flow_version: None,
        decided_ms: 0,
    }
}

#[test]
fn each_change_is_told() {
    use Effect::{Maybe, No, Yes};
    let of = |entries: &[(&str, Effect)]| plan(entries, &[]);
    let one = || of(&[("shop/a", Maybe)]);
    for (before, after, words) in [
        (
            one(),
            of(&[("shop/b", Yes), ("shop/a", Maybe)]),
            "shop/b joined the plan (it took effect)",
        ),
        (
            one(),
            of(&[("shop/a", No)]),
            "shop/a was cleared: by its own report nothing is left to undo there (before: it may have taken effect)",
        ),
        (
            of(&[("shop/a", No)]),
            of(&[("shop/a", Yes)]),
            "shop/a has something to undo after all (it took effect)",
        ),
        (
            one(),
            of(&[("shop/a", Yes)]),
            "shop/a: it took effect (before: it may have taken effect)",
        ),
        (
            one(),
            plan(&[("shop/a", Maybe)], &["shop/c", "shop/d"]),
            "not everything was heard of shop/c and shop/d, which may have more to undo",
        ),
        (one(), one(), "nothing that is shown here"),
    ] {
        let [before, after] = [before, after].map(|plan| decision(plan, Standing::Live));
        assert_eq!(between(&before, &after), words);
    }
    let mut reordered = of(&[("shop/a", Yes), ("shop/b", Yes)]);
    let before = decision(reordered.clone(), Standing::Live);
    reordered.entries[1].after = ["shop/a".parse().unwrap()].into();
    let after = decision(reordered, Standing::Live);
    assert_eq!(between(&before, &after), "the order of undo changed");
}

#[test]
fn how_a_decision_stands_is_told() {
    let of = |standing| decision(plan(&[("shop/a", Effect::Yes)], &[]), standing);
    let live = of(Standing::Live);
    assert_eq!(first(&live), "decided, with something to undo in shop/a");
    let contested = between(&live, &of(Standing::Contested));
    assert_eq!(
        contested,
        "contested: the entry succeeded after the decision, so undo waits for a person or the policy"
    );
    let withdrawn = Standing::Withdrawn(Withdrawal {
        by: "alice".into(),
        reason: "a test".into(),
        at_ms: 7,
    });
    assert_eq!(between(&live, &of(withdrawn)), "withdrawn by alice: a test");
}
