//! The HTTP filters of a sidecar, in pilot's order.

use serde_json::{Value, json};

use super::Filter;

/// The chain that ends in the router; ours stands where a plugin without a phase does.
pub(super) fn chain(filter: Option<&Filter>) -> Vec<Value> {
    let plain = |name: &str, kind: &str| {
        json!({
            "name": format!("envoy.filters.http.{name}"),
            "typed_config": {
                "@type": format!("type.googleapis.com/envoy.extensions.filters.http.{name}.v3.{kind}"),
            },
        })
    };
    let mut chain: Vec<Value> = filter.map(wasm).into_iter().collect();
    chain.extend([
        plain("fault", "HTTPFault"),
        plain("cors", "Cors"),
        plain("router", "Router"),
    ]);
    chain
}

/// The plugin as pilot writes it: no VM id, the configuration as JSON text in a `StringValue`, the failure policy as enum.
fn wasm(filter: &Filter) -> Value {
    let mut config = json!({
        "name": "kaeru-system.kaeru",
        "root_id": "kaeru",
        "failure_policy": "FAIL_RELOAD",
        "vm_config": {
            "runtime": "envoy.wasm.runtime.v8",
            "code": { "local": { "filename": filter.wasm } },
            "environment_variables": {
                "key_values": { "ISTIO_META_WASM_PLUGIN_RESOURCE_VERSION": "1" },
            },
        },
    });
    if !filter.config.is_null() {
        config["configuration"] = json!({
            "@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": filter.config.to_string(),
        });
    }
    json!({
        "name": "extensions.istio.io/wasmplugin/kaeru-system.kaeru",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": config,
        },
    })
}
