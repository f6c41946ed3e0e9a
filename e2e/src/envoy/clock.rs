//! A process whose wall clock is wrong: a library in front of libc's (`clock.c`, which says why not an existing one),
//! compiled with the compiler that Rust links with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

const SOURCE: &str = include_str!("clock.c");

/// The library that makes clocks wrong.
#[derive(Debug, Clone)]
pub struct ClockShift {
    library: PathBuf,
}

impl ClockShift {
    /// Compiles it into `folder`.
    pub fn compile(folder: &Path) -> Result<Self> {
        let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
        fs::write(&source, SOURCE)?;
        let mut compile = Command::new("cc");
        compile.args(["-O1", "-shared", "-fPIC", "-o"]);
        let made = compile.arg(&library).arg(&source).output();
        let made = made.context("run cc")?;
        let said = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "cc {}: {said}", source.display());
        Ok(Self { library })
    }

    /// The variables of a process whose clock is ahead by so many seconds.
    pub(super) fn variables(&self, ahead_s: i64) -> [String; 2] {
        self.with(format!("KAERU_CLOCK_SHIFT_S={ahead_s}"))
    }

    /// The same by as many seconds as this file says at each moment.
    pub fn variables_by(&self, file: &Path) -> [String; 2] {
        self.with(format!("KAERU_CLOCK_SHIFT_FILE={}", file.display()))
    }

    fn with(&self, shift: String) -> [String; 2] {
        [format!("LD_PRELOAD={}", self.library.display()), shift]
    }
}
