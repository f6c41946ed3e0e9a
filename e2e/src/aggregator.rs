//! A running aggregator, and what may happen to one: it is killed, hangs, starts again, or is replaced by something
//! that answers 500.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::http::StatusCode;
use rustix::process::{Pid, Signal};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::api::Api;
use crate::process::{Ending, Process, Program};
use crate::wait::{self, Seen};

/// What one aggregator is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For its log.
    pub name: String,
    /// Its API.
    pub listen: SocketAddr,
    /// Its operations port.
    pub ops_listen: SocketAddr,
    /// Whose reports it keeps where.
    pub database: Database,
    /// The policy file it watches.
    pub policy: PathBuf,
}

/// Where it keeps things.
#[derive(Debug, Clone)]
pub enum Database {
    /// Its own Postgres in this folder.
    Embedded(PathBuf),
    /// This one.
    Url(String),
}

/// `kaeru serve`.
#[derive(Debug)]
pub struct Aggregator {
    /// What it was started with.
    pub settings: Settings,
    program: Program,
    logs: PathBuf,
    process: Option<Process>,
}

impl Aggregator {
    /// Starts it and waits until it is ready.
    pub async fn start(settings: Settings, binary: &Path, logs: &Path) -> Result<Self> {
        Self::start_with(settings, binary, logs, &[]).await
    }

    /// The same under environment variables of its own.
    pub async fn start_with(
        settings: Settings,
        binary: &Path,
        logs: &Path,
        variables: &[String],
    ) -> Result<Self> {
        let mut args = variables.to_vec();
        args.extend([
            binary.to_string_lossy().into_owned(),
            "serve".to_owned(),
            format!("--listen={}", settings.listen),
            format!("--ops-listen={}", settings.ops_listen),
            format!("--policy={}", settings.policy.display()),
        ]);
        args.push(match &settings.database {
            Database::Embedded(folder) => format!("--data-dir={}", folder.display()),
            Database::Url(url) => format!("--database-url={url}"),
        });
        let program = Program {
            name: settings.name.clone(),
            // `env` sets the variables, then becomes Kaeru.
            binary: "env".into(),
            args,
            user: None,
            ending: Ending::Grace(Duration::from_secs(10)),
        };
        let mut aggregator = Self {
            settings,
            program,
            logs: logs.into(),
            process: None,
        };
        aggregator.start_again().await?;
        Ok(aggregator)
    }

    /// Its API.
    pub fn api(&self) -> Result<Api> {
        Api::new(self.settings.listen, self.settings.ops_listen)
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<Pid> {
        self.process.as_ref().map(Process::pid)
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut p| p.kill())
    }

    /// The most memory that it ever held, KiB.
    pub fn memory_peak_kib(&self) -> Result<u64> {
        let process = self.process.as_ref().context("the aggregator is dead")?;
        process.memory_peak_kib()
    }

    /// Makes it hang: it keeps its connections and answers nothing.
    pub fn hang(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Ends [`Self::hang`].
    pub fn go_on(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Starts it with the same settings and waits until it is ready.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process = None;
        let process = self.process.insert(self.program.start(&self.logs)?);
        let api = Api::new(self.settings.listen, self.settings.ops_listen)?;
        // The embedded Postgres makes its cluster on the first start.
        wait::within(Duration::from_mins(1), "the aggregator", || {
            let alive = process.check();
            let ready = api.is_ready();
            async move {
                match alive {
                    Err(end) => Ok(Seen::Yes(Err(end))),
                    Ok(()) if ready.await? => Ok(Seen::Yes(Ok(()))),
                    Ok(()) => Ok(Seen::NotYet("not ready".into())),
                }
            }
        })
        .await?
    }

    /// All that it has logged.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.log_file())?)
    }

    /// Where it logs.
    pub fn log_file(&self) -> PathBuf {
        self.logs.join(format!("{}.log", self.settings.name))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.process.as_ref().map_or(Ok(()), |p| p.signal(signal))
    }
}

/// Something at the aggregator's address that answers 500 to everything, until it is dropped.
#[derive(Debug)]
pub struct Broken {
    task: JoinHandle<()>,
}

impl Broken {
    /// Listens on `address`.
    pub async fn start(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let routes = axum::Router::new().fallback(|| async { StatusCode::INTERNAL_SERVER_ERROR });
        let task = tokio::spawn(async move {
            // Ends only by being aborted.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self { task })
    }

    /// Stops it and waits until its address is free.
    pub async fn stop(mut self) {
        self.task.abort();
        // "Cancelled" is what was asked for.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        self.task.abort();
    }
}
