// SPDX-License-Identifier: MIT OR Apache-2.0
//! What starts guests. All that depends on which toolstack a guest has is chosen here, and nowhere else in this room.
//!
//! * [`xl`] and [`tt_xen`] build domains on Xen, each by its own commands: they are [`Tools`]. A reader who has no TT Xen can leave
//!   out [`tt_xen`].
//! * [`qemu`] has no domain: its guest is a process that another program runs.

pub mod qemu;
mod tools;
pub mod tt_xen;
mod xl;
pub mod xl_config;

use std::path::Path;

use self::tt_xen::{TtXen, xm_config};
use self::xl::Xl;
use super::Error;
use super::mode::GuestNetwork;
use crate::config::guest::{Guest, Toolstack};
use crate::run::{self, Program};
use crate::xenstore;

pub use tools::{Shutdown, Tools};

/// What builds and ends the domains of guests with this toolstack, on the system in the tree that begins at `root`.
///
/// # Errors
///
/// If the toolstack is not installed.
pub fn tools(root: &Path, toolstack: Toolstack) -> Result<Box<dyn Tools>, run::Error> {
    Ok(match toolstack {
        Toolstack::Xm => Box::new(TtXen::find(root)?),
        // A guest of QEMU's that has a domain had xl before its file was changed.
        Toolstack::Xl | Toolstack::Qemu => Box::new(Xl),
    })
}

/// The guest's file for xl or xm, with the network mode that is in force; the guest is described by `source`.
pub fn render(guest: &Guest, source: &Path, network: &GuestNetwork) -> String {
    match guest.toolstack {
        Toolstack::Xm => xm_config::render(guest, source, network),
        Toolstack::Xl | Toolstack::Qemu => xl_config::render(guest, source, network),
    }
}

/// The program that joins the console of a domain; `None` where a guest has no domain.
pub fn console(toolstack: Toolstack) -> Option<&'static Program> {
    match toolstack {
        Toolstack::Xl => Some(&xl::XL),
        Toolstack::Xm => Some(&tt_xen::XM),
        Toolstack::Qemu => None,
    }
}

/// `Ok` unless the guest needs Xen and this boot is without.
///
/// # Errors
///
/// [`Error::NoXen`].
pub fn require_here(guest: &Guest) -> Result<(), Error> {
    if guest.toolstack.is_xen() && !xenstore::is_here() {
        return Err(Error::NoXen {
            guest: guest.name.clone(),
        });
    }
    Ok(())
}
