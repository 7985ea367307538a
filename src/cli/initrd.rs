// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm initrd`: initial RAM disks.

use clap::Subcommand;

use super::{Error, initrd_busybox};
use crate::config::places::Given;
use crate::error::Exit;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make the RAM-based guest: busybox, the drivers of a kernel, network by DHCP, a login
    Busybox(initrd_busybox::Arguments),
}

pub(super) fn run(given: &Given, command: &Command) -> Result<Exit, Error> {
    match command {
        Command::Busybox(arguments) => initrd_busybox::run(given, arguments),
    }
}
