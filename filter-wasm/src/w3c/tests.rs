use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[test]
fn traceparents_to_the_letter() {
    for good in [
        format!("00-{TRACE}-00f067aa0ba902b7-01"),
        format!("00-{TRACE}-00f067aa0ba902b7-ff"),
        format!("cc-{TRACE}-00f067aa0ba902b7-01"),
        format!("cc-{TRACE}-00f067aa0ba902b7-01-what-ever"),
    ] {
        assert_eq!(
            traceparent(good.as_bytes()),
            Some(TRACE.as_bytes()),
            "{good}"
        );
    }
    for bad in [
        String::new(),
        "00".into(),
        format!("ff-{TRACE}-00f067aa0ba902b7-01"),
        format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
        format!("cc-{TRACE}-00f067aa0ba902b7-01.more"),
        format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
        format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
        format!("00-{TRACE}-0000000000000000-01"),
        format!("00-{TRACE}-00f067aa0ba902b7-0"),
        format!("00-{TRACE}-00f067aa0ba902b7-0G"),
        format!("0-{TRACE}-00f067aa0ba902b7-01 "),
        format!(" 00-{TRACE}-00f067aa0ba902b7-01"),
        format!("00_{TRACE}_00f067aa0ba902b7_01"),
    ] {
        assert_eq!(traceparent(bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn b3_in_one_header() {
    for good in [
        format!("{TRACE}-00f067aa0ba902b7"),
        format!("{TRACE}-00f067aa0ba902b7-1"),
        format!("{TRACE}-00f067aa0ba902b7-d-00f067aa0ba902b7"),
    ] {
        assert_eq!(b3(good.as_bytes()), Some(TRACE.as_bytes()), "{good}");
    }
    assert_eq!(
        b3(b"a3ce929d0e0e4736-00f067aa0ba902b7-0"),
        Some(&b"a3ce929d0e0e4736"[..])
    );
    for bad in [
        "0".to_owned(),
        String::new(),
        TRACE.to_owned(),
        format!("{TRACE}-00f067aa0ba902b7-2"),
        format!("{TRACE}-00f067aa0ba902b7-1-00f067aa0ba902b7-x"),
        format!("{}-00f067aa0ba902b7", &TRACE[1..]),
        format!("{}-00f067aa0ba902b7", "0".repeat(32)),
    ] {
        assert_eq!(b3(bad.as_bytes()), None, "{bad}");
    }
    assert!(is_b3_decision(b"0") && !is_b3_decision(TRACE.as_bytes()));
}

#[test]
fn request_ids_are_the_same_at_every_hop() {
    for version in ["4", "9", "a", "b"] {
        let id = format!("6b1e5b4e-3f5a-{version}c1d-9e2f-001122334455");
        assert_eq!(
            &*request_id(id.as_bytes()),
            b"6b1e5b4e-3f5a-4c1d-9e2f-001122334455"
        );
    }
    let v7 = b"0198c3a2-1111-7222-8333-444455556666";
    assert_eq!(&*request_id(v7), v7);
    assert_eq!(&*request_id(b"order-7"), b"order-7");
}

#[test]
fn baggage_members() {
    let baggage = b"tenant=a%20b;p=1 , event.id = ord%3A7 ;prop, x==y";
    assert_eq!(
        baggage_member(baggage, "event.id").as_deref(),
        Some(&b"ord:7"[..])
    );
    assert_eq!(
        baggage_member(baggage, "tenant").as_deref(),
        Some(&b"a b"[..])
    );
    assert_eq!(baggage_member(baggage, "x").as_deref(), Some(&b"=y"[..]));
    assert_eq!(baggage_member(baggage, "event").as_deref(), None);
    assert_eq!(baggage_member(b",,;=,\xff=\xfe", "event.id"), None);
    assert_eq!(&*percent_decoded(b"%zz%4"), b"%zz%4");
}

#[test]
fn baggage_is_changed_in_our_member_only() {
    let set = |baggage: &str, value: Option<&str>| {
        with_member(baggage.as_bytes(), "event.id", value).map(|b| String::from_utf8(b).unwrap())
    };
    assert_eq!(set("", Some("e1")).as_deref(), Some("event.id=e1"));
    assert_eq!(
        set("a=b;p, c=d", Some("e1")).as_deref(),
        Some("a=b;p, c=d,event.id=e1")
    );
    assert_eq!(
        set("event.id=e0,a=b", Some("e1")).as_deref(),
        Some("a=b,event.id=e1")
    );
    assert_eq!(set("event.id=e1,a=b", Some("e1")), None);
    assert_eq!(set("event.id=e0,a=b", None).as_deref(), Some("a=b"));
    assert_eq!(set("event.id=e0", None).as_deref(), Some(""));
    assert_eq!(set("a=b", None), None);
    let long = format!("a={}", "b".repeat(9_000));
    assert_eq!(set(&long, Some("e1")), None);
    // What is too long to be added to still says nothing else than we do.
    let forged = format!("event.id=forged,{long}");
    for value in [None, Some("e1")] {
        assert_eq!(set(&forged, value).as_deref(), Some(long.as_str()));
    }
    let twice = "event.id=e1,a=b,event.id=e2";
    assert_eq!(set(twice, Some("e1")).as_deref(), Some("a=b,event.id=e1"));
}
