// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm console`: the console of a guest that runs.

use nix::unistd::geteuid;

use super::lifecycle::{system, unknown};
use super::logs::become_it;
use crate::base::error::Exit;
use crate::cli::{Error, guest_name, host_or_defaults};
use crate::config::guests;
use crate::config::places::Given;
use crate::config::types::GuestName;
use crate::guest::domain::{self, Presence};
use crate::guest::toolstack;
use crate::xenstore::{self, XenStore};

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The guest
    #[arg(value_parser = guest_name)]
    guest: GuestName,
}

pub(in crate::cli) fn run(given: &Given, arguments: &Arguments) -> Result<Exit, Error> {
    let places = system(given, "console")?;
    let name = &arguments.guest;
    let guest = guests::load(&places, &host_or_defaults(&places), name).map_err(|error| unknown(error, name))?;
    let program = toolstack::console(guest.toolstack).ok_or_else(|| Error::NoConsole(name.clone()))?;
    if !geteuid().is_root() {
        return Err(Error::RootOnly(format!("console {name}")));
    }
    if !xenstore::is_here() {
        return Err(Error::NotRunning(name.clone()));
    }
    let domains = domain::list(&mut XenStore::connect()?)?;
    // By its number: a domain of the same name may be somebody else's.
    match domain::presence(&domains, name, guest.uuid) {
        Presence::Own(domain) => become_it(program.path(), &["console".to_owned(), domain.domid.to_string()]),
        Presence::Absent | Presence::Foreign(_) => Err(Error::NotRunning(name.clone())),
    }
}
