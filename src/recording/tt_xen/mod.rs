// SPDX-License-Identifier: MIT OR Apache-2.0
//! Recording and replaying with TT Xen: xm builds the domain, and ttd-deviced keeps its log beside it.
//!
//! The units of the system do this, and nothing else: xend has one set of domains, whoever asks for them.

mod live;
pub mod record;
pub mod replay;

use std::io;
use std::path::{Path, PathBuf};

use crate::base::error::{Classify, Exit};
use crate::config::guest::{Boot, DiskFormat, DiskSource, Guest, Toolstack};
use crate::config::types::GuestName;
use crate::file::digest::{self, Digest};
use crate::guest::mode::GuestNetwork;
use crate::guest::toolstack::tt_xen::xm::Xm;
use crate::guest::toolstack::tt_xen::{deviced, xm_config};
use crate::{guest, run};

/// Why TT Xen did not record or replay.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody but the unit does it.
    #[error(
        "guest \"{guest}\" has toolstack \"xm\": only its units record and replay it, for root and from the system's own directories: `ttvm {action} {guest}`, or `systemctl start ttvm-{action}@{guest}`, without --console (`xm console {guest}` shows it)"
    )]
    ByUnit {
        /// `record`, `replay`.
        action: &'static str,
        /// The guest.
        guest: GuestName,
    },
    /// Its debugger is none of ours.
    #[error(
        "guest \"{guest}\" has toolstack \"xm\", and ttvm serves no debugger for it: replay it with --paused in place of --gdb, attach TT Xen's own by hand, with the kernel's symbol file (ttvm-tt(7)), and let it go with `xm unpause {guest}`"
    )]
    Debugger {
        /// The guest.
        guest: GuestName,
    },
    /// xm is not there.
    #[error("guest \"{guest}\" needs TT Xen's tools (boot TT Xen, or set toolstack = \"qemu\" in its file)")]
    NoXm {
        /// The guest.
        guest: GuestName,
        /// What was looked for.
        #[source]
        source: run::Error,
    },
    /// ttd-deviced did not live as long as the guest.
    #[error(
        "ttd-deviced for guest \"{guest}\" ended before the guest did, so its log is not the whole run: `journalctl -u {unit}` has what it said"
    )]
    DevicedDied {
        /// The guest.
        guest: GuestName,
        /// Its unit.
        unit: String,
    },
    /// There is no log.
    #[error("ttd-deviced has left no log of the run in {}", path.display())]
    NoLog {
        /// Where it should be.
        path: PathBuf,
        /// The system's reason; none if it is empty.
        #[source]
        source: Option<io::Error>,
    },
    /// The domain.
    #[error(transparent)]
    Guest(#[from] guest::Error),
    /// ttd-deviced.
    #[error(transparent)]
    Deviced(#[from] deviced::Error),
}

impl Error {
    /// A debugger was asked for.
    pub fn debugger(guest: &GuestName) -> Self {
        Self::Debugger { guest: guest.clone() }
    }
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::ByUnit { .. } | Self::Debugger { .. } | Self::NoXm { .. } => Exit::Refused,
            Self::Guest(error) => error.exit(),
            Self::Deviced(error) => error.exit(),
            Self::DevicedDied { .. } | Self::NoLog { .. } => Exit::Failed,
        }
    }
}

/// xm, and what it says of the Xen that runs.
fn engine(root: &Path, guest: &GuestName) -> Result<(Xm, String), Error> {
    let xm = Xm::find(root).map_err(|source| Error::NoXm {
        guest: guest.clone(),
        source,
    })?;
    let version = xm.version().unwrap_or_else(|| "TT Xen".to_owned());
    Ok((xm, version))
}

/// The digest of the guest's file for xm, without what may be elsewhere at a replay: kernel, initrd and disks, whose contents
/// are compared, and the bridge.
fn config_digest(guest: &Guest) -> Digest {
    let mut neutral = guest.clone();
    if let Boot::Kernel { kernel, initrd, .. } = &mut neutral.boot {
        *kernel = "kernel".into();
        if let Some(initrd) = initrd {
            *initrd = "initrd".into();
        }
    }
    for disk in &mut neutral.disks {
        let writable = match disk.source {
            DiskSource::Snapshot(_) => true,
            DiskSource::Overlay(_) => false,
            DiskSource::Path { writable, .. } => writable,
        };
        disk.source = DiskSource::Path {
            path: disk.target.to_string().into(),
            format: DiskFormat::Raw,
            writable,
        };
    }
    let text = xm_config::render(
        &neutral,
        Path::new(super::library::draft::GUEST_FILE),
        &GuestNetwork::default(),
    );
    digest::of_bytes(text.as_bytes())
}

/// `Ok` if the guest's toolstack is not TT Xen's, whose guests somebody without systemd cannot `action`.
pub(super) fn require_unit(guest: &GuestName, toolstack: Toolstack, action: &'static str) -> Result<(), Error> {
    match toolstack {
        Toolstack::Xm => Err(Error::ByUnit {
            action,
            guest: guest.clone(),
        }),
        Toolstack::Xl | Toolstack::Qemu => Ok(()),
    }
}
