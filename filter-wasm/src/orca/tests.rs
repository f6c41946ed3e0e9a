use super::*;

fn text(value: &str) -> Result<Load, Malformed> {
    Load::read(Some(value.as_bytes()), None).unwrap()
}

fn values(load: &Load) -> String {
    let mut all: Vec<_> = load
        .values
        .iter()
        .map(|(n, v)| format!("{n}={v}"))
        .collect();
    all.sort();
    all.join(",")
}

const SAID: &str = "cpu_utilization=0.5,named_metrics.queue_depth=12,utilization.total=0.25";

#[test]
fn four_forms_say_the_same() {
    // cpu_utilization 0.5; utilization {total: 0.25}; named_metrics {queue_depth: 12}; request_cost {db: 2.5}
    let base64 =
        "CQAAAAAAAOA/KhAKBXRvdGFsEQAAAAAAANA/QhYKC3F1ZXVlX2RlcHRoEQAAAAAAAChAIg0KAmRiEQAAAAAAAARA";
    for form in [
        "TEXT cpu_utilization=0.5,utilization.total=0.25,named_metrics.queue_depth=12,request_cost.db=2.5",
        "TEXT cpu_utilization:0.5, utilization.total:0.25, named_metrics.queue_depth:12, request_cost.db:2.5",
        r#"JSON {"cpu_utilization":0.5,"utilization":{"total":0.25},"named_metrics":{"queue_depth":12},"request_cost":{"db":2.5}}"#,
        &format!("BIN {base64}"),
    ] {
        let load = text(form).unwrap();
        assert_eq!(
            (values(&load).as_str(), load.cost),
            (SAID, Some(2.5)),
            "{form}"
        );
    }
    let load = Load::read(Some(b"TEXT eps=1"), Some(base64.as_bytes()))
        .unwrap()
        .unwrap();
    assert_eq!(values(&load), SAID, "the binary header wins");
    assert_eq!(Load::read(None, None), None);
}

#[test]
fn a_report_that_breaks_a_rule_is_dropped_whole() {
    for bad in [
        "cpu_utilization=0.5",
        "TEXT",
        "TEXT ",
        "TEXT cpu_utilization",
        "TEXT cpu_utilization=0.5,cpu_utilization=0.6",
        "TEXT cpu_utilization=NaN",
        "TEXT cpu_utilization=inf",
        "TEXT cpu_utilization=-1",
        "TEXT mem_utilization=1.5",
        "TEXT named_metrics.=1",
        "TEXT request_cost.a=1e308,request_cost.b=1e308",
        "TEXT load=1",
        "JSON {",
        r#"JSON {"load":1}"#,
        r#"JSON {"cpu_utilization":"high"}"#,
        "BIN ?",
        "BIN CQ",
        "BIN CQAA",
        "BIN //////////////8=",
    ] {
        assert_eq!(text(bad), Err(Malformed), "{bad}");
    }
    let long = format!("TEXT named_metrics.{}=1", "x".repeat(5000));
    assert_eq!(text(&long), Err(Malformed));
}

#[test]
fn values_are_bounded() {
    let many: Vec<_> = (0..100)
        .map(|i| format!("named_metrics.m{i}={i}"))
        .collect();
    let load = text(&format!("TEXT {}", many.join(","))).unwrap();
    assert_eq!(load.values.len(), LOAD_VALUES_MAX);
}
