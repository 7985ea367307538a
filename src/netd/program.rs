// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm-netd [--root DIR] [rollback ID | boot]`: the D-Bus service org.ttvm.Network1; what its timer runs; what the boot
//! runs. People use `ttvm network`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::Backup;
use crate::base::error::{Classify, Exit, report};
use crate::base::log;
use crate::network::{Error, Network};

/// By this name `ttvm` is the service: in /usr/libexec/ttvm it is a link to it. A program of its own would have most of
/// `ttvm` in it once more.
pub const PROGRAM: &str = "ttvm-netd";

/// The program.
pub fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut root = PathBuf::from("/");
    if let [option, directory, ..] = &arguments[..]
        && option == "--root"
    {
        root = PathBuf::from(directory);
        arguments.drain(..2);
    }
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => end("ttvm-netd.service", || super::serve(&root)),
        ["boot"] => end("ttvm-network.service", || boot(&root)),
        ["rollback", id] => match id.parse() {
            Ok(id) => end("ttvm-netd.service", || rollback(&root, id)),
            Err(_) => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: {PROGRAM} [--root DIR] [rollback ID | boot]");
    Exit::Usage.into()
}

fn end<E: Classify>(unit: &str, work: impl FnOnce() -> Result<(), E>) -> ExitCode {
    log::init(PROGRAM, Some(unit));
    match work() {
        Ok(()) => Exit::Done.into(),
        Err(error) => report(PROGRAM, &error),
    }
}

/// The host is coming up.
fn boot(root: &Path) -> Result<(), Error> {
    let network = Network::new(root);
    network.recover()?;
    for done in network.reconcile()? {
        tracing::info!("{done}");
    }
    Ok(())
}

/// The timer of a change has run out. The change may be over, or another be on its way, or the deadline have been moved,
/// and then a later timer is there: what is overdue or half made is undone, and nothing else.
fn rollback(root: &Path, id: u64) -> Result<(), Error> {
    let network = Network::new(root);
    network.recover()?;
    // Others were armed for the same change, for as long as it might have taken to be made.
    if network.status()?.pending.is_none_or(|pending| pending.id != id) {
        Backup::new(root).disarm(id);
    }
    Ok(())
}
