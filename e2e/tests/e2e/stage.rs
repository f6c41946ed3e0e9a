//! Where the scenarios play: one runtime for all, one world shared by those that do not break it.

use std::sync::LazyLock;

use anyhow::{Context, Result};
use kaeru_e2e::api::{Decision, VerdictView};
use kaeru_e2e::customer::event_of;
use kaeru_e2e::shop::{Asked, Order, Role, Told};
use kaeru_e2e::wait::{self, Seen};
use kaeru_e2e::world::{KAERU_HOST, KAERU_PORT, Plan, World};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::{OnceCell, RwLock};

/// The policy of the worlds: enforced, a declined payment is fatal, and types of event that differ.
pub(crate) const POLICY: &str = "
mode: enforce
# Scenarios fail many of their few events on purpose.
doomed_max: 100%
services:
  host:payments.example.com:
    fatal: [402]
event_types:
  # Only the service's own word counts.
  order.by-word:
    rules: { fatal: off }
  order.shadow:
    mode: shadow
  order.off:
    mode: off
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
        // The web's own filter lets these through, so that they come to be refused further on; and its Envoy would
        // try a refusal again, did the refusal not say otherwise.
        plan.filters.insert(
            Role::Web,
            with(&plan.filter, "pass", json!([{ "paths": ["/passed/*"] }])),
        );
        plan.retry_also = Some(("retriable-4xx".into(), vec![424]));
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
    let chosen = format!("order-{}", order.number);
    let headers = [
        ("x-event-type", event_type),
        ("x-event-id", chosen.as_str()),
    ];
    let web = world.inbound(Role::Web)?;
    let event = event_of(&world.peer.order(web, order, &headers).await?)?;
    assert_eq!(event, chosen);
    Ok(event)
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
    let ask = Asked {
        method: "GET".into(),
        host: format!("{KAERU_HOST}:{KAERU_PORT}"),
        path: format!("/v1/events/{event}/verdict"),
        ..Asked::default()
    };
    for role in roles {
        wait::until(&format!("the verdict at {}", role.name()), || async {
            let answer = world.call_from(*role, &ask).await?;
            let seen: VerdictView = serde_json::from_str(&answer.body)?;
            Ok(Seen::when(seen.verdict == verdict, seen))
        })
        .await?;
    }
    Ok(())
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
