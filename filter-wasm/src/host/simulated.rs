//! A proxy in memory, for tests and for the simulation (feature `simulated`): several VMs share its data, metrics, clock and
//! aggregator. It counts hostcalls by their kind, since they are what a request costs.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::{HeaderMap, Headers, Host, Level, MetricKind, Outcall, Refused, Reply, Shared, pack};

/// A value of shared data, and the number of its writing.
type Written = (Vec<u8>, u32);

/// What all VMs of a proxy share.
#[derive(Debug, Default)]
pub struct Proxy {
    /// The proxy's clock, ms since 1970.
    pub now_ms: Cell<u64>,
    shared: RefCell<HashMap<Vec<u8>, Written>>,
    writes: Cell<u32>,
    metrics: RefCell<Vec<(String, i64)>>,
    /// Calls to the aggregator not answered yet: token, path, body.
    pub calls: RefCell<Vec<(u32, String, Vec<u8>)>>,
    tokens: Cell<u32>,
    /// How calls are refused, if they are.
    pub refuses_calls: Cell<Option<Refused>>,
}

impl Proxy {
    /// A proxy whose clock stands at `now_ms`.
    pub fn at(now_ms: u64) -> Rc<Self> {
        let proxy = Self::default();
        proxy.now_ms.set(now_ms);
        Rc::new(proxy)
    }

    /// The value of a metric over all VMs.
    pub fn metric(&self, name: &str) -> i64 {
        let metrics = self.metrics.borrow();
        metrics.iter().find(|(n, _)| n == name).map_or(0, |m| m.1)
    }

    /// Bytes held for all VMs.
    pub fn shared_bytes(&self) -> usize {
        self.shared.borrow().values().map(|(v, _)| v.len()).sum()
    }
}

/// What a local reply was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// HTTP status.
    pub status: u16,
    /// Headers beside the status.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
    /// gRPC status.
    pub grpc: Option<u8>,
}

/// A header map.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// One VM's side of the proxy.
#[derive(Debug)]
pub struct Simulated {
    /// What it shares with the other VMs.
    pub proxy: Rc<Proxy>,
    /// The plugin's configuration.
    pub configuration: RefCell<String>,
    /// Properties by their dotted path.
    pub properties: RefCell<HashMap<String, Vec<u8>>>,
    /// The current request's headers.
    pub request: RefCell<Pairs>,
    /// The current response's headers.
    pub response: RefCell<Pairs>,
    /// The answer to our own call: headers and body.
    pub answer: RefCell<(Pairs, Vec<u8>)>,
    /// The local reply, if one was given.
    pub said: RefCell<Option<Said>>,
    /// How often it wants to tick, ms.
    pub tick_ms: Cell<u32>,
    /// What it logged.
    pub log: RefCell<Vec<String>>,
    /// How many hostcalls of each kind it made.
    pub hostcalls: RefCell<BTreeMap<&'static str, u32>>,
    seed: Cell<u64>,
}

impl Simulated {
    /// One more VM of this proxy; `seed` is what its random numbers come from.
    pub fn new(proxy: &Rc<Proxy>, seed: u64) -> Self {
        Self {
            proxy: Rc::clone(proxy),
            configuration: RefCell::default(),
            properties: RefCell::default(),
            request: RefCell::default(),
            response: RefCell::default(),
            answer: RefCell::default(),
            said: RefCell::default(),
            tick_ms: Cell::new(0),
            log: RefCell::default(),
            hostcalls: RefCell::default(),
            seed: Cell::new(seed),
        }
    }

    /// Sets an integer property, or takes it away.
    pub fn set_number(&self, path: &str, number: Option<i64>) {
        let mut properties = self.properties.borrow_mut();
        match number {
            Some(n) => properties.insert(path.into(), n.to_le_bytes().into()),
            None => properties.remove(path),
        };
    }

    fn map(&self, map: HeaderMap) -> std::cell::RefMut<'_, Pairs> {
        match map {
            HeaderMap::Request => self.request.borrow_mut(),
            HeaderMap::Response => self.response.borrow_mut(),
            HeaderMap::CallAnswer => std::cell::RefMut::map(self.answer.borrow_mut(), |a| &mut a.0),
        }
    }

    fn called(&self, kind: &'static str) {
        *self.hostcalls.borrow_mut().entry(kind).or_default() += 1;
    }
}

/// Headers as they are written in tests: `name: value` by lines.
pub fn pairs(text: &str) -> Pairs {
    text.lines()
        .filter_map(|line| line.trim().split_once(": "))
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

impl Host for Simulated {
    #[inline(never)]
    fn now_ns(&self) -> u64 {
        self.called("time");
        self.proxy.now_ms.get() * 1_000_000
    }

    fn random(&self) -> u64 {
        // SplitMix64.
        let seed = self.seed.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.seed.set(seed);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 27)
    }

    fn log(&self, _level: Level, text: &str) {
        self.log.borrow_mut().push(text.into());
    }

    fn faults(&self) -> u64 {
        0
    }

    fn configuration(&self, _size: usize) -> Vec<u8> {
        self.configuration.borrow().clone().into_bytes()
    }

    #[inline(never)]
    fn property(&self, path: &str) -> Option<Vec<u8>> {
        self.called("property");
        let path = path.replace('\0', ".");
        self.properties.borrow().get(&path).cloned()
    }

    #[inline(never)]
    fn headers(&self, map: HeaderMap) -> Headers {
        self.called("all headers");
        let pairs = self.map(map);
        Headers::new(pack(
            pairs.iter().map(|(n, v)| (n.as_slice(), v.as_slice())),
        ))
    }

    #[inline(never)]
    fn set_header(&self, map: HeaderMap, name: &str, value: &[u8]) {
        self.called("header set");
        let legal = |b: &u8| *b == b'\t' || (0x20..0x7f).contains(b) || *b >= 0x80;
        assert!(value.iter().all(legal), "{name} written with {value:?}");
        let mut pairs = self.map(map);
        pairs.retain(|(n, _)| n != name.as_bytes());
        pairs.push((name.into(), value.into()));
    }

    #[inline(never)]
    fn remove_header(&self, map: HeaderMap, name: &[u8]) {
        self.called("header off");
        self.map(map).retain(|(n, _)| n != name);
    }

    fn reply(&self, reply: &Reply<'_>) {
        let headers = reply
            .headers
            .iter()
            .map(|(n, v)| ((*n).into(), (*v).into()));
        *self.said.borrow_mut() = Some(Said {
            status: reply.status,
            headers: headers.collect(),
            body: reply.body.into(),
            grpc: reply.grpc,
        });
    }

    fn call(&self, call: &Outcall<'_>) -> Result<u32, Refused> {
        if let Some(refused) = self.proxy.refuses_calls.get() {
            return Err(refused);
        }
        let token = self.proxy.tokens.get() + 1;
        self.proxy.tokens.set(token);
        let path = call.headers.iter().find(|(n, _)| *n == ":path");
        let path = path.map_or("", |(_, path)| path).to_owned();
        self.proxy
            .calls
            .borrow_mut()
            .push((token, path, call.body.into()));
        Ok(token)
    }

    fn call_body(&self, max: usize) -> Vec<u8> {
        let body = &self.answer.borrow().1;
        body[..body.len().min(max)].into()
    }

    fn set_tick_ms(&self, period: u32) {
        self.tick_ms.set(period);
    }

    #[inline(never)]
    fn shared(&self, key: &[u8]) -> Option<Shared> {
        let shared = self.proxy.shared.borrow();
        let found = shared.get(key);
        let has_bytes = found.is_some_and(|(value, _)| !value.is_empty());
        self.called(if has_bytes {
            "shared read"
        } else {
            "shared read, empty"
        });
        let (value, cas) = found?.clone();
        Some(Shared { value, cas })
    }

    #[inline(never)]
    fn set_shared(&self, key: &[u8], value: &[u8], cas: u32) -> Result<(), Refused> {
        self.called("shared write");
        let mut shared = self.proxy.shared.borrow_mut();
        if shared
            .get(key)
            .is_some_and(|(_, now)| cas != 0 && cas != *now)
        {
            return Err(Refused::CAS_MISMATCH);
        }
        self.proxy.writes.set(self.proxy.writes.get() + 1);
        shared.insert(key.into(), (value.into(), self.proxy.writes.get()));
        Ok(())
    }

    fn define_metric(&self, _kind: MetricKind, name: &str) -> Option<u32> {
        let mut metrics = self.proxy.metrics.borrow_mut();
        let known = metrics.iter().position(|(n, _)| n == name);
        let index = known.unwrap_or_else(|| {
            metrics.push((name.into(), 0));
            metrics.len() - 1
        });
        u32::try_from(index).ok()
    }

    #[inline(never)]
    fn add_metric(&self, id: u32, delta: i64) {
        self.called("gauge or counter moved");
        self.proxy.metrics.borrow_mut()[id as usize].1 += delta;
    }

    #[inline(never)]
    fn metric(&self, id: u32) -> u64 {
        self.called("metric read");
        self.proxy.metrics.borrow()[id as usize].1.cast_unsigned()
    }
}
