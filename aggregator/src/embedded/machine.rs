//! What the machine has: Postgres' programs, and somebody who may run them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Error, Result};
use crate::config;

/// Where Debian and its kin keep the programs, one folder a version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Who runs Postgres instead of root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Account {
    /// User id.
    pub(super) user: u32,
    /// Group id.
    pub(super) group: u32,
}

/// The folder of Postgres' programs: of the newest version, else one in the search path.
pub(super) fn programs() -> Option<PathBuf> {
    let has_all = |folder: &Path| {
        ["initdb", "pg_ctl", "postgres"]
            .iter()
            .all(|p| folder.join(p).is_file())
    };
    let version = |folder: &Path| folder.file_name()?.to_str()?.parse::<u32>().ok();
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(VERSIONS)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((version(&entry.path())?, entry.path().join("bin"))))
        .filter(|(_, folder)| has_all(folder))
        .collect();
    versions.sort();
    versions
        .pop()
        .map(|(_, folder)| folder)
        .or_else(|| config::search_path().into_iter().find(|f| has_all(f)))
}

/// `None` when we are not root and run it ourselves.
pub(super) fn account() -> Result<Option<Account>> {
    // The owner of our own entry in /proc is who we are.
    let we_are_root = fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0);
    if !we_are_root {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    find_account(&users, "postgres")
        .map(Some)
        .ok_or(Error::NoAccount)
}

fn find_account(users: &str, name: &str) -> Option<Account> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let mut numbers = fields.skip(1).map(str::parse);
        Some(Account {
            user: numbers.next()?.ok()?,
            group: numbers.next()?.ok()?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::{Account, find_account};

    #[test]
    fn accounts_are_read_from_passwd() {
        let users =
            "root:x:0:0:root:/root:/bin/bash\npostgres:x:103:107:,,,:/var/lib/postgresql:/bin/sh\n";
        let postgres = Account {
            user: 103,
            group: 107,
        };
        assert_eq!(find_account(users, "postgres"), Some(postgres));
        assert_eq!(find_account(users, "post"), None);
        assert_eq!(find_account("postgres:x:no:1:", "postgres"), None);
    }
}
