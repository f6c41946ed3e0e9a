//! A proxy with some VMs, driven as Envoy drives them.

use std::rc::Rc;

use kaeru_protocol::{Batch, Body, EventReport, Kind, Report};

use super::super::{Next, Vm};
use crate::host::simulated::{Proxy, Said, Simulated, pairs};

pub(super) const ROOT: u32 = 1;
pub(super) const START_MS: u64 = 1_767_225_600_000;

pub(super) struct Rig {
    pub(super) proxy: Rc<Proxy>,
    pub(super) vms: Vec<Vm<Simulated>>,
    streams: u32,
    pub(super) reports: Vec<Report>,
}

/// How a request ended.
pub(super) struct Ended<'a> {
    pub(super) response: Option<&'a str>,
    pub(super) code: Option<i64>,
    pub(super) flags: i64,
}

pub(super) const OK: Ended<'static> = Ended {
    response: Some(":status: 200"),
    code: Some(200),
    flags: 0,
};

impl Rig {
    /// A proxy of `shop/web` with so many VMs.
    pub(super) fn new(vms: usize, configuration: &str) -> Self {
        let proxy = Proxy::at(START_MS);
        let mut rig = Self {
            proxy,
            vms: Vec::new(),
            streams: 100,
            reports: Vec::new(),
        };
        for _ in 0..vms {
            rig.add_vm(configuration);
        }
        rig
    }

    pub(super) fn add_vm(&mut self, configuration: &str) {
        let host = Simulated::new(&self.proxy, self.vms.len() as u64);
        *host.configuration.borrow_mut() = configuration.into();
        let set = |path: &str, text: &str| {
            host.properties
                .borrow_mut()
                .insert(path.into(), text.into());
        };
        set(
            "xds.node.id",
            "sidecar~10.0.0.7~web-0.shop~shop.svc.cluster.local",
        );
        set("xds.node.metadata.NAMESPACE", "shop");
        set(
            "xds.node.metadata.LABELS.service.istio.io/canonical-name",
            "web",
        );
        host.properties
            .borrow_mut()
            .insert("connection.mtls".into(), vec![1]);
        let mut vm = Vm::new(host);
        vm.configure(ROOT, configuration.len());
        self.vms.push(vm);
    }

    pub(super) fn host(&self, vm: usize) -> &Simulated {
        self.vms[vm].host()
    }

    /// Begins a request; gives its id and what became of it.
    pub(super) fn begin(
        &mut self,
        vm: usize,
        direction: i64,
        headers: &str,
        end: bool,
    ) -> (u32, Next) {
        self.streams += 1;
        let host = self.vms[vm].host();
        host.set_number("xds.listener_direction", Some(direction));
        *host.request.borrow_mut() = pairs(headers);
        *host.said.borrow_mut() = None;
        let next = self.vms[vm].request_headers(self.streams, end);
        (self.streams, next)
    }

    pub(super) fn end(&mut self, vm: usize, stream: u32, ended: &Ended<'_>) {
        let host = self.vms[vm].host();
        host.set_number("response.code", ended.code);
        host.set_number("response.flags", Some(ended.flags));
        if let Some(response) = ended.response {
            *host.response.borrow_mut() = pairs(response);
            self.vms[vm].response_headers(stream);
        }
        self.vms[vm].log(stream);
        self.vms[vm].delete(stream);
    }

    /// An inbound request from beginning to end; gives the headers that the application saw.
    pub(super) fn inbound(&mut self, vm: usize, headers: &str, ended: &Ended<'_>) -> String {
        let (stream, next) = self.begin(vm, 1, headers, true);
        if next == Next::Continue {
            self.end(vm, stream, ended);
        }
        self.request_headers(vm)
    }

    /// The same outbound; gives the headers that the destination saw.
    pub(super) fn outbound(&mut self, vm: usize, headers: &str, ended: &Ended<'_>) -> String {
        let (stream, next) = self.begin(vm, 2, headers, true);
        if next == Next::Continue {
            self.end(vm, stream, ended);
        }
        self.request_headers(vm)
    }

    pub(super) fn request_headers(&self, vm: usize) -> String {
        text(&self.host(vm).request.borrow())
    }

    pub(super) fn response_headers(&self, vm: usize) -> String {
        text(&self.host(vm).response.borrow())
    }

    pub(super) fn said(&self, vm: usize) -> Option<Said> {
        self.host(vm).said.borrow().clone()
    }

    /// Time passes, every VM ticks each 200 ms; calls are not answered.
    pub(super) fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(200) {
            self.proxy.now_ms.set(self.proxy.now_ms.get() + 200);
            for vm in &mut self.vms {
                vm.tick(ROOT);
            }
        }
    }

    /// Answers each report batch with `status`, and keeps the reports of those that are taken.
    pub(super) fn answer_reports(&mut self, status: u16) -> usize {
        let calls: Vec<_> = {
            let mut calls = self.proxy.calls.borrow_mut();
            let (reports, others) = calls
                .drain(..)
                .partition(|(_, path, _)| path == "/v1/reports");
            *calls = others;
            reports
        };
        let count = calls.len();
        for (token, _, body) in calls {
            let batch: Batch = serde_json::from_slice(&body).unwrap();
            if status == 200 {
                self.reports
                    .extend(batch.into_reports().map(Result::unwrap));
            }
            self.answer(token, &format!(":status: {status}"), "{\"accepted\":1}");
        }
        count
    }

    /// Answers the open poll with a page.
    pub(super) fn answer_poll(&mut self, page: &str) {
        let mut calls = self.proxy.calls.borrow_mut();
        let at = calls
            .iter()
            .position(|(_, path, _)| path.starts_with("/v1/verdicts"));
        let (token, ..) = calls.remove(at.expect("a poll"));
        drop(calls);
        self.answer(token, ":status: 200", page);
    }

    fn answer(&mut self, token: u32, headers: &str, body: &str) {
        for vm in &mut self.vms {
            *vm.host().answer.borrow_mut() = (pairs(headers), body.into());
            vm.call_answered(token, true);
        }
    }

    /// All reports so far about events, flushed and taken.
    pub(super) fn flushed(&mut self) -> Vec<EventReport> {
        self.deliver();
        let told = std::mem::take(&mut self.reports).into_iter();
        told.filter_map(|report| match report.body {
            Body::Event(event) => Some(*event),
            Body::Proxy(_) => None,
        })
        .collect()
    }

    /// Everything queued leaves and is taken.
    pub(super) fn deliver(&mut self) {
        self.answer_reports(200);
        self.pass(1_200);
        while self.answer_reports(200) > 0 {}
    }

    /// Dooms an event at every VM.
    pub(super) fn doom(&mut self, event: &str, mode: &str) {
        self.pass(600);
        self.answer_poll(&format!(
            r#"{{"cursor":"e:1","verdicts":[{{"event":"{event}","verdict":"roll_back","decision":"d-1",
                "failed":"shop/pay","mode":"{mode}","ttl_ms":600000}}]}}"#
        ));
    }

    pub(super) fn polls(&self) -> usize {
        let calls = self.proxy.calls.borrow();
        calls
            .iter()
            .filter(|(_, path, _)| path.starts_with("/v1/verdicts"))
            .count()
    }
}

pub(super) fn kinds(reports: &[EventReport]) -> Vec<Kind> {
    reports.iter().map(|report| report.kind).collect()
}

fn text(pairs: &[(Vec<u8>, Vec<u8>)]) -> String {
    let lines = pairs.iter().map(|(name, value)| {
        format!(
            "{}: {}",
            String::from_utf8_lossy(name),
            String::from_utf8_lossy(value)
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}
