// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm-guest run|record|replay -- GUEST`: supervises one run; the main process of `ttvm@GUEST.service`,
//! `ttvm-record@GUEST.service` and `ttvm-replay@GUEST.service`.

use std::path::Path;
use std::process::ExitCode;

use ttvm::config::places::Places;
use ttvm::config::{self, guests, host};
use ttvm::error::{Classify, Exit, chain};
use ttvm::guest::supervisor::Next;
use ttvm::log;
use ttvm::recording::service::{self, Error, Kind};

const PROGRAM: &str = "ttvm-guest";

/// "Start me again": the code systemd-nspawn uses for the same, named in the unit's RestartForceExitStatus=.
const RESTART: u8 = 133;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (kind, unit, guest) = match words[..] {
        ["run", "--", guest] => (Kind::Plain, "ttvm", guest),
        ["record", "--", guest] => (Kind::Record, "ttvm-record", guest),
        ["replay", "--", guest] => (Kind::Replay, "ttvm-replay", guest),
        _ => {
            eprintln!("usage: {PROGRAM} run|record|replay -- GUEST");
            return Exit::Usage.into();
        }
    };
    log::init(PROGRAM, Some(&format!("{unit}@{guest}.service")));
    match work(kind, guest) {
        Ok(Next::Stop) => Exit::Done.into(),
        Ok(Next::Restart) => RESTART.into(),
        Err(error) => {
            tracing::error!(ttvm_guest = guest, "{}", chain(&error));
            error.exit().into()
        }
    }
}

fn work(kind: Kind, guest: &str) -> Result<Next, Error> {
    let places = Places::system(Path::new("/"));
    let name = guest.parse().map_err(config::Error::Name)?;
    let host = host::load(&places)?;
    let guest = guests::load(&places, &host, &name)?;
    for warning in guest.warnings() {
        tracing::warn!(ttvm_guest = %guest.name, "{warning}");
    }
    service::serve(kind, &guest, &host)
}
