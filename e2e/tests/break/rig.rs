//! What is attacked: aggregators over one Postgres of their own, senders and a poller that keep books meanwhile.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kaeru_e2e::aggregator::{Aggregator, Database, Settings};
use kaeru_e2e::config::Parts;
use kaeru_e2e::envoy::ClockShift;
use kaeru_e2e::ports;
use kaeru_e2e::postgres::Postgres;
use kaeru_e2e::wait::{self, Seen};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::books::Books;
use crate::poller::{self, Seen as Told};
use crate::sender::Sender;

/// Senders fail many of their events on purpose.
const POLICY: &str = "mode: enforce\ndoomed_max: 100%\n";

/// What a rig is made of.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// For its folder.
    pub(crate) name: &'static str,
    /// How many aggregators.
    pub(crate) aggregators: usize,
    /// Of Postgres.
    pub(crate) settings: &'static [&'static str],
    /// MiB of the disk that Postgres has for itself.
    pub(crate) disk_mib: Option<u32>,
    /// The aggregators' clocks are [`Rig::set_clock`]'s.
    pub(crate) own_clock: bool,
    /// Postgres' clock is.
    pub(crate) own_database_clock: bool,
}

/// What is attacked. Its parts stop in the order of the fields.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) aggregators: Vec<Aggregator>,
    pub(crate) postgres: Postgres,
    pub(crate) folder: PathBuf,
    _disk: Option<Disk>,
}

/// A file system of its own.
#[derive(Debug)]
struct Disk(PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        // A destructor has nobody to tell.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Senders and a poller at work.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) books: Arc<Books>,
    pub(crate) told: Arc<Told>,
    stop: watch::Sender<bool>,
    stop_poller: watch::Sender<bool>,
    senders: JoinSet<()>,
    poller: JoinSet<()>,
}

/// Runs an attack on a runtime that outlives the processes it starts.
pub(crate) fn attack(attack: impl Future<Output = Result<()>> + Send + 'static) -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(runtime.spawn(attack))?
}

impl Rig {
    pub(crate) async fn start(plan: Plan) -> Result<Self> {
        let parts = Parts::find()?;
        let name = format!("{}-break-{}", std::process::id(), plan.name);
        let folder = parts.folder.join(name);
        let of_postgres = folder.join("postgres");
        fs::create_dir_all(&of_postgres)?;
        let disk = plan.disk_mib.map(|mib| mount(&of_postgres, mib));
        let disk = disk.transpose()?;
        let policy = folder.join("policy.yaml");
        fs::write(&policy, POLICY)?;
        fs::write(folder.join("clock"), "+0")?;
        let clock = |own: bool| {
            let shift = own.then(|| ClockShift::compile(&folder)).transpose()?;
            let variables = shift.map(|shift| shift.variables_by(&folder.join("clock")));
            anyhow::Ok(variables.map_or_else(Vec::new, Vec::from))
        };
        let variables = clock(plan.own_database_clock)?;
        let postgres =
            Postgres::start_with(&of_postgres, &folder, plan.settings, &variables).await?;
        let mut aggregators = Vec::new();
        for index in 0..plan.aggregators.max(1) {
            let settings = Settings {
                name: format!("aggregator-{}", index + 1),
                listen: ports::free()?,
                ops_listen: ports::free()?,
                database: Database::Url(postgres.url()),
                policy: policy.clone(),
            };
            let variables = clock(plan.own_clock)?;
            let started = Aggregator::start_with(settings, &parts.kaeru, &folder, &variables);
            aggregators.push(started.await?);
        }
        Ok(Self {
            aggregators,
            postgres,
            folder,
            _disk: disk,
        })
    }

    /// Sets the clocks that are its own off by so many seconds.
    pub(crate) fn set_clock(&self, ahead_s: i64) -> Result<()> {
        // Moved into place, so that nobody reads half of it.
        let next = self.folder.join("clock.next");
        fs::write(&next, format!("{ahead_s:+}"))?;
        Ok(fs::rename(next, self.folder.join("clock"))?)
    }

    pub(crate) fn listening(&self) -> Vec<SocketAddr> {
        self.aggregators.iter().map(|a| a.settings.listen).collect()
    }

    /// So many senders, and a poller that asks the aggregators in turn.
    pub(crate) fn load(&self, senders: u32) -> Result<Load> {
        let (stop, stopping) = watch::channel(false);
        let (stop_poller, poller_stopping) = watch::channel(false);
        let books = Arc::new(Books::default());
        let told = Arc::new(Told::default());
        let mut tasks = JoinSet::new();
        for number in 0..senders {
            let sender = Sender::new(number, self.listening(), books.clone())?;
            tasks.spawn(sender.work(stopping.clone()));
        }
        let mut poller = JoinSet::new();
        let polling = poller::work(self.listening(), told.clone(), poller_stopping)?;
        poller.spawn(polling);
        Ok(Load {
            books,
            told,
            stop,
            stop_poller,
            senders: tasks,
            poller,
        })
    }

    /// Waits until every aggregator says that it is ready, or that it is not.
    pub(crate) async fn ready(&self, ready: bool) -> Result<()> {
        for aggregator in &self.aggregators {
            let api = aggregator.api()?;
            wait::within(
                Duration::from_mins(1),
                &format!("ready: {ready}"),
                || async {
                    let seen = api.is_ready().await?;
                    Ok(Seen::when(seen == ready, seen))
                },
            )
            .await?;
        }
        Ok(())
    }

    /// Ends the load, and compares what was acknowledged with what is there: none missing, none twice, every failure
    /// decided once and told, nothing else decided, nothing left to decide.
    pub(crate) async fn balance(&self, mut load: Load) -> Result<String> {
        load.stop.send_replace(true);
        // Each delivers what it holds.
        let delivered = async { while load.senders.join_next().await.is_some() {} };
        tokio::time::timeout(Duration::from_mins(2), delivered)
            .await
            .context("senders could not deliver what they hold")?;
        let account = load.books.account()?;
        self.equals(
            "count(*) FROM reports WHERE event IS NOT NULL",
            account.reports,
        )?;
        self.equals(
            "count(DISTINCT (reporter, seq)) FROM reports WHERE event IS NOT NULL",
            account.reports,
        )?;
        let undecided = "SELECT count(*) FROM intake WHERE news";
        wait::within(
            Duration::from_mins(1),
            "the decider's list worked off",
            || async {
                let left = self.postgres.query(undecided)?;
                Ok(Seen::when(left == "0", left))
            },
        )
        .await?;
        let failed = u64::try_from(account.failed.len())?;
        self.equals("count(*) FROM decisions", failed)?;
        self.equals("count(DISTINCT event) FROM decisions", failed)?;
        wait::until("every decision told", || async {
            let told = load.told.events();
            let missing = account.failed.difference(&told).count();
            Ok(Seen::when(missing == 0, missing))
        })
        .await?;
        let told = load.told.events();
        let wrong: Vec<_> = told.difference(&account.failed).collect();
        ensure!(wrong.is_empty(), "told but did not fail: {wrong:?}");
        load.stop_poller.send_replace(true);
        while load.poller.join_next().await.is_some() {}
        load.told.check()?;
        Ok(format!("{account}; {}", load.told))
    }

    fn equals(&self, what: &str, expected: u64) -> Result<()> {
        let found = self.postgres.query(&format!("SELECT {what}"))?;
        ensure!(
            found == expected.to_string(),
            "{what}: {found}, not {expected}"
        );
        Ok(())
    }
}

fn mount(folder: &std::path::Path, mib: u32) -> Result<Disk> {
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]);
    let output = mount.arg(folder).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.success(),
        "a disk of its own needs root: {said}"
    );
    Ok(Disk(folder.into()))
}
