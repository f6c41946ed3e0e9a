//! Who is where in a graph, and what each proxy needs to know of the others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::{GATEWAY, GATEWAY_NAMESPACE, NAMESPACE, Plan};
use crate::certs::{Authority, spiffe};
use crate::envoy::{ClockShift, Filter, ISTIO_RETRY_ON, Sidecar, Upstream};
use crate::ports;
use crate::world::{KAERU_HOST, KAERU_PORT};

/// The port that every service has in the mesh.
const PORT: u16 = 8080;

/// By what authority a service is called.
pub(super) fn authority(service: &str) -> String {
    format!("{service}:{PORT}")
}

/// The addresses of one service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) app: SocketAddr,
    pub(super) inbound: SocketAddr,
    pub(super) outbound: SocketAddr,
    admin: SocketAddr,
}

/// All of them.
pub(super) struct Mesh<'a> {
    plan: &'a Plan,
    folder: &'a Path,
    pub(super) places: BTreeMap<&'a str, Place>,
    aggregator: SocketAddr,
}

impl<'a> Mesh<'a> {
    /// Gives every part its addresses.
    pub(super) fn new(plan: &'a Plan, folder: &'a Path, aggregator: SocketAddr) -> Result<Self> {
        let mut places = BTreeMap::new();
        for (service, _) in &plan.services {
            places.insert(service.as_str(), place()?);
        }
        Ok(Self {
            plan,
            folder,
            places,
            aggregator,
        })
    }

    /// The sidecar of every service, and the gateway where there is one.
    pub(super) fn proxies(
        &self,
        authority: &Authority,
        wasm: &Path,
        shift: &ClockShift,
    ) -> Result<Vec<Sidecar>> {
        let mut proxies = Vec::new();
        for (service, ahead_s) in &self.plan.services {
            let place = self.places[service.as_str()];
            let workload = (NAMESPACE, service.as_str());
            let mut sidecar = self.proxy(authority, workload, place, wasm, &self.plan.filter)?;
            sidecar.clock = (*ahead_s != 0).then(|| (*ahead_s, shift.clone()));
            proxies.push(sidecar);
        }
        if let Some(filter) = &self.plan.gateway {
            let workload = (GATEWAY_NAMESPACE, GATEWAY);
            let mut gateway = self.proxy(authority, workload, place()?, wasm, filter)?;
            gateway.gateway = true;
            proxies.push(gateway);
        }
        Ok(proxies)
    }

    fn proxy(
        &self,
        authority: &Authority,
        (namespace, workload): (&str, &str),
        place: Place,
        wasm: &Path,
        filter: &Value,
    ) -> Result<Sidecar> {
        Ok(Sidecar {
            namespace: namespace.into(),
            workload: workload.into(),
            port: PORT,
            identity: authority.issue(namespace, workload)?,
            inbound: place.inbound,
            outbound: place.outbound,
            admin: place.admin,
            app: place.app,
            upstreams: self.upstreams(),
            filter: Some(Filter {
                wasm: wasm.into(),
                config: filter.clone(),
                on_failure: (self.plan.on_failure.get(workload).copied()).unwrap_or_default(),
                pushed_by: (self.plan.pushed)
                    .then(|| self.folder.join(format!("{workload}-filter.json"))),
            }),
            retry_on: (ISTIO_RETRY_ON.into(), Vec::new()),
            gateway: false,
            workers: self.plan.workers.max(1),
            clock: None,
        })
    }

    /// Every service, and the aggregator.
    fn upstreams(&self) -> Vec<Upstream> {
        let services = self.places.iter().map(|(service, place)| Upstream {
            host: format!("{service}.{NAMESPACE}.svc.cluster.local"),
            port: PORT,
            endpoint: place.inbound,
            spiffe: Some(spiffe(NAMESPACE, service)),
        });
        let kaeru = Upstream {
            host: KAERU_HOST.into(),
            port: KAERU_PORT,
            endpoint: self.aggregator,
            spiffe: None,
        };
        services.chain([kaeru]).collect()
    }
}

fn place() -> Result<Place> {
    Ok(Place {
        app: ports::free()?,
        inbound: ports::free()?,
        outbound: ports::free()?,
        admin: ports::free()?,
    })
}
