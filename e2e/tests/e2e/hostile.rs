//! Requests that nobody sends in good faith, through real Envoys: every header that the filter reads, of a request and of an
//! answer, with any bytes that HTTP has, from outside and from a peer, over HTTP/1 and HTTP/2, gRPC among them. With
//! `KAERU_TORTURE` set 20,000 of them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use kaeru_e2e::config::Attack;
use kaeru_e2e::customer::Customer;
use kaeru_e2e::shop::{Order, Role};
use kaeru_e2e::wait::{self, Seen};
use kaeru_e2e::world::World;
use kaeru_protocol::EventId;
use tokio::task::JoinSet;

use crate::mutate::Mutator;
use crate::stage::{doomed, filters_are_well, known, plan, play};

/// Requests of the quick and the long form.
const REQUESTS: u32 = 600;
const TORTURE_REQUESTS: u32 = 20_000;
/// What certainly fits in Envoy's limit of 60 KiB: HTTP/2 may write 26 bits for a byte above 127.
const CERTAIN_BYTES: usize = 15_000;
/// Sent side by side.
const ABREAST: usize = 8;
/// The headers that the filter reads of a request.
const READ: &[&str] = &[
    "x-event-id",
    "x-event-from",
    "x-event-type",
    "x-event-deadline",
    "x-event-undo",
    "x-event-new",
    "ce-correlationid",
    "ce-type",
    "baggage",
    "traceparent",
    "b3",
    "x-b3-traceid",
    "x-request-id",
    "x-envoy-attempt-count",
    "content-type",
    "user-agent",
];
/// The headers that it reads of an answer.
const SAID: &[&str] = &[
    "x-event-status",
    "x-event-progress",
    "x-event-reported",
    "endpoint-load-metrics",
    "endpoint-load-metrics-bin",
];
/// Every forged claim names this, so that it is seen wherever it gets to.
const FORGED: &str = "forged";
const SEEDS: &[&[u8]] = &[
    b"forged-1",
    b"forged'; DROP TABLE events; --",
    b"forged\"<script>alert(1)</script>",
    b"forged/service;t=1767225600123;handed-over",
    b"forged.type",
    b"a=b,event.id=forged-2;p",
    b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    b"80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1",
    b"TEXT cpu_utilization=0.5,named_metrics.q=1",
    b"JSON {\"eps\":1}",
    b"BIN CQAAAAAAAOA/",
    b"application/grpc",
    b"running",
    b"2/5",
    b"\x80\xff\xc3\x28",
    b"",
];
const WORDS: &[&[u8]] = &[
    b"event.id=forged",
    b",",
    b";",
    b"=",
    b"%0d%0a",
    b"%ff",
    b"\xf0\x9f\x90\xb8",
    b"'",
    b"--",
    b"99999999999999999999",
];

#[test]
fn whatever_a_request_brings_no_vm_dies_and_nothing_forged_gets_anywhere() -> Result<()> {
    play(async {
        let world = World::start(plan("hostile")).await?;
        let Attack { rounds, seed } = Attack::find(REQUESTS, TORTURE_REQUESTS);
        let count = usize::try_from(rounds)?;
        let mut mutator = Mutator::new(SEEDS, WORDS, seed);
        let mut answered = [0; 6];
        let mut failures = BTreeSet::new();
        let mut sent = 0;
        while sent < count {
            let mut abreast = JoinSet::new();
            for _ in 0..ABREAST {
                // One HTTP/2 connection each: Envoy ends it at a header block above its limit, whoever else is on it.
                let (sender, from_outside) = match sent % 3 {
                    0 => (world.outside.clone(), true),
                    1 => (Customer::outside_grpc()?, true),
                    _ => (world.peer.clone(), false),
                };
                let role = Role::MESH[sent % Role::MESH.len()];
                let to = world.inbound(role)?;
                let order = Order {
                    says: answer(&mut mutator),
                    ..Order::default()
                };
                let headers = request(&mut mutator);
                let size: usize = headers
                    .iter()
                    .map(|(n, v)| n.as_str().len() + v.len())
                    .sum();
                abreast.spawn(async move {
                    let body = serde_json::to_string(&order)?;
                    let told = sender.send_raw(to, "/orders", headers, body).await;
                    anyhow::Ok((order.number, role, from_outside, size, told))
                });
                sent += 1;
            }
            while let Some(done) = abreast.join_next().await {
                let (number, role, from_outside, size, told) = done??;
                // Above its limit Envoy may close the connection instead of answering.
                match told {
                    Ok(told) => {
                        answered[usize::from(told.status / 100).min(5)] += 1;
                        if told.status >= 500 {
                            failures.insert(format!("{}: {}", told.status, told.body));
                        }
                    }
                    Err(error) => {
                        assert!(size > CERTAIN_BYTES, "{size} bytes of headers: {error:#}");
                        answered[0] += 1;
                    }
                }
                for arrival in world.arrivals(role, &number).await? {
                    let event = arrival.headers.get("x-event-id").context("no event id")?;
                    assert!(event.parse::<EventId>().is_ok(), "{event:?}");
                    assert!(!arrival.headers.contains_key("x-event-from"));
                    for (name, value) in arrival.headers.iter().filter(|_| from_outside) {
                        let ours = name.starts_with("x-event-") || name == "ce-correlationid";
                        let claims = name == "baggage" && value.split(',').any(claims_forged);
                        assert!(
                            !(ours && value.contains(FORGED) || claims),
                            "{name}: {value}"
                        );
                    }
                }
            }
        }
        println!(
            "hostile, seed {seed}: {sent} hostile requests: {} answered by nobody (above Envoy's limit), {} with 2xx, {} with 4xx, {} with 5xx {failures:?}",
            answered[0], answered[2], answered[4], answered[5]
        );
        assert!(answered[2] * 2 > sent, "most of them pass: {answered:?}");
        smuggled(&world).await?;
        forged_undo(&world).await?;
        the_pages_bear_it(&world).await?;
        for stat in ["invalid_ids", "invalid_headers", "taken_off_at_the_edge"] {
            let name = format!("wasmcustom.kaeru_{stat}_total");
            wait::until(&name, || async {
                let counted = world.sidecar(Role::Db)?.stat(&name).await?;
                Ok(Seen::when(counted > 0, counted))
            })
            .await?;
        }
        filters_are_well(&world).await?;
        Ok(())
    })
}

/// Whether a member of a baggage is the event's id, and forged.
fn claims_forged(member: &str) -> bool {
    let (name, id) = member.split_once('=').unwrap_or_default();
    name.trim() == "event.id" && id.trim().starts_with(FORGED)
}

/// The headers of one request, names as often as they come.
fn request(mutator: &mut Mutator<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for _ in 0..=mutator.below(10) {
        let name = READ[mutator.below(READ.len())];
        let mut value = value(mutator);
        // Anyone may lend a request id: an event's id is what it may become.
        let text = value.to_str().unwrap_or_default();
        if name == "x-request-id" && text.contains(FORGED) {
            value = HeaderValue::from_str(&text.replace(FORGED, "lent")).unwrap_or(value);
        }
        headers.append(HeaderName::from_static(name), value);
    }
    match mutator.below(20) {
        2 => {
            let long = vec![b"\xe9a,=;'"[mutator.below(6)]; 30_000 + mutator.below(30_000)];
            let name = HeaderName::from_static(READ[mutator.below(READ.len())]);
            headers.extend(
                HeaderValue::from_bytes(&long)
                    .ok()
                    .map(|value| (name, value)),
            );
        }
        0 => {
            let members: Vec<_> = (0..1_000).map(|n| format!("m{n}=\u{e9}{n}")).collect();
            let baggage = HeaderValue::from_bytes(members.join(",").as_bytes());
            headers.extend(
                baggage
                    .ok()
                    .map(|value| (HeaderName::from_static("baggage"), value)),
            );
        }
        1 => {
            let grpc = HeaderValue::from_static("application/grpc");
            headers.insert("content-type", grpc);
        }
        _ => {}
    }
    headers
}

/// Any bytes that HTTP has in a value.
fn value(mutator: &mut Mutator<'_>) -> HeaderValue {
    let mut bytes = Vec::new();
    mutator.next(&mut bytes);
    bytes.retain(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
    HeaderValue::from_bytes(&bytes).unwrap_or(HeaderValue::from_static(""))
}

/// What the service says of itself.
fn answer(mutator: &mut Mutator<'_>) -> Vec<(String, String)> {
    let mut says = Vec::new();
    for _ in 0..mutator.below(4) {
        let name = SAID[mutator.below(SAID.len())];
        let value = value(mutator);
        let short = &value.as_bytes()[..value.len().min(5_000)];
        says.push((
            name.to_owned(),
            short.iter().copied().map(char::from).collect(),
        ));
    }
    says
}

/// Bytes that HTTP does not have in a value, written to the wire by hand: Envoy refuses each, and lives.
async fn smuggled(world: &World) -> Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let to = world.inbound(Role::Db)?;
    for bad in [
        "x-event-id: forged-3\r\n folded",
        "x-event-id: forged-4\0",
        "x-event-id: forged-5\nx-event-undo: forged",
        "x-event-id\r: forged-6",
        "x-event-id : forged-7",
    ] {
        let mut stream = tokio::net::TcpStream::connect(to).await?;
        let text = format!(
            "GET /orders/smuggled HTTP/1.1\r\nhost: db\r\nconnection: close\r\n{bad}\r\n\r\n"
        );
        stream.write_all(text.as_bytes()).await?;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        tokio::time::timeout(Duration::from_secs(30), read)
            .await
            .context("no answer")??;
        assert!(
            answer.starts_with(b"HTTP/1.1 "),
            "{bad:?}: {}",
            answer.escape_ascii()
        );
    }
    for arrival in world.arrivals(Role::Db, "smuggled").await? {
        assert!(!format!("{arrival:?}").contains(FORGED), "{arrival:?}");
    }
    Ok(())
}

/// An undo call needs the decision's own id.
async fn forged_undo(world: &World) -> Result<()> {
    let (event, decision) = doomed(world, "order.by-word").await?;
    known(world, &[Role::Db], &event).await?;
    let near = &decision.id[1..];
    for undo in ["", "forged", "*", near, "'; --", "\u{e9}"] {
        let mut headers = HeaderMap::new();
        headers.insert("x-event-id", HeaderValue::from_str(&event)?);
        headers.insert("x-event-undo", HeaderValue::from_bytes(undo.as_bytes())?);
        let body = serde_json::to_string(&Order::default())?;
        let told = world
            .peer
            .send_raw(world.inbound(Role::Db)?, "/undo", headers, body)
            .await?;
        assert_eq!(told.status, 424, "{undo:?}: {told:?}");
    }
    Ok(())
}

/// What was stored are events with ids, and every page shows them.
async fn the_pages_bear_it(world: &World) -> Result<()> {
    let api = world.api()?;
    let events = api.events("limit=500").await?;
    assert!(!events.is_empty());
    for event in &events {
        assert!(event.event.parse::<EventId>().is_ok(), "{}", event.event);
    }
    for event in events.iter().step_by(10) {
        assert!(api.event(&event.event).await?.is_some(), "{}", event.event);
    }
    for event in api.events("limit=500&service=forged/service").await? {
        let services: Vec<_> = event
            .services
            .iter()
            .filter(|s| s.starts_with(FORGED))
            .collect();
        assert!(services.is_empty(), "{event:?}");
    }
    let known = Role::MESH.map(Role::peer);
    for service in api.services().await? {
        assert!(known.contains(&service.service), "{service:?}");
    }
    api.decisions("").await?;
    Ok(())
}
