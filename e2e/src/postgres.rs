//! A private Postgres cluster for aggregators that share one database: in a folder, on a unix socket only.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use rustix::process::{Pid, Signal, kill_process};

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

/// An open session of `psql`.
#[derive(Debug)]
pub struct Session(Child);

impl Session {
    /// Has a statement played; what it answers is not heard.
    pub fn play(&mut self, statement: &str) -> Result<()> {
        let stdin = self.0.stdin.as_mut().context("psql listens")?;
        writeln!(stdin, "{statement}").context("tell psql")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It ends where it has nothing more to read. A destructor has nobody to tell.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Postgres {
    /// Makes a cluster in `folder` and waits until it takes connections.
    pub async fn start(folder: &Path, logs: &Path) -> Result<Self> {
        Self::start_with(folder, logs, &[], &[]).await
    }

    /// The same with settings (`name=value`) and under environment variables of its own.
    pub async fn start_with(
        folder: &Path,
        logs: &Path,
        settings: &[&str],
        variables: &[String],
    ) -> Result<Self> {
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
            // Small segments, so that a full disk is met soon.
            "--wal-segsize",
            "4",
        ]);
        run(&mut initdb)?;
        let settings = (settings.iter()).flat_map(|set| ["-c".to_owned(), (*set).to_owned()]);
        let program = Program {
            name: "postgres".into(),
            // `env` sets the variables, then becomes Postgres.
            binary: "env".into(),
            args: (variables.iter().cloned())
                .chain([binaries.join("postgres").to_string_lossy().into_owned()])
                .chain([
                    "-D".into(),
                    data.to_string_lossy().into_owned(),
                    "-k".into(),
                    folder.to_string_lossy().into_owned(),
                    "-c".into(),
                    "listen_addresses=".into(),
                ])
                .chain(settings)
                .collect(),
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

    /// `kill -9` of the postmaster alone; its children see that by themselves.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut p| p.kill())
    }

    /// `kill -9` of one backend, on which Postgres ends all of them; `pick` says which.
    pub fn kill_backend(&self, pick: u64) -> Result<()> {
        let serves = |pid: &Pid| {
            let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_pid()));
            String::from_utf8_lossy(&line.unwrap_or_default()).contains("[local]")
        };
        let backends: Vec<Pid> = self.children()?.into_iter().filter(serves).collect();
        if let Ok(count) = u64::try_from(backends.len())
            && let Some(index) = pick.checked_rem(count)
            && let Some(backend) = backends.get(usize::try_from(index)?)
        {
            // One that has just ended is as good.
            let _ = kill_process(*backend, Signal::KILL);
        }
        Ok(())
    }

    /// Stops it in its tracks, all of its processes: connections stay, nothing answers.
    pub fn hang(&self) -> Result<()> {
        self.signal_all(Signal::STOP)
    }

    /// Ends [`Self::hang`].
    pub fn go_on(&self) -> Result<()> {
        self.signal_all(Signal::CONT)
    }

    /// Starts it anew if it ended, as a machine's init would, until it takes statements.
    pub async fn supervise(&mut self) -> Result<()> {
        wait::within(Duration::from_mins(1), "Postgres, started again", || {
            let seen = self.answers();
            std::future::ready(seen)
        })
        .await
        .map(drop)
    }

    /// Whether it takes statements; it is started where it ended.
    fn answers(&mut self) -> Result<Seen<String>> {
        if self.process.as_mut().is_none_or(|p| p.check().is_err()) {
            self.process = Some(self.program.start(&self.logs)?);
        }
        self.query("SELECT 1").map(Seen::Yes)
    }

    /// What its data folder is.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What `psql` prints for a statement.
    pub fn query(&self, statement: &str) -> Result<String> {
        let mut psql = Command::new(binaries()?.join("psql"));
        psql.args(["-AtX", "-v", "ON_ERROR_STOP=1", "-U", USER, "-h"]);
        psql.arg(&self.folder).args(["-c", statement, "postgres"]);
        let output = psql.output().context("run psql")?;
        if !output.status.success() {
            bail!("{statement}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// A session that stays, for statements that must not wait for a connection.
    pub fn session(&self) -> Result<Session> {
        let mut psql = Command::new(binaries()?.join("psql"));
        psql.args(["-AtX", "-U", USER, "-h"]);
        psql.arg(&self.folder).arg("postgres");
        psql.stdin(Stdio::piped());
        psql.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Session(psql.spawn().context("run psql")?))
    }

    /// Takes connections and does nothing with them, until it can have no more.
    pub fn use_up(&self) -> Result<Vec<UnixStream>> {
        let mut taken = Vec::new();
        loop {
            let mut stream = UnixStream::connect(self.folder.join(".s.PGSQL.5432"))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            // The start-up message of protocol 3.0; the answer begins with `R` (welcome) or `E` (too many).
            let words = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
            stream.write_all(&u32::try_from(words.len() + 4)?.to_be_bytes())?;
            stream.write_all(words)?;
            let mut first = [0];
            stream.read_exact(&mut first)?;
            if first != *b"R" {
                return Ok(taken);
            }
            taken.push(stream);
        }
    }

    fn signal_all(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref().context("Postgres does not run")?;
        let mut all = self.children()?;
        all.push(process.pid());
        for pid in all {
            let _ = kill_process(pid, signal);
        }
        Ok(())
    }

    /// Its processes beside the postmaster.
    fn children(&self) -> Result<Vec<Pid>> {
        let process = self.process.as_ref().context("Postgres does not run")?;
        let parent = process.pid().as_raw_pid().to_string();
        let mut children = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let name = entry.file_name();
            let fields = stat
                .rsplit_once(')')
                .map(|(_, rest)| rest.split_whitespace());
            if fields.is_some_and(|mut fields| fields.nth(1) == Some(&parent))
                && let Some(pid) = name.to_str().and_then(|n| Pid::from_raw(n.parse().ok()?))
            {
                children.push(pid);
            }
        }
        Ok(children)
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

    /// The folder of its socket.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The process id of its postmaster, while it runs.
    pub fn pid(&self) -> Option<Pid> {
        self.process.as_ref().map(Process::pid)
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
