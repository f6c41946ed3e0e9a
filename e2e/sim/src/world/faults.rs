//! What goes wrong beyond single messages: VMs, proxies, aggregators and the database that die, are away or cut off.

use super::{HEALED_MS, Moment, World};

/// One blow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blow {
    /// A VM dies.
    Vm(usize, usize),
    /// A proxy dies with all its VMs; its application lives on.
    Proxy(usize),
    /// A pod dies.
    Pod(usize),
    /// A proxy cannot reach the aggregators.
    CutOff(usize),
    /// An aggregator dies.
    Aggregator(usize),
    /// An aggregator stops in good order.
    Leave(usize),
    /// The database is away.
    Database,
}

impl World {
    pub(super) fn plan_faults(&mut self) {
        for _ in 0..self.shape.blows {
            let at_ms = self.chance.within(1_000..=12_000);
            let long_ms = self.chance.within(600..=5_500);
            let proxy = self.chance.below(self.proxies.len());
            let aggregator = self.chance.below(self.aggregators.len());
            let worker = self.chance.below(self.proxies[proxy].workers.len());
            let kind = if self.shape.strikes_kaeru {
                5 + self.chance.below(3)
            } else {
                self.chance.below(8)
            };
            let blow = match kind {
                0 | 1 => Blow::Vm(proxy, worker),
                2 => Blow::Proxy(proxy),
                3 => Blow::Pod(proxy),
                4 => Blow::CutOff(proxy),
                5 => Blow::Aggregator(aggregator),
                6 => Blow::Leave(aggregator),
                _ => Blow::Database,
            };
            self.at(at_ms, Moment::Strike(blow));
            self.at((at_ms + long_ms).min(HEALED_MS), Moment::Heal(blow));
        }
    }

    pub(super) fn strike(&mut self, blow: Blow) {
        let name = match blow {
            Blow::Vm(..) => "VM dies",
            Blow::Proxy(_) => "proxy dies",
            Blow::Pod(_) => "pod dies",
            Blow::CutOff(_) => "proxy cut off",
            Blow::Aggregator(_) => "aggregator dies",
            Blow::Leave(_) => "aggregator leaves",
            Blow::Database => "database away",
        };
        self.tally.count(&format!("fault: {name}"));
        self.tell(|| format!("! {name}: {blow:?}"));
        match blow {
            Blow::Vm(proxy, worker) => self.kill_vm(proxy, worker),
            Blow::Proxy(proxy) => self.kill_proxy(proxy),
            Blow::Pod(proxy) => {
                self.kill_proxy(proxy);
                self.crash_application(proxy);
            }
            Blow::CutOff(proxy) => self.proxies[proxy].is_cut_off = true,
            Blow::Aggregator(aggregator) => {
                self.truth.aggregators_died.push(self.now_ms);
                self.stop_aggregator(aggregator, false);
            }
            Blow::Leave(aggregator) => {
                // No new work comes; what is in work is finished first.
                self.aggregators[aggregator].is_leaving = true;
                self.after(500, Moment::Left { aggregator });
            }
            Blow::Database => {
                self.database.is_away = true;
                self.abort_transactions(None);
            }
        }
    }

    fn kill_proxy(&mut self, proxy: usize) {
        if !self.proxies[proxy].is_up {
            return;
        }
        for worker in 0..self.proxies[proxy].workers.len() {
            if let Some(vm) = &self.proxies[proxy].workers[worker].vm {
                let id = vm.seen().id;
                self.truth.died_with_proxy.push(id);
            }
            self.kill_vm(proxy, worker);
        }
        self.proxies[proxy].is_up = false;
        let now_ms = self.now_ms;
        self.truth.gone.push((proxy, now_ms, u64::MAX));
        let name = self.proxies[proxy].name.clone();
        self.oracle.forget_proxy(&name);
        self.break_proxy(proxy);
    }

    pub(super) fn heal(&mut self, blow: Blow) {
        self.tell(|| format!("! well again: {blow:?}"));
        match blow {
            Blow::Vm(proxy, worker) => {
                if self.proxies[proxy].is_up && self.proxies[proxy].workers[worker].vm.is_none() {
                    self.start_vm(proxy, worker);
                }
            }
            Blow::Proxy(proxy) | Blow::Pod(proxy) => {
                if !self.proxies[proxy].is_up {
                    for gone in &mut self.truth.gone {
                        if gone.0 == proxy {
                            gone.2 = gone.2.min(self.now_ms);
                        }
                    }
                    self.start_proxy(proxy);
                }
            }
            Blow::CutOff(proxy) => self.proxies[proxy].is_cut_off = false,
            Blow::Aggregator(aggregator) | Blow::Leave(aggregator) => {
                if !self.aggregators[aggregator].is_up {
                    self.start_aggregator(aggregator);
                }
            }
            Blow::Database => self.database.is_away = false,
        }
    }
}
