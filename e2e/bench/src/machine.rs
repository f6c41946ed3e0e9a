//! On what it was measured.

use std::fs;
use std::process::Command;

use anyhow::Result;

/// The load average of the last minute: who reads the figures should know what else ran.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// How many cores there are.
pub(crate) fn cores() -> Result<f64> {
    let cores = std::thread::available_parallelism()?.get();
    Ok(f64::from(u32::try_from(cores)?))
}

/// Processor, cores, memory, kernel.
pub(crate) fn describe() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpus.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(": "));
        value.map_or("?", |(_, value)| value).to_owned()
    };
    let cores = cpus.lines().filter(|l| l.starts_with("processor")).count();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory
        .lines()
        .next()
        .and_then(|l| l.split_whitespace().nth(1)?.parse().ok());
    let gib = kib.unwrap_or(0.0) / 1_048_576.0;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{cores} × {}, {gib:.0} GiB, Linux {}",
        field("model name"),
        kernel.trim()
    )
}

/// The first line that a program says of its version.
pub(crate) fn version(program: &str) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
    let text = text.unwrap_or_default();
    let line = text.lines().find(|line| !line.trim().is_empty());
    let line = line.unwrap_or("?").trim();
    // Envoy says where it stands.
    let said = line.strip_prefix(program).filter(|_| program.contains('/'));
    said.unwrap_or(line).trim().to_owned()
}
