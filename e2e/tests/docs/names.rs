//! Names that both the docs and the code know: each must be in both.

use std::collections::BTreeMap;

use kaeru_protocol::{ProblemType, headers, limits};

use crate::repo::{Doc, Names, between, docs, files, read, same, sources};

/// Headers that the docs name though Kaeru neither reads nor writes them under its own meaning.
const COMMON_HEADERS: &[&str] = &["x-event-*"];

/// `GET /v1/events/{id}` and its kin, from the handlers and the routers.
pub(crate) fn routes() -> Names {
    let mut found = Names::new();
    for path in files(&[".rs"]) {
        if !path.starts_with("aggregator/src/") || path.contains("tests") {
            continue;
        }
        let text = read(&path);
        for handler in text.split("#[utoipa::path(").skip(1) {
            let method: String = handler
                .trim_start()
                .chars()
                .take_while(char::is_ascii_lowercase)
                .collect();
            let route = between(handler, "path = \"", '"').next().unwrap();
            found.insert(format!("{} {route}", method.to_uppercase()));
        }
        for route in text.split(".route(").skip(1) {
            if let Some(rest) = route.trim_start().strip_prefix("\"/") {
                let (route, handler) = rest.split_once('"').unwrap();
                let method = handler
                    .trim_start_matches([',', ' ', '\n'])
                    .split('(')
                    .next()
                    .unwrap();
                found.insert(format!("{} /{route}", method.to_uppercase()));
            }
        }
    }
    found
}

#[test]
fn headers_are_as_documented() {
    let code: Names = headers::ALL.iter().map(|&h| h.to_owned()).collect();
    let table = Doc::at("docs/PROTOCOL.md")
        .section("Headers")
        .first_column();
    same("headers", &table, &code);
    for doc in docs() {
        for name in doc.code().filter(|c| c.starts_with("x-")) {
            let name = name.split(':').next().unwrap();
            assert!(
                code.contains(name) || COMMON_HEADERS.contains(&name),
                "{}: no header {name}",
                doc.path
            );
        }
    }
}

#[test]
fn routes_are_as_documented() {
    let code = routes();
    let in_headings: Names = Doc::at("docs/API.md")
        .headings()
        .filter_map(|h| h.strip_prefix('`')?.split('`').next())
        .map(str::to_owned)
        .collect();
    same("routes", &in_headings, &code);
    let methods = ["GET /", "POST /", "PUT /", "DELETE /", "PATCH /"];
    for doc in docs() {
        let examples = ["PROTOCOL.md", "API.md", "OPERATIONS.md", "README.md"];
        if !examples.iter().any(|name| doc.path.ends_with(name)) {
            continue;
        }
        for text in doc.code().filter(|c| c.contains("/v1/")) {
            let Some(method) = methods.iter().find(|m| text.starts_with(*m)) else {
                continue;
            };
            let text = text.split('?').next().unwrap();
            assert!(
                code.contains(text),
                "{}: no route {text} ({method})",
                doc.path
            );
        }
    }
}

#[test]
fn problems_are_as_documented() {
    let doc = Doc::at("docs/problems.md");
    let code: Names = ProblemType::ALL
        .iter()
        .map(|p| p.slug().to_owned())
        .collect();
    let headings: Names = doc.headings().skip(1).map(str::to_owned).collect();
    same("problem types", &headings, &code);
    for problem in ProblemType::ALL {
        let section = doc.section(problem.slug()).text;
        let begins = format!("**{}** {}.", problem.status(), problem.title());
        assert!(
            section.trim_start().starts_with(&begins),
            "{}: must begin with {begins:?}",
            problem.slug()
        );
    }
}

#[test]
fn limits_of_the_wire_are_as_documented() {
    let section = Doc::at("docs/PROTOCOL.md").section("Limits");
    let documented: BTreeMap<String, String> = section
        .rows()
        .into_iter()
        .map(|row| (row[0].replace('`', ""), row[1].replace(',', "")))
        .collect();
    let code = [
        ("BATCH_BYTES_MAX", limits::BATCH_BYTES_MAX),
        ("BATCH_REPORTS_MAX", limits::BATCH_REPORTS_MAX),
        ("EVENT_ID_MAX", limits::EVENT_ID_MAX),
        ("EVENT_TYPE_MAX", limits::EVENT_TYPE_MAX),
        ("SERVICE_NAME_MAX", limits::SERVICE_NAME_MAX),
        ("PATH_MAX", limits::PATH_MAX),
        ("METHOD_MAX", limits::METHOD_MAX),
        ("DETAIL_MAX", limits::DETAIL_MAX),
        ("LOAD_VALUES_MAX", limits::LOAD_VALUES_MAX),
        ("REPORTERS_MAX", limits::REPORTERS_MAX),
        ("PAGE_VERDICTS_MAX", limits::PAGE_VERDICTS_MAX),
    ];
    let code: BTreeMap<String, String> = code
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_string()))
        .collect();
    let source = read("protocol/src/lib.rs");
    assert_eq!(source.matches("    pub const ").count(), code.len());
    assert_eq!(documented, code);
}

/// Name, label and help of each metric in a table in the code: a doc comment, then a line with the quoted name.
fn metrics(source: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut help = Vec::new();
    for line in source.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("///") {
            help.push(words.trim());
            continue;
        }
        let words = std::mem::take(&mut help).join(" ");
        let mut quoted = line.split('"').skip(1).step_by(2);
        let Some(name) = quoted.next().filter(|name| name.starts_with("kaeru_")) else {
            continue;
        };
        if !words.is_empty() {
            let label = quoted.next().map(|label| format!("{{{label}}}"));
            found.push((format!("{name}{}", label.unwrap_or_default()), words));
        }
    }
    found
}

#[test]
fn metrics_are_as_documented() {
    for (heading, path) in [
        ("Metrics of the aggregator", "aggregator/src/metrics.rs"),
        ("Metrics of the filter", "filter-wasm/src/metrics.rs"),
    ] {
        let section = Doc::at("docs/OPERATIONS.md").section(heading);
        let row = |(name, help): &(String, String)| format!("| `{name}` | {help} |\n");
        let rows: Vec<String> = metrics(&read(path)).iter().map(row).collect();
        let code = rows.concat();
        assert!(code.len() > 100, "no metrics in {path}");
        assert!(
            section.text.contains(&code),
            "{}: the table must be\n{code}",
            section.path
        );
        let names = section.first_column();
        assert_eq!(
            names.len(),
            rows.len(),
            "{}: more than the code has",
            section.path
        );
    }
}

/// What the plugin's configuration takes: every key that `keys.rs` reads.
#[test]
fn plugin_keys_are_as_documented() {
    let source = read("filter-wasm/src/config/keys.rs");
    let (top, nested) = source.split_once("fn read_rules").unwrap();
    let mut code = Names::new();
    for text in [top, nested] {
        for call in [".take(", ".number(", ".patterns(", ".remove("] {
            for rest in text.split(call).skip(1) {
                if let Some(rest) = rest.trim_start().strip_prefix('"') {
                    code.insert(rest.split('"').next().unwrap().to_owned());
                }
            }
        }
    }
    let table = Doc::at("docs/OPERATIONS.md").section("Plugin configuration");
    let documented = table
        .first_column()
        .iter()
        .map(|key| key.rsplit('.').next().unwrap().to_owned())
        .collect();
    same("plugin configuration", &documented, &code);
}

#[test]
fn settings_are_as_documented() {
    let config = read("aggregator/src/config.rs");
    let mut code = Names::new();
    for setting in config.split("#[arg(").skip(1) {
        let field = between(setting, "pub ", ':').next().unwrap();
        if let Some(variable) =
            between(setting.split("pub ").next().unwrap(), "env = \"", '"').next()
        {
            code.insert(format!("--{}", field.replace('_', "-")));
            code.insert(variable.to_owned());
        }
    }
    let table = Doc::at("docs/OPERATIONS.md").section("Settings of kaeru serve");
    let documented: Names = table
        .rows()
        .iter()
        .flat_map(|row| &row[..2])
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    same("settings of kaeru serve", &documented, &code);
}

#[test]
fn environment_variables_in_docs_exist() {
    let all = sources("");
    for doc in docs() {
        for name in doc.code().filter(|c| c.starts_with("KAERU_")) {
            let name = name.split('=').next().unwrap();
            assert!(
                all.contains(&format!("\"{name}\"")),
                "{}: no {name}",
                doc.path
            );
        }
    }
}

#[test]
fn policy_keys_are_as_documented() {
    let source = read("aggregator/src/policy_file/read.rs");
    let code: Names = source
        .split("const OF_")
        .skip(1)
        .filter_map(|list| list.split(';').next())
        .flat_map(|list| list.split('"').skip(1).step_by(2))
        .map(str::to_owned)
        .collect();
    let table = Doc::at("docs/OPERATIONS.md")
        .section("Policy")
        .first_column();
    same("policy keys", &table, &code);
}
