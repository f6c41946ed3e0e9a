//! As much of JSON Schema as Istio's CRDs use. A keyword that it does not know fails, so nothing passes unchecked.

use serde_json::{Map, Value};

/// Every way in which `value` breaks `schema`.
pub(crate) fn complaints(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, value, "", &mut found);
    found
}

fn check(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    for (keyword, rule) in schema.as_object().unwrap() {
        if let Some(words) = breaks(schema, keyword, rule, value, at, found) {
            found.push(format!("{at}: {words}"));
        }
    }
}

fn breaks(
    schema: &Value,
    keyword: &str,
    rule: &Value,
    value: &Value,
    at: &str,
    found: &mut Vec<String>,
) -> Option<String> {
    let holds = |rule: &Value| complaints(rule, value).is_empty();
    let bound = rule.as_f64().unwrap_or_default();
    let words = |broken: bool, words: String| broken.then_some(words);
    match keyword {
        "$comment" => None,
        "type" => words(!is_of(rule, value), format!("must be {rule}")),
        "enum" => words(
            !rule.as_array().unwrap().contains(value),
            format!("must be one of {rule}"),
        ),
        "minLength" => words(
            length(value).is_some_and(|n| n < bound),
            "too short".to_owned(),
        ),
        "maxLength" => words(
            length(value).is_some_and(|n| n > bound),
            "too long".to_owned(),
        ),
        "minimum" => words(
            value.as_f64().is_some_and(|n| n < bound),
            format!("below {rule}"),
        ),
        "maximum" => words(
            value.as_f64().is_some_and(|n| n > bound),
            format!("above {rule}"),
        ),
        "minItems" | "minProperties" => {
            words(size(value).is_some_and(|n| n < bound), "too few".to_owned())
        }
        "maxItems" | "maxProperties" => words(
            size(value).is_some_and(|n| n > bound),
            "too many".to_owned(),
        ),
        "required" => {
            let names = rule.as_array().unwrap().iter();
            let absent = |name: &&Value| value.get(name.as_str().unwrap()).is_none();
            let missing: Vec<_> = names.filter(absent).collect();
            words(
                value.is_object() && !missing.is_empty(),
                format!("lacks {missing:?}"),
            )
        }
        "not" => words(holds(rule), "must not be so".to_owned()),
        "anyOf" => words(
            !rule.as_array().unwrap().iter().any(holds),
            "none of the forms fits".to_owned(),
        ),
        "oneOf" => {
            let fitting = rule.as_array().unwrap().iter().filter(|r| holds(r)).count();
            words(fitting != 1, format!("{fitting} of the forms fit"))
        }
        "items" => {
            for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                check(rule, item, &format!("{at}[{index}]"), found);
            }
            None
        }
        "properties" => {
            for (name, inner) in value.as_object().into_iter().flatten() {
                if let Some(rule) = rule.get(name) {
                    check(rule, inner, &format!("{at}.{name}"), found);
                }
            }
            None
        }
        "additionalProperties" => {
            let empty = Map::new();
            let known = schema.get("properties").and_then(Value::as_object);
            let known = known.unwrap_or(&empty);
            for (name, inner) in value.as_object().into_iter().flatten() {
                if known.contains_key(name) {
                } else if rule == &Value::Bool(false) {
                    found.push(format!("{at}: no field is called {name}"));
                } else {
                    check(rule, inner, &format!("{at}.{name}"), found);
                }
            }
            None
        }
        _ => panic!("the schema has a keyword that is not known here: {keyword}"),
    }
}

fn is_of(rule: &Value, value: &Value) -> bool {
    match rule {
        Value::Array(any) => any.iter().any(|rule| is_of(rule, value)),
        _ => match rule.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "null" => value.is_null(),
            other => panic!("no such type: {other}"),
        },
    }
}

#[expect(clippy::cast_precision_loss, reason = "lengths of names")]
fn length(value: &Value) -> Option<f64> {
    value.as_str().map(|text| text.chars().count() as f64)
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn size(value: &Value) -> Option<f64> {
    let items = value.as_array().map(Vec::len);
    let members = || value.as_object().map(Map::len);
    items.or_else(members).map(|n| n as f64)
}

#[test]
fn what_breaks_a_schema_is_named() {
    let schema = serde_json::from_str(&crate::repo::read("e2e/tests/docs/crds/WasmPlugin.json"));
    let schema: Value = schema.unwrap();
    let check = |json: &str| complaints(&schema, &serde_json::from_str(json).unwrap()).join("; ");
    assert_eq!(check(r#"{"url": "oci://a", "priority": null}"#), "");
    assert_eq!(check(r#"{"url": ""}"#), ".url: too short");
    assert_eq!(
        check(r#"{"url": "a", "prio": 1}"#),
        ": no field is called prio"
    );
    assert_eq!(
        check(r#"{"url": "a", "phase": "LATE", "priority": "1"}"#),
        r#".phase: must be one of ["UNSPECIFIED_PHASE","AUTHN","AUTHZ","STATS"]; .priority: must be ["integer","null"]"#
    );
    assert_eq!(
        check(r#"{"url": "a", "match": [{"ports": [{"number": 70000}, {}]}]}"#),
        ".match[0].ports[0].number: above 65535; .match[0].ports[1]: lacks [String(\"number\")]"
    );
    assert_eq!(check("{}"), r#": lacks [String("url")]"#);
}
