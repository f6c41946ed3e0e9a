//! Where the scenarios play: one runtime for all, one world shared by those that do not break it.

use std::sync::LazyLock;

use anyhow::{Context, Result};
use kaeru_e2e::customer::event_of;
use kaeru_e2e::shop::{Order, Role, Told};
use kaeru_e2e::world::{Plan, World};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

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

/// Plays one scenario on the common runtime.
pub(crate) fn play(scenario: impl Future<Output = Result<()>> + Send + 'static) -> Result<()> {
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
        plan.retry_also = Some(("retriable-4xx,5xx,gateway-error".into(), vec![424]));
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

/// Has a trusted peer send an order of this type and returns its event.
pub(crate) async fn typed_order(world: &World, event_type: &str, order: &Order) -> Result<String> {
    let headers = [("x-event-type", event_type)];
    let web = world.inbound(Role::Web)?;
    event_of(&world.peer.order(web, order, &headers).await?)
}

/// Has a trusted peer send one unsafe request of an event straight to a service's sidecar.
pub(crate) async fn post(world: &World, to: Role, event: &str) -> Result<Told> {
    let body = Some(serde_json::to_string(&Order::default())?);
    let headers = [("x-event-id", event)];
    world
        .peer
        .send(Method::POST, world.inbound(to)?, "/late", &headers, body)
        .await
}
