//! The manifests: valid by Istio's own schemas, and in accord with one another and with the code.

use serde_json::Value;

use crate::repo::{files, read, sources};
use crate::schema::complaints;

/// Kinds whose schema stands in `crds/`.
const ISTIO: &[&str] = &[
    "AuthorizationPolicy",
    "PeerAuthentication",
    "Sidecar",
    "TrafficExtension",
    "WasmPlugin",
];

struct Manifest {
    path: String,
    value: Value,
}

impl Manifest {
    fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }
}

fn manifests() -> Vec<Manifest> {
    let mut found = Vec::new();
    for path in files(&[".yaml"]) {
        // A policy is no manifest; the aggregator's own tests read it.
        if (path.starts_with("manifests/") && path != "manifests/policy.yaml")
            || path == "wasmplugin.yaml"
        {
            let values: Vec<Value> = serde_saphyr::from_multiple(&read(&path))
                .unwrap_or_else(|error| panic!("{path}: {error}"));
            found.extend(values.into_iter().map(|value| Manifest {
                path: path.clone(),
                value,
            }));
        }
    }
    assert!(found.len() > 5);
    found
}

fn only(kind: &str) -> Value {
    let mut all: Vec<_> = manifests()
        .into_iter()
        .filter(|m| m.kind() == kind)
        .collect();
    assert_eq!(all.len(), 1, "one {kind}");
    all.remove(0).value
}

#[test]
fn istio_accepts_them() {
    for kind in ISTIO {
        let schema = read(&format!("e2e/tests/docs/crds/{kind}.json"));
        let schema: Value = serde_json::from_str(&schema).unwrap();
        let mut seen = 0;
        for manifest in manifests().iter().filter(|m| m.kind() == *kind) {
            let found = complaints(&schema, &manifest.value["spec"]);
            assert!(
                found.is_empty(),
                "{}: {kind}: {}",
                manifest.path,
                found.join("; ")
            );
            let comment = schema["$comment"].as_str().unwrap();
            let version = manifest.value["apiVersion"].as_str().unwrap();
            assert!(
                comment.contains(&format!("{kind} {version},")),
                "{}: {version}",
                manifest.path
            );
            seen += 1;
        }
        assert!(seen > 0, "no {kind}");
    }
}

#[test]
fn kinds_of_istio_are_all_checked() {
    for manifest in manifests() {
        let version = manifest.value["apiVersion"].as_str().unwrap();
        assert_eq!(
            version.contains("istio.io"),
            ISTIO.contains(&manifest.kind()),
            "{}",
            manifest.path
        );
    }
}

/// Whichever of the two is applied, the proxies get the same.
#[test]
fn both_forms_of_the_plugin_say_the_same() {
    let (plugin, extension) = (only("WasmPlugin"), only("TrafficExtension"));
    let (plugin, extension) = (&plugin["spec"], &extension["spec"]);
    for key in ["phase", "priority"] {
        assert_eq!(plugin[key], extension[key], "{key}");
        assert!(!plugin[key].is_null(), "{key}");
    }
    for key in [
        "url",
        "pluginName",
        "imagePullPolicy",
        "failStrategy",
        "pluginConfig",
    ] {
        assert_eq!(plugin[key], extension["wasm"][key], "{key}");
        assert!(!plugin[key].is_null(), "{key}");
    }
}

#[test]
fn filters_find_the_aggregator() {
    let service = only("Service");
    let name = service["metadata"]["name"].as_str().unwrap();
    let namespace = service["metadata"]["namespace"].as_str().unwrap();
    let api = &service["spec"]["ports"][0];
    assert_eq!(api["appProtocol"], "http");
    let host = format!("{name}.{namespace}.svc.cluster.local");
    let filter = sources("filter-wasm/src");
    assert!(filter.contains(&format!("\"outbound|{}||{host}\"", api["port"])));
    assert!(filter.contains(&format!("\"{host}\"")));
    let sidecar = only("Sidecar");
    let imported = sidecar["spec"]["egress"][0]["hosts"].as_array().unwrap();
    assert!(imported.contains(&Value::from(format!("{namespace}/{host}"))));
    // The filter knows the aggregator's own service by the same name.
    let pod = &only("Deployment")["spec"]["template"];
    assert_eq!(
        pod["metadata"]["labels"]["service.istio.io/canonical-name"],
        name
    );
}

#[test]
fn the_deployment_starts_the_program_as_it_is() {
    let deployment = only("Deployment");
    let pod = &deployment["spec"]["template"];
    let container = &pod["spec"]["containers"][0];
    let config = read("aggregator/src/config.rs");
    for argument in container["args"].as_array().unwrap() {
        let argument = argument.as_str().unwrap();
        let Some(flag) = argument.strip_prefix("--") else {
            continue;
        };
        let field = flag.split('=').next().unwrap().replace('-', "_");
        assert!(
            config.contains(&format!("pub {field}:")),
            "no flag {argument}"
        );
    }
    for variable in container["env"].as_array().unwrap() {
        let name = &variable["name"];
        assert!(config.contains(&format!("env = {name}")), "no {name}");
    }
    let labels = &pod["metadata"]["labels"];
    for selector in [
        &deployment["spec"]["selector"]["matchLabels"],
        &only("Service")["spec"]["selector"],
        &only("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        &only("PeerAuthentication")["spec"]["selector"]["matchLabels"],
    ] {
        for (key, value) in selector.as_object().unwrap() {
            assert_eq!(&labels[key], value);
        }
    }
    for port in container["ports"].as_array().unwrap() {
        let default = format!("0.0.0.0:{}", port["containerPort"]);
        assert!(config.contains(&default), "{default} is no default");
    }
}

/// Every route is open to the mesh or to operators, and what the mesh may call are routes.
#[test]
fn access_rules_name_routes() {
    let routes = crate::names::routes();
    let policies: Vec<_> = manifests();
    let mesh = policies
        .iter()
        .find(|m| m.value["metadata"]["name"] == "kaeru-mesh")
        .unwrap();
    for to in mesh.value["spec"]["rules"][0]["to"].as_array().unwrap() {
        let method = to["operation"]["methods"][0].as_str().unwrap();
        for path in to["operation"]["paths"].as_array().unwrap() {
            let path = path.as_str().unwrap().replace("{*}", "{id}");
            assert!(
                routes.contains(&format!("{method} {path}")),
                "no route {method} {path}"
            );
        }
    }
}

#[test]
fn kustomize_finds_every_file() {
    let kustomization = only("Kustomization");
    let lists = [
        &kustomization["resources"],
        &kustomization["configMapGenerator"][0]["files"],
    ];
    for file in lists.into_iter().flat_map(|l| l.as_array().unwrap()) {
        read(&format!("manifests/{}", file.as_str().unwrap()));
    }
    let volume = &only("Deployment")["spec"]["template"]["spec"]["volumes"][0];
    assert_eq!(
        volume["configMap"]["name"],
        kustomization["configMapGenerator"][0]["name"]
    );
}
