// SPDX-License-Identifier: MIT OR Apache-2.0
//! xl or xm, whichever starts a guest, for those to whom it makes no difference.

use std::os::fd::BorrowedFd;
use std::path::Path;

use super::tt_xen::tail::Tail;
use super::tt_xen::xm::{Mode, Xm};
use super::tt_xen::xm_config;
use super::xl::{self, Shutdown};
use super::xl_config;
use crate::config::guest::{Guest, Toolstack};
use crate::config::types::GuestName;
use crate::guest::{Error, mode};
use crate::run;

/// The toolstack of a guest on Xen.
pub(in crate::guest) enum Tools {
    /// Xen's own.
    Xl,
    /// TT Xen's, and what its daemon writes of domains that it has destroyed.
    Xm(Xm, Tail),
}

impl Tools {
    pub(in crate::guest) fn of(toolstack: Toolstack) -> Result<Self, run::Error> {
        let root = Path::new("/");
        Ok(match toolstack {
            Toolstack::Xm => Self::Xm(Xm::find(root)?, Tail::of_xend(root)),
            Toolstack::Xl | Toolstack::Qemu => Self::Xl,
        })
    }

    /// The guest's file.
    pub(in crate::guest) fn render(&self, guest: &Guest, source: &Path, network: &mode::GuestNetwork) -> String {
        match self {
            Self::Xl => xl_config::render(guest, source, network),
            Self::Xm(..) => xm_config::render(guest, source, network),
        }
    }

    /// Builds and starts the domain; returns when it runs.
    pub(in crate::guest) fn create(
        &self,
        guest: &Guest,
        config: &Path,
        cancel: BorrowedFd<'_>,
    ) -> Result<(), run::Error> {
        match self {
            Self::Xl => xl::create(config, guest.start_timeout, cancel),
            Self::Xm(xm, _) => xm.create(config, Mode::Plain, false, guest.start_timeout, Some(cancel)),
        }
    }

    /// Asks the guest to shut down. Does not wait for it.
    pub(in crate::guest) fn shutdown(&self, guest: &GuestName, domid: u32) -> Result<(), run::Error> {
        match self {
            Self::Xl => xl::shutdown(domid),
            Self::Xm(xm, _) => xm.shutdown(guest),
        }
    }

    /// Ends the domain and waits until its devices are released.
    pub(in crate::guest) fn destroy(&self, guest: &GuestName, domid: u32) -> Result<(), Error> {
        let destroyed = match self {
            Self::Xl => xl::destroy(domid),
            Self::Xm(xm, _) => xm.destroy(guest),
        };
        destroyed.map_err(|source| Error::Toolstack {
            action: "destroy",
            guest: guest.clone(),
            source,
        })
    }

    /// Why the domain, which is there, has shut down; `None` while it runs.
    pub(in crate::guest) fn reason(&self, guest: &Guest, domid: u32) -> Result<Option<Shutdown>, run::Error> {
        match self {
            Self::Xl => xl::shutdown_reason(domid, guest.uuid),
            // It is destroyed as soon as it has shut down.
            Self::Xm(..) => Ok(None),
        }
    }

    /// Why a domain that is gone had shut down, if it had.
    pub(in crate::guest) fn last_reason(&self, guest: &GuestName, domid: u32) -> Option<Shutdown> {
        match self {
            Self::Xl => None,
            Self::Xm(_, xend) => xend.reason(guest, domid),
        }
    }
}
