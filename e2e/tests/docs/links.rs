//! Links and paths in the docs lead somewhere.

use std::path::Path;

use crate::repo::{Doc, docs, files, read, root, sources};

/// Beginnings by which a text between backticks is known as a path of ours.
const FOLDERS: &[&str] = &[
    "protocol/",
    "flow/",
    "filter-wasm/",
    "aggregator/",
    "e2e/",
    "manifests/",
    "docs/",
    "scripts/",
    ".ci/",
];

/// As GitHub makes it of a heading.
fn anchor(heading: &str) -> String {
    let kept = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let words: String = heading.chars().filter(|c| kept(*c)).collect();
    words.to_lowercase().replace(' ', "-")
}

fn targets(doc: &Doc) -> impl Iterator<Item = &str> {
    doc.prose()
        .flat_map(|line| line.split("](").skip(1))
        .filter_map(|rest| rest.split(')').next())
}

#[test]
fn links_lead_somewhere() {
    let mut seen = 0;
    for doc in docs() {
        for target in targets(&doc) {
            if target.contains("://") {
                continue;
            }
            let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
            let folder = Path::new(&doc.path).parent().unwrap();
            let full = if path.is_empty() {
                root().join(&doc.path)
            } else {
                root().join(folder).join(path)
            };
            assert!(full.exists(), "{}: no file for the link {target}", doc.path);
            if !fragment.is_empty() {
                let from_root = if path.is_empty() {
                    doc.path.clone()
                } else {
                    folder.join(path).to_str().unwrap().to_owned()
                };
                let there = Doc::at(&from_root);
                assert!(
                    there.headings().any(|h| anchor(h) == fragment),
                    "{}: no heading for the link {target}",
                    doc.path
                );
            }
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} links were found");
}

#[test]
fn paths_in_docs_exist() {
    let mut seen = 0;
    for doc in docs() {
        for code in doc.code() {
            let path = code.trim_end_matches('/');
            let ours = FOLDERS.iter().any(|folder| code.starts_with(folder));
            if !ours || path.contains([' ', '*', '{', '<']) {
                continue;
            }
            assert!(
                root().join(path).exists(),
                "{}: there is no {code}",
                doc.path
            );
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} paths were found");
}

/// `name()` between backticks is a function somewhere, most of them a test that keeps an invariant.
#[test]
fn functions_in_docs_exist() {
    let all = sources("");
    let mut seen = 0;
    for doc in docs() {
        for code in doc.code() {
            let Some(name) = code.strip_suffix("()") else {
                continue;
            };
            let name = name.rsplit("::").next().unwrap();
            let defined = [format!("fn {name}("), format!("fn {name}<")];
            assert!(
                defined.iter().any(|text| all.contains(text)),
                "{}: no function {name}",
                doc.path
            );
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} functions were found");
}

#[test]
fn commands_in_docs_exist() {
    let makefile = read("Makefile");
    let mut seen = 0;
    for doc in docs() {
        for line in doc.text.lines() {
            let command = line.trim_start_matches(['$', ' ', '`']);
            let inline = line.split('`').skip(1).step_by(2);
            for text in inline.chain([command]) {
                let Some(rest) = text.strip_prefix("make ") else {
                    continue;
                };
                let target: String = rest.chars().take_while(char::is_ascii_lowercase).collect();
                assert!(
                    makefile.contains(&format!("\n{target}:")),
                    "{}: no make {target}",
                    doc.path
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 5, "only {seen} commands were found");
}

/// Decisions are numbered without a gap, and the overview names each.
#[test]
fn decision_records_are_numbered() {
    let records: Vec<String> = files(&[".md"])
        .into_iter()
        .filter_map(|path| path.strip_prefix("docs/adr/").map(str::to_owned))
        .collect();
    let overview = read("docs/ARCHITECTURE.md");
    for (index, name) in records.iter().enumerate() {
        assert!(
            name.starts_with(&format!("{:04}-", index + 1)),
            "docs/adr/{name} is not number {}",
            index + 1
        );
        assert!(
            overview.contains(&format!("adr/{name}")),
            "docs/ARCHITECTURE.md does not name {name}"
        );
    }
    assert!(!records.is_empty());
}
