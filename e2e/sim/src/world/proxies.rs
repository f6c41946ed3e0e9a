//! Proxies and their VMs, driven as Envoy drives them. The VMs are the real ones, over the proxy in memory.

use std::rc::Rc;

use kaeru_filter::host::simulated::{self, Pairs, Said, Simulated};
use kaeru_filter::vm::{Next, Seen, Vm};
use kaeru_protocol::{Mode, ReporterId};

use super::{Moment, World};
use crate::truth::Dead;

const ROOT: u32 = 1;

/// One proxy (and the pod that it stands in).
pub(crate) struct Proxy {
    pub(crate) name: String,
    pub(crate) service: usize,
    pub(crate) offset_ms: i64,
    pub(crate) is_up: bool,
    /// Cut off from the aggregators.
    pub(crate) is_cut_off: bool,
    pub(crate) workers: Vec<Worker>,
    pub(crate) shared: Rc<simulated::Proxy>,
    pub(crate) configuration: String,
    /// The most that its configuration lets it do.
    pub(crate) ceiling: Mode,
    pub(crate) lives: u32,
    /// Statuses that it delivered since everything has healed, stated since a VM of it last dropped reports.
    pub(crate) statuses: u32,
    /// When that was, by its clock, ms.
    pub(crate) dropped_ms: u64,
}

/// One VM's place.
pub(crate) struct Worker {
    pub(crate) vm: Option<Vm<Simulated>>,
    pub(crate) lives: u32,
    ticks: u32,
    tick_ms: u32,
    streams: u32,
    /// Reports that its VM has dropped.
    dropped: u64,
}

/// A request at a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) proxy: usize,
    pub(crate) worker: usize,
    pub(crate) lives: u32,
    pub(crate) id: u32,
    pub(crate) reporter: ReporterId,
    /// The VM had room for it.
    pub(crate) observed: bool,
}

/// Which way a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    In,
    Out,
}

/// What a VM did with a request.
pub(crate) enum Passed {
    /// Nobody looked.
    Unseen,
    /// It goes on, with these headers.
    On(Stream, Pairs),
    /// It was answered here.
    Answered(Stream, Said),
}

/// How a request ended at a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Option<u16>,
    pub(crate) flags: u64,
}

impl World {
    pub(super) fn raise_proxies(&mut self) {
        for service in 0..self.shape.services.len() {
            for pod in 0..self.shape.services[service].pods {
                let apart = self.shape.apart_ms;
                let offset_ms = if apart == 0 {
                    0
                } else {
                    self.chance.within(0..=2 * apart).cast_signed() - apart.cast_signed()
                };
                let ceiling = *self.chance.of(&[
                    Mode::Enforce,
                    Mode::Enforce,
                    Mode::Enforce,
                    Mode::Enforce,
                    Mode::Enforce,
                    Mode::Shadow,
                    Mode::Off,
                ]);
                let configuration = self.configuration(service, ceiling);
                let host = self.shape.services[service].host;
                self.proxies.push(Proxy {
                    name: format!("{host}-{pod}"),
                    service,
                    offset_ms,
                    is_up: false,
                    is_cut_off: false,
                    workers: Vec::new(),
                    shared: simulated::Proxy::at(0),
                    configuration,
                    ceiling,
                    lives: 0,
                    statuses: 0,
                    dropped_ms: 0,
                });
                let proxy = self.proxies.len() - 1;
                self.start_proxy(proxy);
            }
        }
    }

    fn configuration(&self, service: usize, ceiling: Mode) -> String {
        let ceiling = match ceiling {
            Mode::Off => "off",
            Mode::Shadow => "shadow",
            Mode::Enforce => "enforce",
        };
        let shape = &self.shape;
        let service = &shape.services[service];
        let role = if service.is_gateway {
            "gateway"
        } else {
            "auto"
        };
        format!(
            r#"{{"mode":"{ceiling}","service":"{}","role":"{role}","flush_interval_ms":{},"heartbeat_interval_s":{},
            "status_interval_s":{},"poll_wait_ms":{},"report_timeout_ms":{},"outbox_reports_max":{},
            "open_requests_max":{},"pass":[{{"paths":["/compensate/*"]}}]}}"#,
            service.name,
            shape.flush_ms,
            shape.heartbeat_s,
            shape.status_s,
            shape.poll_wait_ms,
            shape.report_timeout_ms,
            shape.outbox_max,
            shape.open_max,
        )
    }

    /// Starts a proxy: shared memory is empty, every VM is new.
    pub(super) fn start_proxy(&mut self, proxy: usize) {
        let count = self.shape.services[self.proxies[proxy].service].workers;
        let now_ms = self.clock_of(proxy);
        let one = &mut self.proxies[proxy];
        one.is_up = true;
        one.lives += 1;
        one.shared = simulated::Proxy::at(now_ms);
        if one.workers.is_empty() {
            for _ in 0..count {
                one.workers.push(Worker {
                    vm: None,
                    lives: 0,
                    ticks: 0,
                    tick_ms: 0,
                    streams: 100,
                    dropped: 0,
                });
            }
        }
        for worker in 0..count {
            self.start_vm(proxy, worker);
        }
    }

    /// Starts a VM.
    pub(super) fn start_vm(&mut self, proxy: usize, worker: usize) {
        let seed = self.chance.next();
        let now_ms = self.clock_of(proxy);
        let is_gateway = self.shape.services[self.proxies[proxy].service].is_gateway;
        let one = &mut self.proxies[proxy];
        one.shared.now_ms.set(now_ms);
        let host = Simulated::new(&one.shared, seed);
        host.configuration
            .borrow_mut()
            .clone_from(&one.configuration);
        let kind = if is_gateway { "router" } else { "sidecar" };
        let node = format!("{kind}~10.0.0.1~{}.shop~shop.svc.cluster.local", one.name);
        host.properties
            .borrow_mut()
            .insert("xds.node.id".into(), node.into());
        let mut vm = Vm::new(host);
        vm.configure(ROOT, one.configuration.len());
        let id = vm.seen().id;
        let place = &mut one.workers[worker];
        place.vm = Some(vm);
        place.lives += 1;
        place.tick_ms = 0;
        place.dropped = 0;
        self.truth.reporters.insert(id, (proxy, worker));
        self.after_callback(proxy, worker);
    }

    /// A VM dies, with everything that it kept.
    pub(super) fn kill_vm(&mut self, proxy: usize, worker: usize) {
        let now_ms = self.now_ms;
        let place = &mut self.proxies[proxy].workers[worker];
        place.ticks += 1;
        place.lives += 1;
        let Some(vm) = place.vm.take() else { return };
        let seen = vm.seen();
        let dead = Dead {
            at_ms: now_ms,
            seq: seen.seq,
        };
        self.truth.dead.insert(seen.id, dead);
        for one in &mut self.truth.tries {
            if one.reporter == Some(seen.id) && one.ended.is_none() {
                one.unseen_ms = Some(now_ms);
            }
        }
    }

    /// The proxy's clock, ms.
    pub(crate) fn clock_of(&self, proxy: usize) -> u64 {
        self.now_ms
            .saturating_add_signed(self.proxies[proxy].offset_ms)
    }

    /// A VM of the proxy that takes a new request, if its place is not empty.
    pub(super) fn pick(&mut self, proxy: usize) -> usize {
        let count = self.proxies[proxy].workers.len();
        self.chance.below(count)
    }

    /// Shows a request's headers to a VM.
    pub(super) fn show(
        &mut self,
        proxy: usize,
        worker: usize,
        way: Way,
        headers: &Pairs,
        mtls: bool,
        end: bool,
    ) -> Passed {
        let now_ms = self.clock_of(proxy);
        let one = &mut self.proxies[proxy];
        one.shared.now_ms.set(now_ms);
        let place = &mut one.workers[worker];
        let Some(vm) = &mut place.vm else {
            return Passed::Unseen;
        };
        place.streams += 1;
        let host = vm.host();
        let direction = if way == Way::In { 1 } else { 2 };
        host.set_number("xds.listener_direction", Some(direction));
        host.properties
            .borrow_mut()
            .insert("connection.mtls".into(), vec![u8::from(mtls)]);
        host.properties.borrow_mut().insert(
            "xds.cluster_name".into(),
            "outbound|80||a.shop.svc.cluster.local".into(),
        );
        host.request.borrow_mut().clone_from(headers);
        *host.said.borrow_mut() = None;
        let before = vm.seen().open;
        let next = vm.request_headers(place.streams, end);
        let seen = vm.seen();
        let stream = Stream {
            proxy,
            worker,
            lives: place.lives,
            id: place.streams,
            reporter: seen.id,
            observed: seen.open > before,
        };
        let passed = match next {
            Next::Continue => Passed::On(stream, vm.host().request.borrow().clone()),
            Next::Answered => {
                let said = vm.host().said.borrow().clone();
                let said = said.unwrap_or_else(|| unreachable!("an answer was given"));
                vm.delete(stream.id);
                Passed::Answered(stream, said)
            }
        };
        self.after_callback(proxy, worker);
        passed
    }

    /// Shows a response's headers to the VM that observed its request; gives them as they go on.
    pub(super) fn show_response(&mut self, stream: Stream, headers: &Pairs) -> Pairs {
        let now_ms = self.clock_of(stream.proxy);
        let one = &mut self.proxies[stream.proxy];
        one.shared.now_ms.set(now_ms);
        let Some(vm) = one.vm_of(stream) else {
            return headers.clone();
        };
        vm.host().response.borrow_mut().clone_from(headers);
        vm.response_headers(stream.id);
        let passed = vm.host().response.borrow().clone();
        self.after_callback(stream.proxy, stream.worker);
        passed
    }

    /// A request is over at the VM that observed it; gives the sequence of the report that it left.
    pub(super) fn close_stream(&mut self, stream: Stream, ended: Ended, made: u32) -> Option<u64> {
        let now_ms = self.clock_of(stream.proxy);
        let one = &mut self.proxies[stream.proxy];
        one.shared.now_ms.set(now_ms);
        let vm = one.vm_of(stream)?;
        let before = vm.seen().seq;
        let host = vm.host();
        host.set_number("response.code", ended.code.map(i64::from));
        host.set_number("response.flags", Some(ended.flags.cast_signed()));
        host.set_number("upstream.request_attempt_count", Some(made.into()));
        vm.log(stream.id);
        vm.delete(stream.id);
        let after = vm.seen().seq;
        self.after_callback(stream.proxy, stream.worker);
        (after > before).then_some(after)
    }

    pub(super) fn tick(&mut self, proxy: usize, worker: usize, ticks: u32) {
        let now_ms = self.clock_of(proxy);
        let one = &mut self.proxies[proxy];
        one.shared.now_ms.set(now_ms);
        let place = &mut one.workers[worker];
        if place.ticks != ticks {
            return;
        }
        let Some(vm) = &mut place.vm else { return };
        vm.tick(ROOT);
        place.tick_ms = 0;
        self.after_callback(proxy, worker);
    }

    /// The answer to a VM's own call.
    pub(super) fn give_answer(
        &mut self,
        proxy: usize,
        worker: usize,
        token: u32,
        status: u16,
        body: &[u8],
    ) {
        let now_ms = self.clock_of(proxy);
        let one = &mut self.proxies[proxy];
        one.shared.now_ms.set(now_ms);
        let Some(vm) = &mut one.workers[worker].vm else {
            return;
        };
        let headers = vec![(b":status".to_vec(), status.to_string().into_bytes())];
        *vm.host().answer.borrow_mut() = (headers, body.to_vec());
        vm.call_answered(token, true);
        self.after_callback(proxy, worker);
    }

    /// After each callback: calls leave, ticks are set, bounds hold.
    fn after_callback(&mut self, proxy: usize, worker: usize) {
        let one = &mut self.proxies[proxy];
        let place = &mut one.workers[worker];
        let Some(vm) = &place.vm else { return };
        let tick_ms = vm.host().tick_ms.get();
        let seen = vm.seen();
        if seen.dropped > place.dropped {
            place.dropped = seen.dropped;
            one.dropped_ms = one.shared.now_ms.get();
            one.statuses = 0;
        }
        let sets_tick = tick_ms != place.tick_ms;
        if sets_tick {
            place.tick_ms = tick_ms;
            place.ticks += 1;
        }
        let ticks = place.ticks;
        let calls: Vec<_> = one.shared.calls.borrow_mut().drain(..).collect();
        if sets_tick {
            self.after(
                u64::from(tick_ms.max(1)),
                Moment::Tick {
                    proxy,
                    worker,
                    ticks,
                },
            );
        }
        self.check_bounds(&seen);
        for (token, path, body) in calls {
            self.fly(proxy, worker, token, &path, body);
        }
    }

    fn check_bounds(&mut self, seen: &Seen) {
        let kept_max = usize::try_from(self.shape.outbox_max).unwrap_or(usize::MAX);
        let open_max = usize::try_from(self.shape.open_max).unwrap_or(usize::MAX);
        self.oracle.check_bounds(seen, kept_max, open_max);
    }

    /// Every proxy has delivered all that it keeps, and stated since how far its VMs came and what they dropped: what a
    /// status drops from a full outbox itself, the next one says.
    pub(super) fn proxies_are_quiet(&self) -> bool {
        // A VM is known to be gone ten seconds after its death, and its tail to be lost two statuses later.
        let last_death_ms = self.truth.dead.values().map(|dead| dead.at_ms).max();
        let known_ms = 12_000 + 3 * (1_000 * self.shape.status_s + 2 * self.shape.flush_ms);
        if last_death_ms.is_some_and(|at_ms| self.now_ms < at_ms + known_ms) {
            return false;
        }
        self.proxies.iter().filter(|p| p.is_up).all(|proxy| {
            proxy.statuses >= 3
                && proxy
                    .workers
                    .iter()
                    .filter_map(|w| w.vm.as_ref())
                    .all(|vm| {
                        let seen = vm.seen();
                        seen.kept == 0 && seen.open == 0
                    })
        })
    }
}

impl Proxy {
    /// The VM that observes a stream, if it is still the same one.
    pub(crate) fn vm_of(&mut self, stream: Stream) -> Option<&mut Vm<Simulated>> {
        let place = &mut self.workers[stream.worker];
        if place.lives == stream.lives {
            place.vm.as_mut()
        } else {
            None
        }
    }

    /// How each VM stands.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.workers
            .iter()
            .filter_map(|worker| worker.vm.as_ref().map(Vm::seen))
            .collect()
    }
}
