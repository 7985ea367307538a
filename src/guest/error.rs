// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a guest does not run, or ran and failed.

use std::io;
use std::path::PathBuf;

use crate::base::catalogue::Message;
use crate::base::error::{Classify, Exit};
use crate::config::types::GuestName;
use crate::{config, dm, run, snapshot, xenstore};

/// What can go wrong with a run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// Xen's store.
    #[error(transparent)]
    XenStore(#[from] xenstore::Error),
    /// The snapshots could not be looked at.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// Device-mapper could not be waited on.
    #[error(transparent)]
    DeviceMapper(#[from] dm::Error),
    /// A domain of the guest's name that is not this guest.
    #[error(
        "a domain named \"{guest}\" (id {domid}) is running that ttvm did not start: shut it down (`xl shutdown {guest}`) or rename it (`xl rename`)"
    )]
    ForeignDomain {
        /// The guest.
        guest: GuestName,
        /// The domain's id.
        domid: u32,
    },
    /// The guest's domain is running already.
    #[error("guest \"{guest}\" is running already as domain {domid}: stop it first (`ttvm stop {guest}`)")]
    Running {
        /// The guest.
        guest: GuestName,
        /// The domain's id.
        domid: u32,
    },
    /// `xl create` or `xm create` failed.
    #[error("Xen could not start guest \"{guest}\"")]
    Create {
        /// The guest.
        guest: GuestName,
        /// What it said.
        #[source]
        source: run::Error,
    },
    /// Another command of xl or xm failed.
    #[error("cannot {action} guest \"{guest}\"")]
    Toolstack {
        /// `destroy`, `look at`.
        action: &'static str,
        /// The guest.
        guest: GuestName,
        /// What it said.
        #[source]
        source: run::Error,
    },
    /// `xl create` or `xm create` succeeded, and there is no domain.
    #[error(
        "Xen reports that it started guest \"{guest}\", but there is no domain of its UUID: see `xl list -v` (TT Xen: `xm list --long`) and /var/log/xen"
    )]
    NoDomain {
        /// The guest.
        guest: GuestName,
    },
    /// The guest's kernel panicked, or its watchdog fired.
    #[error("guest \"{guest}\" {how}; its console is in /var/log/xen/console if xenconsoled logs guests")]
    Crashed {
        /// The guest.
        guest: GuestName,
        /// What happened.
        how: &'static str,
    },
    /// It rebooted or crashed at once, again and again.
    #[error(
        "guest \"{guest}\" is not started again: {times} times in a row it {how}; look for the reason (`ttvm status {guest}`, `ttvm logs {guest}`, its console), then `ttvm start {guest}`"
    )]
    Futile {
        /// The guest.
        guest: GuestName,
        /// How often.
        times: u32,
        /// What happened the last time, and how soon.
        how: String,
    },
    /// The snapshots for this start could not be made.
    #[error("guest \"{guest}\" is not started without fresh snapshots: {why}")]
    NoSnapshots {
        /// The guest.
        guest: GuestName,
        /// The exit code of the program that was to make them.
        exit: Exit,
        /// What it said.
        why: String,
    },
    /// Its supervisor is at work.
    #[error("guest \"{guest}\" is running: its snapshots cannot be changed now; stop it first (`ttvm stop {guest}`)")]
    Claimed {
        /// The guest.
        guest: GuestName,
    },
    /// Nobody made snapshots for this start.
    #[error(
        "guest \"{guest}\" is not started: ttvm-snapshot has not made its snapshots for this start (killed, or run by hand? `ttvm start {guest}` does both)"
    )]
    NotPrepared {
        /// The guest.
        guest: GuestName,
    },
    /// This boot has no Xen.
    #[error(
        "guest \"{guest}\" needs Xen, and this boot is without: boot one of Xen's entries (`ttvm boot list`), or set toolstack = \"qemu\" in its file"
    )]
    NoXen {
        /// The guest.
        guest: GuestName,
    },
    /// A file of ours could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A program of ours could not be started.
    #[error("cannot start {}: is all of ttvm's package there?", path.display())]
    Program {
        /// The program.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// poll or signalfd failed.
    #[error("cannot wait for events")]
    Wait(#[source] io::Error),
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Config(error) => error.exit(),
            Self::Snapshot(error) => error.exit(),
            Self::NoSnapshots { exit, .. } => *exit,
            Self::ForeignDomain { .. }
            | Self::Running { .. }
            | Self::Claimed { .. }
            | Self::NoXen { .. }
            | Self::Futile { .. } => Exit::Refused,
            _ => Exit::Failed,
        }
    }

    fn message(&self) -> Option<Message> {
        match self {
            Self::Crashed { .. } => Some(Message::Crashed),
            Self::Futile { .. } => Some(Message::GivenUp),
            _ => None,
        }
    }
}
