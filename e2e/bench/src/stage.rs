//! Where it is measured: the parts, a folder, a certificate authority; sidecars, aggregators and Postgres as asked.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use kaeru_e2e::aggregator::{Aggregator, Database, Settings};
use kaeru_e2e::certs::Authority;
use kaeru_e2e::config::Parts;
use kaeru_e2e::envoy::{Filter, ISTIO_RETRY_ON, Sidecar, Upstream};
use kaeru_e2e::ports;
use kaeru_e2e::postgres::Postgres;

/// Everything that a part needs to start things.
pub(crate) struct Stage {
    pub(crate) parts: Parts,
    /// The empty filter.
    pub(crate) empty: PathBuf,
    /// The filter that makes one hostcall many times.
    pub(crate) hostcalls: PathBuf,
    /// Configurations, logs, data.
    pub(crate) folder: PathBuf,
    authority: Authority,
}

impl Stage {
    /// A stage in a new folder.
    pub(crate) fn new(name: &str) -> Result<Self> {
        // reqwest wants a provider of cryptography chosen; a second choice is no harm.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let parts = Parts::find()?;
        let [empty, hostcalls] = ["empty", "hostcalls"]
            .map(|name| parts.wasm.with_file_name(format!("examples/{name}.wasm")));
        for example in [&empty, &hostcalls] {
            ensure!(
                example.is_file(),
                "{} is missing: `make bench` makes it",
                example.display()
            );
        }
        let folder = parts
            .folder
            .join(format!("{}-bench-{name}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let authority = Authority::new(&folder.join("certs"))?;
        Ok(Self {
            parts,
            empty,
            hostcalls,
            folder,
            authority,
        })
    }

    /// A sidecar of `shop/<workload>` before `app`.
    pub(crate) fn sidecar(
        &self,
        workload: &str,
        app: SocketAddr,
        upstreams: Vec<Upstream>,
        filter: Option<Filter>,
    ) -> Result<Sidecar> {
        Ok(Sidecar {
            namespace: "shop".into(),
            workload: workload.into(),
            port: 8080,
            identity: self.authority.issue("shop", workload)?,
            inbound: ports::free()?,
            outbound: ports::free()?,
            admin: ports::free()?,
            app,
            upstreams,
            filter,
            retry_on: (ISTIO_RETRY_ON.into(), Vec::new()),
            gateway: false,
            workers: 1,
            clock: None,
        })
    }

    /// A Postgres, and an aggregator on it.
    pub(crate) async fn aggregator(&self, policy: &str) -> Result<(Aggregator, Postgres)> {
        self.aggregator_on(policy, &[], &[]).await
    }

    /// The same with settings of Postgres, the aggregator under variables of its own.
    pub(crate) async fn aggregator_on(
        &self,
        policy: &str,
        settings: &[&str],
        variables: &[String],
    ) -> Result<(Aggregator, Postgres)> {
        let of_postgres = self.folder.join("postgres");
        let postgres = Postgres::start_with(&of_postgres, &self.folder, settings, &[]).await?;
        let file = self.folder.join("policy.yaml");
        fs::write(&file, policy)?;
        let settings = Settings {
            name: "aggregator".into(),
            listen: ports::free()?,
            ops_listen: ports::free()?,
            database: Database::Url(postgres.url()),
            policy: file,
        };
        let kaeru = &self.parts.kaeru;
        let aggregator = Aggregator::start_with(settings, kaeru, &self.folder, variables).await?;
        Ok((aggregator, postgres))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Data of the scale part is large; logs are for whoever looks while it runs.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
