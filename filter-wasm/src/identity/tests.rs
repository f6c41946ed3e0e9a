use super::*;
use crate::config::Config;
use crate::host::pack;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const RID: &str = "6b1e5b4e-3f5a-9c1d-9e2f-001122334455";
const RID_4: &str = "6b1e5b4e-3f5a-4c1d-9e2f-001122334455";

/// `header=value` per line → `event [borrowed] [aliases] [invalid]`.
fn check(trusted: bool, lines: &str, expected: &str) {
    let pairs = lines
        .split(" | ")
        .filter_map(|line| line.split_once('='))
        .map(|(n, v)| (n.as_bytes(), v.as_bytes()));
    let headers = Headers::new(pack(pairs));
    let identity = Identity::read(
        &Request::read(&headers),
        &headers,
        &Config::default().id_sources,
        trusted,
    );
    let aliases: Vec<_> = identity
        .aliases
        .iter()
        .map(|a| String::from_utf8_lossy(a).into_owned())
        .collect();
    let event = identity.event.as_ref().map_or("-", EventId::as_str);
    let borrowed = if identity.borrowed { " borrowed" } else { "" };
    let said = format!(
        "{event}{borrowed} [{}] {}",
        aliases.join(" "),
        identity.invalid
    );
    assert_eq!(said, expected, "{lines}");
}

#[test]
fn the_first_of_the_list_names_the_event() {
    check(true, "", "- [] 0");
    check(true, "x-event-id=e1", "e1 [] 0");
    check(
        true,
        &format!("x-request-id={RID} | traceparent={PARENT} | x-event-id=e1"),
        &format!("e1 [{TRACE} {RID_4}] 0"),
    );
    check(
        true,
        "ce-correlationid=c%3A1 | baggage=event.id=e2",
        "c:1 [] 0",
    );
    check(true, "baggage=a=b | baggage=x=y,event.id=e2;p", "e2 [] 0");
    check(
        true,
        &format!("traceparent={PARENT}"),
        &format!("{TRACE} borrowed [{TRACE}] 0"),
    );
    check(
        true,
        &format!("b3={TRACE}-00f067aa0ba902b7-1 | x-b3-traceid={TRACE}"),
        &format!("{TRACE} borrowed [{TRACE}] 0"),
    );
    check(
        true,
        &format!("b3=0 | x-request-id={RID}"),
        &format!("{RID_4} borrowed [{RID_4}] 0"),
    );
}

#[test]
fn a_borrowed_id_stays_borrowed_when_handed_on() {
    check(
        true,
        &format!("x-event-id={TRACE} | traceparent={PARENT}"),
        &format!("{TRACE} borrowed [{TRACE}] 0"),
    );
}

#[test]
fn what_breaks_its_grammar_is_absent_and_counted() {
    check(
        true,
        "x-event-id=a b | x-request-id=r1",
        "r1 borrowed [r1] 1",
    );
    check(true, "x-event-id= | traceparent=00-xyz", "- [] 2");
    check(
        true,
        &format!("traceparent={PARENT} | traceparent={PARENT}"),
        "- [] 1",
    );
    check(
        true,
        &format!("x-event-id=e1 | ce-correlationid={}", "x".repeat(129)),
        "e1 [] 1",
    );
}

#[test]
fn from_outside_no_id_is_chosen() {
    check(
        false,
        "x-event-id=e1 | ce-correlationid=c1 | baggage=event.id=b1 | x-request-id=r1",
        "r1 borrowed [r1] 0",
    );
}

#[test]
fn a_configured_header_is_a_source() {
    assert_eq!(Source::of_header("Traceparent"), Source::Traceparent);
    let headers = Headers::new(pack([(&b"x-order"[..], &b"o1"[..])].into_iter()));
    let sources = [Source::of_header("X-Order")];
    let identity = Identity::read(&Request::read(&headers), &headers, &sources, true);
    assert_eq!(identity.event.unwrap().as_str(), "o1");
}

#[test]
fn minted_ids_are_uuid_v7() {
    let id = mint(0x0198_c3a2_1111, [u64::MAX, u64::MAX]).unwrap();
    assert_eq!(id.as_str(), "0198c3a2-1111-7fff-bfff-ffffffffffff");
    let id = mint(0x0198_c3a2_1111, [0, 0]).unwrap();
    assert_eq!(id.as_str(), "0198c3a2-1111-7000-8000-000000000000");
}
