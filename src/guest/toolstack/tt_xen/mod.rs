// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest of TT Xen while it runs: the commands of xm, its file, ttd-deviced beside it, and what others write of it.

pub mod deviced;
pub mod tail;
pub mod xm;
pub mod xm_config;

use std::os::fd::BorrowedFd;
use std::path::Path;

use self::tail::Tail;
use self::xm::{Mode, Xm};
use super::tools::{Shutdown, Tools};
use crate::config::guest::Guest;
use crate::config::types::GuestName;
use crate::run::{Error, Program};

pub(super) static XM: Program = Program::new(&["xm"]);

/// TT Xen's toolstack: xm, and what its daemon writes of domains that it has destroyed.
pub(super) struct TtXen {
    xm: Xm,
    xend: Tail,
}

impl TtXen {
    /// That of the system in the tree that begins at `root`.
    ///
    /// # Errors
    ///
    /// If it is not installed.
    pub(super) fn find(root: &Path) -> Result<Self, Error> {
        Ok(Self {
            xm: Xm::find(root)?,
            xend: Tail::of_xend(root),
        })
    }
}

impl Tools for TtXen {
    fn create(&self, guest: &Guest, config: &Path, cancel: BorrowedFd<'_>) -> Result<(), Error> {
        self.xm
            .create(config, Mode::Plain, false, guest.start_timeout, Some(cancel))
    }

    fn shutdown(&self, guest: &GuestName, _domid: u32) -> Result<(), Error> {
        self.xm.shutdown(guest)
    }

    fn destroy(&self, guest: &GuestName, _domid: u32) -> Result<(), Error> {
        self.xm.destroy(guest)
    }

    /// A domain that is there runs: xend destroys it as soon as it has shut down.
    fn reason(&self, _guest: &Guest, _domid: u32) -> Result<Option<Shutdown>, Error> {
        Ok(None)
    }

    fn last_reason(&self, guest: &GuestName, domid: u32) -> Option<Shutdown> {
        self.xend.reason(guest, domid)
    }

    /// A domain that xend has built may write its own entries in the store, and so take another guest's name: xend's own list has
    /// it.
    fn own(&self, guest: &GuestName, domains: Vec<u32>) -> Result<Vec<u32>, Error> {
        let listed = self.xm.domid(guest)?;
        let (own, foreign): (Vec<u32>, Vec<u32>) = domains.into_iter().partition(|domid| listed == Some(*domid));
        for domid in foreign {
            tracing::warn!(ttvm_guest = %guest, "domain {domid} says that it is {guest}, and xend says that it is not");
        }
        Ok(own)
    }
}
