//! Where the parts are that a world is made of. The one place that reads the environment.
//!
//! Defaults: what cargo built beside this program, and Envoy from the virtual environment that `make setup` fills.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The parts, each checked to be there.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Envoy's binary; `KAERU_ENVOY`, else `build/venv/bin/envoy`.
    pub envoy: PathBuf,
    /// The aggregator's binary; `KAERU_BIN`, else `kaeru` beside this program.
    pub kaeru: PathBuf,
    /// The compiled filter; `KAERU_WASM`, else `wasm32-wasip1/wasm/kaeru_filter.wasm` in the target folder.
    pub wasm: PathBuf,
    /// The shop's binary; `KAERU_SHOP`, else `shop` beside this program.
    pub shop: PathBuf,
    /// Where worlds keep configurations, logs and data; `KAERU_E2E_DIR`, else `kaeru-e2e` in the temporary folder
    /// (which, unlike a home, the database's user may enter).
    pub folder: PathBuf,
    target: PathBuf,
}

impl Parts {
    /// Finds them, or says in words what is missing and what makes it.
    pub fn find() -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = here.parent().unwrap_or(here);
        let program = std::env::current_exe().context("where this program is")?;
        let mut built = program.parent().unwrap_or(Path::new("."));
        if built.ends_with("deps") {
            built = built.parent().unwrap_or(built);
        }
        let target = built.parent().unwrap_or(built);
        let envoy = workspace.join("build/venv/bin/envoy");
        let wasm = target.join("wasm32-wasip1/wasm/kaeru_filter.wasm");
        let folder = variable("KAERU_E2E_DIR");
        Ok(Self {
            envoy: part("KAERU_ENVOY", envoy, "make setup")?,
            kaeru: part("KAERU_BIN", built.join("kaeru"), "make build")?,
            wasm: part("KAERU_WASM", wasm, "make wasm")?,
            shop: part("KAERU_SHOP", built.join("shop"), "make build")?,
            target: target.into(),
            folder: folder.unwrap_or_else(|| std::env::temp_dir().join("kaeru-e2e")),
        })
    }
}

impl Parts {
    /// The filter that dies when a request asks it to, for the scenarios of dead VMs; `KAERU_WASM_CRASH`, else
    /// `crash/wasm32-wasip1/wasm/kaeru_filter.wasm` in the target folder.
    pub fn wasm_that_can_crash(&self) -> Result<PathBuf> {
        let wasm = self
            .target
            .join("crash/wasm32-wasip1/wasm/kaeru_filter.wasm");
        part("KAERU_WASM_CRASH", wasm, "make wasm-crash")
    }
}

/// How long and how an attack goes.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    /// Rounds; `KAERU_BREAK_ROUNDS`, else a few, so that a test run stays short, or many for `KAERU_TORTURE`.
    pub rounds: u32,
    /// What chance is made of; `KAERU_BREAK_SEED`, else 1.
    pub seed: u64,
}

impl Attack {
    /// As the environment says: so many rounds in the quick form, so many in the long one.
    pub fn find(quick: u32, long: u32) -> Self {
        let number = |name| variable(name).and_then(|text| text.to_str()?.parse::<u64>().ok());
        let asked = number("KAERU_BREAK_ROUNDS").and_then(|rounds| u32::try_from(rounds).ok());
        Self {
            rounds: asked.unwrap_or(if is_torture() { long } else { quick }),
            seed: number("KAERU_BREAK_SEED").unwrap_or(1),
        }
    }
}

/// Whether the long forms of the tests are asked for: `KAERU_TORTURE`, anything but empty.
pub fn is_torture() -> bool {
    variable("KAERU_TORTURE").is_some_and(|value| !value.as_os_str().is_empty())
}

fn part(name: &str, default: PathBuf, made_by: &str) -> Result<PathBuf> {
    let path = variable(name).unwrap_or(default);
    if !path.is_file() {
        bail!(
            "{} is missing: `{made_by}` makes it, or {name} says where it is",
            path.display()
        );
    }
    Ok(path)
}

#[expect(clippy::disallowed_methods, reason = "this is the one place")]
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}
