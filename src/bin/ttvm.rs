// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm`: the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    ttvm::cli::main()
}
