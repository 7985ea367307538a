// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm`: the command line; and, by other names, the main process of units that record, replay or emulate a run, and the
//! service of the networks.

use std::path::PathBuf;
use std::process::ExitCode;

use ttvm::guest::toolstack::qemu::RUNNER;
use ttvm::netd;

fn main() -> ExitCode {
    let name = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    match name.file_name() {
        Some(name) if name == RUNNER => ttvm::recording::unit::service::main(),
        Some(name) if name == netd::PROGRAM => netd::main(),
        _ => ttvm::cli::main(),
    }
}
