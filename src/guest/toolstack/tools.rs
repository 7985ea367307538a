// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is asked of a toolstack on Xen while a guest runs, for those to whom it makes no difference which it is.

use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::config::guest::Guest;
use crate::config::types::GuestName;
use crate::guest::record::Ending;
use crate::run::Error;

/// Why a domain does not run any more: Xen's shutdown codes (xen/include/public/sched.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Code 0.
    Poweroff,
    /// Code 1.
    Reboot,
    /// Code 2.
    Suspend,
    /// Code 3.
    Crash,
    /// Code 4.
    Watchdog,
    /// Code 5.
    SoftReset,
}

impl Shutdown {
    /// The one of this code; `None` for a code that Xen has not.
    pub(super) fn from_code(code: u32) -> Option<Self> {
        [
            Self::Poweroff,
            Self::Reboot,
            Self::Suspend,
            Self::Crash,
            Self::Watchdog,
            Self::SoftReset,
        ]
        .get(code as usize)
        .copied()
    }
}

impl From<Shutdown> for Ending {
    fn from(reason: Shutdown) -> Self {
        match reason {
            Shutdown::Poweroff => Self::PoweredOff,
            Shutdown::Reboot | Shutdown::SoftReset => Self::Rebooted,
            Shutdown::Suspend => Self::Suspended,
            Shutdown::Crash => Self::Crashed,
            Shutdown::Watchdog => Self::Watchdog,
        }
    }
}

/// A toolstack that builds domains on Xen, and ends them.
pub trait Tools {
    /// Builds the domain that `config` describes, and starts it; returns when it runs. Ended before that if `cancel` becomes
    /// readable.
    ///
    /// # Errors
    ///
    /// If the toolstack's command fails, is cancelled, or takes longer than the guest's `start_timeout`.
    fn create(&self, guest: &Guest, config: &Path, cancel: BorrowedFd<'_>) -> Result<(), Error>;

    /// Asks the guest to shut down. Does not wait for it.
    ///
    /// # Errors
    ///
    /// If the toolstack's command fails.
    fn shutdown(&self, guest: &GuestName, domid: u32) -> Result<(), Error>;

    /// Ends the domain, and waits until its devices are released.
    ///
    /// # Errors
    ///
    /// If the toolstack's command fails, or takes longer than any toolstack takes for this.
    fn destroy(&self, guest: &GuestName, domid: u32) -> Result<(), Error>;

    /// Why the domain, which is there, has shut down; `None` while it runs.
    ///
    /// # Errors
    ///
    /// If the toolstack's command fails.
    fn reason(&self, guest: &Guest, domid: u32) -> Result<Option<Shutdown>, Error>;

    /// Why a domain that is gone had shut down; `None` if nothing says that it had.
    fn last_reason(&self, guest: &GuestName, domid: u32) -> Option<Shutdown>;

    /// Of `domains`, which say in Xen's store that they are the guest, those that are.
    ///
    /// # Errors
    ///
    /// If the toolstack's command fails.
    fn own(&self, guest: &GuestName, domains: Vec<u32>) -> Result<Vec<u32>, Error>;
}
