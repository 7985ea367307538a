// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the main processes of guests' units have in common.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use super::Error;
use super::supervisor::Next;
use crate::config::guest::Guest;
use crate::config::host::{self, HostConfig};
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::config::{self, guests};
use crate::error::{Classify, Exit, chain};
use crate::log;

/// "Start me again": the code systemd-nspawn uses for the same, named in the unit's RestartForceExitStatus=.
const RESTART: u8 = 133;

/// The program of the command line, which records, replays and emulates as well.
const TTVM: &str = "/usr/bin/ttvm";

/// The name it is started by in order to be the main process of a unit.
pub const RUNNER: &str = "ttvm-run";

/// Does the `work` of `unit` for the guest of that name as `program`, and tells systemd by the exit code how it ended.
pub fn main<E>(
    program: &'static str,
    unit: &str,
    guest: &str,
    work: impl FnOnce(&Guest, &HostConfig) -> Result<Next, E>,
) -> ExitCode
where
    E: Classify + From<config::Error> + 'static,
{
    log::init(program, Some(&format!("{unit}@{guest}.service")));
    let load = || -> Result<Next, E> {
        let places = Places::system(Path::new("/"));
        let name = guest.parse().map_err(config::Error::Name)?;
        let host = host::load(&places)?;
        let guest = guests::load(&places, &host, &name)?;
        for warning in guest.warnings() {
            tracing::warn!(ttvm_guest = %guest.name, "{warning}");
        }
        work(&guest, &host)
    };
    match load() {
        Ok(Next::Stop) => Exit::Done.into(),
        Ok(Next::Restart) => RESTART.into(),
        Err(error) => {
            tracing::error!(ttvm_guest = guest, "{}", chain(&error));
            error.exit().into()
        }
    }
}

/// Becomes the program that runs an emulated guest. A guest of Xen's does not have that in memory.
pub fn emulate(guest: &GuestName) -> Error {
    let source = Command::new(TTVM)
        .arg0(RUNNER)
        .args(["run", "--", guest.as_str()])
        .exec();
    Error::Program {
        path: TTVM.into(),
        source,
    }
}
