//! `protocol <- flow <- aggregator` and `protocol <- filter-wasm`, nothing else; the pure crates stay pure.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::repo::{Names, root};

/// Which of our crates a crate may use.
const OURS: &[(&str, &[&str])] = &[
    ("kaeru-protocol", &[]),
    ("kaeru-flow", &["kaeru-protocol"]),
    ("kaeru-filter", &["kaeru-protocol"]),
    ("kaeru-aggregator", &["kaeru-flow", "kaeru-protocol"]),
    ("kaeru-e2e", &["kaeru-protocol"]),
    (
        "kaeru-sim",
        &[
            "kaeru-aggregator",
            "kaeru-filter",
            "kaeru-flow",
            "kaeru-protocol",
        ],
    ),
    ("kaeru-bench", &["kaeru-e2e", "kaeru-protocol"]),
];

/// Crates that only these of ours may use; deny.toml says the same.
const RESERVED: &[(&str, &[&str])] = &[
    ("axum", &["kaeru-aggregator", "kaeru-e2e", "kaeru-bench"]),
    ("chrono", &["kaeru-aggregator", "kaeru-e2e"]),
    ("prometheus", &["kaeru-aggregator"]),
    ("reqwest", &["kaeru-e2e"]),
    ("sqlx", &["kaeru-aggregator"]),
    ("tokio", &["kaeru-aggregator", "kaeru-e2e", "kaeru-bench"]),
];

/// What a crate's code uses (its tests may use more).
fn dependencies() -> BTreeMap<String, Names> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata failed");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    let used = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap();
        all.iter()
            .filter(|d| d["kind"] != "dev")
            .map(name)
            .collect()
    };
    packages.iter().map(|p| (name(p), used(p))).collect()
}

#[test]
fn crates_stand_in_their_order() {
    let found = dependencies();
    assert_eq!(
        found.len(),
        OURS.len(),
        "a crate came or went: {:?}",
        found.keys()
    );
    for (name, allowed) in OURS {
        for used in found[*name].iter().filter(|u| u.starts_with("kaeru-")) {
            assert!(
                allowed.contains(&used.as_str()),
                "{name} must not use {used}"
            );
        }
    }
}

#[test]
fn reserved_crates_stay_where_they_belong() {
    let found = dependencies();
    for (reserved, users) in RESERVED {
        for (name, used) in &found {
            assert!(
                !used.contains(*reserved) || users.contains(&name.as_str()),
                "{name} must not use {reserved}"
            );
        }
    }
}
