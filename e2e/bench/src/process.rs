//! What processes cost, by the kernel's accounting.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Pid;

/// Of `/proc/PID/stat`: the kernel counts in ticks of 10 ms on every platform that we run on.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of a process whose threads live on, to the nanosecond.
pub(crate) fn fine_cpu(pid: Pid) -> Result<Duration> {
    let mut total_ns = 0;
    for task in fs::read_dir(format!("/proc/{}/task", pid.as_raw_pid()))?.flatten() {
        // A thread that ended in between has nothing to say.
        let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else {
            continue;
        };
        let on_cpu = text.split(' ').next().context("schedstat")?;
        total_ns += on_cpu.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total_ns))
}

/// CPU time of a process and of everything that it started, to 10 ms each.
pub(crate) fn tree_cpu(pid: Pid) -> Result<Duration> {
    let mut ticks = 0;
    for of in tree(pid.as_raw_pid())? {
        if let Ok(stat) = fields(of) {
            // utime, stime, and those of children that ended.
            for place in [11, 12, 13, 14] {
                ticks += stat.get(place).and_then(|t| t.parse().ok()).unwrap_or(0);
            }
        }
    }
    Ok(TICK * ticks)
}

/// Resident memory of one process, MiB.
pub(crate) fn resident_mib(pid: Pid) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid()))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line.and_then(|l| l.trim().split(' ').next());
    Ok(kib.context("VmRSS")?.parse::<f64>()? / 1024.0)
}

/// Memory of a process and of everything that it started, what they share counted once, MiB.
pub(crate) fn tree_mib(pid: Pid) -> Result<f64> {
    let mut kib = 0;
    for of in tree(pid.as_raw_pid())? {
        let rollup = fs::read_to_string(format!("/proc/{of}/smaps_rollup")).unwrap_or_default();
        let line = rollup.lines().find_map(|l| l.strip_prefix("Pss:"));
        let pss = line.and_then(|l| l.trim().split(' ').next()?.parse::<u32>().ok());
        kib += pss.unwrap_or(0);
    }
    Ok(f64::from(kib) / 1024.0)
}

fn tree(root: i32) -> Result<Vec<i32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let pid = entry.file_name().to_str().and_then(|n| n.parse().ok());
        let Some(pid) = pid else { continue };
        if let Ok(stat) = fields(pid) {
            parents.push((pid, stat.get(1).and_then(|p| p.parse().ok()).unwrap_or(0)));
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        let children = parents.iter().filter(|(_, of)| *of == parent);
        found.extend(children.map(|(pid, _)| *pid));
        next += 1;
    }
    Ok(found)
}

/// `/proc/PID/stat` from the state on (what stands before it may hold blanks).
fn fields(pid: i32) -> Result<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after) = stat.rsplit_once(") ").context("stat")?;
    Ok(after.split(' ').map(str::to_owned).collect())
}
