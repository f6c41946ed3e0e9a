//! Who is where in a world, and what each sidecar needs to know of the others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Plan;
use crate::certs::{Authority, Identity, spiffe};
use crate::envoy::{Filter, ISTIO_RETRY_ON, Sidecar, Upstream};
use crate::ports;
use crate::process::{Ending, Process, Program};
use crate::shop::{self, Role};

/// Kaeru's namespace in the mesh.
pub const KAERU_NAMESPACE: &str = "kaeru-system";
/// Kaeru's workload in the mesh.
pub const KAERU_WORKLOAD: &str = "kaeru-aggregator";
/// Kaeru's API port in the mesh.
pub const KAERU_PORT: u16 = 7170;
/// Kaeru's host in the mesh.
pub const KAERU_HOST: &str = "kaeru-aggregator.kaeru-system.svc.cluster.local";

/// A running service of the shop.
#[derive(Debug)]
pub(super) struct Service {
    /// Where it listens.
    pub(super) app: SocketAddr,
    /// Its process.
    pub(super) process: Process,
}

/// The addresses of one workload.
#[derive(Debug, Clone, Copy)]
struct Place {
    app: SocketAddr,
    inbound: SocketAddr,
    outbound: SocketAddr,
    admin: SocketAddr,
}

/// All of them.
pub(super) struct Mesh<'a> {
    plan: &'a Plan,
    places: BTreeMap<Role, Place>,
    /// Where the first aggregator listens.
    aggregator: SocketAddr,
    /// The second one, behind its sidecar.
    second: Option<Place>,
}

impl<'a> Mesh<'a> {
    /// Gives every part its addresses.
    pub(super) fn new(plan: &'a Plan, aggregators: &[SocketAddr]) -> Result<Self> {
        let mut places = BTreeMap::new();
        for role in Role::ALL {
            places.insert(role, place(ports::free()?)?);
        }
        Ok(Self {
            plan,
            places,
            aggregator: *aggregators.first().context("a world has an aggregator")?,
            second: aggregators.get(1).map(|&app| place(app)).transpose()?,
        })
    }

    /// Every sidecar.
    pub(super) fn sidecars(&self, authority: &Authority, wasm: &Path) -> Result<Vec<Sidecar>> {
        let mut sidecars = Vec::new();
        let mailer = self.plan.mailer.then_some(Role::Mailer);
        for role in Role::MESH.into_iter().chain(mailer) {
            let config = self.plan.filters.get(&role).unwrap_or(&self.plan.filter);
            let identity = authority.issue(shop::NAMESPACE, role.name())?;
            let workload = (shop::NAMESPACE, role.name(), shop::PORT);
            let mut sidecar = self.sidecar(workload, self.places[&role], identity, wasm, config);
            sidecar.upstreams.push(self.kaeru(Some(role)));
            sidecars.push(sidecar);
        }
        if let Some(second) = self.second {
            let identity = authority.issue(KAERU_NAMESPACE, KAERU_WORKLOAD)?;
            let workload = (KAERU_NAMESPACE, KAERU_WORKLOAD, KAERU_PORT);
            let mut sidecar = self.sidecar(workload, second, identity, wasm, &self.plan.filter);
            sidecar.upstreams.push(self.kaeru(None));
            sidecars.push(sidecar);
        }
        Ok(sidecars)
    }

    /// Starts the shop's services.
    pub(super) fn services(&self, binary: &Path, logs: &Path) -> Result<BTreeMap<Role, Service>> {
        let start = |(&role, place): (&Role, &Place)| {
            let program = Program {
                name: role.name().into(),
                binary: binary.into(),
                args: vec![
                    role.name().into(),
                    format!("--listen={}", place.app),
                    format!("--sidecar={}", place.outbound),
                ],
                user: None,
                ending: Ending::Kill,
            };
            let (app, process) = (place.app, program.start(logs)?);
            Ok((role, Service { app, process }))
        };
        self.places.iter().map(start).collect()
    }

    fn sidecar(
        &self,
        (namespace, workload, port): (&str, &str, u16),
        place: Place,
        identity: Identity,
        wasm: &Path,
        config: &Value,
    ) -> Sidecar {
        let (mut retry_on, mut statuses) = (ISTIO_RETRY_ON.to_owned(), Vec::new());
        if let Some((also, with)) = &self.plan.retry_also {
            retry_on = format!("{retry_on},{also}");
            statuses.clone_from(with);
        }
        Sidecar {
            namespace: namespace.into(),
            workload: workload.into(),
            port,
            identity,
            inbound: place.inbound,
            outbound: place.outbound,
            admin: place.admin,
            app: place.app,
            upstreams: self.shop(),
            filter: (!self.plan.bare).then(|| Filter {
                wasm: wasm.into(),
                config: config.clone(),
                ..Filter::default()
            }),
            retry_on: (retry_on, statuses),
            gateway: false,
            workers: 2,
            clock: None,
        }
    }

    /// The shop's services, as every sidecar can reach them.
    fn shop(&self) -> Vec<Upstream> {
        let upstream = |role: Role| {
            let place = self.places[&role];
            match role.outside_host() {
                Some(host) => Upstream {
                    host: host.into(),
                    port: 80,
                    endpoint: place.app,
                    spiffe: None,
                },
                None => Upstream {
                    host: format!("{}.{}.svc.cluster.local", role.name(), shop::NAMESPACE),
                    port: shop::PORT,
                    endpoint: place.inbound,
                    spiffe: Some(spiffe(shop::NAMESPACE, role.name())),
                },
            }
        };
        Role::ALL.into_iter().map(upstream).collect()
    }

    /// The aggregator that a sidecar reports to: the first one, but that of `db-api` and `db` in a pair.
    fn kaeru(&self, role: Option<Role>) -> Upstream {
        let to_second = matches!(role, Some(Role::DbApi | Role::Db));
        let second = self.second.filter(|_| to_second);
        Upstream {
            host: KAERU_HOST.into(),
            port: KAERU_PORT,
            endpoint: second.map_or(self.aggregator, |second| second.inbound),
            spiffe: second.map(|_| spiffe(KAERU_NAMESPACE, KAERU_WORKLOAD)),
        }
    }
}

fn place(app: SocketAddr) -> Result<Place> {
    Ok(Place {
        app,
        inbound: ports::free()?,
        outbound: ports::free()?,
        admin: ports::free()?,
    })
}
