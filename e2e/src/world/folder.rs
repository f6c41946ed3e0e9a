//! The folders of worlds: one per world, kept after its end for whoever wants to read the logs, swept away when a later
//! process makes its first.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use anyhow::{Context, Result};

static SWEPT: Once = Once::new();

/// A new folder `<parent>/<pid>-<name>`.
pub(crate) fn make(parent: &Path, name: &str) -> Result<PathBuf> {
    SWEPT.call_once(|| sweep(parent));
    let folder = parent.join(format!("{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    Ok(folder)
}

/// Removes the folders of processes that are gone. What cannot be removed stays for the next sweep.
fn sweep(parent: &Path) {
    for folder in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = folder.file_name();
        let pid = name.to_str().and_then(|n| n.split_once('-'));
        if pid.is_some_and(|(pid, _)| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir_all(folder.path());
        }
    }
}
