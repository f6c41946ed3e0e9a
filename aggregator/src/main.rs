//! `kaeru`: reads the command line and hands over to the library.

use std::process::ExitCode;

use clap::Parser as _;
use kaeru_aggregator::config::{Cli, Command};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(config) => kaeru_aggregator::serve::run(config),
    }
}
