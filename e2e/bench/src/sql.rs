//! What the benchmarks ask the database, through psql.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use kaeru_e2e::postgres::Postgres;

/// Runs a statement; its rows as lines, columns apart by `|`.
pub(crate) fn ask(postgres: &Postgres, statement: &str) -> Result<String> {
    run(postgres, &["-c", statement])
}

/// Runs a script.
pub(crate) fn play(postgres: &Postgres, file: &Path) -> Result<String> {
    run(postgres, &["-f", &file.to_string_lossy()])
}

fn run(postgres: &Postgres, args: &[&str]) -> Result<String> {
    let mut command = Command::new("psql");
    command.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h"]);
    command.arg(postgres.folder()).args(["-d", "postgres"]);
    let output = tokio::task::block_in_place(|| command.args(args).stdin(Stdio::null()).output())?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{args:?}: {errors}");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
