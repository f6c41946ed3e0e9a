//! The clusters of a sidecar.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Upstream, address};
use crate::certs::Identity;

/// What pilot calls an outbound cluster.
pub(super) fn name(upstream: &Upstream) -> String {
    format!("outbound|{}||{}", upstream.port, upstream.host)
}

/// The cluster of the sidecar's own service.
pub(super) fn inbound(port: u16, app: SocketAddr) -> Value {
    json!({
        "name": format!("inbound|{port}||"),
        "type": "STATIC",
        "connect_timeout": "10s",
        "load_assignment": assignment(&format!("inbound|{port}||"), app, false),
    })
}

/// The cluster of a service that the sidecar can reach, with mutual TLS where the service has a sidecar.
pub(super) fn outbound(upstream: &Upstream, identity: &Identity) -> Value {
    let name = name(upstream);
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "load_assignment": assignment(&name, upstream.endpoint, upstream.spiffe.is_some()),
    });
    if let Some(spiffe) = &upstream.spiffe {
        cluster["transport_socket_matches"] = json!([
            { "name": "tlsMode-istio", "match": { "tlsMode": "istio" }, "transport_socket": mutual_tls(upstream, spiffe, identity) },
            {
                "name": "tlsMode-disabled", "match": {},
                "transport_socket": {
                    "name": "envoy.transport_sockets.raw_buffer",
                    "typed_config": { "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" },
                },
            },
        ]);
    }
    cluster
}

fn mutual_tls(upstream: &Upstream, spiffe: &str, identity: &Identity) -> Value {
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": format!("outbound_.{}_._.{}", upstream.port, upstream.host),
            "common_tls_context": {
                "alpn_protocols": ["istio-peer-exchange", "istio"],
                "tls_params": { "tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3" },
                "tls_certificates": [certificate(identity)],
                "validation_context": {
                    "trusted_ca": { "filename": identity.root },
                    "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "exact": spiffe } }],
                },
            },
        },
    })
}

/// A workload's certificate and key.
pub(super) fn certificate(identity: &Identity) -> Value {
    json!({
        "certificate_chain": { "filename": identity.certificate },
        "private_key": { "filename": identity.key },
    })
}

fn assignment(cluster: &str, endpoint: SocketAddr, sidecar: bool) -> Value {
    let mut endpoint = json!({ "endpoint": { "address": address(endpoint) } });
    if sidecar {
        endpoint["metadata"] = json!({ "filter_metadata": { "envoy.transport_socket_match": { "tlsMode": "istio" } } });
    }
    json!({ "cluster_name": cluster, "endpoints": [{ "lb_endpoints": [endpoint] }] })
}
