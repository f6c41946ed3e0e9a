//! How many names are held, and of whom. A client that makes names up (a proxy, a path, an event type for each request)
//! uses up its own share and nobody else's; who does so is written down for people.
//!
//! The counts are this aggregator's: read from the store once a minute, with what it added since. Others add meanwhile, so a
//! limit can be passed by what they all add in a minute, and by one transaction.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::metrics::Metrics;

/// Pairs of who and what that are noted between two beats; above it they are noted together.
const NOTED_MAX: usize = 100;
/// Who stands for those above a limit of the notes.
pub(crate) const OTHERS: &str = "(others)";

/// What is counted by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum What {
    /// Proxies that were heard of: 100,000 rows of 600 bytes with their status and indexes, 60 MB.
    Proxies,
    /// Their VMs: 400,000 rows of 250 bytes with indexes, 100 MB.
    Reporters,
    /// Kinds of calls: 200,000 rows of 300 bytes, 60 MB, the same in memory.
    Calls,
    /// Event types that are learned: 1,000 flows with up to 512 steps and 2,000 edges of 200 bytes, 500 MB at most.
    Types,
}

impl What {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Proxies, Self::Reporters, Self::Calls, Self::Types];

    /// The word in SQL, JSON and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Proxies => "proxies",
            Self::Reporters => "reporters",
            Self::Calls => "calls",
            Self::Types => "types",
        }
    }

    /// How many there may be.
    pub(crate) fn limits(self) -> Limits {
        let all = match self {
            Self::Proxies => 100_000,
            Self::Reporters => 400_000,
            Self::Calls => 200_000,
            Self::Types => 1_000,
        };
        Limits {
            all,
            of_namespace: all / 2,
            of_service: all / 10,
        }
    }
}

/// How many of one kind may be held. A namespace is what a client cannot lie about where identities are checked, so no
/// namespace uses up everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// In all.
    pub(crate) all: usize,
    /// Of all services of a namespace.
    pub(crate) of_namespace: usize,
    /// Of one service.
    pub(crate) of_service: usize,
}

/// Whose share is used up: the one whose name people should look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Full(pub(crate) String);

/// Names that are held, of one kind.
#[derive(Debug, Default)]
struct Held {
    all: usize,
    of: HashMap<Box<str>, usize>,
    /// Whose were taken since the store is being read, which may not show them.
    meanwhile: Option<Vec<Box<str>>>,
}

/// What was one too many since it was last written down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Excess {
    /// How many.
    pub(crate) count: u64,
    /// The last proxy.
    pub(crate) proxy: Box<str>,
}

/// What was one too many, by what and who.
pub(crate) type Excesses = BTreeMap<(What, String), Excess>;

/// The counts.
#[derive(Debug, Default)]
pub(crate) struct Census {
    held: [Mutex<Held>; 4],
    excesses: Mutex<Excesses>,
}

impl Census {
    /// The store is read from now on. What is taken until [`Self::set`] is added to it, seen or not: for a minute that may be
    /// too many, never too few.
    pub(crate) fn reads(&self, what: What) {
        self.held(what).meanwhile = Some(Vec::new());
    }

    /// What the store holds, by service.
    pub(crate) fn set(&self, what: What, counts: Vec<(String, i64)>) {
        let mut held = self.held(what);
        let mut read = Held::default();
        for (service, count) in counts {
            read.add(&service, usize::try_from(count).unwrap_or(0));
        }
        for service in held.meanwhile.take().into_iter().flatten() {
            read.add(&service, 1);
        }
        *held = read;
    }

    /// Whether there is room for one more of each of these services, in their order, as if those before had taken theirs.
    /// `times` as much as the limits say: what is folded into less has more room.
    pub(crate) fn rooms<'a>(
        &self,
        what: What,
        times: usize,
        services: impl IntoIterator<Item = &'a str>,
    ) -> Vec<Result<(), Full>> {
        let limits = what.limits();
        let held = self.held(what);
        let mut taken: HashMap<&str, usize> = HashMap::new();
        let mut taken_by_all = 0;
        let mut room = |service: &'a str| {
            let of = |name| {
                let before = held.of.get(name).copied().unwrap_or(0);
                before + taken.get(name).copied().unwrap_or(0)
            };
            let namespace = namespace_of(service);
            if of(service) >= times * limits.of_service {
                return Err(Full(service.to_owned()));
            }
            if of(namespace) >= times * limits.of_namespace
                || held.all + taken_by_all >= times * limits.all
            {
                return Err(Full(format!("{namespace}/*")));
            }
            for name in [service, namespace] {
                *taken.entry(name).or_default() += 1;
            }
            taken_by_all += 1;
            Ok(())
        };
        services.into_iter().map(&mut room).collect()
    }

    /// One more of a service is held.
    pub(crate) fn took(&self, what: What, service: &str) {
        let mut held = self.held(what);
        held.add(service, 1);
        if let Some(meanwhile) = &mut held.meanwhile {
            meanwhile.push(service.into());
        }
    }

    /// How many are held.
    pub(crate) fn count(&self, what: What) -> usize {
        self.held(what).all
    }

    /// Notes that something was one too many.
    pub(crate) fn note(&self, what: What, full: Full, proxy: &str, metrics: &Metrics) {
        metrics.excess.with_label_values(&[what.as_str()]).inc();
        let mut noted = lock(&self.excesses);
        let key = (what, full.0);
        let key = if noted.len() < NOTED_MAX || noted.contains_key(&key) {
            key
        } else {
            (what, OTHERS.to_owned())
        };
        let excess = noted.entry(key).or_default();
        excess.count += 1;
        excess.proxy = proxy.into();
    }

    /// What was noted since the last time.
    pub(crate) fn noted(&self) -> Excesses {
        std::mem::take(&mut lock(&self.excesses))
    }

    fn held(&self, what: What) -> MutexGuard<'_, Held> {
        let [proxies, reporters, calls, types] = &self.held;
        lock(match what {
            What::Proxies => proxies,
            What::Reporters => reporters,
            What::Calls => calls,
            What::Types => types,
        })
    }
}

impl Held {
    /// A namespace has no slash in its name, a service has.
    fn add(&mut self, service: &str, count: usize) {
        self.all += count;
        *self.of.entry(service.into()).or_default() += count;
        *self.of.entry(namespace_of(service).into()).or_default() += count;
    }
}

/// The namespace of a service; of what is none, nothing.
fn namespace_of(service: &str) -> &str {
    service
        .split_once('/')
        .map_or("", |(namespace, _)| namespace)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
