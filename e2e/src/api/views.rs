//! What the API shows, as far as the scenarios and the demo read it. Times stay text.

use serde::Deserialize;

/// An event in a list.
#[derive(Debug, Clone, Deserialize)]
pub struct Summary {
    /// Its id.
    pub event: String,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    /// `running`, `succeeded`, …
    pub state: String,
    /// Its id is a trace or request id.
    pub borrowed: bool,
    /// Its id is shared by more than one event.
    pub shared: bool,
    /// The service that nobody in the mesh called.
    pub entry: Option<String>,
    /// Who takes part.
    pub services: Vec<String>,
    /// The step that failed.
    pub failed: Option<String>,
    /// How many reports there are of it.
    pub reports: usize,
}

/// One event in full.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    /// As in a list, but for the decision.
    #[serde(flatten)]
    pub summary: Summary,
    /// What each service did.
    pub steps: Vec<Step>,
    /// What was refused, or would have been.
    pub refusals: Vec<Refusal>,
    /// Clean-up requests that were let through.
    pub cleanups: Vec<Operation>,
    /// Undo calls.
    pub undos: Vec<Operation>,
    /// The rules that were looked at.
    pub considered: Vec<Considered>,
    /// The decision in force.
    pub decision: Option<Decision>,
}

impl Event {
    /// One service's part in it.
    pub fn step(&self, service: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.service == service)
    }

    /// What one rule said, in words; empty where it was not asked.
    pub fn why(&self, rule: &str) -> &str {
        let considered = self.considered.iter().find(|c| c.rule == rule);
        considered.map_or("", |considered| &considered.why)
    }
}

impl Decision {
    /// What its plan says that a service left behind; empty where it names none.
    pub fn effect(&self, service: &str) -> &str {
        let mut entries = self.plan.entries.iter();
        let entry = entries.find(|entry| entry.service == service);
        entry.map_or("", |entry| &entry.effect)
    }
}

/// One service's part in one event.
#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    /// `namespace/name` or `host:<authority>`.
    pub service: String,
    /// Nobody in the mesh called it.
    pub entry: bool,
    /// How it ended.
    pub outcome: String,
    /// What it may have left behind.
    pub effect: String,
    /// Its callers.
    pub parents: Vec<String>,
    /// What it said of the event.
    pub word: Option<String>,
    /// How far it is, as it last said.
    pub progress: Option<f32>,
    /// Its calls.
    pub calls: Vec<Call>,
}

/// The attempts at one thing.
#[derive(Debug, Clone, Deserialize)]
pub struct Call {
    /// The caller.
    pub from: Option<String>,
    /// Its method.
    pub method: String,
    /// Its path, ids folded.
    pub path: String,
    /// How it ended.
    pub outcome: String,
    /// Each try.
    pub attempts: Vec<Attempt>,
}

/// One try.
#[derive(Debug, Clone, Deserialize)]
pub struct Attempt {
    /// When it began, by its proxy's clock, set right.
    pub at: String,
    /// When its caller sent it, by the caller's clock.
    pub sent: Option<String>,
    /// How long it took, or has taken so far, ms.
    pub duration_ms: u64,
    /// HTTP status.
    pub status: Option<u16>,
    /// Envoy's response flags.
    pub flags: u64,
    /// Which of Envoy's tries it was.
    pub attempt: u32,
    /// How it ended.
    pub outcome: String,
    /// `service` or `caller`.
    pub seen_by: String,
    /// Not ended yet.
    pub open: bool,
}

/// A request that was refused, or would have been.
#[derive(Debug, Clone, Deserialize)]
pub struct Refusal {
    /// Whose proxy.
    pub service: String,
    /// `inbound` or `outbound`.
    pub side: String,
    /// The caller, on the inbound side.
    pub from: Option<String>,
    /// The callee, on the outbound side.
    pub to: Option<String>,
    /// Its method.
    pub method: String,
    /// Its path.
    pub path: String,
    /// When.
    pub at: String,
    /// False: only counted.
    pub enforced: bool,
}

/// An undo call, or a clean-up request.
#[derive(Debug, Clone, Deserialize)]
pub struct Operation {
    /// Whose proxy.
    pub service: String,
    /// Its method.
    pub method: String,
    /// Its path.
    pub path: String,
}

/// What one rule said.
#[derive(Debug, Clone, Deserialize)]
pub struct Considered {
    /// Which.
    pub rule: String,
    /// It dooms the event.
    pub fired: bool,
    /// In words.
    pub why: String,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Decision {
    /// Its id.
    pub id: String,
    /// The event.
    pub event: String,
    /// Grows by one at each change.
    pub revision: u32,
    /// `live`, `contested` or `withdrawn`.
    pub state: String,
    /// Why.
    pub reason: Reason,
    /// The reports it stands on.
    pub evidence: Vec<serde_json::Value>,
    /// What to undo.
    pub plan: Plan,
    /// The policy it was made by.
    pub policy_version: u64,
    /// The mode in force.
    pub mode: String,
    /// When.
    pub decided_at: String,
}

/// Why an event was doomed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Reason {
    /// `word`, `fatal`, …
    pub rule: String,
    /// The step that failed.
    pub peer: Option<String>,
    /// In words.
    pub text: String,
}

/// What to undo, in what order.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Plan {
    /// Every service that may have an effect is known.
    pub complete: bool,
    /// Those whose reports may be missing.
    pub missing: Vec<String>,
    /// One per service.
    pub entries: Vec<PlanEntry>,
}

/// One service in a plan.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct PlanEntry {
    /// Which.
    pub service: String,
    /// `yes` or `maybe` (or `no`, once cleared).
    pub effect: String,
    /// Nobody answers for its undo.
    pub by_hand: bool,
    /// Those that are undone before it.
    pub after: Vec<String>,
    /// Those of its cycle, that are undone with it.
    pub together: Vec<String>,
}

/// A verdict, as the API or a sidecar tells it.
#[derive(Debug, Clone, Deserialize)]
pub struct VerdictView {
    /// `proceed` or `roll_back`.
    pub verdict: String,
    /// The mode in force.
    pub mode: String,
}

/// A service in the list.
#[derive(Debug, Clone, Deserialize)]
pub struct ServiceSummary {
    /// `namespace/name`.
    pub service: String,
    /// How many proxies report for it.
    pub proxies: u64,
    /// Outbound requests that matched no open event.
    pub possible_splits: u64,
    /// Reports that were given out and never came.
    pub lost: u64,
}

/// A service in full.
#[derive(Debug, Clone, Deserialize)]
pub struct Service {
    /// Its proxies.
    pub proxies: Vec<Proxy>,
}

/// One proxy.
#[derive(Debug, Clone, Deserialize)]
pub struct Proxy {
    /// Its node id.
    pub proxy: String,
    /// When it was last heard of.
    pub last_heard: String,
    /// Silent for longer than it promised.
    pub out_of_touch: bool,
    /// Requests open now.
    pub in_flight: u64,
    /// Its VMs.
    pub reporters: Vec<Reporter>,
}

/// One VM of a proxy.
#[derive(Debug, Clone, Deserialize)]
pub struct Reporter {
    /// Its id.
    pub id: String,
    /// The last sequence that it gave out, by its proxy's last status.
    pub seq: u64,
    /// The last sequence in the store.
    pub stored_seq: u64,
    /// Reports that it dropped.
    pub dropped: u64,
}

/// What was learned of one event type.
#[derive(Debug, Clone, Deserialize)]
pub struct Flow {
    /// Events that settled.
    pub events: u64,
    /// Of them.
    pub succeeded: u64,
    /// Who calls whom.
    pub edges: Vec<Edge>,
}

/// Who calls whom.
#[derive(Debug, Clone, Deserialize)]
pub struct Edge {
    /// The caller; `None` at the entry.
    pub from: Option<String>,
    /// The callee.
    pub to: String,
    /// The method.
    pub method: String,
    /// The folded path.
    pub path: String,
    /// In how many events.
    pub count: u64,
}
