//! A private Postgres cluster for aggregators that share one database: in a folder, on a unix socket only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use rustix::process::Signal;

use crate::process::{Ending, Process, Program};
use crate::wait::{self, Seen};

/// The user that Postgres runs as where we are root, which it refuses to be.
const USER: &str = "postgres";

/// A running cluster.
#[derive(Debug)]
pub struct Postgres {
    folder: PathBuf,
    program: Program,
    logs: PathBuf,
    process: Option<Process>,
}

impl Postgres {
    /// Makes a cluster in `folder` and waits until it takes connections.
    pub async fn start(folder: &Path, logs: &Path) -> Result<Self> {
        let binaries = binaries()?;
        let data = folder.join("data");
        fs::create_dir_all(folder)?;
        let root = rustix::process::geteuid().is_root();
        if root {
            run(Command::new("chown").arg(USER).arg(folder))?;
        }
        let mut initdb = if root {
            let mut as_user = Command::new("setpriv");
            as_user.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--"]);
            as_user.arg(binaries.join("initdb"));
            as_user
        } else {
            Command::new(binaries.join("initdb"))
        };
        initdb.arg("--pgdata").arg(&data);
        initdb.args([
            "--username",
            USER,
            "--auth",
            "trust",
            "--no-sync",
            "--encoding",
            "UTF8",
        ]);
        run(&mut initdb)?;
        let program = Program {
            name: "postgres".into(),
            binary: binaries.join("postgres"),
            args: vec![
                "-D".into(),
                data.to_string_lossy().into_owned(),
                "-k".into(),
                folder.to_string_lossy().into_owned(),
                "-c".into(),
                "listen_addresses=".into(),
            ],
            user: root.then(|| USER.to_owned()),
            ending: Ending::Grace(Duration::from_secs(5)),
        };
        let mut postgres = Self {
            folder: folder.into(),
            program,
            logs: logs.into(),
            process: None,
        };
        postgres.start_again().await?;
        Ok(postgres)
    }

    /// Ends it at once, connections and all, as a machine that is lost.
    pub fn stop_at_once(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        // Postgres' immediate shutdown; its children end by it too, which a kill of their parent would leave to chance.
        process.signal(Signal::QUIT)?;
        process.stop()
    }

    /// Starts it on what it kept, and waits until it takes connections.
    pub async fn start_again(&mut self) -> Result<()> {
        let process = self.process.insert(self.program.start(&self.logs)?);
        let socket = self.folder.join(".s.PGSQL.5432");
        wait::until("Postgres", || {
            let alive = process.check();
            let seen = std::os::unix::net::UnixStream::connect(&socket);
            async move {
                match (alive, seen) {
                    (Err(end), _) => Ok(Seen::Yes(Err(end))),
                    (Ok(()), Ok(_)) => Ok(Seen::Yes(Ok(()))),
                    (Ok(()), Err(error)) => Ok(Seen::NotYet(error.to_string())),
                }
            }
        })
        .await?
    }

    /// How to reach its database.
    pub fn url(&self) -> String {
        let socket = self.folder.to_string_lossy().replace('/', "%2F");
        format!("postgres://{USER}@{socket}/postgres")
    }
}

/// Where the newest installed Postgres has its binaries.
fn binaries() -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let versions = versions.flatten().map(|version| version.path().join("bin"));
    let mut installed: Vec<PathBuf> = versions.filter(|b| b.join("initdb").is_file()).collect();
    installed.sort();
    installed
        .pop()
        .context("no Postgres is installed: apt-get install postgresql")
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
