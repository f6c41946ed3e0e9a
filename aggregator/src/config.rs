//! The command line and the environment (`KAERU_*`): every setting, its default and its words.

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Kaeru says what happens to each business event of a mesh, and rolls back what failed.
#[derive(Debug, Parser)]
#[command(name = "kaeru", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `kaeru` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take reports, decide, and tell proxies and people.
    Serve(Serve),
    /// Work on policies.
    #[command(subcommand)]
    Policy(Policy),
}

/// What can be done with policies.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Say whether a policy file is valid, and if not, what is wrong on which line.
    Check {
        /// The file.
        file: PathBuf,
    },
}

/// Settings of `kaeru serve`.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Where proxies and people are answered.
    #[arg(long, env = "KAERU_LISTEN", default_value = "0.0.0.0:7170")]
    pub listen: SocketAddr,
    /// Where /metrics, /healthz and /readyz are answered.
    #[arg(long, env = "KAERU_OPS_LISTEN", default_value = "0.0.0.0:7171")]
    pub ops_listen: SocketAddr,
    /// The Postgres to use (`postgres://user:password@host/name`); without it Kaeru runs its own.
    #[arg(long, env = "KAERU_DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Where Kaeru's own Postgres keeps its data.
    #[arg(long, env = "KAERU_DATA_DIR", default_value = "kaeru-data")]
    pub data_dir: PathBuf,
    /// The policy (YAML), watched for changes; without it the newest one in the database holds, or the defaults.
    #[arg(long, env = "KAERU_POLICY")]
    pub policy: Option<PathBuf>,
    /// Days that reports are kept.
    #[arg(long, env = "KAERU_RETENTION_DAYS", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=366))]
    pub retention_days: u16,
    /// Days that events and decisions are kept.
    #[arg(long, env = "KAERU_DECISION_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3660))]
    pub decision_days: u16,
    /// Seconds that a verdict lives after its event's last report.
    #[arg(long, env = "KAERU_VERDICT_IDLE_S", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub verdict_idle_s: u32,
    /// Take reports only from callers that a proxy names in x-forwarded-client-cert.
    #[arg(long, env = "KAERU_REQUIRE_IDENTITY")]
    pub require_identity: bool,
    /// How logs are written. Which ones: `RUST_LOG` (default `info,sqlx=warn`).
    #[arg(long, env = "KAERU_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Serve {
    /// How long a verdict lives after its event's last report.
    pub(crate) fn verdict_idle(&self) -> Duration {
        Duration::from_secs(self.verdict_idle_s.into())
    }
}

/// Which logs are written, by `RUST_LOG`.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one file that reads the environment"
)]
pub(crate) fn log_filter() -> String {
    env::var("RUST_LOG").unwrap_or_else(|_| "info,sqlx=warn".to_owned())
}

/// The folders in which programs are searched, by `PATH`.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one file that reads the environment"
)]
pub(crate) fn search_path() -> Vec<PathBuf> {
    env::var_os("PATH").map_or_else(Vec::new, |path| env::split_paths(&path).collect())
}
