//! Where the scenarios play: one runtime for all, one world shared by those that do not break it.

use std::collections::BTreeSet;
use std::sync::{LazyLock, Mutex};

use anyhow::{Context, Result, anyhow};
use kaeru_e2e::api::{Decision, Event, VerdictView};
use kaeru_e2e::customer::event_of;
use kaeru_e2e::shop::{Arrival, Asked, Order, Role, Told};
use kaeru_e2e::wait::{self, Seen};
use kaeru_e2e::world::{KAERU_HOST, KAERU_PORT, Plan, World};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::{OnceCell, RwLock};
use tokio::task::JoinHandle;

/// The policy of the worlds: enforced, a declined payment is fatal, and types of event that differ.
pub(crate) const POLICY: &str = "
mode: enforce
# Scenarios fail many of their few events on purpose.
doomed_max: 100%
services:
  host:payments.example.com:
    fatal: [402]
  host:mail.example.com:
    fatal: [500]
  shop/db-api:
    undoes: [POST /cancellations]
  shop/db:
    undoes: [POST /rows/cancellations]
event_types:
  # Only the service's own word counts.
  order.by-word:
    rules: { fatal: off }
  order.shadow:
    mode: shadow
  order.off:
    mode: off
  # Its failed entry may be tried again for longer.
  order.retried:
    entry_retry_wait: 2s
  # A mail that cannot be sent is worth the whole order.
  order.mailed:
    required: on
  # A job that says `running` owes further words.
  order.owed:
    silence: 1s
  order.patient:
    silence: 7s
  order.insisted:
    contested: roll_back
  order.excused:
    contested: withdraw
  order.watched:
    out_of_touch: doom
  order.storm:
    doomed_max: 20%
";

/// The type of an order from outside, as it is learned from the entry.
pub(crate) const LEARNED_TYPE: &str = "POST shop/web /orders";

/// Worlds outlive the tests' own threads, and so must the threads that start processes.
static RUNTIME: LazyLock<std::io::Result<Runtime>> = LazyLock::new(Runtime::new);
static SHOP: OnceCell<World> = OnceCell::const_new();

/// Held shared by a scenario, wholly by one that measures.
static STAGE: RwLock<()> = RwLock::const_new(());

/// Plays one scenario on the common runtime.
pub(crate) fn play(scenario: impl Future<Output = Result<()>> + Send + 'static) -> Result<()> {
    on_runtime(async {
        let _among_others = STAGE.read().await;
        scenario.await
    })
}

/// Plays one scenario while no other plays: it measures.
pub(crate) fn play_alone(
    scenario: impl Future<Output = Result<()>> + Send + 'static,
) -> Result<()> {
    on_runtime(async {
        let _alone = STAGE.write().await;
        scenario.await
    })
}

fn on_runtime(scenario: impl Future<Output = Result<()>> + Send + 'static) -> Result<()> {
    let runtime = RUNTIME.as_ref().context("no runtime")?;
    runtime.block_on(runtime.spawn(scenario))?
}

/// The world of those scenarios that leave it whole.
pub(crate) async fn shop() -> Result<&'static World> {
    let start = || async {
        let mut plan = plan("shop");
        // The shop cancels its reservations by itself. The web's own filter lets some more through, so that they come to
        // be refused further on; and its Envoy would try a refusal again, did the refusal not say otherwise.
        let cancel = "*/cancellations";
        plan.filter = with(&plan.filter, "pass", json!([{ "paths": [cancel] }]));
        plan.filters.insert(
            Role::Web,
            with(
                &plan.filter,
                "pass",
                json!([{ "paths": [cancel, "/passed/*"] }]),
            ),
        );
        plan.retry_also = Some(("retriable-4xx".into(), vec![424, 502]));
        plan.mailer = true;
        World::start(plan).await
    };
    SHOP.get_or_try_init(start).await
}

/// A world with the common policy and quick intervals.
pub(crate) fn plan(name: &str) -> Plan {
    Plan {
        name: name.into(),
        policy: POLICY.into(),
        filter: json!({ "status_interval_s": 1, "heartbeat_interval_s": 1 }),
        ..Plan::default()
    }
}

/// A plugin configuration with one more key.
pub(crate) fn with(config: &Value, key: &str, value: Value) -> Value {
    let mut config = config.clone();
    config[key] = value;
    config
}

/// Has a trusted peer send an order of this type, under an id of its own choice; the event.
pub(crate) async fn typed_order(world: &World, event_type: &str, order: &Order) -> Result<String> {
    let (chosen, answer) = sent(world, event_type, order)?;
    let event = event_of(&answer.await??)?;
    assert_eq!(event, chosen);
    Ok(event)
}

/// The same, without waiting: the event, and the answer to come.
pub(crate) fn sent(
    world: &World,
    event_type: &str,
    order: &Order,
) -> Result<(String, JoinHandle<Result<Told>>)> {
    let chosen = format!("order-{}", order.number);
    let (peer, web) = (world.peer.clone(), world.inbound(Role::Web)?);
    let (event, event_type, order) = (chosen.clone(), event_type.to_owned(), order.clone());
    let answer = tokio::spawn(async move {
        let headers = [("x-event-type", &*event_type), ("x-event-id", &*event)];
        peer.order(web, &order, &headers).await
    });
    Ok((chosen, answer))
}

/// Waits until an event ended like this, with nothing decided about it.
pub(crate) async fn ends(world: &World, event: &str, state: &str) -> Result<Event> {
    let ended = |event: &Event| event.summary.state == state;
    let event = world.api()?.event_when(event, state, ended).await?;
    assert!(event.decision.is_none(), "{:#?}", event.decision);
    Ok(event)
}

/// Waits until an order came to a service.
pub(crate) async fn arrived(world: &World, role: Role, order: &Order) -> Result<Arrival> {
    wait::until(&format!("the order at {}", role.name()), || async {
        let arrivals = world.arrivals(role, &order.number).await?;
        let first = arrivals.into_iter().next();
        Ok(first.map_or_else(|| Seen::NotYet("nothing".into()), Seen::Yes))
    })
    .await
}

/// Waits until all is stored that the proxies of these services have given out until now: two further statuses of each,
/// of which at least the second was stated after now, and everything that it says to have been given out.
pub(crate) async fn told_all(world: &World, roles: &[Role]) -> Result<()> {
    let api = world.api()?;
    let seen = Mutex::new(BTreeSet::new());
    wait::until("all that the proxies gave out", || async {
        let mut late = Vec::new();
        for role in roles {
            let service = api.service(&role.peer()).await?;
            let proxies = service.context("never heard of")?.proxies;
            let reporters: Vec<_> = proxies.into_iter().flat_map(|p| p.reporters).collect();
            let stored = reporters.iter().all(|r| r.stored_seq >= r.seq);
            let given: Vec<_> = reporters.iter().map(|r| (r.id.clone(), r.seq)).collect();
            let mut seen = seen.lock().map_err(|_| anyhow!("a look panicked"))?;
            seen.insert((*role, given));
            let statuses = seen.iter().filter(|(of, _)| of == role).count();
            late.extend((!stored || statuses < 3).then_some((role, statuses, reporters)));
        }
        Ok(Seen::when(late.is_empty(), late))
    })
    .await?;
    Ok(())
}

/// Fails an event of this type by the backend's word, and waits for the decision.
pub(crate) async fn doomed(world: &World, event_type: &str) -> Result<(String, Decision)> {
    let order = Order {
        declined: true,
        says_failed: true,
        ..Order::default()
    };
    let event = typed_order(world, event_type, &order).await?;
    let decision = world.api()?.decision_of(&event).await?;
    Ok((event, decision))
}

/// Waits until the sidecar of each of these services knows that the event must be rolled back.
pub(crate) async fn known(world: &World, roles: &[Role], event: &str) -> Result<()> {
    told(world, roles, event, "roll_back").await
}

/// Waits until the sidecar of each of these services has this verdict for the event. It is asked for it, which does
/// nothing to the event.
pub(crate) async fn told(world: &World, roles: &[Role], event: &str, verdict: &str) -> Result<()> {
    for role in roles {
        wait::until(&format!("the verdict at {}", role.name()), || async {
            let seen = verdict_at(world, *role, event).await?;
            Ok(Seen::when(seen.verdict == verdict, seen))
        })
        .await?;
    }
    Ok(())
}

/// Waits until the sidecar of each service in the mesh knows that the event must be rolled back, in this mode.
pub(crate) async fn told_in(world: &World, event: &str, mode: &str) -> Result<()> {
    for role in Role::MESH {
        wait::until(&format!("the mode at {}", role.name()), || async {
            let seen = verdict_at(world, role, event).await?;
            Ok(Seen::when(
                seen.verdict == "roll_back" && seen.mode == mode,
                seen,
            ))
        })
        .await?;
    }
    Ok(())
}

/// A service's word on an event (and how far it is), by the status call through its sidecar.
pub(crate) async fn says(world: &World, role: Role, event: &str, status: &str) -> Result<()> {
    let status = Asked {
        method: "POST".into(),
        host: format!("{KAERU_HOST}:{KAERU_PORT}"),
        path: format!("/v1/events/{event}/status?status={status}"),
        ..Asked::default()
    };
    let told = world.call_from(role, &status).await?;
    assert_eq!((told.status, told.body.as_str()), (202, ""), "{told:?}");
    Ok(())
}

async fn verdict_at(world: &World, role: Role, event: &str) -> Result<VerdictView> {
    let ask = Asked {
        method: "GET".into(),
        host: format!("{KAERU_HOST}:{KAERU_PORT}"),
        path: format!("/v1/events/{event}/verdict"),
        ..Asked::default()
    };
    let answer = world.call_from(role, &ask).await?;
    Ok(serde_json::from_str(&answer.body)?)
}

/// Has a trusted peer send one unsafe request of an event straight to a service's sidecar.
pub(crate) async fn post(world: &World, to: Role, event: &str) -> Result<Told> {
    let body = Some(serde_json::to_string(&Order::default())?);
    let headers = [("x-event-id", event)];
    let to = world.inbound(to)?;
    world
        .peer
        .send(Method::POST, to, "/late", &headers, body)
        .await
}

/// No VM of the filter died, no host call failed, no key of its configuration was wrong.
pub(crate) async fn filters_are_well(world: &World) -> Result<()> {
    for role in Role::MESH {
        let sidecar = world.sidecar(role)?;
        for stat in [
            "wasm.kaeru-system.kaeru.vm_reload_success",
            "wasm.kaeru-system.kaeru.vm_reload_backoff",
            "wasm.kaeru-system.kaeru.vm_reload_failure",
            "wasmcustom.kaeru_host_faults_total",
            "wasmcustom.kaeru_config_errors_total",
            "wasmcustom.kaeru_reports_dropped_total",
        ] {
            let count = sidecar.stat(stat).await?;
            let log = sidecar.log_tail();
            assert_eq!(count, 0, "{stat} of {}: {log}", role.name());
        }
    }
    Ok(())
}
