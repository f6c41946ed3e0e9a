//! The pool of services that the topologies share: 51 real sidecars, whose clocks differ by minutes, behind one gateway;
//! and what was seen of an event, as lines that a test can compare.

use anyhow::Result;
use kaeru_e2e::api::{Attempt, Decision, Event, PlanEntry, Step};
use kaeru_e2e::graph::{Graph, Plan, Work};
use kaeru_e2e::wait::{self, Seen};
use serde_json::json;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// A failed entry may be tried again for a minute in events of one type, for as long as the default in others.
const POLICY: &str = "
mode: enforce
# Scenarios fail many of their few events on purpose.
doomed_max: 100%
event_types:
  order.patient:
    entry_retry_wait: 60s
";

/// How many services there are: one that calls, and fifty that it calls.
pub(crate) const SERVICES: usize = 51;
/// How far the clocks of their proxies are ahead, s, in turns: of two neighbours never the same.
const CLOCKS_S: [i64; 4] = [300, -420, 0, 660];
/// The peer that may choose event ids at the gateway.
pub(crate) const TRUSTED: &str = "spiffe://cluster.local/ns/graph/sa/till";

static POOL: OnceCell<Graph> = OnceCell::const_new();

/// The name of the nth service: `a`, `b`, `c`, `d`, `s4`, `s5`, …
pub(crate) fn name(index: usize) -> String {
    match ["a", "b", "c", "d"].get(index) {
        Some(name) => (*name).into(),
        None => format!("s{index}"),
    }
}

/// How far the clock of a service's proxy is ahead, s.
pub(crate) fn clock_s(index: usize) -> i64 {
    CLOCKS_S[index % CLOCKS_S.len()]
}

/// The pool.
pub(crate) async fn pool() -> Result<&'static Graph> {
    let start = || async {
        Graph::start(Plan {
            name: "pool".into(),
            policy: POLICY.into(),
            filter: json!({ "status_interval_s": 2 }),
            services: (0..SERVICES).map(|i| (name(i), clock_s(i))).collect(),
            gateway: Some(json!({ "status_interval_s": 2, "trust_ids_from": [TRUSTED] })),
            ..Plan::default()
        })
        .await
    };
    POOL.get_or_try_init(start).await
}

/// Sends work as an event of this id, and waits until all of it has been heard of: every attempt that was made, each told
/// by the service itself, at its end.
pub(crate) async fn whole(graph: &Graph, work: &Work, id: &str, attempts: usize) -> Result<Event> {
    graph.send(work, &[("x-event-id", id)]).await?;
    heard(graph, id, attempts).await
}

/// Sends work whose calls to `held` are held, and lets them go side by side: when all have arrived, and as much time again
/// has passed. (How long a call took is told by its callee, which does not know how long it was on its way.)
pub(crate) async fn side_by_side(
    graph: &Graph,
    work: &Work,
    id: &str,
    held: &[String],
) -> Result<()> {
    let headers = [("x-event-id", id)];
    let let_go = async {
        let begun = Instant::now();
        for service in held {
            graph.arrived(service, &work.run, 1).await?;
        }
        let arrived = Instant::now();
        wait::until("as much time again", || async {
            let passed = arrived.elapsed();
            Ok(Seen::when(passed > arrived - begun, passed))
        })
        .await?;
        for service in held {
            graph.release(service, &work.run)?;
        }
        Ok(())
    };
    tokio::try_join!(graph.send(work, &headers), let_go)?;
    Ok(())
}

/// Waits until so many attempts of an event have been heard of, all ended.
pub(crate) async fn heard(graph: &Graph, id: &str, attempts: usize) -> Result<Event> {
    let api = graph.api()?;
    // The number of reports is as of the decider's last look, the steps are of now.
    let is_whole = |event: &Event| {
        let seen = tries(event);
        seen.len() >= attempts && seen.iter().all(|a| !a.open) && event.summary.reports >= attempts
    };
    let what = format!("{attempts} attempts");
    let event = api.event_when(id, &what, is_whole).await?;
    let seen = tries(&event);
    assert_eq!(seen.len(), attempts, "{:#?}", lines(&event));
    assert!(seen.iter().all(|a| a.seen_by == "service"), "{seen:#?}");
    // One report per hop; one more where a request happened to be open at a flush of its proxy.
    let reports = event.summary.reports;
    assert!(
        reports <= 2 * attempts,
        "{reports} reports of {attempts} attempts"
    );
    Ok(event)
}

/// Waits until an event is over, and nothing was decided about it.
pub(crate) async fn spared(graph: &Graph, id: &str, state: &str) -> Result<Event> {
    let over = |event: &Event| event.summary.state == state;
    let event = graph.api()?.event_when(id, state, over).await?;
    assert!(event.decision.is_none(), "{:#?}", event.decision);
    Ok(event)
}

/// Waits until the plan of an event's decision reads like this.
pub(crate) async fn planned(graph: &Graph, id: &str, plan: &[String]) -> Result<Decision> {
    let api = graph.api()?;
    wait::until(&format!("the plan {plan:#?}"), || async {
        let decision = api.decision_of(id).await?;
        let seen = entries(&decision);
        Ok(if seen == plan {
            Seen::Yes(decision)
        } else {
            Seen::NotYet(format!("{seen:#?}"))
        })
    })
    .await
}

fn tries(event: &Event) -> Vec<&Attempt> {
    let calls = event.steps.iter().flat_map(|step| &step.calls);
    calls.flat_map(|call| &call.attempts).collect()
}

/// An event's steps in the order of their names, `c < a b: POST /left, POST /right`: its callers, and its calls in the
/// order in which they came, by its own clock.
pub(crate) fn lines(event: &Event) -> Vec<String> {
    let mut steps: Vec<&Step> = event.steps.iter().collect();
    steps.sort_by_key(|step| &step.service);
    steps.into_iter().map(line).collect()
}

fn line(step: &Step) -> String {
    let parents: Vec<_> = step.parents.iter().map(|p| short(p)).collect();
    let calls: Vec<_> = (step.calls.iter())
        .map(|call| format!("{} {}", call.method, call.path))
        .collect();
    let service = short(&step.service);
    format!("{service} < {}: {}", parents.join(" "), calls.join(", "))
}

/// A plan's entries as they stand: `b after c d with e`.
pub(crate) fn entries(decision: &Decision) -> Vec<String> {
    let entries = decision.plan.entries.iter();
    entries.map(entry).collect()
}

fn entry(entry: &PlanEntry) -> String {
    let mut words = vec![short(&entry.service)];
    for (word, peers) in [("after", &entry.after), ("with", &entry.together)] {
        if !peers.is_empty() {
            words.push(word);
            words.extend(peers.iter().map(|peer| short(peer)));
        }
    }
    words.join(" ")
}

fn short(peer: &str) -> &str {
    peer.strip_prefix("graph/").unwrap_or(peer)
}

/// An id that nothing else has.
pub(crate) fn new_id(what: &str) -> String {
    format!("{what}-{}", uuid::Uuid::new_v4())
}

/// Lines as [`planned`] and [`lines`] have them.
pub(crate) fn text<const N: usize>(lines: [&str; N]) -> Vec<String> {
    lines.map(str::to_owned).to_vec()
}
