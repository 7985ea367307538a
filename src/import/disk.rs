// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk as xm and xl write it.

/// What is in a disk's file or device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Format {
    /// Not said.
    #[default]
    Unknown,
    Raw,
    Qcow,
    Qcow2,
    Vhd,
    Qed,
    /// Nothing: a drive without a disk.
    Empty,
}

impl Format {
    pub(super) fn as_str(self) -> &'static str {
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
pub(super) struct Spec {
    /// What is behind it.
    pub(super) target: Option<String>,
    pub(super) format: Format,
    /// Its name in the guest.
    pub(super) vdev: String,
    pub(super) writable: bool,
    pub(super) cdrom: bool,
    /// The hotplug script that finds out what the target is.
    pub(super) script: Option<String>,
    /// The domain it comes from, if that is not the host's own.
    pub(super) backend: Option<String>,
    /// It was called `phy:`, and so may stand below /dev without saying so.
    pub(super) device: bool,
    /// xm's `w!`: others may write to it at the same time.
    pub(super) shared: bool,
    /// What else is said of it, for messages.
    pub(super) rest: Vec<String>,
    /// The fields that TT Xen's xm takes behind the others.
    pub(super) parameters: Option<String>,
}
