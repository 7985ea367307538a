// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm-guest run -- GUEST`: supervises one run; the main process of `ttvm@GUEST.service`. As there is one in memory for each
//! guest, it has what guests of Xen need and nothing else.

use std::process::ExitCode;

use ttvm::config::guest::Toolstack;
use ttvm::error::Exit;
use ttvm::guest::{supervisor, unit};

const PROGRAM: &str = "ttvm-guest";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ["run", "--", guest] = words[..] else {
        eprintln!("usage: {PROGRAM} run -- GUEST");
        return Exit::Usage.into();
    };
    unit::main(PROGRAM, "ttvm", guest, |guest, host| match guest.toolstack {
        Toolstack::Qemu => Err(unit::emulate(&guest.name)),
        Toolstack::Xl | Toolstack::Xm => supervisor::run(guest, host),
    })
}
