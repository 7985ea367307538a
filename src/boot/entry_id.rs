// SPDX-License-Identifier: MIT OR Apache-2.0
//! The entries there can be, and how a booted system tells which one it is.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// On Linux's command line: which entry was booted. Linux takes it for a parameter of a module it does not have.
pub const BOOTED: &str = "ttvm.entry=";

/// On Linux's command line: the entry was booted for this one time.
pub const TRIAL: &str = "ttvm.try=1";

/// The entries there can be. Their ids never change: saved defaults and boot-once refer to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryId {
    /// TT Xen with TT Linux.
    TtXenTtLinux,
    /// TT Xen with the distribution's Linux.
    TtXenLinux,
    /// The distribution's Linux without Xen.
    Linux,
}

impl EntryId {
    /// All of them, in the order of the menu.
    pub const ALL: [Self; 3] = [Self::TtXenTtLinux, Self::TtXenLinux, Self::Linux];

    /// Whether it starts Xen.
    pub fn is_xen(self) -> bool {
        self != Self::Linux
    }

    /// The id in the menu.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TtXenTtLinux => "ttvm-ttxen-ttlinux",
            Self::TtXenLinux => "ttvm-ttxen-linux",
            Self::Linux => "ttvm-linux",
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With the width that a table asks for.
        f.pad(self.as_str())
    }
}

/// Not the id of one of ttvm's entries.
#[derive(Debug, thiserror::Error)]
#[error("the entries of ttvm are {}", EntryId::ALL.map(EntryId::as_str).join(", "))]
pub struct UnknownEntry;

impl FromStr for EntryId {
    type Err = UnknownEntry;
    fn from_str(text: &str) -> Result<Self, UnknownEntry> {
        Self::ALL.into_iter().find(|id| id.as_str() == text).ok_or(UnknownEntry)
    }
}

impl Serialize for EntryId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for EntryId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}
