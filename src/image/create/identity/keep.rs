// SPDX-License-Identifier: MIT OR Apache-2.0
//! What of a host a guest keeps as it is.

use std::str::FromStr;

/// What is kept as it is in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Everything.
    All,
    /// `/etc/fstab`.
    Fstab,
    /// `/etc/hostname`, and the name in `/etc/hosts`.
    Hostname,
    /// Which terminals a login is offered on.
    Console,
    /// The machine's id, and other ids.
    Id,
    /// The host keys of SSH.
    SshKeys,
    /// Seeds of random numbers, leases of addresses, names of network cards.
    State,
    /// What is resumed from and decrypted at boot, and swap files.
    Swap,
    /// How the network is configured.
    Network,
    /// Services of Xen and ttvm, which serve guests.
    Services,
    /// Caches, temporary files and the journal.
    Caches,
}

impl Keep {
    /// Each with its name on the command line.
    pub const NAMES: [(&str, Self); 11] = [
        ("all", Self::All),
        ("fstab", Self::Fstab),
        ("hostname", Self::Hostname),
        ("console", Self::Console),
        ("id", Self::Id),
        ("ssh-keys", Self::SshKeys),
        ("state", Self::State),
        ("swap", Self::Swap),
        ("network", Self::Network),
        ("services", Self::Services),
        ("caches", Self::Caches),
    ];
}

/// Why a text names nothing that is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is nothing that is otherwise in the guest")]
pub struct NothingToKeep(String);

impl FromStr for Keep {
    type Err = NothingToKeep;
    fn from_str(text: &str) -> Result<Self, NothingToKeep> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found
            .map(|(_, keep)| *keep)
            .ok_or_else(|| NothingToKeep(text.to_owned()))
    }
}

/// Whether `keep` says that this is kept.
pub(in crate::image::create) fn keeps(keep: &[Keep], what: Keep) -> bool {
    keep.contains(&what) || keep.contains(&Keep::All)
}
