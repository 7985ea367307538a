// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk as xm and xl write it.

/// What is in a disk's file or device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Not said.
    #[default]
    Unknown,
    /// Block for block.
    Raw,
    /// QEMU's older format.
    Qcow,
    /// QEMU's format.
    Qcow2,
    /// That of Virtual PC.
    Vhd,
    /// Another of QEMU's.
    Qed,
    /// Nothing: a drive without a disk.
    Empty,
}

impl Format {
    /// As xl spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Raw => "raw",
            Self::Qcow => "qcow",
            Self::Qcow2 => "qcow2",
            Self::Vhd => "vhd",
            Self::Qed => "qed",
            Self::Empty => "empty",
        }
    }
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spec {
    /// What is behind it.
    pub target: Option<String>,
    /// What is in it.
    pub format: Format,
    /// Its name in the guest.
    pub vdev: String,
    /// Whether the guest may write to it.
    pub writable: bool,
    /// Whether it is a CD-ROM drive.
    pub cdrom: bool,
    /// The hotplug script that finds out what the target is.
    pub script: Option<String>,
    /// The domain it comes from, if that is not the host's own.
    pub backend: Option<String>,
    /// It was called `phy:`, and so may stand below /dev without saying so.
    pub device: bool,
    /// xm's `w!`: others may write to it at the same time.
    pub shared: bool,
    /// What else is said of it, for messages.
    pub rest: Vec<String>,
    /// The fields that TT Xen's xm takes behind the others.
    pub parameters: Option<String>,
}

impl Spec {
    /// Whether it comes from another domain than the host's own.
    pub(super) fn is_foreign(&self) -> bool {
        self.backend
            .as_deref()
            .is_some_and(|domain| !["", "0", "Domain-0"].contains(&domain))
    }
}
