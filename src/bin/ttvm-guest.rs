// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm-guest run -- GUEST`: supervises one run; the main process of `ttvm@GUEST.service`. As there is one in memory for each
//! guest, it has what guests of Xen need and nothing else.

use std::process::ExitCode;

use ttvm::base::error::Exit;
use ttvm::guest::toolstack::qemu;
use ttvm::guest::{supervisor, unit};

const PROGRAM: &str = "ttvm-guest";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ["run", "--", guest] = words[..] else {
        eprintln!("usage: {PROGRAM} run -- GUEST");
        return Exit::Usage.into();
    };
    unit::main(PROGRAM, "ttvm", guest, |guest, host| {
        if guest.toolstack.is_xen() {
            supervisor::run(guest, host)
        } else {
            Err(qemu::emulate(&guest.name))
        }
    })
}
