//! What happened in a schedule, for a person. Off, it costs nothing.

use std::fmt::Write as _;

/// The story of a schedule.
#[derive(Debug, Default)]
pub(crate) struct Story {
    told: Option<String>,
    began_ms: u64,
}

impl Story {
    /// A story that is told only where `on`.
    pub(crate) fn new(on: bool, began_ms: u64) -> Self {
        Self {
            told: on.then(String::new),
            began_ms,
        }
    }

    /// Whether it is told.
    pub(crate) fn is_on(&self) -> bool {
        self.told.is_some()
    }

    /// Goes on.
    pub(crate) fn tell(&mut self, now_ms: u64, line: impl FnOnce() -> String) {
        if let Some(told) = &mut self.told {
            let since_ms = now_ms.saturating_sub(self.began_ms);
            let (seconds, rest) = (since_ms / 1_000, since_ms % 1_000);
            let line = line();
            for (place, line) in line.trim_end().lines().enumerate() {
                let _ = if place == 0 {
                    writeln!(told, "{seconds:>4}.{rest:03}  {line}")
                } else {
                    writeln!(told, "          {line}")
                };
            }
        }
    }

    /// All of it.
    pub(crate) fn take(self) -> String {
        self.told.unwrap_or_default()
    }
}
