//! Scenario 11 of the rules of decision: an operator finds out why. Each decision names its reports, its rule and its
//! line of the policy; each event that was not rolled back says what was considered, and why not.

use anyhow::{Context, Result};
use kaeru_e2e::api::Api;
use kaeru_e2e::customer::event_of;
use kaeru_e2e::shop::{Asked, Order, Role};
use kaeru_e2e::wait::{self, Seen};
use kaeru_e2e::world::{KAERU_HOST, KAERU_PORT, Plan, World};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::stage::{plan, play, typed_order};

const POLICY: &str = "\
mode: enforce
doomed_max: 100%
services:
  host:payments.example.com:
    fatal: [402]
event_types:
  order.word:
    rules: { fatal: off }
  order.entry:
    rules: { fatal: off }
    entry_retry_wait: 250ms
  order.patient:
    rules: { fatal: off }
    entry_retry_wait: 1m
  order.deadline:
    deadline: 500ms
  order.silence:
    silence: 300ms
  order.off:
    mode: off
";

static EXPLAINED: OnceCell<World> = OnceCell::const_new();

/// The shop under a policy that has a line for each rule.
async fn shop() -> Result<&'static World> {
    let start = || async {
        let policy = POLICY.into();
        World::start(Plan {
            policy,
            ..plan("explained")
        })
        .await
    };
    EXPLAINED.get_or_try_init(start).await
}

fn declined() -> Order {
    Order {
        declined: true,
        ..Order::default()
    }
}

/// Where this stands in the policy.
fn line_of(text: &str) -> Result<u64> {
    let index = POLICY.lines().position(|line| line.trim() == text);
    Ok(u64::try_from(index.with_context(|| format!("no line {text}"))?)? + 1)
}

async fn event_when(
    api: &Api,
    id: &str,
    what: &str,
    holds: impl Fn(&Value) -> bool,
) -> Result<Value> {
    wait::until(&format!("event {id}: {what}"), || async {
        let event: Value = api.get(&format!("/v1/events/{id}")).await?;
        Ok(Seen::when(holds(&event), event))
    })
    .await
}

/// Has a trusted peer send a request of an event of this type straight to a service's sidecar.
async fn send(world: &World, to: Role, event_type: &str, id: &str) -> Result<()> {
    let headers = [("x-event-type", event_type), ("x-event-id", id)];
    let body = Some(serde_json::to_string(&Order::default())?);
    let to = world.inbound(to)?;
    let told = world
        .peer
        .send(Method::POST, to, "/jobs", &headers, body)
        .await?;
    assert_eq!(told.status, 201, "{told:?}");
    Ok(())
}

/// The event once it is decided.
async fn decision(world: &World, id: &str) -> Result<Value> {
    let api = world.api()?;
    let event = event_when(&api, id, "a decision", |e| !e["decision"].is_null()).await?;
    let path = format!("/v1/decisions/{}", text(&event["decision"]["id"]));
    api.get(&path).await
}

/// The event once it is in this state, for good.
async fn settled(world: &World, id: &str, state: &str) -> Result<Value> {
    let in_state = |event: &Value| event["state"] == state;
    event_when(&world.api()?, id, state, in_state).await
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The rule, a piece of its evidence with who stated it, and the line of the policy are in the decision, and all of it
/// in its explanation.
fn explains(
    decision: &Value,
    rule: &str,
    evidence: (&str, Role),
    policy: Option<&str>,
) -> Result<()> {
    let explanation = text(&decision["explanation"]);
    assert_eq!(decision["reason"]["rule"], rule, "{explanation}");
    assert!(
        explanation.contains(&format!("The rule is `{rule}`")),
        "{explanation}"
    );
    assert!(
        explanation.contains(text(&decision["reason"]["text"])),
        "{explanation}"
    );

    let (said, by) = evidence;
    let pieces = decision["evidence"].as_array().context("evidence")?;
    let piece = pieces
        .iter()
        .find(|piece| text(&piece["text"]).contains(said));
    let piece = piece.with_context(|| format!("no `{said}` in {pieces:#?}"))?;
    assert_eq!(piece["service"], by.peer().as_str());
    assert!(text(&piece["proxy"]).contains(by.name()), "{piece}");
    assert!(
        piece["at"].is_string() && piece["received_at"].is_string(),
        "{piece}"
    );
    assert!(explanation.contains(text(&piece["proxy"])), "{explanation}");

    let Some(line) = policy else {
        assert_eq!(decision["policy"], json!([]));
        return Ok(());
    };
    let quotes = decision["policy"].as_array().context("policy")?;
    let quote = quotes.iter().find(|quote| quote["text"] == line);
    let quote = quote.with_context(|| format!("no `{line}` in {quotes:#?}"))?;
    assert_eq!(
        (&quote["line"], &quote["version"]),
        (&json!(line_of(line)?), &json!(1))
    );
    assert!(explanation.contains(text(&quote["words"])), "{explanation}");
    Ok(())
}

/// What a rule said of an event.
fn considered<'e>(event: &'e Value, rule: &str) -> Result<&'e Value> {
    let rules = event["considered"].as_array().context("considered")?;
    let found = rules.iter().find(|one| one["rule"] == rule);
    found.with_context(|| format!("{rule} was not considered: {event:#}"))
}

fn says(value: &Value, part: &str) {
    assert!(text(value).contains(part), "`{part}` is not in {value}");
}

#[test]
fn a_word_and_a_fatal_status_are_explained() -> Result<()> {
    play(async {
        let world = shop().await?;
        let order = Order {
            says_failed: true,
            ..declined()
        };
        let id = typed_order(world, "order.word", &order).await?;
        let by_word = decision(world, &id).await?;
        explains(&by_word, "word", ("said `failed`", Role::Backend), None)?;

        let id = typed_order(world, "order.placed", &declined()).await?;
        let fatal = decision(world, &id).await?;
        let evidence = ("answered 402 to POST /charges", Role::Backend);
        explains(&fatal, "fatal", evidence, Some("fatal: [402]"))?;
        assert_eq!(fatal["policy"][0]["scope"], "host:payments.example.com");

        let event = world
            .api()?
            .get::<Value>(&format!("/v1/events/{id}"))
            .await?;
        says(
            &event["summary"],
            "It must be rolled back: host:payments.example.com",
        );
        says(&event["summary"], "Proxies refuse");
        Ok(())
    })
}

#[test]
fn a_step_that_joins_late_is_told() -> Result<()> {
    play(async {
        let world = shop().await?;
        let api = world.api()?;
        // Nothing is refused in this mode, so that there can be more of an event that is doomed.
        let id = format!("order-{}", uuid::Uuid::new_v4());
        send(world, Role::Db, "order.off", &id).await?;
        settled(world, &id, "succeeded").await?;
        api.roll_back(&id, "alice", "ordered twice").await?;
        let decided = decision(world, &id).await?;
        let first = &decided["revisions"][0]["text"];
        assert_eq!(first, "decided, with something to undo in shop/db");

        send(world, Role::DbApi, "order.off", &id).await?;
        let joined = |event: &Value| {
            let revisions = event["decision"]["revisions"].as_array();
            let says = |words: &str| {
                revisions
                    .is_some_and(|all| all.iter().any(|one| text(&one["text"]).contains(words)))
            };
            // Where its beginning is heard first, that it took effect is told by a later revision.
            says("shop/db-api joined the plan (it took effect)")
                || (says("shop/db-api joined the plan") && says("shop/db-api: it took effect"))
        };
        let event = event_when(&api, &id, "db-api's step joined", joined).await?;
        says(
            &event["decision"]["explanation"],
            "shop/db-api joined the plan",
        );
        Ok(())
    })
}

#[test]
fn the_entrys_failure_is_explained() -> Result<()> {
    play(async {
        let world = shop().await?;
        let id = typed_order(world, "order.entry", &declined()).await?;
        let decision = decision(world, &id).await?;
        let evidence = ("answered 500 to POST /orders", Role::Web);
        explains(
            &decision,
            "entry",
            evidence,
            Some("entry_retry_wait: 250ms"),
        )?;
        // What no line says is built in, and says so.
        let settle = (decision["policy"].as_array().context("policy")?.iter())
            .find(|quote| quote["key"] == "settle")
            .context("settle")?;
        let nowhere = (&settle["version"], &settle["line"], &settle["scope"]);
        assert_eq!(nowhere, (&Value::Null, &Value::Null, &json!("default")));
        Ok(())
    })
}

#[test]
fn what_took_too_long_is_explained() -> Result<()> {
    play(async {
        let world = shop().await?;
        let order = Order {
            hold: vec![Role::Web],
            ..Order::default()
        };
        let sent = {
            let (web, order, customer) =
                (world.inbound(Role::Web)?, order.clone(), world.peer.clone());
            let id = format!("order-{}", order.number);
            tokio::spawn(async move {
                let headers = [
                    ("x-event-type", "order.deadline"),
                    ("x-event-id", id.as_str()),
                ];
                customer.order(web, &order, &headers).await
            })
        };
        let late = decision(world, &format!("order-{}", order.number)).await?;
        explains(
            &late,
            "deadline",
            ("shop/web was still running", Role::Web),
            Some("deadline: 500ms"),
        )?;
        world.release(Role::Web, &order.number).await?;
        sent.await??;

        // A job that said `running`, and then nothing.
        let id = format!("job-{}", uuid::Uuid::new_v4());
        send(world, Role::Backend, "order.silence", &id).await?;
        let status = Asked {
            method: "POST".into(),
            host: format!("{KAERU_HOST}:{KAERU_PORT}"),
            path: format!("/v1/events/{id}/status?status=running"),
            ..Asked::default()
        };
        assert_eq!(world.call_from(Role::Backend, &status).await?.status, 202);
        let silent = decision(world, &id).await?;
        let evidence = ("the last word of shop/backend was `running`", Role::Backend);
        explains(&silent, "stalled", evidence, Some("silence: 300ms"))
    })
}

#[test]
fn an_operators_demand_and_its_way_back_are_explained() -> Result<()> {
    play(async {
        let world = shop().await?;
        let api = world.api()?;
        let id = typed_order(world, "order.by-hand", &Order::default()).await?;
        settled(world, &id, "succeeded").await?;
        api.roll_back(&id, "alice", "the customer called").await?;
        let demanded = decision(world, &id).await?;
        assert_eq!(demanded["reason"]["rule"], "operator");
        assert_eq!(demanded["policy"], json!([]));
        says(
            &demanded["explanation"],
            "an operator demanded it: alice: the customer called",
        );
        says(&demanded["explanation"], "by the API");

        api.withdraw(text(&demanded["id"]), "bob", "she called again")
            .await?;
        let event = settled(world, &id, "succeeded").await?;
        says(&event["summary"], "taken back by bob: she called again");
        says(
            &event["decision"]["explanation"],
            "withdrawn by bob: she called again",
        );
        let revisions = event["decision"]["revisions"]
            .as_array()
            .context("revisions")?;
        let last = revisions.last().context("a revision")?;
        assert_eq!(last["text"], "withdrawn by bob: she called again");
        says(
            &considered(&event, "operator")?["why"],
            "no operator demands it",
        );
        Ok(())
    })
}

#[test]
fn what_is_not_rolled_back_says_why() -> Result<()> {
    play(async {
        let world = shop().await?;
        let web = world.inbound(Role::Web)?;

        // Refused by the application, before anything was done.
        let id = format!("order-{}", uuid::Uuid::new_v4());
        let headers = [("x-event-id", id.as_str())];
        let told = world
            .peer
            .send(Method::POST, web, "/orders", &headers, Some("{".into()))
            .await?;
        assert_eq!(told.status, 400, "{told:?}");
        let event = settled(world, &id, "failed").await?;
        says(
            &event["summary"],
            "there is nothing to undo: no service of it had an effect",
        );
        says(
            &considered(&event, "entry")?["why"],
            "nothing is left to undo",
        );

        // Failed, and tried again in time: considered, and asked again later.
        let id = typed_order(world, "order.patient", &declined()).await?;
        let api = world.api()?;
        let waits = |event: &Value| {
            considered(event, "entry").is_ok_and(|entry| entry["asked_again"].is_string())
        };
        let event = event_when(&api, &id, "the entry may be tried again", waits).await?;
        let entry = considered(&event, "entry")?;
        says(&entry["why"], "it may be tried again");
        assert_eq!(entry["policy"][0]["text"], "entry_retry_wait: 1m");
        assert_eq!(entry["policy"][0]["line"], line_of("entry_retry_wait: 1m")?);
        let fatal = considered(&event, "fatal")?;
        assert_eq!(fatal["why"], "switched off by the policy");
        assert_eq!(fatal["policy"][0]["scope"], "order.patient");
        let headers = [
            ("x-event-type", "order.patient"),
            ("x-event-id", id.as_str()),
        ];
        world.peer.order(web, &Order::default(), &headers).await?;
        let event = settled(world, &id, "succeeded").await?;
        says(&event["summary"], "It succeeded");
        says(
            &considered(&event, "entry")?["why"],
            "the entry shop/web succeeded",
        );
        assert_eq!(event["decision"], Value::Null);
        Ok(())
    })
}

#[test]
fn a_client_that_left_and_an_id_that_is_shared_are_explained() -> Result<()> {
    play(async {
        let world = shop().await?;
        let web = world.inbound(Role::Web)?;
        let order = Order {
            hold: vec![Role::Web],
            ..Order::default()
        };
        let (customer, sent) = (world.outside.clone(), order.clone());
        let leaving = tokio::spawn(async move { customer.order(web, &sent, &[]).await });
        let arrived = wait::until("the order at the web", || async {
            let arrivals = world.arrivals(Role::Web, &order.number).await?;
            let id = arrivals
                .first()
                .and_then(|a| a.headers.get("x-event-id").cloned());
            Ok(id.map_or_else(|| Seen::NotYet("nothing".into()), Seen::Yes))
        });
        let id = arrived.await?;
        leaving.abort();
        let event = settled(world, &id, "abandoned").await?;
        says(
            &event["summary"],
            "Its client went away before it was answered",
        );
        says(&considered(&event, "entry")?["why"], "the client went away");

        // One trace id over two orders.
        let trace = format!("00-{}-00f067aa0ba902b7-01", uuid::Uuid::new_v4().simple());
        let headers = [("traceparent", trace.as_str())];
        let told = world
            .outside
            .order(web, &Order::default(), &headers)
            .await?;
        let body = Some(serde_json::to_string(&Order::default())?);
        world
            .outside
            .send(Method::POST, web, "/baskets", &headers, body)
            .await?;
        let id = event_of(&told)?;
        let shared = |event: &Value| event["shared"] == true;
        let event = event_when(&world.api()?, &id, "shared", shared).await?;
        says(&event["summary"], "no rule applies to it");
        Ok(())
    })
}

#[test]
fn why_nothing_is_refused_is_said() -> Result<()> {
    play(async {
        let world = shop().await?;
        let id = typed_order(world, "order.off", &declined()).await?;
        let event = decision(world, &id).await?;
        assert_eq!(
            (&event["mode_now"], &event["breaker"]),
            (&json!("off"), &Value::Null)
        );
        says(&event["explanation"], "Its mode is off");
        Ok(())
    })
}
