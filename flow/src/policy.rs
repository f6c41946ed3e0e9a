//! What people say about events and services: the domain form of a policy. Reading it from YAML, with line
//! numbers and contradictions named, is the aggregator's.
//!
//! Every key stands in a [`Layer`]: global, per event type, or per service. The most specific layer that
//! names a key wins: service, then event type, then global, then the built-in default.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use kaeru_protocol::{Ending, EventType, Mode, Outcome, Peer};

use crate::Rule;
use crate::ground::{Ground, Scope, duration};

/// Built-in defaults; each can be set in a policy.
pub mod defaults {
    /// How long an entry may take to try again before its failure dooms the event, ms.
    pub const ENTRY_RETRY_WAIT_MS: u64 = 1_000;
    /// How long after an event's last report "nothing is open" counts: two flush intervals of 1 s, ms.
    pub const SETTLE_MS: u64 = 2_000;
    /// Above this many reports an id is shared, not an event.
    pub const REPORTS_MAX: usize = 10_000;
    /// Above this percentage of doomed events in a minute, a type falls back to `shadow`.
    pub const DOOMED_MAX_PERCENT: u8 = 20;
}

/// A whole policy, in one version.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Policy {
    /// The version that decisions name; 0 is the built-in policy.
    pub version: u64,
    /// For everything.
    pub global: Layer,
    /// For events of one type.
    pub event_types: BTreeMap<EventType, Layer>,
    /// For one service or external host.
    pub services: BTreeMap<Peer, Layer>,
}

/// One layer of keys; what is `None` or empty is left to the next layer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Layer {
    // Of the whole event (global and event-type layers only).
    /// How far Kaeru goes; default `shadow`.
    pub mode: Option<Mode>,
    /// Rules switched on or off; default all on but `learned`.
    pub rules: BTreeMap<Rule, bool>,
    /// Percentage of doomed events in a minute above which the type falls back to `shadow`.
    pub doomed_max_percent: Option<u8>,
    /// Above this many reports an id is shared.
    pub reports_max: Option<usize>,
    /// What becomes of a decision whose entry succeeds after all; default wait for an operator.
    pub contested: Option<Contested>,

    // Of the event, looked up with its entry's service.
    /// How long an entry may take to try again, ms.
    pub entry_retry_wait_ms: Option<u64>,
    /// How long after the last report "nothing is open" counts, ms.
    pub settle_ms: Option<u64>,
    /// How long an event may take, ms; a request's own `x-event-deadline` comes first.
    pub deadline_ms: Option<u64>,

    // Of a step.
    /// Outcomes of statuses.
    pub outcomes: BTreeMap<StatusPattern, Outcome>,
    /// Statuses that doom the event at once.
    pub fatal: BTreeSet<StatusPattern>,
    /// Operations that change nothing though their method is unsafe.
    pub read_only: Vec<Operation>,
    /// Clean-up operations (let through by the filter's `pass`) that undo their service's step.
    pub undoes: Vec<Operation>,
    /// A failure here counts though a queue handed the branch over; default no.
    pub required: Option<bool>,
    /// A step open by the service's word stalls after this long without a word, ms; default never.
    pub silence_ms: Option<u64>,
    /// The service never has anything to undo; default no.
    pub nothing_to_undo: Option<bool>,
    /// What a silent proxy with an open step means; default only shown.
    pub out_of_touch: Option<OutOfTouch>,
}

/// What becomes of a decision whose entry succeeds after it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Contested {
    /// Undo waits for an operator.
    #[default]
    Wait,
    /// Roll back all the same.
    RollBack,
    /// Withdraw the decision.
    Withdraw,
}

/// What a proxy that fell silent with an open step means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OutOfTouch {
    /// Shown, no doom.
    #[default]
    Show,
    /// The step counts as stalled.
    Doom,
}

/// `402`, `5xx`, `grpc:9`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StatusPattern {
    /// One HTTP status.
    Http(u16),
    /// A family of HTTP statuses by its first digit.
    Family(u8),
    /// One gRPC status.
    Grpc(u8),
}

/// `POST /search/*`: a method (or `*`) and a folded path, where a last `*` matches any rest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Operation {
    method: Box<str>,
    path: Box<str>,
}

/// Why a text is no status pattern or operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidPattern(&'static str);

impl fmt::Display for InvalidPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidPattern {}

impl StatusPattern {
    /// Whether the ending has this status. A gRPC answer is matched by its gRPC status alone.
    pub fn matches(self, ending: &Ending) -> bool {
        match self {
            Self::Grpc(code) => ending.grpc == Some(code),
            Self::Http(status) => ending.grpc.is_none() && ending.status == Some(status),
            Self::Family(digit) => {
                ending.grpc.is_none() && ending.status.is_some_and(|s| s / 100 == u16::from(digit))
            }
        }
    }
}

impl FromStr for StatusPattern {
    type Err = InvalidPattern;
    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let invalid =
            InvalidPattern("a status is 100 to 599, a family 1xx to 5xx, or grpc:0 to grpc:16");
        if let Some(code) = text.strip_prefix("grpc:") {
            return code
                .parse()
                .ok()
                .filter(|c| *c <= 16)
                .map(Self::Grpc)
                .ok_or(invalid);
        }
        if let Some(digit) = text.strip_suffix("xx") {
            return digit
                .parse()
                .ok()
                .filter(|d| (1..=5).contains(d))
                .map(Self::Family)
                .ok_or(invalid);
        }
        text.parse()
            .ok()
            .filter(|s| (100..=599).contains(s))
            .map(Self::Http)
            .ok_or(invalid)
    }
}

impl fmt::Display for StatusPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(status) => write!(f, "{status}"),
            Self::Family(digit) => write!(f, "{digit}xx"),
            Self::Grpc(code) => write!(f, "grpc:{code}"),
        }
    }
}

impl Operation {
    /// Whether a request with this method and folded path is meant.
    pub fn matches(&self, method: &str, path: &str) -> bool {
        let by_path = match self.path.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == &*self.path,
        };
        by_path && (&*self.method == "*" || &*self.method == method)
    }
}

impl FromStr for Operation {
    type Err = InvalidPattern;
    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let invalid = InvalidPattern(
            "an operation is a method (or *) and a path that begins with /, as in `POST /search/*`",
        );
        let (method, path) = text.split_once(' ').ok_or(invalid.clone())?;
        let method_valid =
            method == "*" || method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        let inner_star = path.strip_suffix('*').unwrap_or(path).contains('*');
        if method.is_empty()
            || !method_valid
            || !path.starts_with('/')
            || inner_star
            || path.contains(' ')
        {
            return Err(invalid);
        }
        Ok(Self {
            method: method.into(),
            path: path.into(),
        })
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// The policy as it holds for one event.
///
/// While no report has said the event's type, the event may yet turn out to be of any: the most careful mode of
/// all types holds, and a rule that is off for one type is off.
#[derive(Debug, Clone, Copy)]
pub struct EventPolicy<'a> {
    policy: &'a Policy,
    layers: Layers<'a>,
    is_typed: bool,
}

/// The policy as it holds for one step: the layers from most to least specific.
#[derive(Debug, Clone, Copy)]
pub struct StepPolicy<'a> {
    layers: Layers<'a>,
}

/// From most to least specific: service, event type, global.
#[derive(Debug, Clone, Copy)]
struct Layers<'a> {
    service: Option<(&'a Peer, &'a Layer)>,
    event_type: Option<(&'a EventType, &'a Layer)>,
    global: &'a Layer,
}

impl<'a> Layers<'a> {
    fn all(self) -> impl Iterator<Item = (Scope, &'a Layer)> {
        let service = self.service.map(|(s, l)| (Scope::Service(s.clone()), l));
        let event_type = self
            .event_type
            .map(|(t, l)| (Scope::EventType(t.clone()), l));
        [service, event_type, Some((Scope::Global, self.global))]
            .into_iter()
            .flatten()
    }

    fn first<T>(self, key: impl Fn(&'a Layer) -> Option<T>) -> Option<T> {
        self.service
            .and_then(|(_, layer)| key(layer))
            .or_else(|| self.event_type.and_then(|(_, layer)| key(layer)))
            .or_else(|| key(self.global))
    }

    /// Which layer says the first value of a key; the built-in default where none does.
    fn ground<T>(
        self,
        key: &str,
        value: impl Fn(&'a Layer) -> Option<T>,
        default: T,
        say: impl Fn(T) -> String,
    ) -> Ground {
        let said = self.all().find_map(|(scope, l)| Some((scope, value(l)?)));
        let (scope, value) = said.unwrap_or((Scope::Default, default));
        Ground {
            scope,
            key: key.into(),
            says: say(value).into(),
        }
    }
}

impl Policy {
    /// As it holds for an event of this type with this entry.
    pub fn for_event<'a>(
        &'a self,
        event_type: Option<&'a EventType>,
        entry: Option<&'a Peer>,
    ) -> EventPolicy<'a> {
        EventPolicy {
            policy: self,
            layers: self.layers(event_type, entry),
            is_typed: event_type.is_some(),
        }
    }

    /// As it holds for one step of an event of this type.
    pub fn for_step<'a>(
        &'a self,
        event_type: Option<&'a EventType>,
        peer: &'a Peer,
    ) -> StepPolicy<'a> {
        StepPolicy {
            layers: self.layers(event_type, Some(peer)),
        }
    }

    fn layers<'a>(
        &'a self,
        event_type: Option<&'a EventType>,
        service: Option<&'a Peer>,
    ) -> Layers<'a> {
        Layers {
            service: service.and_then(|s| Some((s, self.services.get(s)?))),
            event_type: event_type.and_then(|t| Some((t, self.event_types.get(t)?))),
            global: &self.global,
        }
    }
}

impl<'a> EventPolicy<'a> {
    fn first<T>(&self, key: impl Fn(&'a Layer) -> Option<T>) -> Option<T> {
        self.layers.first(key)
    }

    /// The policy's version.
    pub fn version(&self) -> u64 {
        self.policy.version
    }

    /// The layers of the types that the event may yet turn out to be of.
    fn possible_types(&self) -> impl Iterator<Item = (&'a EventType, &'a Layer)> + use<'a> {
        let untyped = (!self.is_typed).then_some(&self.policy.event_types);
        untyped.into_iter().flatten()
    }

    /// How far Kaeru goes.
    pub fn mode(&self) -> Mode {
        let known = self.first(|l| l.mode).unwrap_or_default();
        self.possible_types()
            .filter_map(|(_, l)| l.mode)
            .fold(known, Mode::min)
    }

    /// Whether a rule is in force.
    pub fn is_on(&self, rule: Rule) -> bool {
        self.switched_off(rule).is_none()
    }

    /// What switches a rule off, if anything does.
    pub fn switched_off(&self, rule: Rule) -> Option<Ground> {
        let by_type = self
            .possible_types()
            .find(|(_, l)| l.rules.get(&rule) == Some(&false));
        let off = |scope| Ground {
            scope,
            key: "rules".into(),
            says: format!("{rule}: off").into(),
        };
        if let Some((event_type, _)) = by_type {
            return Some(off(Scope::EventType(event_type.clone())));
        }
        let said = self
            .layers
            .all()
            .find_map(|(scope, l)| Some((scope, *l.rules.get(&rule)?)));
        match said {
            Some((_, true)) => None,
            Some((scope, false)) => Some(off(scope)),
            None => (rule == Rule::Learned).then(|| off(Scope::Default)),
        }
    }

    /// Percentage of doomed events in a minute above which the type falls back to `shadow`.
    pub fn doomed_max_percent(&self) -> u8 {
        self.first(|l| l.doomed_max_percent)
            .unwrap_or(defaults::DOOMED_MAX_PERCENT)
    }

    /// Above this many reports an id is shared.
    pub fn reports_max(&self) -> usize {
        self.first(|l| l.reports_max)
            .unwrap_or(defaults::REPORTS_MAX)
    }

    /// What becomes of a contested decision.
    pub fn contested(&self) -> Contested {
        self.first(|l| l.contested).unwrap_or_default()
    }

    /// How long an entry may take to try again, ms.
    pub fn entry_retry_wait_ms(&self) -> u64 {
        self.first(|l| l.entry_retry_wait_ms)
            .unwrap_or(defaults::ENTRY_RETRY_WAIT_MS)
    }

    /// Who says [`entry_retry_wait_ms`](Self::entry_retry_wait_ms).
    pub fn entry_retry_wait_ground(&self) -> Ground {
        self.layers.ground(
            "entry_retry_wait",
            |l| l.entry_retry_wait_ms,
            defaults::ENTRY_RETRY_WAIT_MS,
            duration,
        )
    }

    /// How long after the last report "nothing is open" counts, ms.
    pub fn settle_ms(&self) -> u64 {
        self.first(|l| l.settle_ms).unwrap_or(defaults::SETTLE_MS)
    }

    /// Who says [`settle_ms`](Self::settle_ms).
    pub fn settle_ground(&self) -> Ground {
        self.layers
            .ground("settle", |l| l.settle_ms, defaults::SETTLE_MS, duration)
    }

    /// How long the event may take, ms, and who says so.
    pub fn deadline(&self) -> Option<(u64, Ground)> {
        let given_ms = self.first(|l| l.deadline_ms)?;
        let ground = self
            .layers
            .ground("deadline", |l| l.deadline_ms, given_ms, duration);
        Some((given_ms, ground))
    }
}

impl<'a> StepPolicy<'a> {
    fn layers(&self) -> impl Iterator<Item = &'a Layer> {
        let Layers {
            service,
            event_type,
            global,
        } = self.layers;
        let service = service.map(|(_, layer)| layer);
        let event_type = event_type.map(|(_, layer)| layer);
        [service, event_type, Some(global)].into_iter().flatten()
    }

    fn first<T>(&self, key: impl Fn(&'a Layer) -> Option<T>) -> Option<T> {
        self.layers.first(key)
    }

    /// The outcome of an ending: the service's word, what the transport saw, then the most specific layer that
    /// names the status (an exact status before its family), then the default.
    pub fn outcome(&self, ending: &Ending) -> Outcome {
        if ending.word.is_some() || ending.by_transport().is_some() {
            return ending.outcome();
        }
        self.first(|layer| layer.outcome_of(ending))
            .map_or_else(|| ending.outcome(), |(_, outcome)| outcome)
    }

    /// Who says [`outcome`](Self::outcome), where a policy does.
    pub fn outcome_ground(&self, ending: &Ending) -> Option<Ground> {
        if ending.word.is_some() || ending.by_transport().is_some() {
            return None;
        }
        self.layers.all().find_map(|(scope, layer)| {
            let (pattern, outcome) = layer.outcome_of(ending)?;
            Some(Ground {
                scope,
                key: "outcomes".into(),
                says: format!("{pattern}: {}", outcome.as_str()).into(),
            })
        })
    }

    /// The status that dooms the event, if the ending has one. Layers add up.
    pub fn fatal(&self, ending: &Ending) -> Option<StatusPattern> {
        self.layers()
            .flat_map(|l| &l.fatal)
            .copied()
            .find(|p| p.matches(ending))
    }

    /// Who says that this status is fatal.
    pub fn fatal_ground(&self, status: StatusPattern) -> Option<Ground> {
        let (scope, _) = self.layers.all().find(|(_, l)| l.fatal.contains(&status))?;
        Some(Ground {
            scope,
            key: "fatal".into(),
            says: status.to_string().into(),
        })
    }

    /// Whether the operation changes nothing. Layers add up.
    pub fn is_read_only(&self, method: &str, path: &str) -> bool {
        self.layers()
            .flat_map(|l| &l.read_only)
            .any(|op| op.matches(method, path))
    }

    /// Whether the clean-up operation undoes its service's step. Layers add up.
    pub fn undoes(&self, method: &str, path: &str) -> bool {
        self.layers()
            .flat_map(|l| &l.undoes)
            .any(|op| op.matches(method, path))
    }

    /// Whether a failure counts though a queue handed the branch over.
    pub fn is_required(&self) -> bool {
        self.first(|l| l.required).unwrap_or(false)
    }

    /// Who says [`is_required`](Self::is_required).
    pub fn required_ground(&self) -> Ground {
        let say = |required| if required { "on" } else { "off" }.to_owned();
        self.layers.ground("required", |l| l.required, false, say)
    }

    /// After how long without a word an open step stalls, ms.
    pub fn silence_ms(&self) -> Option<u64> {
        self.first(|l| l.silence_ms)
    }

    /// Who says [`silence_ms`](Self::silence_ms).
    pub fn silence_ground(&self) -> Ground {
        let say = |silence_ms| match silence_ms {
            None => "none".to_owned(),
            Some(ms) => duration(ms),
        };
        self.layers
            .ground("silence", |l| l.silence_ms.map(Some), None, say)
    }

    /// Whether the service never has anything to undo.
    pub fn has_nothing_to_undo(&self) -> bool {
        self.first(|l| l.nothing_to_undo).unwrap_or(false)
    }

    /// What a silent proxy with an open step means.
    pub fn out_of_touch(&self) -> OutOfTouch {
        self.first(|l| l.out_of_touch).unwrap_or_default()
    }

    /// Who says [`out_of_touch`](Self::out_of_touch).
    pub fn out_of_touch_ground(&self) -> Ground {
        let say = |means| match means {
            OutOfTouch::Show => "show".to_owned(),
            OutOfTouch::Doom => "doom".to_owned(),
        };
        let default = OutOfTouch::default();
        self.layers
            .ground("out_of_touch", |l| l.out_of_touch, default, say)
    }
}

impl Layer {
    /// What this layer alone says of the ending's status: an exact status before its family.
    fn outcome_of(&self, ending: &Ending) -> Option<(StatusPattern, Outcome)> {
        let named = |(pattern, outcome): (&StatusPattern, &Outcome)| {
            pattern.matches(ending).then_some((*pattern, *outcome))
        };
        let exact = |(p, _): &(&StatusPattern, &Outcome)| !matches!(p, StatusPattern::Family(_));
        self.outcomes
            .iter()
            .filter(exact)
            .find_map(named)
            .or_else(|| self.outcomes.iter().find_map(named))
    }
}
