//! `kaeru`: reads the command line and hands over to the library.

use std::io;
use std::process::ExitCode;

use clap::Parser as _;
use kaeru_aggregator::config::{Cli, Command, Policy};
use kaeru_aggregator::{policy_file, serve};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(config) => serve::run(config),
        Command::Policy(Policy::Check { file }) => {
            match policy_file::check(&file, &mut io::stdout()) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) | Err(_) => ExitCode::FAILURE,
            }
        }
    }
}
