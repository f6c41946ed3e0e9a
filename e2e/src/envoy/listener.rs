//! The two listeners of a sidecar, their routes included.

use serde_json::{Value, json};

use super::{Sidecar, Upstream, address, cluster, filter};

/// Towards the service: mutual TLS, or plain text (Istio's permissive mode).
pub(super) fn inbound(sidecar: &Sidecar) -> Value {
    let port = sidecar.port;
    let cluster = format!("inbound|{port}||");
    let route = json!({
        "name": "default",
        "match": { "prefix": "/" },
        "route": {
            "cluster": cluster,
            "timeout": "0s",
            "retry_policy": { "retry_on": "reset-before-request", "num_retries": 2 },
        },
    });
    let mut manager = manager(sidecar, &format!("inbound_0.0.0.0_{port}"));
    manager["forward_client_cert_details"] = json!("APPEND_FORWARD");
    manager["set_current_client_cert_details"] =
        json!({ "subject": true, "dns": true, "uri": true });
    manager["route_config"] = json!({
        "name": cluster,
        "validate_clusters": false,
        "virtual_hosts": [virtual_host(&format!("inbound|http|{port}"), &["*".into()], &route)],
    });
    let chain = |name: &str, transport: &str| {
        json!({
            "name": name,
            "filter_chain_match": { "transport_protocol": transport },
            "filters": [network_filter(&manager)],
        })
    };
    let mut tls = chain("virtualInbound-tls", "tls");
    tls["transport_socket"] = downstream_tls(sidecar);
    json!({
        "name": "virtualInbound",
        "traffic_direction": "INBOUND",
        "address": address(sidecar.inbound),
        "listener_filters": [tls_inspector()],
        "filter_chains": [tls, chain("virtualInbound", "raw_buffer")],
    })
}

/// Away from the service: one virtual host per service; what is not known is blocked.
pub(super) fn outbound(sidecar: &Sidecar) -> Value {
    let mut hosts: Vec<Value> = (sidecar.upstreams.iter())
        .map(|upstream| reach(upstream, sidecar))
        .collect();
    hosts.push(virtual_host(
        "block_all",
        &["*".into()],
        &json!({ "name": "block_all", "match": { "prefix": "/" }, "direct_response": { "status": 502 } }),
    ));
    let mut manager = manager(sidecar, &format!("outbound_0.0.0.0_{}", sidecar.port));
    manager["route_config"] = json!({
        "name": sidecar.port.to_string(),
        "validate_clusters": false,
        "max_direct_response_body_size_bytes": 1_048_576,
        "ignore_port_in_host_matching": true,
        "virtual_hosts": hosts,
    });
    json!({
        "name": format!("0.0.0.0_{}", sidecar.port),
        "traffic_direction": "OUTBOUND",
        "address": address(sidecar.outbound),
        "filter_chains": [{ "filters": [network_filter(&manager)] }],
    })
}

fn reach(upstream: &Upstream, sidecar: &Sidecar) -> Value {
    let name = format!("{}:{}", upstream.host, upstream.port);
    let domains = domains(&upstream.host, &sidecar.namespace);
    virtual_host(&name, &domains, &route(upstream, sidecar))
}

/// The route to a service, with Istio's retries.
pub(super) fn route(upstream: &Upstream, sidecar: &Sidecar) -> Value {
    let (retry_on, statuses) = &sidecar.retry_on;
    json!({
        "name": "default",
        "match": { "prefix": "/" },
        "route": {
            "cluster": cluster::name(upstream),
            "timeout": "0s",
            "retry_policy": {
                "retry_on": retry_on,
                "num_retries": 2,
                "retriable_status_codes": statuses,
                "retry_host_predicate": [{
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": { "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate" },
                }],
                "host_selection_retry_max_attempts": "5",
            },
        },
    })
}

/// The names by which a service of `namespace` may call a host: Kubernetes' short forms too.
fn domains(host: &str, namespace: &str) -> Vec<String> {
    let mut domains = vec![host.to_owned()];
    if let Some(of_service) = host.strip_suffix(".svc.cluster.local") {
        domains.extend([of_service.to_owned(), format!("{of_service}.svc")]);
        if let Some(short) = of_service.strip_suffix(&format!(".{namespace}")) {
            domains.push(short.to_owned());
        }
    }
    domains
}

pub(super) fn virtual_host(name: &str, domains: &[String], route: &Value) -> Value {
    json!({
        "name": name,
        "domains": domains,
        "routes": [route],
        "include_request_attempt_count": true,
    })
}

pub(super) fn manager(sidecar: &Sidecar, stat_prefix: &str) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": stat_prefix,
        "server_name": "istio-envoy",
        "use_remote_address": false,
        "generate_request_id": true,
        "normalize_path": true,
        "stream_idle_timeout": "0s",
        "upgrade_configs": [{ "upgrade_type": "websocket" }],
        "http_filters": filter::chain(sidecar.filter.as_ref()),
    })
}

pub(super) fn network_filter(manager: &Value) -> Value {
    json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager })
}

/// Tells TLS from plain text.
pub(super) fn tls_inspector() -> Value {
    json!({
        "name": "envoy.filters.listener.tls_inspector",
        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" },
    })
}

fn downstream_tls(sidecar: &Sidecar) -> Value {
    let identity = &sidecar.identity;
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": true,
            "common_tls_context": {
                "alpn_protocols": ["istio-peer-exchange", "h2", "http/1.1"],
                "tls_params": { "tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3" },
                "tls_certificates": [cluster::certificate(identity)],
                "validation_context": {
                    "trusted_ca": { "filename": identity.root },
                    "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "prefix": "spiffe://cluster.local/" } }],
                },
            },
        },
    })
}
