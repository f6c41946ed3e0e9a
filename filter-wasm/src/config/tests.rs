use super::*;
use crate::host::{Headers, pack};
use crate::request::Request;

#[test]
fn nothing_is_a_configuration() {
    for empty in ["", " ", "{}"] {
        assert_eq!(parse(empty.as_bytes()), (Config::default(), Vec::new()));
    }
}

#[test]
fn every_key_is_read() {
    let (config, complaints) = parse(
        br#"{"mode":"shadow","service":"shop/web","proxy":"p1","role":"gateway","aggregator_cluster":"k",
            "aggregator_authority":"k.local","id_sources":["x-order","traceparent"],"mesh_hosts":["*.mesh"],
            "trust_plaintext":true,"trust_ids_from":["spiffe://a/*"],
            "match":{"hosts":["a"],"paths":["/x/*"],"methods":["POST"],"not_paths":["/x/y"],"not_agents":["z*"]},
            "pass":[{"paths":["/audit/*"]}],"refusal_status":409.0,"flush_interval_ms":20,"heartbeat_interval_s":1,
            "status_interval_s":2,"poll_wait_ms":0,"report_timeout_ms":100,"outbox_reports_max":5.0,
            "open_requests_max":6,"verdicts_max":7}"#,
    );
    assert_eq!(complaints, Vec::<String>::new());
    assert_eq!(config.mode, Mode::Shadow);
    assert_eq!(config.service, Some("shop/web".parse().unwrap()));
    assert_eq!(config.role, Some(Role::Gateway));
    assert_eq!(config.id_sources.len(), 2);
    assert!(config.is_mesh_host(b"a.mesh") && !config.is_mesh_host(b"a.svc.cluster.local"));
    assert!(config.trust_plaintext && config.is_aggregator(b"K.local"));
    assert_eq!((config.refusal_status, config.verdicts_max), (409, 7));
    assert_eq!((config.poll_wait_ms, config.outbox_reports_max), (0, 5));
    assert_eq!(config.pass.len(), 1);
    assert_eq!(config.matching.not_paths, [Pattern::new("/x/y")]);
}

#[test]
fn what_is_wrong_is_named_and_the_rest_holds() {
    let (config, complaints) = parse(
        br#"{"mode":"on","flush_interval_ms":1.5,"refusal_status":200,"heartbeat":1,"match":{"path":["/"]},
            "pass":[{},7],"service":"web","verdicts_max":50}"#,
    );
    let said = complaints.join("\n");
    for key in [
        "\"mode\"",
        "\"flush_interval_ms\"",
        "\"refusal_status\"",
        "\"heartbeat\"",
        "\"match.path\"",
        "\"pass\"",
        "\"service\"",
    ] {
        assert!(said.contains(key), "{key} in {said}");
    }
    assert_eq!(
        config,
        Config {
            verdicts_max: 50,
            ..Config::default()
        }
    );
    for broken in ["{", "[]", "7", "\u{0}"] {
        let (config, complaints) = parse(broken.as_bytes());
        assert_eq!((config, complaints.len()), (Config::default(), 1));
    }
}

#[test]
fn patterns_match_beginnings_and_ends() {
    for (pattern, yes, no) in [
        ("web", "WEB", "web2"),
        ("*.local", "a.local", "local"),
        ("/audit/*", "/audit/x", "/audit"),
        ("*", "", "\u{0}never"),
        ("*mid*", "a-mid-b", "a-md-b"),
    ] {
        assert!(Pattern::new(pattern).matches(yes.as_bytes()), "{pattern}");
        assert!(
            pattern == "*" || !Pattern::new(pattern).matches(no.as_bytes()),
            "{pattern}"
        );
    }
}

#[test]
fn probes_and_streams_are_no_steps() {
    let is_step = |config: &str, pairs: &[(&str, &str)]| {
        let headers = Headers::new(pack(
            pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())),
        ));
        parse(config.as_bytes())
            .0
            .matching
            .matches(&Request::read(&headers))
    };
    assert!(is_step("", &[(":path", "/orders?x")]));
    assert!(!is_step("", &[(":path", "/healthz?x")]));
    assert!(!is_step(
        "",
        &[(":path", "/"), ("user-agent", "kube-probe/1.31")]
    ));
    assert!(!is_step("", &[(":path", "/ws"), ("upgrade", "websocket")]));
    assert!(is_step(
        r#"{"match":{"paths":["/ws"]}}"#,
        &[(":path", "/ws"), ("upgrade", "websocket")]
    ));
    assert!(!is_step(
        r#"{"match":{"methods":["POST"]}}"#,
        &[(":path", "/"), (":method", "GET")]
    ));
}

#[test]
fn mesh_hosts_have_no_dot_or_are_named() {
    let config = Config::default();
    for mesh in ["web", "web.shop.svc.cluster.local"] {
        assert!(config.is_mesh_host(mesh.as_bytes()), "{mesh}");
    }
    for outside in ["", "pay.example.com", "10.0.0.1", "[::1]"] {
        assert!(!config.is_mesh_host(outside.as_bytes()), "{outside}");
    }
}

#[test]
fn the_aggregator_is_known_by_its_longer_names() {
    let config = Config::default();
    for name in [
        "kaeru-aggregator.kaeru-system.svc.cluster.local",
        "Kaeru-Aggregator.kaeru-system.svc",
        "kaeru-aggregator.kaeru-system",
    ] {
        assert!(config.is_aggregator(name.as_bytes()), "{name}");
    }
    for other in [
        "",
        "kaeru-aggregator",
        "kaeru-aggregator.kaeru",
        "kaeru-aggregator.kaeru-system.svc.cluster.local.x",
    ] {
        assert!(!config.is_aggregator(other.as_bytes()), "{other}");
    }
}
