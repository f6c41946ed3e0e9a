//! Child processes that surely stop: each leads its own process group, which is ended when the handle is dropped,
//! and dies by the kernel's hand when this process does. Their words go to a log file.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// How a process is asked to stop.
#[derive(Debug, Clone, Copy)]
pub enum Ending {
    /// It has nothing to lose: at once.
    Kill,
    /// It may put its house in order for this long.
    Grace(Duration),
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Program {
    /// For messages and the name of the log.
    pub name: String,
    /// The binary.
    pub binary: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// As which user to run it, where that is not ours.
    pub user: Option<String>,
    /// How it is stopped.
    pub ending: Ending,
}

/// A running child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    group: Pid,
    log: PathBuf,
    ending: Ending,
}

impl Program {
    /// Starts it, its output appended to `<logs>/<name>.log`.
    ///
    /// The kernel ends the child when the *thread* that started it ends: start from a thread that lives as long as
    /// the child should (a worker of the runtime).
    pub fn start(&self, logs: &Path) -> Result<Process> {
        let log = logs.join(format!("{}.log", self.name));
        let output = File::options().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("log file {}", log.display()))?;
        let death = match self.ending {
            Ending::Kill => "KILL",
            Ending::Grace(_) => "TERM",
        };
        // util-linux' setpriv sets the parent-death signal without unsafe code of ours, then becomes the program.
        let mut command = Command::new("setpriv");
        if let Some(user) = &self.user {
            command.args([&format!("--reuid={user}"), &format!("--regid={user}")]);
            command.arg("--clear-groups");
        }
        command.args(["--pdeathsig", death, "--"]);
        command.arg(&self.binary).args(&self.args);
        command.stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        command.process_group(0);
        let child = command
            .spawn()
            .with_context(|| format!("start {} ({})", self.name, self.binary.display()))?;
        let group = Pid::from_child(&child);
        Ok(Process {
            name: self.name.clone(),
            child,
            group,
            log,
            ending: self.ending,
        })
    }
}

impl Process {
    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.group
    }

    /// The most memory that it ever held, KiB.
    pub fn memory_peak_kib(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    /// The memory that it holds now, KiB.
    pub fn memory_kib(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    fn memory(&self, line: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.group.as_raw_pid()))?;
        let line = status.lines().find_map(|found| found.strip_prefix(line));
        let words = line.with_context(|| format!("the memory of {}", self.name))?;
        Ok(words.trim().trim_end_matches(" kB").parse()?)
    }

    /// Sends a signal to the whole group.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process_group(self.group, signal).with_context(|| format!("signal {}", self.name))
    }

    /// An error with the end of its log where it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(anyhow!("{} ended: {status}\n{}", self.name, self.tail())),
        }
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Stops it the way it was meant to and waits until it is gone.
    pub fn stop(&mut self) -> Result<()> {
        if let Ending::Grace(grace) = self.ending
            && self.child.try_wait()?.is_none()
        {
            self.signal(Signal::TERM)?;
            self.await_end(grace)?;
        }
        self.kill()
    }

    /// Ends it at once (`kill -9`) and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        // Gone already is as good; a group outlives its leader, so it is signalled in any case.
        let _ = kill_process_group(self.group, Signal::KILL);
        self.child.wait()?;
        Ok(())
    }

    fn await_end(&self, grace: Duration) -> Result<()> {
        let handle = pidfd_open(self.group, PidfdFlags::empty())?;
        let timeout = Timespec::try_from(grace)?;
        poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&timeout))?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A destructor has nobody to tell; the kernel's parent-death signal stands behind it.
        let _ = self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(name: &str, script: &str, ending: Ending) -> Program {
        Program {
            name: name.into(),
            binary: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            user: None,
            ending,
        }
    }

    #[test]
    fn the_whole_group_ends_with_the_handle() {
        let logs = std::env::temp_dir();
        let program = shell("group", "sleep 1000 & wait", Ending::Kill);
        let process = program.start(&logs).unwrap();
        let group = process.group;
        drop(process);
        // The orphaned `sleep` is dead at once, and gone when init has reaped it.
        let is_gone =
            || rustix::process::test_kill_process_group(group) == Err(rustix::io::Errno::SRCH);
        let look_again = || std::thread::sleep(Duration::from_millis(10));
        assert!((0..1_000).any(|_| is_gone() || {
            look_again();
            false
        }));
    }

    #[test]
    fn an_end_is_told_with_the_last_words() {
        let logs = std::env::temp_dir();
        let program = shell("words", "echo so it ends; exit 3", Ending::Kill);
        let mut process = program.start(&logs).unwrap();
        process.child.wait().unwrap();
        let told = process.check().unwrap_err().to_string();
        assert!(told.contains("so it ends") && told.contains('3'), "{told}");
    }
}
