// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm guest new`: a guest that is ready to be recorded.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::ValueEnum;

use super::progress::Progress;
use super::{Error, guest_name, password};
use crate::config::guest::Toolstack;
use crate::config::host::HostConfig;
use crate::config::places::Places;
use crate::config::types::{GuestName, Size};
use crate::error::Exit;
use crate::making::{Kept, Plan, Ram, RamRequest};
use crate::signals;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The guest
    #[arg(value_parser = guest_name)]
    guest: GuestName,
    /// Take the kernel from here: its file, a package of Debian (linux-image-VERSION), or a directory with boot and lib/modules
    /// [default: the newest of this host]
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Ask for root's password, or read it from the standard input if that is no terminal
    #[arg(long)]
    password: bool,
    /// What starts it
    #[arg(long, value_enum, default_value_t = Start::Qemu)]
    toolstack: Start,
    /// Only say what would be made
    #[arg(long)]
    dry_run: bool,
}

/// What starts a new guest.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Start {
    /// Xen: it cannot be recorded
    Xl,
    /// An emulated machine, on any host
    Qemu,
}

impl From<Start> for Toolstack {
    fn from(start: Start) -> Self {
        match start {
            Start::Xl => Self::Xl,
            Start::Qemu => Self::Qemu,
        }
    }
}

pub(super) fn run(places: &Places, host: &HostConfig, arguments: &Arguments) -> Result<Exit, Error> {
    ram(places, host, arguments)
}

/// A guest that is all in memory.
fn ram(places: &Places, host: &HostConfig, arguments: &Arguments) -> Result<Exit, Error> {
    crate::making::is_free(places, &arguments.guest)?;
    let password = arguments.password.then(password::ask).transpose()?;
    let is_own = password.is_some();
    let _whole = signals::defer();
    let request = RamRequest {
        name: arguments.guest.clone(),
        toolstack: arguments.toolstack.into(),
        kernel: arguments.kernel.clone(),
        password,
    };
    let mut progress = Progress::of("reading the kernel and its drivers");
    let ram = Ram::prepare(places, host, &request, &mut |done, total| progress.update(done, total))?;
    drop(progress);
    if arguments.dry_run {
        return would_make(&ram.plan);
    }
    ram.plan.make(places, host)?;
    let mut out = io::stdout().lock();
    let password = if is_own { "your password" } else { "password root" };
    let (guest, size) = (&arguments.guest, Size::mib(ram.size.div_ceil(1 << 20)));
    writeln!(
        out,
        "made {guest}: kernel {}, an initial RAM disk of {size}, {} of memory; log in as root, {password}",
        ram.version, ram.memory
    )?;
    if !ram.missing.is_empty() {
        writeln!(out, "this kernel does not have: {}", ram.missing.join(" "))?;
    }
    next(&ram.plan, arguments.toolstack)
}

fn would_make(plan: &Plan) -> Result<Exit, Error> {
    let mut out = io::stdout().lock();
    for kept in &plan.kept {
        writeln!(out, "{}", kept_in_words(kept))?;
    }
    writeln!(out, "write {}:\n\n{}", plan.path.display(), plan.text)?;
    Ok(Exit::Done)
}

fn kept_in_words(kept: &Kept) -> String {
    format!("keep {} ({} KiB)", kept.path.display(), kept.size().div_ceil(1024))
}

/// What to do with it.
fn next(plan: &Plan, toolstack: Start) -> Result<Exit, Error> {
    let mut out = io::stdout().lock();
    let (guest, path) = (&plan.name, plan.path.display());
    writeln!(out, "its file: {path}\n")?;
    match toolstack {
        Start::Qemu => {
            writeln!(
                out,
                "ttvm record {guest} --console    # its console; `poweroff` there ends the run, or Ctrl-]"
            )?;
            writeln!(
                out,
                "ttvm replay {guest} --verify     # whether it is the same run once more"
            )?;
        }
        Start::Xl => writeln!(out, "systemctl start ttvm@{guest}")?,
    }
    Ok(Exit::Done)
}
