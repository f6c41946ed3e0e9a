//! What every handler and worker can reach.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kaeru_protocol::{EventReport, Receipt, Report, Reporter, ReporterId, ServiceName};
use tokio::sync::{Semaphore, watch};

use crate::census::Census;
use crate::clock;
use crate::config::Serve;
use crate::decider::Decider;
use crate::feed::Feed;
use crate::ingest::{self, Fault, Ingest};
use crate::metrics::Metrics;
use crate::policy::Policies;
use crate::pulse::Pulse;
use crate::store::Store;
use crate::store::reporters::Sender;

/// Long polls at once: one per proxy; a waiting one takes about 10 KB with its connection.
const POLLS_MAX: usize = 20_000;

/// The parts of a running aggregator that workers share.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The settings it was started with.
    pub(crate) config: Serve,
    /// The database.
    pub(crate) store: Store,
    /// What it counts.
    pub(crate) metrics: Arc<Metrics>,
    /// The policy in force.
    pub(crate) policies: Arc<Policies>,
    /// How many names are held, and of whom.
    pub(crate) census: Arc<Census>,
    /// Whether it can take reports.
    pub(crate) pulse: Arc<Pulse>,
    /// What was told.
    pub(crate) feed: Arc<Feed>,
    /// What decides.
    pub(crate) decider: Decider,
    /// Room for long polls.
    pub(crate) polls: Semaphore,
    /// This process, as a reporter.
    identity: Identity,
}

/// What handlers reach; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct App {
    parts: Arc<Parts>,
    /// The way in for reports.
    pub(crate) ingest: Ingest,
    /// Becomes true when the process is told to stop.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// An aggregator is a reporter too: it states what operators demand, and what services without a sidecar say.
#[derive(Debug)]
struct Identity {
    process: u64,
    last_seq: AtomicU64,
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Parts {
    /// The parts of an aggregator over this store.
    pub(crate) fn new(config: Serve, store: Store) -> prometheus::Result<Self> {
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        let process = high ^ low;
        let metrics = Arc::new(Metrics::new()?);
        let policies = Arc::<Policies>::default();
        let census = Arc::<Census>::default();
        let pulse = Arc::new(Pulse::new(process));
        let feed = Feed::new();
        let decider = Decider::new(
            store.clone(),
            policies.clone(),
            census.clone(),
            pulse.clone(),
            feed.clone(),
            metrics.clone(),
            config.verdict_idle(),
        );
        Ok(Self {
            config,
            store,
            metrics,
            policies,
            census,
            pulse,
            feed,
            decider,
            polls: Semaphore::new(POLLS_MAX),
            identity: Identity {
                process,
                last_seq: AtomicU64::new(0),
            },
        })
    }
}

impl App {
    /// Handlers of these parts.
    pub(crate) fn new(parts: Arc<Parts>, ingest: Ingest, stopping: watch::Receiver<bool>) -> Self {
        Self {
            parts,
            ingest,
            stopping,
        }
    }

    /// The parts, for a worker.
    #[cfg(test)]
    pub(crate) fn parts(&self) -> Arc<Parts> {
        self.parts.clone()
    }

    /// States a report of this aggregator's own, in the name of `service`.
    pub(crate) async fn state(
        &self,
        service: ServiceName,
        report: EventReport,
    ) -> Result<Receipt, Fault> {
        let identity = &self.identity;
        let reporter = Reporter {
            // One reporter a service, for a reporter stands beside one service.
            id: ReporterId(identity.process ^ fingerprint(service.as_str())),
            proxy: format!("aggregator~{:016x}", identity.process).into(),
            service,
            gateway: false,
        };
        let now_ms = clock::now_ms();
        let batch = ingest::Batch {
            sender: Sender {
                reporter,
                is_proxy: false,
            },
            sent_ms: now_ms,
            reports: vec![Report {
                seq: identity.last_seq.fetch_add(1, Ordering::Relaxed) + 1,
                at_ms: now_ms,
                body: kaeru_protocol::Body::Event(Box::new(report)),
            }],
            rejected: Vec::new(),
        };
        self.ingest.store(batch).await
    }
}

/// FNV-1a, 64 bits: apart enough for the services that one process speaks for.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
