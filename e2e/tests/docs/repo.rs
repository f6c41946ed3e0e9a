//! The repository as the checks read it: its files, and the little of Markdown that they need.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that are not ours to read.
const LEFT_OUT: &[&str] = &["target", "build", ".git"];

/// A set of names that must be the same in two places.
pub(crate) type Names = BTreeSet<String>;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The text of one file, by its path from the root.
pub(crate) fn read(path: &str) -> String {
    let full = root().join(path);
    fs::read_to_string(&full).unwrap_or_else(|error| panic!("{}: {error}", full.display()))
}

/// Paths from the root of all files that end in one of `endings`, in order.
pub(crate) fn files(endings: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = entry.file_name().into_string().unwrap();
            if path.is_dir() {
                if !LEFT_OUT.contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let from_root = path.strip_prefix(root()).unwrap();
                found.push(from_root.to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// All Rust files below a folder, as one text.
pub(crate) fn sources(folder: &str) -> String {
    let all = files(&[".rs"]);
    let ours = all.iter().filter(|path| path.starts_with(folder));
    ours.map(|path| read(path)).collect()
}

/// One Markdown file.
pub(crate) struct Doc {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Every Markdown file.
pub(crate) fn docs() -> Vec<Doc> {
    let load = |path: String| Doc {
        text: read(&path),
        path,
    };
    files(&[".md"]).into_iter().map(load).collect()
}

impl Doc {
    pub(crate) fn at(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: read(path),
        }
    }

    /// Lines outside fenced code.
    pub(crate) fn prose(&self) -> impl Iterator<Item = &str> {
        let mut fenced = false;
        self.text.lines().filter(move |line| {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            !fenced && !fence
        })
    }

    /// Texts between backticks, outside fenced code.
    pub(crate) fn code(&self) -> impl Iterator<Item = &str> {
        self.prose()
            .flat_map(|line| line.split('`').skip(1).step_by(2))
    }

    /// The words of headings, without the marks.
    pub(crate) fn headings(&self) -> impl Iterator<Item = &str> {
        self.prose()
            .filter(|line| line.starts_with('#'))
            .map(|line| line.trim_start_matches('#').trim())
    }

    /// The lines under the heading with these words, up to the next heading of its level or above.
    pub(crate) fn section(&self, heading: &str) -> Self {
        let mut level = None;
        let mut text = String::new();
        for line in self.text.lines() {
            let hashes = line.chars().take_while(|c| *c == '#').count();
            match level {
                None if hashes > 0 && line[hashes..].trim() == heading => level = Some(hashes),
                Some(level) if (1..=level).contains(&hashes) => break,
                Some(_) => text.extend([line, "\n"]),
                None => {}
            }
        }
        assert!(level.is_some(), "{} has no section {heading:?}", self.path);
        Self {
            path: format!("{} ({heading})", self.path),
            text,
        }
    }

    /// The cells of each table row, heads and rules left out.
    pub(crate) fn rows(&self) -> Vec<Vec<&str>> {
        let lines: Vec<&str> = self.prose().collect();
        let is_rule = |line: &str| line.starts_with('|') && !line.contains(|c| !"|-: ".contains(c));
        let is_head = |i: usize| lines.get(i + 1).is_some_and(|next| is_rule(next));
        (0..lines.len())
            .filter(|&i| lines[i].starts_with('|') && !is_rule(lines[i]) && !is_head(i))
            .map(|i| cells(lines[i]))
            .collect()
    }

    /// What stands between backticks in the first cell of each row.
    pub(crate) fn first_column(&self) -> Names {
        let rows = self.rows();
        let named = rows
            .iter()
            .flat_map(|cells| cells[0].split('`').skip(1).step_by(2));
        named.map(str::to_owned).collect()
    }
}

fn cells(line: &str) -> Vec<&str> {
    let inner = line.trim().trim_matches('|');
    inner.split(" | ").map(str::trim).collect()
}

/// Fails with the difference when two sets of names are not the same.
pub(crate) fn same(what: &str, docs: &Names, code: &Names) {
    let only = |a: &Names, b: &Names| a.difference(b).cloned().collect::<Vec<_>>().join(", ");
    let (untrue, unsaid) = (only(docs, code), only(code, docs));
    assert!(
        untrue.is_empty() && unsaid.is_empty(),
        "{what}: only in the docs: [{untrue}]; only in the code: [{unsaid}]"
    );
    assert!(!code.is_empty(), "{what}: nothing was found to compare");
}

/// All texts in `source` that stand between `open` and `close`.
pub(crate) fn between<'a>(
    source: &'a str,
    open: &'a str,
    close: char,
) -> impl Iterator<Item = &'a str> {
    source
        .split(open)
        .skip(1)
        .filter_map(move |rest| rest.split(close).next())
}
