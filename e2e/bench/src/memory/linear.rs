//! The linear memories of a process' Wasm VMs. V8 reserves gigabytes behind each that nobody may touch, so that it needs no
//! checks: by these a linear memory is known.

use std::fs;

use anyhow::{Context, Result};
use rustix::process::Pid;

/// Bytes that nobody may touch behind a linear memory, at least.
const GUARD: u64 = 1 << 30;

/// The largest linear memory, MiB. A process has one a thread: the main thread's, which answers no request, is the smallest.
pub(super) fn largest_mib(pid: Pid) -> Result<f64> {
    let maps = fs::read_to_string(format!("/proc/{}/maps", pid.as_raw_pid()))?;
    let all = of(&maps);
    let largest = all.iter().max().context("no Wasm VM is there")?;
    Ok(*largest as f64 / 1_048_576.0)
}

/// Bytes of each.
fn of(maps: &str) -> Vec<u64> {
    let parsed: Vec<(u64, u64, &str)> = maps.lines().filter_map(mapping).collect();
    let pairs = parsed.windows(2).filter_map(|two| match two {
        [(from, to, "rw-p"), (next, end, "---p")] if to == next && end - next >= GUARD => {
            Some(to - from)
        }
        _ => None,
    });
    pairs.collect()
}

fn mapping(line: &str) -> Option<(u64, u64, &str)> {
    let mut words = line.split(' ');
    let (from, to) = words.next()?.split_once('-')?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    Some((hex(from)?, hex(to)?, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn a_linear_memory_has_a_guard_behind_it() {
        let maps = "100000-300000 rw-p 00000000 00:00 0 \n300000-280300000 ---p 00000000 00:00 0 \n\
                    280300000-280400000 rw-p 00000000 00:00 0 \n280400000-280500000 ---p 00000000 00:00 0 ";
        assert_eq!(of(maps), [0x20_0000]);
    }
}
