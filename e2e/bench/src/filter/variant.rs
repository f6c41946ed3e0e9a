//! The variants of one sidecar, and the request that all of them get.

use anyhow::Result;
use kaeru_e2e::envoy::{Envoy, Filter, Sidecar, Upstream};
use kaeru_e2e::ports;
use kaeru_e2e::world::{KAERU_HOST, KAERU_PORT};
use serde_json::{Value, json};

use crate::load::Connections;
use crate::service;
use crate::sink::Sink;
use crate::stage::Stage;

/// Verdicts in the full cache.
pub(crate) const VERDICTS: u64 = 100_000;

/// What stands in the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Bare,
    Empty,
    Lua,
    Silent,
    Off,
    Shadow,
    Enforce,
    Full,
    Away,
    Tuned,
    Tracer,
    GrpcTuned,
    GrpcTracer,
    AccessLog,
}

impl Kind {
    pub(crate) const ALL: [Self; 14] = [
        Self::Bare,
        Self::Empty,
        Self::Lua,
        Self::Silent,
        Self::Off,
        Self::Shadow,
        Self::Enforce,
        Self::Full,
        Self::Away,
        Self::Tuned,
        Self::Tracer,
        Self::GrpcTuned,
        Self::GrpcTracer,
        Self::AccessLog,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare Envoy",
            Self::Empty => "empty Wasm filter",
            Self::Lua => "Lua, same headers",
            Self::Silent => "Kaeru, no report due (`match` leaves the path out)",
            Self::Off => "Kaeru, off",
            Self::Shadow => "Kaeru, shadow",
            Self::Enforce => "Kaeru, enforce",
            Self::Full => "Kaeru, enforce, 100,000 verdicts",
            Self::Away => "Kaeru, enforce, aggregator away",
            Self::Tuned => "OpenTelemetry tracer, 512 spans or 1 s",
            Self::Tracer => "OpenTelemetry tracer, default",
            Self::GrpcTuned => "OpenTelemetry tracer over gRPC, 512 spans or 1 s",
            Self::GrpcTracer => "OpenTelemetry tracer over gRPC, default",
            Self::AccessLog => "OpenTelemetry access log over gRPC",
        }
    }

    /// Whether it tells of each request.
    pub(crate) fn tells(self) -> bool {
        use Kind::{Away, Bare, Empty, Lua, Silent};
        !matches!(self, Bare | Empty | Lua | Silent | Away)
    }
}

/// A proxy under measurement.
pub(crate) struct Running {
    pub(crate) envoy: Envoy,
    pub(crate) sink: Sink,
    /// Opened for its first round: Envoy closes those on which nothing comes.
    pub(crate) connections: Option<Connections>,
}

/// Starts one, with a service and a sink of its own.
pub(crate) async fn start(kind: Kind, stage: &Stage) -> Result<Running> {
    let (app, sink_at) = (ports::free()?, ports::free()?);
    service::serve(app, std::sync::Arc::new(service::usual)).await?;
    let sink = match kind {
        Kind::Away => Sink::default(),
        Kind::Full => Sink::start(sink_at, VERDICTS).await?,
        _ => Sink::start(sink_at, 0).await?,
    };
    let mode = match kind {
        Kind::Off => "off",
        Kind::Shadow => "shadow",
        _ => "enforce",
    };
    let (wasm, config) = match kind {
        Kind::Empty => (Some(stage.empty.clone()), Value::Null),
        Kind::Silent => (
            Some(stage.parts.wasm.clone()),
            json!({ "trust_plaintext": true, "match": { "not_paths": ["/orders/*"] } }),
        ),
        Kind::Off | Kind::Shadow | Kind::Enforce | Kind::Full | Kind::Away => (
            Some(stage.parts.wasm.clone()),
            json!({ "mode": mode, "trust_plaintext": true }),
        ),
        _ => (None, Value::Null),
    };
    let kaeru = Upstream {
        host: KAERU_HOST.into(),
        port: KAERU_PORT,
        endpoint: sink_at,
        spiffe: None,
    };
    let filter = wasm.map(|wasm| Filter {
        wasm,
        config,
        ..Filter::default()
    });
    let workload = format!("{kind:?}").to_lowercase();
    let sidecar = stage.sidecar(&workload, app, vec![kaeru], filter)?;
    let mut bootstrap = sidecar.bootstrap();
    match kind {
        Kind::Lua => read_by_lua(manager(&mut bootstrap)),
        Kind::Tuned | Kind::GrpcTuned => tune(&mut bootstrap),
        _ => {}
    }
    match kind {
        Kind::Tuned | Kind::Tracer => trace(&mut bootstrap, &sidecar, over_http()),
        Kind::GrpcTuned | Kind::GrpcTracer => {
            speak_http2(&mut bootstrap);
            trace(&mut bootstrap, &sidecar, ("grpc_service", over_grpc()));
        }
        Kind::AccessLog => {
            speak_http2(&mut bootstrap);
            write_access_log(manager(&mut bootstrap));
        }
        _ => {}
    }
    let envoy = sidecar
        .start_as(&bootstrap, Some(0), &stage.parts.envoy, &stage.folder)
        .await?;
    Ok(Running {
        envoy,
        sink,
        connections: None,
    })
}

/// The request of a caller with a sidecar and OpenTelemetry: each an event of its own.
pub(crate) fn request(number: u64) -> Vec<u8> {
    format!(
        "POST /orders/{number} HTTP/1.1\r\nhost: web:8080\r\nuser-agent: shop/1.0\r\naccept: */*\r\n\
         content-type: application/json\r\ncontent-length: 0\r\n\
         x-request-id: 0198c3a2-1111-4222-8333-{number:012x}\r\n\
         traceparent: 00-0af7651916cd43dd{number:016x}-b7ad6b7169203331-01\r\n\
         x-event-id: 0198c3a2-1111-7222-8333-{number:012x}\r\n\
         baggage: event.id=0198c3a2-1111-7222-8333-{number:012x}\r\n\
         x-event-type: order.placed\r\nx-event-from: shop/till;t=1795500000000\r\n\r\n"
    )
    .into_bytes()
}

/// The inbound listener's connection managers: the second takes plain text.
fn manager(bootstrap: &mut Value) -> &mut Value {
    let chain = &mut bootstrap["static_resources"]["listeners"][0]["filter_chains"][1];
    &mut chain["filters"][0]["typed_config"]
}

fn read_by_lua(manager: &mut Value) {
    let code = r#"
local names = {":method", ":path", ":authority", "content-type", "user-agent", "x-event-id", "x-event-from",
  "x-event-type", "baggage", "traceparent", "x-request-id", "x-envoy-attempt-count"}
function envoy_on_request(handle)
  local headers = handle:headers()
  for _, name in ipairs(names) do headers:get(name) end
end
function envoy_on_response(handle)
  local headers = handle:headers()
  headers:get(":status")
  headers:get("x-event-status")
  headers:get("endpoint-load-metrics")
end
"#;
    let lua = json!({
        "name": "envoy.filters.http.lua",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": { "inline_string": code },
        },
    });
    if let Some(filters) = manager["http_filters"].as_array_mut() {
        filters.insert(0, lua);
    }
}

/// The cluster of all that is told.
pub(crate) fn cluster() -> String {
    format!("outbound|{KAERU_PORT}||{KAERU_HOST}")
}

fn over_http() -> (&'static str, Value) {
    let uri = format!("http://{KAERU_HOST}/v1/traces");
    let uri = json!({ "uri": uri, "cluster": cluster(), "timeout": "5s" });
    ("http_service", json!({ "http_uri": uri }))
}

fn over_grpc() -> Value {
    // A cluster's name is no authority: an HTTP/2 server resets what names it.
    json!({ "envoy_grpc": { "cluster_name": cluster(), "authority": KAERU_HOST }, "timeout": "5s" })
}

fn speak_http2(bootstrap: &mut Value) {
    let clusters = bootstrap["static_resources"]["clusters"].as_array_mut();
    for of in clusters.into_iter().flatten() {
        if of["name"] == json!(cluster()) {
            of["typed_extension_protocol_options"] = json!({
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": { "http2_protocol_options": {} },
                },
            });
        }
    }
}

fn write_access_log(manager: &mut Value) {
    manager["access_log"] = json!([{
        "name": "envoy.access_loggers.open_telemetry",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
            "common_config": {
                "log_name": "bench",
                "transport_api_version": "V3",
                "grpc_service": over_grpc(),
            },
            // What a report says, too.
            "body": { "string_value": "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %DURATION%" },
            "attributes": { "values": [
                { "key": "event", "value": { "string_value": "%REQ(X-EVENT-ID)%" } },
                { "key": "from", "value": { "string_value": "%REQ(X-EVENT-FROM)%" } },
            ] },
        },
    }]);
}

fn trace(bootstrap: &mut Value, sidecar: &Sidecar, (service, over): (&str, Value)) {
    let mut config = json!({
        "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
        "service_name": sidecar.workload,
    });
    config[service] = over;
    manager(bootstrap)["tracing"] = json!({
        "random_sampling": { "value": 100.0 },
        "provider": { "name": "envoy.tracers.opentelemetry", "typed_config": config },
    });
}

fn tune(bootstrap: &mut Value) {
    bootstrap["layered_runtime"] = json!({ "layers": [{
        "name": "tuned",
        "static_layer": {
            "tracing.opentelemetry.min_flush_spans": 512,
            "tracing.opentelemetry.flush_interval_ms": 1_000,
        },
    }] });
}
