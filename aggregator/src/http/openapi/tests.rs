//! The document says what the router does, no more and no less.

use kaeru_protocol::ProblemType;
use serde_json::Value;

/// Every route of the API.
const ROUTES: [(&str, &str); 17] = [
    ("post", "/v1/reports"),
    ("get", "/v1/verdicts"),
    ("get", "/v1/events"),
    ("get", "/v1/events/{id}"),
    ("post", "/v1/events/{id}/status"),
    ("get", "/v1/events/{id}/verdict"),
    ("post", "/v1/events/{id}/rollback"),
    ("get", "/v1/decisions"),
    ("get", "/v1/decisions/{id}"),
    ("post", "/v1/decisions/{id}/withdraw"),
    ("get", "/v1/breakers"),
    ("post", "/v1/breakers/{type}/close"),
    ("get", "/v1/limits"),
    ("get", "/v1/services"),
    ("get", "/v1/services/{namespace}/{name}"),
    ("get", "/v1/flows"),
    ("get", "/v1/flows/{type}"),
];

fn document() -> Value {
    serde_json::to_value(crate::http::api().1).unwrap()
}

/// Method, path and description of every operation.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let each = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        methods.map(move |(method, operation)| (method.clone(), path.clone(), operation.clone()))
    });
    each.collect()
}

#[test]
fn every_route_is_described_and_no_other() {
    let document = document();
    assert!(
        document["openapi"].as_str().unwrap().starts_with("3.1"),
        "{}",
        document["openapi"]
    );
    let mut described: Vec<_> = operations(&document)
        .into_iter()
        .map(|(m, p, _)| (m, p))
        .collect();
    let mut promised = ROUTES.map(|(method, path)| (method.to_owned(), path.to_owned()));
    described.sort();
    promised.sort();
    assert_eq!(described, promised);
}

#[test]
fn every_described_problem_exists() {
    let document = document();
    let mut seen = Vec::new();
    for (method, path, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let content = &response["content"];
            let is_problem = content.get("application/problem+json").is_some();
            assert_eq!(
                is_problem,
                !status.starts_with('2'),
                "{method} {path} {status}"
            );
            if !is_problem {
                continue;
            }
            let schema = &content["application/problem+json"]["schema"]["$ref"];
            assert_eq!(
                schema, "#/components/schemas/Problem",
                "{method} {path} {status}"
            );
            for slug in response["description"].as_str().unwrap().split(", ") {
                let problem = ProblemType::ALL
                    .iter()
                    .find(|problem| problem.slug() == slug);
                let problem =
                    problem.unwrap_or_else(|| panic!("{method} {path}: no problem {slug:?}"));
                assert_eq!(
                    problem.status().to_string(),
                    *status,
                    "{method} {path}: {slug}"
                );
                seen.push(*problem);
            }
        }
    }
    // These can come from any route, or from a proxy.
    let everywhere = [
        ProblemType::EventRolledBack,
        ProblemType::RouteNotFound,
        ProblemType::MethodNotAllowed,
        ProblemType::Internal,
    ];
    for problem in ProblemType::ALL {
        assert_ne!(
            seen.contains(problem),
            everywhere.contains(problem),
            "{}",
            problem.slug()
        );
    }
}

#[test]
fn every_schema_that_is_pointed_to_exists() {
    let document = document();
    let text = document.to_string();
    for part in text.split("\"#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(
            document["components"]["schemas"].get(name).is_some(),
            "{name}"
        );
    }
}

#[test]
fn no_route_of_the_api_goes_past_the_document() {
    let sources = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/http")).unwrap();
    let files = sources
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file());
    let mut undescribed = Vec::new();
    for file in files.chain([concat!(env!("CARGO_MANIFEST_DIR"), "/src/http.rs").into()]) {
        let text = std::fs::read_to_string(file).unwrap();
        let routes = text
            .split(".route(")
            .skip(1)
            .filter_map(|rest| rest.split('"').nth(1));
        undescribed.extend(routes.map(str::to_owned));
    }
    undescribed.sort();
    assert_eq!(
        undescribed,
        ["/", "/dashboard.css", "/dashboard.js", "/openapi.json"]
    );
}
