//! What is measured on paper: a table for the one who runs it, and its section of docs/BENCHMARKS.md.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// One part's results.
#[derive(Debug)]
pub(crate) struct Section {
    /// Its heading.
    pub(crate) title: &'static str,
    /// What explains it, Markdown.
    pub(crate) notes: &'static str,
    /// How it was measured in this run: rounds, rates.
    pub(crate) how: String,
    /// Its lines.
    pub(crate) lines: Vec<Line>,
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Line {
    what: String,
    measured: String,
    goal: String,
    holds: Option<bool>,
}

impl Line {
    /// A figure that has no goal.
    pub(crate) fn plain(what: impl Into<String>, measured: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            measured: measured.into(),
            goal: String::new(),
            holds: None,
        }
    }

    /// A figure with its goal.
    pub(crate) fn against(
        what: impl Into<String>,
        measured: impl Into<String>,
        goal: impl Into<String>,
        holds: bool,
    ) -> Self {
        Self {
            goal: goal.into(),
            holds: Some(holds),
            ..Self::plain(what, measured)
        }
    }

    /// A figure with its goal that this run cannot tell from noise.
    pub(crate) fn unclear(
        what: impl Into<String>,
        measured: impl Into<String>,
        goal: impl Into<String>,
    ) -> Self {
        Self {
            goal: goal.into(),
            ..Self::plain(what, measured)
        }
    }

    fn verdict(&self) -> &'static str {
        match self.holds {
            None if self.goal.is_empty() => "",
            None => "unclear",
            Some(true) => "yes",
            Some(false) => "**no**",
        }
    }
}

impl Section {
    fn markdown(&self) -> String {
        let mut text = format!(
            "## {}\n\n{}\n\n| what | measured | goal | holds |\n| --- | --- | --- | --- |\n",
            self.title, self.how
        );
        for line in &self.lines {
            let cells = [&line.what, &line.measured, &line.goal].map(String::as_str);
            let _ = writeln!(text, "| {} | {} |", cells.join(" | "), line.verdict());
        }
        text + "\n" + self.notes.trim() + "\n"
    }

    /// The table for a terminal.
    pub(crate) fn plain(&self) -> String {
        let mut text = format!("\n{}\n{}\n", self.title, self.how);
        for line in &self.lines {
            let holds = line.verdict().trim_matches('*');
            let _ = writeln!(
                text,
                "  {:<72} {:<34} {:<26} {holds}",
                line.what, line.measured, line.goal
            );
        }
        text
    }
}

/// Says how far a long part is, beside the table.
#[expect(
    clippy::print_stderr,
    reason = "who waits for minutes wants to know for what"
)]
pub(crate) fn progress(text: &str) {
    eprintln!("{text}");
}

/// Puts the sections into the page; those that were not measured now stay as they were.
pub(crate) fn write(page: &Path, head: &str, order: &[&str], sections: &[Section]) -> Result<()> {
    let old = fs::read_to_string(page).unwrap_or_default();
    let old: Vec<&str> = old.split("\n## ").skip(1).collect();
    let mut text = head.trim().to_owned() + "\n";
    for title in order {
        let now = sections.iter().find(|section| section.title == *title);
        let before = old.iter().find(|o| o.split('\n').next() == Some(title));
        let section = match (now, before) {
            (Some(section), _) => section.markdown(),
            (None, Some(before)) => format!("## {}\n", before.trim()),
            (None, None) => continue,
        };
        text = text + "\n" + &section;
    }
    fs::write(page, text).with_context(|| page.display().to_string())
}
