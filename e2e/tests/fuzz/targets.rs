//! The parsers of outside bytes, and what each must keep whatever the bytes.

use std::borrow::Cow;

use kaeru_aggregator::parsers;
use kaeru_filter::host::{Headers, pack};
use kaeru_filter::identity::{Identity, Source};
use kaeru_filter::orca::Load;
use kaeru_filter::request::Request;
use kaeru_filter::{answer, backoff, config, page, path, said, w3c};
use kaeru_protocol::{
    DecisionId, EventId, EventType, FeedCursor, Peer, ReporterId, ServiceName, Word, limits,
};

/// One parser.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Whole inputs to begin from; inputs that once broke a promise among them.
    pub(crate) seeds: &'static [&'static [u8]],
    /// What it looks for.
    pub(crate) words: &'static [&'static [u8]],
    /// Mutations in the quick form: some seconds at most, unoptimised.
    pub(crate) quick_runs: u32,
    /// Runs it; panics where its promise is broken.
    pub(crate) parse: fn(&[u8]),
}

const IDS: &[&[u8]] = &[
    b"order-7",
    b"0198c3a2-1111-7222-8333-444455556666",
    b"shop/web",
    b"host:payments.example.com:443",
    b"host:[::1]:80",
    b"POST shop/web /orders/{id}",
    b"7f3a-1:42",
    b"9f2c00d1e4a7b365",
    b"'; DROP TABLE events; --",
    b"a\"b\\c\nd\r\0",
    b"\xff\xfe\x80",
];
const HEADERS: &[&[u8]] = &[
    b"x-event-id",
    b"x-event-from",
    b"x-event-undo",
    b"baggage",
    b"event.id=",
    b"traceparent",
    b"b3",
    b"x-b3-traceid",
    b"x-request-id",
    b"ce-correlationid",
    b"application/grpc",
];
const JSON: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"null",
    b"true",
    b"-1",
    b"0.5",
    b"1e999",
    b"18446744073709551616",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"\\u0000",
    b"\\ud800",
    b"\"seq\":",
    b"\"event\":",
    b"\"call\":",
    b"\"proxy\":{}",
    b"{\"a\":[",
];
const CONFIG: &[u8] = br#"{"mode":"enforce","service":"shop/web","role":"gateway","id_sources":["x-event-id","x-own"],
    "mesh_hosts":["*.svc.cluster.local"],"trust_ids_from":["spiffe://c/*"],"match":{"hosts":["a*"],"not_paths":["/x"]},
    "pass":[{"paths":["/audit/*"],"methods":["POST"]}],"refusal_status":424.0,"flush_interval_ms":10,"verdicts_max":1}"#;

/// All of them.
pub(crate) const TARGETS: &[Target] = &[
    target("ids", IDS, IDS, 100_000, ids),
    target(
        "traceparent",
        &[
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            b"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what",
        ],
        &[b"-", b"00", b"ff", b"-01-", b"0000000000000000"],
        100_000,
        traceparent,
    ),
    target(
        "b3",
        &[
            b"80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90",
            b"e457b5a2e4d86bd1-e457b5a2e4d86bd1",
            b"0",
        ],
        &[b"-", b"d", b"1", b"0000000000000000"],
        100_000,
        b3,
    ),
    target(
        "baggage",
        &[
            b"a=b,event.id=order-7;p=1, c=d",
            b"event.id=%6frder%",
            b"event.id=",
            b"event.id=e1,a=b,event.id=e2",
            b" , ,=,;",
        ],
        &[b"event.id=", b"event.id = ", b",", b";", b"=", b"%2", b"%ff", b"%00"],
        60_000,
        baggage,
    ),
    target(
        "orca",
        &[
            b"TEXT cpu_utilization=0.5,named_metrics.queue_depth=12,request_cost.db=2.5",
            b"JSON {\"cpu_utilization\":0.5,\"request_cost\":{\"db\":2.5},\"utilization\":{\"a\":1}}",
            b"BIN CQAAAAAAAOA/KhAKBXRvdGFsEQAAAAAAANA/QhYKC3F1ZXVlX2RlcHRoEQAAAAAAAChAIg0KAmRiEQAAAAAAAARA",
            b"TEXT request_cost.a=1e308,request_cost.b=1e308",
        ],
        &[
            b"TEXT ", b"JSON ", b"BIN ", b"named_metrics.", b"request_cost.", b"=1e308", b",", b"{",
        ],
        60_000,
        orca,
    ),
    target(
        "orca_bin",
        &[
            b"CQAAAAAAAOA/KhAKBXRvdGFsEQAAAAAAANA/QhYKC3F1ZXVlX2RlcHRoEQAAAAAAAChAIg0KAmRiEQAAAAAAAARA",
            b"//////////////8=",
            b"Kv////8P",
        ],
        &[b"CQ", b"Kh", b"Qh", b"////", b"AAAA", b"=", b"=="],
        100_000,
        orca_bin,
    ),
    target(
        "event_from",
        &[b"shop/web;t=1767225600123", b"shop/web; new=1; t=7 ;handed-over"],
        &[b";", b"t=", b"/", b"handed-over", b"18446744073709551616"],
        100_000,
        event_from,
    ),
    target(
        "said",
        &[b"0.4", b"2/5", b"1/0", b"30", b"failed"],
        &[b"/", b"1e999", b"-", b"NaN", b"inf", b"18446744073709551615"],
        100_000,
        said,
    ),
    target("request", HEADERS, IDS, 30_000, request),
    target(
        "path",
        &[
            b"/orders/17/pay?x=1#y",
            b"/v2beta1/log4j/u/ann@example.com",
            b"/c/9f2c00d/tree/{id}/{more}",
            b"/a/\xff\xfe/b",
        ],
        &[b"/", b"{id}", b"{more}", b"%", b"123", b"-", b"?", b"/v1/"],
        60_000,
        folded,
    ),
    target(
        "question",
        &[
            b"/v1/events/e1/status?status=running&progress=2%2F5",
            b"/v1/events/a%3A1/verdict",
        ],
        &[b"/v1/events/", b"/status", b"?", b"&", b"=", b"%", b"status=", b"progress="],
        100_000,
        question,
    ),
    target("configuration", &[CONFIG, b"{}", b""], JSON, 20_000, configuration),
    target(
        "receipt",
        &[
            br#"{"accepted":7,"rejected":[{"seq":3,"reason":"why"}]}"#,
            br#"{"accepted":1}"#,
        ],
        JSON,
        60_000,
        receipt,
    ),
    target(
        "verdict_page",
        &[include_bytes!("../../../protocol/tests/golden/verdicts.json")],
        JSON,
        20_000,
        verdict_page,
    ),
    target(
        "report_batch",
        &[include_bytes!("../../../protocol/tests/golden/batch.json")],
        JSON,
        10_000,
        report_batch,
    ),
    target(
        "policy",
        &[
            include_bytes!("../../../manifests/policy.yaml"),
            b"mode: enforce\nservices:\n  shop/pay: { fatal: [402], read_only: [POST /a/*] }\nevent_types:\n  o: { deadline: 2m }\n",
            b"a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]\n",
        ],
        &[
            b"mode: ", b"services:\n", b"event_types:\n", b"rules: ", b"{", b"[", b"]", b"}", b": ", b"\n  ", b"- ", b"&a ",
            b"*a", b"!!binary ", b"<<: ", b"|\n", b"100%", b"1s", b"99999999999999999999d", b"---\n", b"\"\\x",
        ],
        1_500,
        policy,
    ),
    target(
        "client_certificate",
        &[
            b"By=spiffe://c/ns/kaeru/sa/a;URI=spiffe://c/ns/shop/sa/web",
            br#"Subject="CN=a,b;URI=spiffe://c/ns/evil/sa/x";URI="spiffe://c/ns/shop/sa/web",Hash=1"#,
        ],
        &[b"URI=", b"spiffe://", b"/ns/", b"/sa/", b",", b";", b"\"", b"\\"],
        60_000,
        client_certificate,
    ),
];

const fn target(
    name: &'static str,
    seeds: &'static [&'static [u8]],
    words: &'static [&'static [u8]],
    quick_runs: u32,
    parse: fn(&[u8]),
) -> Target {
    Target {
        name,
        seeds,
        words,
        quick_runs,
        parse,
    }
}

/// What is read as an id is written the same, and no more than its grammar allows.
fn ids(input: &[u8]) {
    fn same(read: Result<impl ToString, impl Sized>, input: &[u8]) {
        if let Ok(id) = read {
            assert_eq!(id.to_string().as_bytes(), input);
        }
    }
    if let Ok(id) = EventId::from_bytes(input) {
        let grammar = |b: &u8| b.is_ascii_alphanumeric() || b"._:~-".contains(b);
        assert!(input.len() <= limits::EVENT_ID_MAX && id.as_str().bytes().all(|b| grammar(&b)));
    }
    same(EventId::from_bytes(input), input);
    same(EventType::from_bytes(input), input);
    same(ServiceName::from_bytes(input), input);
    same(Peer::from_bytes(input), input);
    same(DecisionId::from_bytes(input), input);
    if let Ok(peer) = Peer::host(input) {
        assert!(peer.is_external());
    }
    if let Ok(text) = std::str::from_utf8(input) {
        same(text.parse::<ReporterId>(), input);
        if let Ok(cursor) = text.parse::<FeedCursor>() {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }
}

fn is_trace(id: &[u8]) -> bool {
    matches!(id.len(), 16 | 32) && EventId::from_bytes(id).is_ok()
}

fn traceparent(input: &[u8]) {
    assert!(w3c::traceparent(input).is_none_or(|id| id.len() == 32 && is_trace(id)));
}

fn b3(input: &[u8]) {
    assert!(w3c::b3(input).is_none_or(is_trace) && w3c::b3_trace(input).is_none_or(is_trace));
    let _ = w3c::is_b3_decision(input);
    assert_eq!(w3c::request_id(input).len(), input.len());
}

/// A member that was set is read again, unless there was no room for it, and no other; one that was taken off is gone.
fn baggage(input: &[u8]) {
    let read = |baggage: &[u8]| w3c::baggage_member(baggage, "event.id").map(Cow::into_owned);
    let set = w3c::with_member(input, "event.id", Some("e1"));
    match read(set.as_deref().unwrap_or(input)) {
        Some(id) => assert_eq!(id, b"e1"),
        None => assert!(input.len() + "event.id=e1,".len() > w3c::BAGGAGE_BYTES_MAX),
    }
    let without = w3c::with_member(input, "event.id", None);
    let without = without.as_deref().unwrap_or(input);
    assert_eq!(read(without), None);
    assert!(without.len() <= input.len());
    assert!(w3c::percent_decoded(input).len() <= input.len());
}

fn load(load: Option<Result<Load, kaeru_filter::orca::Malformed>>) {
    if let Some(Ok(load)) = load {
        assert!(load.values.len() <= limits::LOAD_VALUES_MAX);
        let sums = load.values.iter().map(|(_, value)| *value).chain(load.cost);
        assert!(
            sums.into_iter()
                .all(|value| value.is_finite() && value >= 0.0)
        );
    }
}

fn orca(input: &[u8]) {
    load(Load::read(Some(input), None));
}

fn orca_bin(input: &[u8]) {
    load(Load::read(None, Some(input)));
}

fn event_from(input: &[u8]) {
    if let Some(from) = said::from(input) {
        assert!(from.service.len() < input.len());
    }
}

fn said(input: &[u8]) {
    assert!(said::progress(input).is_none_or(|share| (0.0..=1.0).contains(&share)));
    assert!(said::deadline_s(input).is_none_or(|seconds| seconds > 0));
    let _ = (
        said::number(input),
        backoff::retry_after_ms(input),
        Word::from_bytes(input),
    );
}

/// One input is a whole header map, packed as the proxy packs it and as no proxy does.
fn request(input: &[u8]) {
    let sources = config::Config::default().id_sources;
    let read = |headers: &Headers| {
        let request = Request::read(headers);
        let identity = Identity::read(&request, headers, &sources, true);
        assert!(identity.aliases.len() <= 4 && identity.invalid as usize <= sources.len());
        let _ = (
            request.host(),
            request.bare_path(),
            request.is_stream(),
            request.joined_baggage(headers),
        );
        let _ = config::Match::default().matches(&request);
        let _ = Source::of_header(&String::from_utf8_lossy(input));
    };
    read(&Headers::new(input.to_vec()));
    let half = input.len() / 2;
    let names = HEADERS.iter().enumerate();
    let pairs = names.map(|(index, name)| {
        (
            *name,
            if index % 2 == 0 {
                input
            } else {
                &input[half..]
            },
        )
    });
    let doubled = pairs
        .clone()
        .chain([(&b"baggage"[..], input), (&b"traceparent"[..], input)]);
    read(&Headers::new(pack(doubled)));
}

/// A folded path is short, printable, and folds to itself.
fn folded(input: &[u8]) {
    let folded = path::fold(input);
    assert!(folded.len() <= limits::PATH_MAX && folded.bytes().all(|b| b.is_ascii_graphic()));
    assert_eq!(path::fold(folded.as_bytes()), folded);
}

fn question(input: &[u8]) {
    for method in [&b"GET"[..], b"POST"] {
        let request = Request {
            method,
            path: input,
            ..Request::default()
        };
        let _ = answer::question(&request, true);
    }
}

/// Whatever it says, there is a configuration within its bounds, and few complaints.
fn configuration(input: &[u8]) {
    let (config, complaints) = config::parse(input);
    assert!((400..500).contains(&config.refusal_status) && config.flush_interval_ms >= 10);
    assert!(config.pass.len() <= 64 && config.id_sources.len() <= 64 && complaints.len() <= 10_000);
    let _ = (config.is_mesh_host(input), config.is_aggregator(input));
}

fn receipt(input: &[u8]) {
    assert!(page::rejected(input).is_none_or(|rejected| rejected <= input.len() as u64));
}

fn verdict_page(input: &[u8]) {
    if let Some(page) = page::verdicts(input) {
        assert!(page.verdicts.len() * 2 <= input.len());
    }
}

fn report_batch(input: &[u8]) {
    if let Ok((kept, rejected)) = parsers::batch(input) {
        assert!(kept + rejected <= limits::BATCH_REPORTS_MAX);
    }
}

fn policy(input: &[u8]) {
    if let Err(words) = parsers::policy(&String::from_utf8_lossy(input)) {
        assert!(!words.is_empty());
    }
}

fn client_certificate(input: &[u8]) {
    let parts = parsers::client_certificate(input);
    assert!(parts.is_none_or(|(namespace, account)| namespace.len() + account.len() < input.len()));
}
