//! The listener of an ingress gateway: from outside into the mesh, each service under a public name of its own. Plain
//! HTTP, or TLS to which a client may bring a certificate (Istio's `OPTIONAL_MUTUAL`); at Istio these are two listeners.

use serde_json::{Value, json};

use super::{Sidecar, Upstream, address, cluster, listener};

/// The name under which the outside knows a service.
pub fn public_host(workload: &str) -> String {
    format!("{workload}.example.com")
}

/// The listener. Pilot calls a gateway's traffic outbound.
pub(super) fn gateway(sidecar: &Sidecar) -> Value {
    let host = |upstream: &Upstream| {
        let workload = upstream.host.split('.').next().unwrap_or_default();
        let public = public_host(workload);
        let route = listener::route(upstream, sidecar);
        listener::virtual_host(&format!("{public}:80"), &[public], &route)
    };
    let hosts: Vec<Value> = sidecar.upstreams.iter().map(host).collect();
    let mut manager = listener::manager(sidecar, "outbound_0.0.0.0_8080");
    manager["use_remote_address"] = json!(true);
    manager["forward_client_cert_details"] = json!("SANITIZE_SET");
    manager["set_current_client_cert_details"] =
        json!({ "subject": true, "dns": true, "uri": true });
    manager["route_config"] = json!({
        "name": "http.8080",
        "validate_clusters": false,
        "ignore_port_in_host_matching": true,
        "virtual_hosts": hosts,
    });
    let chain = |transport: &str| {
        json!({
            "name": transport,
            "filter_chain_match": { "transport_protocol": transport },
            "filters": [listener::network_filter(&manager)],
        })
    };
    let mut tls = chain("tls");
    tls["transport_socket"] = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": false,
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificates": [cluster::certificate(&sidecar.identity)],
                "validation_context": { "trusted_ca": { "filename": sidecar.identity.root } },
            },
        },
    });
    json!({
        "name": "0.0.0.0_8080",
        "traffic_direction": "OUTBOUND",
        "address": address(sidecar.inbound),
        "listener_filters": [listener::tls_inspector()],
        "filter_chains": [tls, chain("raw_buffer")],
    })
}
