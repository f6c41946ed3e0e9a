//! What decisions and events say of themselves in words. Times and ids are replaced, the rest is reviewed as it
//! stands.
#![expect(
    clippy::needless_raw_string_hashes,
    reason = "expect-test writes its snapshots so"
)]

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use kaeru_protocol::{EventReport, Kind, Side, Word};
use serde_json::{Value, json};

use super::{Api, api};
use crate::clock::{self, timestamp};
use crate::store::policies;
use crate::testing::{Side as Sidecar, attempt, beat, failed, report};

async fn put_policy(api: &Api, yaml: &str) {
    let mut transaction = api.0.store.begin().await.unwrap();
    policies::put(&mut transaction, yaml, timestamp(clock::now_ms()))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    beat(&api.0).await;
}

/// The decider looks, as if this many ms had passed.
async fn look(api: &Api, later_ms: u64) {
    api.0.decider.decide_once(clock::now_ms() + later_ms).await;
}

/// The text without what differs from run to run: times become `T`, a decision's id `D`.
fn told(text: &Value) -> String {
    let text = text.as_str().unwrap();
    let is_time = |word: &str| word.starts_with("20") && word.contains('T') && word.contains('Z');
    let word = |word: &str| match word.split_once('Z') {
        Some((_, rest)) if is_time(word) => format!("T{rest}"),
        _ => word.to_owned(),
    };
    let words: Vec<String> = text.split(' ').map(word).collect();
    words.join(" ")
}

/// Sentences one a line, so that a person can review them.
fn check(text: &Value, expected: &Expect) {
    expected.assert_eq(&told(text).replace(". ", ".\n"));
}

#[tokio::test]
async fn a_decision_explains_itself_in_a_paragraph() {
    let api = api().await;
    put_policy(&api, "mode: enforce\n").await;
    api.declined_order("order-7").await;
    look(&api, 0).await;
    let story = api.read("/v1/events/order-7").await;
    check(
        &story["decision"]["explanation"],
        &expect![[r#"
            At T it was decided that event order-7 (order.placed) must be rolled back: shop/backend says that the event failed for good.
            The rule is `word`: a service that takes part may say that no retry can help.
            It needed no line of the policy (version 1 was in force).
            It rests on 1 report: shop/backend said `failed` (at T, reported by proxy-1 beside shop/backend).
            There is something to undo in shop/backend and shop/web, in this order.
            Revision 2, at T: shop/web joined the plan (it may have taken effect).
            Proxies refuse its further unsafe requests, as far as their own mode allows."#]],
    );
    check(
        &story["summary"],
        &expect![[r#"
        It must be rolled back: shop/backend says that the event failed for good.
        2 services have something to undo.
        Proxies refuse its further unsafe requests, as far as their own mode allows."#]],
    );
    let revisions: Vec<String> = story["decision"]["revisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|revision| format!("{}: {}", revision["revision"], told(&revision["text"])))
        .collect();
    expect![[r#"
        1: decided, with something to undo in shop/backend
        2: shop/web joined the plan (it may have taken effect)"#]]
    .assert_eq(&revisions.join("\n"));

    let id = story["decision"]["id"].as_str().unwrap();
    let order = json!({"by": "alice", "reason": "paid by phone"});
    let (_, withdrawn) = api
        .post(&format!("/v1/decisions/{id}/withdraw"), &order)
        .await;
    check(
        &withdrawn["explanation"],
        &expect![[r#"
            At T it was decided that event order-7 (order.placed) must be rolled back: shop/backend says that the event failed for good.
            The rule is `word`: a service that takes part may say that no retry can help.
            It needed no line of the policy (version 1 was in force).
            It rests on 1 report: shop/backend said `failed` (at T, reported by proxy-1 beside shop/backend).
            There is something to undo in shop/backend and shop/web, in this order.
            Revision 2, at T: shop/web joined the plan (it may have taken effect).
            Revision 3, at T: withdrawn by alice: paid by phone.
            It no longer holds: proxies were told to let the event proceed."#]],
    );
}

/// Sidecars that report, one a service.
#[derive(Default)]
struct Mesh(BTreeMap<&'static str, Sidecar>);

impl Mesh {
    async fn states(&mut self, api: &Api, service: &'static str, report: EventReport) {
        let number = self.0.len() as u64 + 1;
        let side = self
            .0
            .entry(service)
            .or_insert_with(|| Sidecar::new(number, service));
        side.state(&api.0, report).await.unwrap();
    }

    /// Each service's answers: whom it was called by, and with which status.
    async fn event(
        &mut self,
        api: &Api,
        id: &str,
        answers: &[(&'static str, Option<&str>, u16)],
    ) -> Value {
        for (service, from, status) in answers {
            self.states(api, service, attempt(id, *from, *status)).await;
        }
        look(api, 0).await;
        // Whatever waits has waited long enough.
        look(api, 60_000).await;
        api.read(&format!("/v1/events/{id}")).await
    }
}

const WEB: &str = "shop/web";

#[tokio::test]
async fn an_event_that_is_not_rolled_back_says_where_it_stands() {
    let api = api().await;
    let mut mesh = Mesh::default();
    let fine = mesh.event(&api, "fine", &[(WEB, None, 201)]).await;
    check(
        &fine["summary"],
        &expect!["It succeeded: there is nothing to roll back."],
    );

    let answers = [
        ("shop/backend", Some(WEB), 503),
        ("shop/backend", Some(WEB), 201),
        (WEB, None, 201),
    ];
    let healed = mesh.event(&api, "healed", &answers).await;
    check(
        &healed["summary"],
        &expect![
            "It succeeded: what failed at shop/backend was tried again and succeeded, so there is nothing to roll back."
        ],
    );

    let answers = [("shop/mailer", Some(WEB), 500), (WEB, None, 201)];
    let without = mesh.event(&api, "without", &answers).await;
    check(
        &without["summary"],
        &expect![
            "It succeeded although shop/mailer failed: its entry succeeded all the same, so there is nothing to roll back."
        ],
    );

    let rejected = mesh.event(&api, "rejected", &[(WEB, None, 404)]).await;
    check(
        &rejected["summary"],
        &expect!["It failed, and there is nothing to undo: no service of it had an effect."],
    );

    let mut harmless = failed("harmless", None);
    harmless.call_mut().method = "GET".into();
    mesh.states(&api, WEB, harmless).await;
    let harmless = mesh.event(&api, "harmless", &[]).await;
    check(
        &harmless["summary"],
        &expect![
            "It failed (shop/web says that the event failed for good), and there is nothing to undo: no service of it had an effect."
        ],
    );

    let answers = [("shop/backend", Some(WEB), 201), (WEB, None, 499)];
    let gone = mesh.event(&api, "gone", &answers).await;
    check(
        &gone["summary"],
        &expect![[r#"
        Its client went away before it was answered, which dooms nothing by itself.
        What was done stays: shop/backend and shop/web have, or may have, something to undo."#]],
    );

    let mut other = attempt("same", None, 201);
    other.borrowed = true;
    mesh.states(&api, WEB, other.clone()).await;
    other.call_mut().path = "/baskets".into();
    mesh.states(&api, WEB, other).await;
    let shared = mesh.event(&api, "same", &[]).await;
    check(
        &shared["summary"],
        &expect![
            "Its id stands for more than one event (a borrowed id with a second unsafe entry that is no retry): it is shown and counted, and no rule applies to it."
        ],
    );

    let mut open = report("open", Kind::Running);
    open.due_ms = Some(1_000);
    mesh.states(&api, WEB, open).await;
    look(&api, 0).await;
    let running = api.read("/v1/events/open").await;
    check(
        &running["summary"],
        &expect!["It is running: shop/web has not ended."],
    );
    sqlx::query("UPDATE proxies SET due_at = now() - interval '1 s'")
        .execute(api.0.store.pool())
        .await
        .unwrap();
    let silent = api.read("/v1/events/open").await;
    check(
        &silent["summary"],
        &expect![[r#"
            It is running as far as is known: shop/web has not ended, but the proxy of shop/web is out of touch.
            What is not heard is no evidence, and dooms nothing unless the policy says so."#]],
    );
}

const POLICY: &str = "\
mode: enforce
event_types:
  POST shop/web /orders:
    entry_retry_wait: 2s
    outcomes: { 409: failed }
    deadline: 10s
services:
  shop/backend:
    silence: 15s
  host:payments.example.com:
    fatal:
      - 402
";

/// What a decision says of the rule, the policy and the evidence, and where its policy stands.
fn grounds(decision: &Value) -> String {
    let explanation = told(&decision["explanation"]);
    let sentences: Vec<&str> = explanation.split(". ").take(4).collect();
    let policy = decision["policy"].as_array().unwrap().iter();
    let lines = policy.map(|line| {
        format!(
            "{} {}: {} `{}: {}`",
            line["version"],
            line["line"],
            line["text"],
            line["key"].as_str().unwrap(),
            line["says"].as_str().unwrap()
        )
    });
    sentences
        .into_iter()
        .map(str::to_owned)
        .chain(lines)
        .collect::<Vec<_>>()
        .join("\n")
}

#[tokio::test]
async fn each_rule_names_its_evidence_and_its_line_of_the_policy() {
    let api = api().await;
    put_policy(&api, POLICY).await;
    let mut mesh = Mesh::default();
    let decision = async |id: &str| {
        let event = api.read(&format!("/v1/events/{id}")).await;
        grounds(&event["decision"])
    };

    let mut declined = report("fatal", Kind::Call);
    declined.side = Side::Outbound;
    declined.call_mut().from = Some("shop/backend".parse().unwrap());
    declined.call_mut().to = Some("host:payments.example.com".parse().unwrap());
    declined.ending.status = Some(402);
    mesh.states(&api, "shop/backend", declined).await;
    mesh.event(&api, "fatal", &[("shop/backend", Some(WEB), 500)])
        .await;
    expect![[r#"
        At T it was decided that event fatal must be rolled back: host:payments.example.com answered with a status that the policy calls fatal for it (402)
        The rule is `fatal`: the policy names statuses after which no retry can help
        It relied on policy version 1, line 12, for host:payments.example.com: `- 402`
        It rests on 1 report: host:payments.example.com answered 402 to POST /orders, as the proxy of shop/backend saw it (at T, reported by proxy-1 beside shop/backend)
        1 12: "- 402" `fatal: 402`"#]].assert_eq(&decision("fatal").await);

    mesh.event(&api, "entry", &[(WEB, None, 409)]).await;
    expect![[r#"
        At T it was decided that event entry (POST shop/web /orders) must be rolled back: the entry shop/web failed and was not tried again in time
        The rule is `entry`: the call that began the event ended badly, and was not tried again in time
        It relied on policy version 1, line 5, for POST shop/web /orders: `outcomes: { 409: failed }`; policy version 1, line 4, for POST shop/web /orders: `entry_retry_wait: 2s`; the default `settle: 2s`, about which policy version 1 says nothing
        It rests on 1 report: shop/web answered 409 to POST /orders (at T, reported by proxy-2 beside shop/web)
        1 5: "outcomes: { 409: failed }" `outcomes: 409: failed`
        1 4: "entry_retry_wait: 2s" `entry_retry_wait: 2s`
        null null: null `settle: 2s`"#]].assert_eq(&decision("entry").await);

    let mut open = report("deadline", Kind::Running);
    open.due_ms = Some(60_000);
    mesh.states(&api, WEB, open).await;
    look(&api, 0).await;
    look(&api, 13_000).await;
    expect![[r#"
        At T it was decided that event deadline (POST shop/web /orders) must be rolled back: it took longer than the 10s it was given
        The rule is `deadline`: the event's time was up while it still ran
        It relied on policy version 1, line 6, for POST shop/web /orders: `deadline: 10s`
        It rests on 1 report: shop/web was still running (at T, reported by proxy-2 beside shop/web)
        1 6: "deadline: 10s" `deadline: 10s`"#]].assert_eq(&decision("deadline").await);

    mesh.states(&api, "shop/backend", attempt("silence", None, 201))
        .await;
    let mut word = report("silence", Kind::Word);
    word.ending.word = Some(Word::Running);
    mesh.states(&api, "shop/backend", word).await;
    look(&api, 0).await;
    look(&api, 20_000).await;
    expect![[r#"
        At T it was decided that event silence (POST shop/backend /orders) must be rolled back: shop/backend stalled: it said `running` and has been silent longer than the policy allows
        The rule is `stalled`: a step that runs must be heard of
        It relied on policy version 1, line 9, for shop/backend: `silence: 15s`
        It rests on 1 report: the last word of shop/backend was `running` (at T, reported by proxy-1 beside shop/backend)
        1 9: "silence: 15s" `silence: 15s`"#]].assert_eq(&decision("silence").await);

    mesh.event(&api, "operator", &[(WEB, None, 201)]).await;
    let order = json!({"by": "alice", "reason": "the customer called"});
    api.post("/v1/events/operator/rollback", &order).await;
    look(&api, 0).await;
    expect![[r#"
        At T it was decided that event operator (POST shop/web /orders) must be rolled back: an operator says so: alice: the customer called
        The rule is `operator`: a person may demand a rollback
        It needed no line of the policy (version 1 was in force)
        It rests on 1 report: an operator demanded it: alice: the customer called (at T, by the API)"#]].assert_eq(&decision("operator").await);

    // A decision keeps the policy that it was made by.
    put_policy(&api, "mode: enforce\n").await;
    let event = api.read("/v1/events/fatal").await;
    let line = &event["decision"]["policy"][0];
    assert_eq!((&line["version"], &line["line"]), (&json!(1), &json!(12)));
    assert_eq!(event["considered"][0]["policy"][0], *line);
}

#[tokio::test]
async fn each_rule_says_why_it_has_not_fired_and_when_it_is_asked_again() {
    let api = api().await;
    put_policy(&api, "rules: { word: off }\nentry_retry_wait: 30s\n").await;
    let mut mesh = Mesh::default();
    for (service, from, status) in [("shop/backend", Some(WEB), 201), (WEB, None, 500)] {
        mesh.states(&api, service, attempt("e", from, status)).await;
    }
    let event = api.read("/v1/events/e").await;
    let considered: Vec<String> = event["considered"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let policy = one["policy"].as_array().unwrap().iter();
            let words: Vec<&str> = policy.map(|line| line["words"].as_str().unwrap()).collect();
            let again = if one["asked_again"].is_null() {
                ""
            } else {
                " (asked again)"
            };
            format!(
                "{}: {}{again} {words:?}",
                one["rule"].as_str().unwrap(),
                one["why"].as_str().unwrap()
            )
        })
        .collect();
    expect![[r#"
        operator: no operator demands it []
        word: switched off by the policy ["policy version 1, line 1, for everything: `rules: { word: off }`"]
        fatal: no answer has a status that the policy calls fatal []
        entry: the entry shop/web failed; it may be tried again within 30s (asked again) ["policy version 1, line 2, for everything: `entry_retry_wait: 30s`", "the default `settle: 2s`, about which policy version 1 says nothing"]
        stalled: nothing is open []
        deadline: the event has no deadline []
        learned: not in force yet: flows are learned, not yet acted on []"#]].assert_eq(&considered.join("\n"));
    assert!(event["looked_at_again"].is_string());
}

#[tokio::test]
async fn what_the_policy_switches_off_is_said() {
    let api = api().await;
    put_policy(&api, "mode: enforce\nrules: { entry: off }\n").await;
    let mut mesh = Mesh::default();
    let answers = [("shop/backend", Some(WEB), 201), (WEB, None, 500)];
    let failed = mesh.event(&api, "kept", &answers).await;
    check(
        &failed["summary"],
        &expect![
            "It failed and is not rolled back, though shop/backend and shop/web have, or may have, something to undo: no rule that is on dooms it (switched off: `entry`)."
        ],
    );
}

#[tokio::test]
async fn why_nothing_is_refused_is_said() {
    let api = api().await;
    let mut mesh = Mesh::default();
    put_policy(&api, "mode: off\n").await;
    mesh.states(&api, WEB, failed("off", None)).await;
    check(
        &api.read("/v1/events/off").await["summary"],
        &expect![[r#"
            It must be rolled back: shop/web says that the event failed for good.
            1 service has something to undo.
            Its mode is off: nothing is refused, nor counted."#]],
    );
    put_policy(&api, "mode: shadow\n").await;
    check(
        &api.read("/v1/events/off").await["summary"],
        &expect![[r#"
            It must be rolled back: shop/web says that the event failed for good.
            1 service has something to undo.
            Its mode is shadow: what would be refused is counted, and nothing is refused."#]],
    );

    put_policy(&api, "mode: enforce\n").await;
    sqlx::query(
        "INSERT INTO breakers (type, policy_version, tripped_at, doomed) VALUES ($1, 3, now(), 42)",
    )
    // As it is learned from the entry.
    .bind("POST shop/web /orders")
    .execute(api.0.store.pool())
    .await
    .unwrap();
    let event = api.read("/v1/events/off").await;
    check(
        &event["summary"],
        &expect![[r#"
            It must be rolled back: shop/web says that the event failed for good.
            1 service has something to undo.
            The breaker of its type is open since T (42 of its events were doomed within a minute): what would be refused is counted, and nothing is refused."#]],
    );
    assert_eq!(
        (&event["mode"], &event["breaker"]["doomed"]),
        (&json!("shadow"), &json!(42))
    );
    let decision = &event["decision"];
    assert_eq!(
        (
            &decision["mode"],
            &decision["mode_now"],
            &decision["breaker"]["doomed"]
        ),
        (&json!("off"), &json!("shadow"), &json!(42))
    );
}

#[tokio::test]
async fn a_decision_explains_itself_when_its_reports_are_gone() {
    let api = api().await;
    api.declined_order("order-8").await;
    look(&api, 0).await;
    let before = api.read("/v1/events/order-8").await;
    for statement in [
        "DELETE FROM reports",
        "DELETE FROM reporters",
        "DELETE FROM proxies",
    ] {
        sqlx::query(statement)
            .execute(api.0.store.pool())
            .await
            .unwrap();
    }
    let after = api.read("/v1/events/order-8").await;
    assert_eq!(after["decision"], before["decision"]);
    assert_eq!(after["decision"]["evidence"][0]["service"], "shop/backend");
    assert_eq!(after["steps"], json!([]));
    check(
        &after["summary"],
        &expect![[r#"
            It must be rolled back: shop/backend says that the event failed for good.
            2 services have something to undo.
            Its mode is shadow: what would be refused is counted, and nothing is refused.
            Its reports are no longer kept."#]],
    );
}
