//! `kaeru serve`: starts the parts in order and stops them in the reverse order.

use std::process::ExitCode;

use crate::config::Serve;

/// Runs until it is told to stop.
pub fn run(config: Serve) -> ExitCode {
    drop(config);
    ExitCode::FAILURE
}
