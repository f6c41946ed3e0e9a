//! Where the demo writes: standard output, in colours only where a person looks at it.

use std::io::{IsTerminal, Stdout, Write, stdout};

use anyhow::Result;

/// How a piece of text looks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Look {
    Good,
    Bad,
    Quiet,
    Strong,
}

/// Standard output.
#[derive(Debug)]
pub(crate) struct Page {
    out: Stdout,
    colours: bool,
}

impl Page {
    pub(crate) fn on_stdout() -> Self {
        let out = stdout();
        let colours = out.is_terminal();
        Self { out, colours }
    }

    /// A line of the story.
    pub(crate) fn line(&mut self, text: &str) -> Result<()> {
        Ok(writeln!(self.out, "{text}")?)
    }

    /// What goes on now.
    pub(crate) fn step(&mut self, text: &str) -> Result<()> {
        let text = self.paint(Look::Quiet, &format!("· {text}"));
        self.line(&text)
    }

    /// A heading, set off by an empty line.
    pub(crate) fn heading(&mut self, text: &str) -> Result<()> {
        let text = self.paint(Look::Strong, text);
        self.line("")?;
        self.line(&text)
    }

    /// `text` in its look.
    pub(crate) fn paint(&self, look: Look, text: &str) -> String {
        let code = match look {
            Look::Good => 32,
            Look::Bad => 31,
            Look::Quiet => 2,
            Look::Strong => 1,
        };
        if self.colours {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
