//! A world: the whole shop in its mesh, with Kaeru. Made once from a [`Plan`], all of it ready when `start` returns,
//! all of it gone when the world is dropped.

pub(crate) mod folder;
mod mesh;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::process::Pid;
use serde_json::Value;
use tokio::task::JoinSet;

use self::mesh::{Mesh, Service};
use crate::aggregator::{Aggregator, Database, Settings};
use crate::api::Api;
use crate::certs::Authority;
use crate::config::Parts;
use crate::customer::Customer;
use crate::envoy::Envoy;
use crate::faults::Faults;
use crate::ports;
use crate::postgres::Postgres;
use crate::shop::{self, Arrival, Asked, Role, Told};
use crate::wait::{self, Seen};

pub use self::mesh::{KAERU_HOST, KAERU_NAMESPACE, KAERU_PORT, KAERU_WORKLOAD};

/// What a world is like.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// For its folder.
    pub name: String,
    /// The aggregators' policy, YAML.
    pub policy: String,
    /// The plugin configuration of all sidecars.
    pub filter: Value,
    /// That of single ones.
    pub filters: BTreeMap<Role, Value>,
    /// Outbound routes retry on this beside Istio's default, with these statuses.
    pub retry_also: Option<(String, Vec<u16>)>,
    /// The mailer has a sidecar too.
    pub mailer: bool,
    /// Postgres is a process of its own, which can be stopped while the aggregator lives.
    pub postgres: bool,
    /// Two aggregators on one database, the second behind a sidecar of its own: `web` and `backend` report to the
    /// first, `db-api` and `db` to the second.
    pub pair: bool,
    /// The network between the sidecars and the (first) aggregator can be made to misbehave.
    pub faults: bool,
    /// The sidecars have no filter: the shop without Kaeru.
    pub bare: bool,
}

/// A running world. Its parts stop in the order of the fields.
#[derive(Debug)]
pub struct World {
    sidecars: BTreeMap<Role, Envoy>,
    aggregator_sidecar: Option<Envoy>,
    services: BTreeMap<Role, Service>,
    /// The aggregators, one or two.
    pub aggregators: Vec<Aggregator>,
    postgres: Option<Postgres>,
    faults: Option<Faults>,
    /// Its configurations, logs and data.
    pub folder: PathBuf,
    /// Anyone, from outside the mesh.
    pub outside: Customer,
    /// A peer of the mesh, `spiffe://cluster.local/ns/shop/sa/till`.
    pub peer: Customer,
    http: reqwest::Client,
}

impl World {
    /// Starts everything and waits until it is ready.
    pub async fn start(plan: Plan) -> Result<Self> {
        // reqwest wants a provider of cryptography chosen; a second choice is no harm.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let parts = Parts::find()?;
        let folder = folder::make(&parts.folder, &plan.name)?;
        let authority = Authority::new(&folder.join("certs"))?;
        let policy = folder.join("policy.yaml");
        fs::write(&policy, &plan.policy)?;

        let mut postgres = None;
        let mut database = Database::Embedded(folder.join("data"));
        if plan.pair || plan.postgres {
            let started = Postgres::start(&folder.join("postgres"), &folder).await?;
            database = Database::Url(started.url());
            postgres = Some(started);
        }
        let mut aggregators = JoinSet::new();
        for index in 0..=usize::from(plan.pair) {
            let settings = Settings {
                name: format!("aggregator-{}", index + 1),
                listen: ports::free()?,
                ops_listen: ports::free()?,
                database: database.clone(),
                policy: policy.clone(),
            };
            let (binary, logs) = (parts.kaeru.clone(), folder.clone());
            aggregators.spawn(async move { Aggregator::start(settings, &binary, &logs).await });
        }
        let mut aggregators = all(aggregators).await?;
        aggregators.sort_by(|a, b| a.settings.name.cmp(&b.settings.name));

        let mut listening: Vec<_> = aggregators.iter().map(|a| a.settings.listen).collect();
        let mut faults = None;
        if let (true, Some(first)) = (plan.faults, listening.first_mut()) {
            let between = Faults::start(ports::free()?, *first).await?;
            *first = between.listen;
            faults = Some(between);
        }
        let mesh = Mesh::new(&plan, &listening)?;
        let mut sidecars = JoinSet::new();
        for sidecar in mesh.sidecars(&authority, &parts.wasm)? {
            let (binary, folder) = (parts.envoy.clone(), folder.clone());
            sidecars.spawn(async move { sidecar.start(&binary, &folder).await });
        }
        let services = mesh.services(&parts.shop, &folder)?;
        let mut by_workload: BTreeMap<String, Envoy> = (all(sidecars).await?.into_iter())
            .map(|envoy| (envoy.sidecar.workload.clone(), envoy))
            .collect();
        let mut world = Self {
            aggregator_sidecar: by_workload.remove(KAERU_WORKLOAD),
            sidecars: (Role::ALL.into_iter())
                .filter_map(|role| by_workload.remove(role.name()).map(|envoy| (role, envoy)))
                .collect(),
            services,
            aggregators,
            postgres,
            faults,
            folder,
            outside: Customer::outside()?,
            peer: Customer::peer(&authority.issue(shop::NAMESPACE, "till")?)?,
            http: reqwest::Client::builder().no_proxy().build()?,
        };
        world.services_ready().await?;
        world.proxies_listen().await?;
        Ok(world)
    }

    /// The API of the (first) aggregator.
    pub fn api(&self) -> Result<Api> {
        self.aggregator()?.api()
    }

    /// The (first) aggregator.
    pub fn aggregator(&self) -> Result<&Aggregator> {
        self.aggregators
            .first()
            .context("a world has an aggregator")
    }

    /// The network between the sidecars and the aggregator.
    pub fn faults(&self) -> Result<&Faults> {
        self.faults
            .as_ref()
            .context("this world's network is sound")
    }

    /// The sidecar of a service.
    pub fn sidecar(&self, role: Role) -> Result<&Envoy> {
        let sidecar = self.sidecars.get(&role);
        sidecar.with_context(|| format!("{} has no sidecar", role.name()))
    }

    /// The sidecar of the second aggregator.
    pub fn aggregator_sidecar(&self) -> Result<&Envoy> {
        let sidecar = self.aggregator_sidecar.as_ref();
        sidecar.context("only a pair has a sidecar beside an aggregator")
    }

    /// Where a service's sidecar takes requests.
    pub fn inbound(&self, role: Role) -> Result<SocketAddr> {
        Ok(self.sidecar(role)?.sidecar.inbound)
    }

    /// The process id of a service.
    pub fn service_pid(&self, role: Role) -> Result<Pid> {
        let service = self.services.get(&role).context("every role is played")?;
        Ok(service.process.pid())
    }

    /// What really reached a service for an order.
    pub async fn arrivals(&self, role: Role, order: &str) -> Result<Vec<Arrival>> {
        let url = self.control(role, &format!("orders/{order}"))?;
        Ok(self.http.get(url).send().await?.json().await?)
    }

    /// Lets an order go on where a service holds it.
    pub async fn release(&self, role: Role, order: &str) -> Result<()> {
        let url = self.control(role, &format!("orders/{order}/release"))?;
        self.http.post(url).send().await?.error_for_status()?;
        Ok(())
    }

    /// `kill -9` of a service's process; its sidecar lives on.
    pub fn kill_service(&mut self, role: Role) -> Result<()> {
        let service = self.services.get_mut(&role);
        service.context("every role is played")?.process.kill()
    }

    /// The sidecar of a service, to be killed and started again.
    pub fn sidecar_mut(&mut self, role: Role) -> Result<&mut Envoy> {
        self.sidecars.get_mut(&role).context("no sidecar")
    }

    /// That of the second aggregator.
    pub fn aggregator_sidecar_mut(&mut self) -> Result<&mut Envoy> {
        self.aggregator_sidecar.as_mut().context("no sidecar")
    }

    /// `kill -9` of a service's sidecar.
    pub fn kill_sidecar(&mut self, role: Role) -> Result<()> {
        let sidecar = self.sidecars.get_mut(&role);
        sidecar.context("no sidecar")?.kill()
    }

    /// The Postgres of its own that a pair has, or a world whose plan says so.
    pub fn postgres(&mut self) -> Result<&mut Postgres> {
        let postgres = self.postgres.as_mut();
        postgres.context("the aggregator has its private Postgres")
    }

    /// Has a service make one call through its sidecar.
    pub async fn call_from(&self, role: Role, asked: &Asked) -> Result<Told> {
        let url = self.control(role, "call")?;
        let answer = self.http.post(url).json(asked).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    fn control(&self, role: Role, path: &str) -> Result<String> {
        let service = self.services.get(&role).context("every role is played")?;
        Ok(format!("http://{}/control/{path}", service.app))
    }

    /// Every proxy of the shop waits for verdicts: what is decided from now on, all hear at once. (An aggregator's own
    /// proxy has nothing to refuse.)
    async fn proxies_listen(&self) -> Result<()> {
        wait::until("every proxy's poll for verdicts", || async {
            let mut polls = 0;
            for aggregator in &self.aggregators {
                polls += aggregator.api()?.metric("kaeru_polls").await?;
            }
            let filters = self
                .sidecars
                .values()
                .filter(|e| e.sidecar.filter.is_some());
            Ok(Seen::when(
                usize::try_from(polls)? == filters.count(),
                polls,
            ))
        })
        .await?;
        Ok(())
    }

    async fn services_ready(&mut self) -> Result<()> {
        for (role, service) in &mut self.services {
            let what = format!("the shop's {}", role.name());
            wait::until(&what, || {
                let alive = service.process.check();
                let connect = tokio::net::TcpStream::connect(service.app);
                async move {
                    if let Err(end) = alive {
                        return Ok(Seen::Yes(Err(end)));
                    }
                    Ok(Seen::Yes(connect.await.map(drop).map_err(Into::into)))
                }
            })
            .await??;
        }
        Ok(())
    }
}

/// What the tasks return, or the first error.
pub(crate) async fn all<T: 'static>(mut tasks: JoinSet<Result<T>>) -> Result<Vec<T>> {
    let mut done = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        done.push(ended??);
    }
    Ok(done)
}
