//! The HTTP filters of a sidecar, in pilot's order.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Filter, OnFailure};

const NAME: &str = "extensions.istio.io/wasmplugin/kaeru-system.kaeru";
const TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

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
    let ours = |filter: &Filter| match &filter.pushed_by {
        None => json!({ "name": NAME, "typed_config": filter.typed(1) }),
        Some(file) => discovered(file),
    };
    let mut chain: Vec<Value> = filter.map(ours).into_iter().collect();
    chain.extend([
        plain("fault", "HTTPFault"),
        plain("cors", "Cors"),
        plain("router", "Router"),
    ]);
    chain
}

/// By extension discovery, out of a file instead of from pilot.
fn discovered(file: &Path) -> Value {
    json!({
        "name": NAME,
        "config_discovery": {
            "config_source": {
                "path_config_source": { "path": file },
                "resource_api_version": "V3",
                "initial_fetch_timeout": "0s",
            },
            "type_urls": [TYPE],
        },
    })
}

impl Filter {
    /// Pushes it, where it comes by a file, as the nth push. Another `code` is another module to Envoy: its VMs are new.
    pub fn push(&self, nth: u32, code: u32) -> Result<()> {
        let Some(file) = &self.pushed_by else {
            return Ok(());
        };
        let pushed = json!({
            "version_info": nth.to_string(),
            "resources": [{
                "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
                "name": NAME,
                "typed_config": self.typed(code),
            }],
        });
        // Moved into place: that is what Envoy watches for.
        let next = file.with_extension("next");
        fs::write(&next, pushed.to_string())?;
        Ok(fs::rename(next, file)?)
    }

    /// The plugin as pilot writes it: no VM id, the configuration as JSON text in a `StringValue`, the failure policy as enum.
    fn typed(&self, code: u32) -> Value {
        let mut config = json!({
            "name": "kaeru-system.kaeru",
            "root_id": "kaeru",
            "failure_policy": match self.on_failure {
                OnFailure::Reload => "FAIL_RELOAD",
                OnFailure::Open => "FAIL_OPEN",
                OnFailure::Closed => "FAIL_CLOSED",
            },
            "vm_config": {
                "runtime": "envoy.wasm.runtime.v8",
                "code": { "local": { "filename": self.wasm } },
                "environment_variables": {
                    "key_values": { "ISTIO_META_WASM_PLUGIN_RESOURCE_VERSION": code.to_string() },
                },
            },
        });
        if !self.config.is_null() {
            config["configuration"] = json!({
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": self.config.to_string(),
            });
        }
        json!({ "@type": TYPE, "config": config })
    }
}
