//! The embedded default: a private Postgres cluster in the data folder, on a unix socket that only its owner
//! can reach. It is started and stopped with Kaeru; one that outlived a killed Kaeru is taken over.
//!
//! What the machine must have for it is found in `embedded/machine.rs`.

mod machine;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use sqlx::postgres::PgConnectOptions;
use tokio::process::Command;

use machine::Account;

/// The database in the cluster, and the role that owns it.
const NAME: &str = "kaeru";
/// Longest socket path that a `sockaddr_un` takes, without its closing zero.
const SOCKET_PATH_MAX: usize = 107;
/// The file that Postgres adds to the socket folder.
const SOCKET_FILE: &str = "/.s.PGSQL.5432";

/// A private Postgres cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    programs: PathBuf,
    data: PathBuf,
    socket: PathBuf,
    account: Option<Account>,
    durable: bool,
    // Held as long as the cluster is ours.
    _lock: File,
}

/// Why the embedded Postgres cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no Postgres.
    #[error(
        "no Postgres was found on this machine; install one with `apt-get install postgresql`, or name a \
         database with --database-url"
    )]
    Missing,
    /// It must not run as root, and there is nobody else to run it.
    #[error(
        "Postgres refuses to run as root and there is no user `postgres`; install it with \
         `apt-get install postgresql`, or start Kaeru as another user"
    )]
    NoAccount,
    /// Two of us in one folder.
    #[error("the data folder {0} is in use by another Kaeru")]
    InUse(PathBuf),
    /// The postgres user may not enter.
    #[error(
        "the user `postgres` cannot enter the data folder {0}; choose one that it can, such as \
         --data-dir /var/lib/kaeru"
    )]
    Unreachable(PathBuf),
    /// The fallback socket folder is somebody else's.
    #[error("the socket folder {0} belongs to another user")]
    NotOurs(PathBuf),
    /// The file system said no.
    #[error("{path} cannot be used")]
    File {
        /// Which file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// A program of Postgres failed.
    #[error("{program} failed: {said}")]
    Program {
        /// Which.
        program: &'static str,
        /// Its last words.
        said: String,
    },
}

type Result<T> = std::result::Result<T, Error>;

/// Names the path in a file system's error.
fn at<T>(path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

impl Cluster {
    /// Starts the cluster of this data folder, and makes it first if there is none. `durable: false` is for
    /// clusters that are thrown away.
    pub(crate) async fn start(data_dir: &Path, durable: bool) -> Result<Self> {
        let programs = machine::programs().ok_or(Error::Missing)?;
        let account = machine::account()?;
        make_folder(data_dir, 0o755)?;
        let data_dir = at(data_dir, data_dir.canonicalize())?;
        let cluster = Self {
            _lock: lock(&data_dir)?,
            data: data_dir.join("postgres"),
            socket: socket_folder(&data_dir),
            programs,
            account,
            durable,
        };
        cluster.own_folder(&cluster.socket)?;
        if !cluster.data.exists() {
            cluster.init(&data_dir).await?;
        }
        cluster.ensure_running().await?;
        Ok(cluster)
    }

    /// Starts Postgres unless it runs.
    pub(crate) async fn ensure_running(&self) -> Result<()> {
        if self.pg_ctl("status", &[]).await?.status.success() {
            return Ok(());
        }
        self.configure()?;
        let log = self.data.join("kaeru.log");
        let log = log.to_string_lossy();
        let output = self.pg_ctl("start", &["-w", "-l", &log]).await?;
        succeeded("pg_ctl start", &output)
    }

    /// Stops Postgres: open transactions are rolled back, everything committed is on disk.
    pub(crate) async fn stop(&self) -> Result<()> {
        let output = self.pg_ctl("stop", &["-w", "-m", "fast"]).await?;
        succeeded("pg_ctl stop", &output)
    }

    /// How to connect to a database of this cluster.
    pub(crate) fn options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket)
            .username(NAME)
            .database(database)
    }

    /// How to connect to Kaeru's database; it is made first if there is none.
    pub(crate) async fn database(&self) -> sqlx::Result<PgConnectOptions> {
        use sqlx::{ConnectOptions as _, Connection as _};

        let mut connection = self.options("postgres").connect().await?;
        let exists: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
                .bind(NAME)
                .fetch_one(&mut connection)
                .await?;
        if !exists {
            sqlx::query("CREATE DATABASE kaeru")
                .execute(&mut connection)
                .await?;
        }
        connection.close().await?;
        Ok(self.options(NAME))
    }

    /// Makes the cluster beside its place and moves it there when it is whole.
    async fn init(&self, data_dir: &Path) -> Result<()> {
        let unfinished = data_dir.join("postgres.unfinished");
        if unfinished.exists() {
            at(&unfinished, fs::remove_dir_all(&unfinished))?;
        }
        self.own_folder(&unfinished)?;
        let mut command = self.command("initdb");
        command.arg("-D").arg(&unfinished).args([
            "--username",
            NAME,
            "--auth",
            "trust",
            "--encoding",
            "UTF8",
            "--locale",
            "C",
        ]);
        if !self.durable {
            command.arg("--no-sync");
        }
        let output = run("initdb", &mut command).await?;
        if !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("denied") {
            return Err(Error::Unreachable(data_dir.to_owned()));
        }
        succeeded("initdb", &output)?;
        at(&unfinished, fs::rename(&unfinished, &self.data))
    }

    /// Writes the settings of the cluster; they are Kaeru's at each start.
    fn configure(&self) -> Result<()> {
        let socket = self.socket.to_string_lossy().replace('\'', "''");
        let mut settings = format!(
            "# Written by Kaeru at each start.\n\
             listen_addresses = ''\n\
             unix_socket_directories = '{socket}'\n\
             unix_socket_permissions = 0700\n\
             max_connections = 100\n\
             max_wal_size = '2GB'\n\
             wal_compression = on\n\
             jit = off\n"
        );
        if !self.durable {
            settings.push_str("fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n");
        }
        let file = self.data.join("postgresql.conf");
        at(&file, fs::write(&file, settings))
    }

    /// A folder that only the account of Postgres can enter.
    fn own_folder(&self, folder: &Path) -> Result<()> {
        make_folder(folder, 0o700)?;
        let owner = at(folder, fs::metadata(folder))?.uid();
        match &self.account {
            // Root may give away only what root made: in /tmp anybody could have put a folder there.
            Some(account) if owner == 0 => {
                at(
                    folder,
                    chown(folder, Some(account.user), Some(account.group)),
                )?;
            }
            Some(account) if owner != account.user => {
                return Err(Error::NotOurs(folder.to_owned()));
            }
            _ => {}
        }
        at(
            folder,
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700)),
        )
        .map_err(|_| Error::NotOurs(folder.to_owned()))
    }

    async fn pg_ctl(&self, verb: &'static str, arguments: &[&str]) -> Result<Output> {
        let mut command = self.command("pg_ctl");
        command.arg(verb).arg("-D").arg(&self.data).args(arguments);
        run("pg_ctl", &mut command).await
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir("/").env("LC_ALL", "C");
        if let Some(account) = &self.account {
            command.uid(account.user).gid(account.group);
        }
        command
    }
}

fn make_folder(folder: &Path, mode: u32) -> Result<()> {
    at(
        folder,
        fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(folder),
    )
}

/// One Kaeru a folder: the lock goes with the process, however it ends.
fn lock(data_dir: &Path) -> Result<File> {
    let path = data_dir.join("kaeru.lock");
    let file = at(&path, File::create(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::InUse(data_dir.to_owned())),
        Err(fs::TryLockError::Error(source)) => Err(Error::File { path, source }),
    }
}

/// In the data folder, unless its path is too long for a socket.
fn socket_folder(data_dir: &Path) -> PathBuf {
    let within = data_dir.join("socket");
    if within.as_os_str().len() + SOCKET_FILE.len() <= SOCKET_PATH_MAX {
        return within;
    }
    let name = uuid::Uuid::new_v5(
        &uuid::Uuid::NAMESPACE_URL,
        data_dir.as_os_str().as_encoded_bytes(),
    );
    PathBuf::from(format!("/tmp/kaeru-{}", name.simple()))
}

/// Runs a program to its end. (A postmaster that `pg_ctl start` leaves behind writes to its log file, so it does
/// not hold these pipes open.)
async fn run(program: &'static str, command: &mut Command) -> Result<Output> {
    let failed = |error: io::Error| Error::Program {
        program,
        said: error.to_string(),
    };
    command.stdin(Stdio::null());
    command.output().await.map_err(failed)
}

fn succeeded(program: &'static str, output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    Err(Error::Program {
        program,
        said: String::from_utf8_lossy(&both).trim().to_owned(),
    })
}
