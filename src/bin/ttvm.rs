// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm`: the command line; and, by its other name, the main process of units that record, replay or emulate a run.

use std::process::ExitCode;

use ttvm::guest::toolstack::qemu::RUNNER;

fn main() -> ExitCode {
    match std::env::args_os().next() {
        Some(name) if name == RUNNER => ttvm::recording::unit::service::main(),
        _ => ttvm::cli::main(),
    }
}
