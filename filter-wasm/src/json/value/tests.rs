use super::*;

/// Our reading of a text, as serde has it.
fn tree(value: Value<'_>) -> serde_json::Value {
    if let Some(members) = value.members() {
        return members.map(|(k, v)| (k.into_owned(), tree(v))).collect();
    }
    if let Some(items) = value.items() {
        return items.map(tree).collect();
    }
    if let Some(text) = value.text() {
        return text.into_owned().into();
    }
    if let Some(number) = value.number() {
        return number.into();
    }
    value.boolean().into()
}

/// Numbers as doubles, so that `1` and `1.0` compare equal.
fn doubled(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value::{Array, Number, Object};
    match value {
        Number(n) => n.as_f64().into(),
        Array(items) => items.into_iter().map(doubled).collect(),
        Object(members) => members.into_iter().map(|(k, v)| (k, doubled(v))).collect(),
        other => other,
    }
}

#[test]
fn valid_texts_read_as_everywhere() {
    for text in [
        "null",
        " true ",
        "[]",
        "{}",
        " { \"a\" : [ 1 , -2.5e+3 , 0.0 , 1E2 ] , \"b\\n\" : { } } ",
        r#""\u00e9\ud83d\ude00\"\\\/\b\f\n\r\t é""#,
        r#"[[["x"],[]],{"a":{"b":[false]}}]"#,
    ] {
        let read = Value::parse(text.as_bytes()).map(tree);
        let theirs = serde_json::from_str(text).map(doubled).unwrap();
        assert_eq!(read, Some(theirs), "{text}");
    }
}

#[test]
fn invalid_texts_are_none() {
    for text in [
        "",
        " ",
        "{",
        "[1",
        "[1,]",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "01",
        "-",
        "1.",
        ".1",
        "1e",
        "+1",
        "tru",
        "\"",
        "\"\\x\"",
        "\"\n\"",
        "1 2",
        "[1 2]",
        "{\"a\":1 \"b\":2}",
        "\u{feff}1",
        "nan",
    ] {
        assert_eq!(Value::parse(text.as_bytes()), None, "{text}");
        assert!(
            serde_json::from_str::<serde_json::Value>(text).is_err(),
            "{text}"
        );
    }
    assert_eq!(Value::parse("[".repeat(1_000).as_bytes()), None);
    assert!(Value::parse(("[".repeat(32) + &"]".repeat(32)).as_bytes()).is_some());
    for half in [
        r#""\ud83d""#,
        r#""\ud83dx""#,
        r#""\ud83dA""#,
        r#""\u12""#,
        r#""\u+123""#,
    ] {
        assert_eq!(
            Value::parse(half.as_bytes()).and_then(Value::text),
            None,
            "{half}"
        );
    }
}

#[test]
fn members_and_whole_numbers() {
    let value = Value::parse(br#"{"a":1.0,"b":-1,"c":0.5,"a":2,"d":9e99}"#).unwrap();
    assert_eq!(value.get("a").and_then(Value::whole), Some(1));
    for key in ["b", "c", "d", "e"] {
        assert_eq!(value.get(key).and_then(Value::whole), None, "{key}");
    }
}
