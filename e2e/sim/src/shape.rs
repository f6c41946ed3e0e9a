//! What a schedule is made of, all of it drawn from its seed: services and who calls whom, their temper, proxies,
//! clients, the policy.

mod policy;

use kaeru_flow::Policy;
use kaeru_protocol::ServiceName;

use crate::chance::Chance;

pub(crate) use policy::{EVENT_TYPE, change};

/// How services call each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// One after another.
    Chain,
    /// Two branches that meet again.
    Diamond,
    /// One calls many.
    FanOut,
    /// A callee calls its caller.
    Loop,
    /// A consumer takes a branch off a queue.
    Queue,
    /// A host outside the mesh.
    External,
    /// The entry is a gateway.
    Gateway,
}

impl Topology {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Chain,
        Self::Diamond,
        Self::FanOut,
        Self::Loop,
        Self::Queue,
        Self::External,
        Self::Gateway,
    ];
}

/// Whom a service calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// A service of the mesh.
    Service(usize),
    /// A host outside it.
    External,
}

/// A kind of call that a service makes.
#[derive(Debug, Clone)]
pub(crate) struct Edge {
    pub(crate) to: Target,
    pub(crate) path: &'static str,
    pub(crate) method: &'static str,
}

/// Which of the ids that it saw a service hands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hands {
    /// `x-event-id` and baggage.
    EventId,
    /// Baggage alone.
    Baggage,
    /// The trace or request id alone.
    Borrowed,
}

/// What a service does when a call of its fails for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// It fails too.
    PassOn,
    /// It rejects, as its callee did or not.
    Reject,
    /// It does without.
    DoWithout,
    /// It compensates what it did and what it had done, and fails or rejects.
    Compensate,
    /// It says `failed`.
    SayFailed,
}

/// One service.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) name: ServiceName,
    pub(crate) host: &'static str,
    pub(crate) pods: usize,
    pub(crate) workers: usize,
    pub(crate) is_gateway: bool,
    pub(crate) edges: Vec<Edge>,
    /// Its calls are made at once.
    pub(crate) together: bool,
    pub(crate) hands: Hands,
    pub(crate) habit: Habit,
    /// Calls that fail are made again so often.
    pub(crate) retries: u32,
    pub(crate) writes_first: bool,
    pub(crate) temper: Temper,
    /// The consumer to which it hands a branch.
    pub(crate) hands_to: Option<usize>,
}

/// How often a request ends in what way, in hundredths; the rest is a success.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Temper {
    pub(crate) fails: u64,
    pub(crate) rejects: u64,
    pub(crate) fatal: u64,
    pub(crate) says_failed: u64,
    pub(crate) hangs: u64,
    pub(crate) crashes: u64,
    pub(crate) slow: u64,
    pub(crate) long: u64,
}

/// How an order's id comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Id {
    /// `x-event-id`, from inside the mesh.
    Chosen,
    /// A trace id.
    Trace,
    /// A request id.
    Request,
}

/// What a client wants.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) at_ms: u64,
    pub(crate) id: Id,
    /// Orders with the same number share one trace id.
    pub(crate) shares: Option<usize>,
    pub(crate) is_safe: bool,
    pub(crate) has_type: bool,
    pub(crate) deadline_s: Option<u64>,
    /// Goes away after, ms.
    pub(crate) patience_ms: Option<u64>,
    /// Tries again so long after a failure, ms.
    pub(crate) retries_ms: Vec<u64>,
}

/// A schedule before it begins.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) topology: Topology,
    pub(crate) services: Vec<Service>,
    pub(crate) entry: usize,
    pub(crate) orders: Vec<Order>,
    pub(crate) policy: Policy,
    pub(crate) policy_changes_ms: Vec<u64>,
    pub(crate) aggregators: usize,
    pub(crate) flush_ms: u64,
    pub(crate) heartbeat_s: u64,
    pub(crate) status_s: u64,
    pub(crate) poll_wait_ms: u64,
    pub(crate) report_timeout_ms: u64,
    pub(crate) outbox_max: u64,
    pub(crate) open_max: u64,
    pub(crate) verdict_idle_ms: u64,
    /// The most that a proxy's clock is off, ms.
    pub(crate) apart_ms: u64,
    /// The most that an aggregator's reading of the store's clock is off, ms.
    pub(crate) aggregators_apart_ms: u64,
    pub(crate) call_timeout_ms: u64,
    pub(crate) envoy_retries: u32,
    pub(crate) begins_ms: u64,
    /// How rough the weather is, in thousandths of messages that meet a fault; 0: none does.
    pub(crate) rough: u64,
    /// Faults of whole parts.
    pub(crate) blows: usize,
    /// They strike Kaeru alone: aggregators and the database.
    pub(crate) strikes_kaeru: bool,
    pub(crate) operator_acts: usize,
    pub(crate) cron: usize,
}

const NAMES: [(&str, &str); 7] = [
    ("shop/a", "a"),
    ("shop/b", "b"),
    ("shop/c", "c"),
    ("shop/d", "d"),
    ("shop/e", "e"),
    ("shop/f", "f"),
    ("mesh/gate", "gate"),
];
const PATHS: [&str; 6] = ["/a", "/b", "/c", "/d", "/e", "/f"];
/// The host outside the mesh.
pub(crate) const EXTERNAL: &str = "pay.example";
/// 2026-01-01, and 20 seconds before the midnight after it.
const STARTS_MS: [u64; 2] = [1_767_225_600_000, 1_767_225_600_000 + 86_380_000];

impl Shape {
    /// The shape of a seed.
    pub(crate) fn draw(chance: &mut Chance) -> Self {
        let topology = *chance.of(&Topology::ALL);
        let calm = chance.percent(15);
        let mut services = services(topology, chance);
        let entry = if topology == Topology::Gateway {
            services.len() - 1
        } else {
            0
        };
        if calm {
            for service in &mut services {
                service.retries = service.retries.min(1);
            }
        }
        let strikes_kaeru = chance.percent(25);
        let flush_ms = *chance.of(&[500, 1_000]);
        let heartbeat_s = chance.within(1..=3);
        let rough = if calm { 0 } else { *chance.of(&[0, 5, 20, 60]) };
        Self {
            topology,
            entry,
            orders: orders(topology, chance),
            policy: policy::draw(&services, flush_ms, chance),
            policy_changes_ms: if chance.percent(30) {
                (0..chance.within(1..=2))
                    .map(|_| chance.within(1_000..=12_000))
                    .collect()
            } else {
                Vec::new()
            },
            aggregators: 1 + chance.below(2),
            flush_ms,
            heartbeat_s,
            status_s: chance.within(2..=4),
            poll_wait_ms: *chance.of(&[1_000, 3_000, 10_000]),
            report_timeout_ms: *chance.of(&[1_000, 2_500]),
            outbox_max: if chance.percent(15) && !calm {
                chance.within(3..=12)
            } else {
                8_192
            },
            open_max: if chance.percent(5) { 2 } else { 10_000 },
            verdict_idle_ms: if chance.percent(20) { 6_000 } else { 600_000 },
            apart_ms: if calm {
                0
            } else {
                *chance.of(&[0, 300, 5_000, 180_000])
            },
            aggregators_apart_ms: if calm { 0 } else { *chance.of(&[0, 0, 10, 40]) },
            call_timeout_ms: *chance.of(&[1_500, 4_000, 8_000]),
            envoy_retries: u32::from(chance.percent(25)),
            begins_ms: STARTS_MS[usize::from(chance.percent(10))],
            rough,
            blows: if calm {
                0
            } else {
                chance.below(4) + usize::from(strikes_kaeru)
            },
            strikes_kaeru,
            operator_acts: chance.below(3),
            cron: usize::from(chance.percent(15)),
            services,
        }
    }
}

fn services(topology: Topology, chance: &mut Chance) -> Vec<Service> {
    let count = match topology {
        Topology::Diamond | Topology::Queue => 4,
        Topology::Loop | Topology::External => chance.within(2..=3),
        Topology::FanOut => chance.within(3..=6),
        Topology::Chain | Topology::Gateway => chance.within(2..=5),
    };
    let count = usize::try_from(count).unwrap_or(2);
    let edges: Vec<(usize, usize)> = match topology {
        Topology::Chain | Topology::External | Topology::Gateway => {
            (1..count).map(|to| (to - 1, to)).collect()
        }
        Topology::Loop => (1..count)
            .map(|to| (to - 1, to))
            .chain([(count - 1, 0)])
            .collect(),
        Topology::Diamond => vec![(0, 1), (0, 2), (1, 3), (2, 3)],
        Topology::FanOut => (1..count).map(|to| (0, to)).collect(),
        // a calls b; a hands a branch to the consumer c, which calls d.
        Topology::Queue => vec![(0, 1), (2, 3)],
    };
    let heat = *chance.of(&[2, 5, 9]);
    let mut all: Vec<Service> = (0..count)
        .map(|place| service(place, heat, chance))
        .collect();
    for (from, to) in edges {
        all[from].edges.push(Edge {
            to: Target::Service(to),
            path: PATHS[to],
            method: if chance.percent(8) { "GET" } else { "POST" },
        });
    }
    if topology == Topology::Queue {
        all[0].hands_to = Some(2);
    }
    if topology == Topology::External {
        let edge = Edge {
            to: Target::External,
            path: "/charge",
            method: "POST",
        };
        let caller = chance.below(count);
        all[caller].edges.push(edge);
    }
    if topology == Topology::Gateway {
        let mut gateway = service(6, 0, chance);
        gateway.is_gateway = true;
        all.push(gateway);
    }
    all
}

fn service(place: usize, heat: u64, chance: &mut Chance) -> Service {
    let (name, host) = NAMES[place];
    let mut often = |weight: u64| chance.within(0..=heat * weight / 3);
    let temper = Temper {
        fails: often(4),
        rejects: often(2),
        fatal: often(1),
        says_failed: often(2),
        hangs: often(1),
        crashes: often(1),
        slow: often(3),
        long: often(3),
    };
    Service {
        name: name.parse().unwrap_or_else(|_| unreachable!("a name")),
        host,
        pods: 1 + usize::from(chance.percent(40)),
        workers: 1 + chance.below(3),
        is_gateway: false,
        edges: Vec::new(),
        together: chance.percent(25),
        hands: *chance.of(&[Hands::EventId, Hands::Baggage, Hands::Borrowed]),
        habit: *chance.of(&[
            Habit::PassOn,
            Habit::PassOn,
            Habit::Reject,
            Habit::DoWithout,
            Habit::Compensate,
            Habit::SayFailed,
        ]),
        retries: if chance.percent(50) { 0 } else { 2 },
        writes_first: chance.percent(50),
        temper,
        hands_to: None,
    }
}

fn orders(topology: Topology, chance: &mut Chance) -> Vec<Order> {
    let count = chance.within(3..=7);
    let mut all: Vec<Order> = (0..count).map(|_| order(topology, chance)).collect();
    if chance.percent(25) {
        // Some of them carry one trace id.
        let first = chance.below(all.len());
        let at_ms = all[first].at_ms;
        let more = chance.within(1..=3);
        all[first] = Order {
            id: Id::Trace,
            shares: Some(0),
            is_safe: false,
            deadline_s: None,
            ..all[first].clone()
        };
        for _ in 0..more {
            let later_ms = *chance.of(&[0, 40, 700, 3_000]);
            all.push(Order {
                at_ms: at_ms + later_ms,
                ..all[first].clone()
            });
        }
    }
    all
}

fn order(topology: Topology, chance: &mut Chance) -> Order {
    // A gateway believes nobody's chosen id.
    let id = if topology == Topology::Gateway {
        *chance.of(&[Id::Trace, Id::Request])
    } else {
        *chance.of(&[Id::Chosen, Id::Chosen, Id::Trace, Id::Request])
    };
    Order {
        at_ms: chance.within(200..=9_000),
        id,
        shares: None,
        is_safe: chance.percent(7),
        has_type: chance.percent(50),
        deadline_s: (id == Id::Chosen && chance.percent(20)).then(|| chance.within(1..=5)),
        patience_ms: chance.percent(10).then(|| chance.within(5..=3_000)),
        retries_ms: match chance.below(4) {
            0 => vec![chance.within(20..=900)],
            1 => vec![chance.within(20..=900), chance.within(20..=6_000)],
            2 => vec![chance.within(1_000..=8_000)],
            _ => Vec::new(),
        },
    }
}
