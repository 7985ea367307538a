// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can go wrong, and what is refused, when it is chosen what this machine boots.

use std::io;
use std::path::PathBuf;

use crate::base::error::{Classify, Exit};
use crate::boot::entry_id::EntryId;
use crate::boot::grub::grubenv;
use crate::boot::grub::settings::{DIRECTORIES, DROP_IN};
use crate::run;

/// What cannot be done with the boot menu.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no menu of GRUB.
    #[error("there is no grub.cfg in {}; this needs GRUB as the boot loader", DIRECTORIES.join(" or "))]
    NoGrub,
    /// A file cannot be read or written.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The environment block is not usable.
    #[error(transparent)]
    GrubEnv(#[from] grubenv::Error),
    /// A program of GRUB, or systemd's, failed.
    #[error("cannot {what}")]
    Run {
        /// What it was to do.
        what: &'static str,
        /// How it failed.
        #[source]
        source: run::Error,
    },
    /// It would not be safe.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// Nothing is being tried.
    #[error("this boot is not on trial: there is nothing to confirm")]
    NotOnTrial,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No such entry.
    #[error("there is no entry {0} in the boot menu; `ttvm boot list` says why")]
    NoEntry(EntryId),
    /// The menu ignores `next_entry`.
    #[error("{} does not look for an entry for one boot only; write it anew with update-grub", .0.display())]
    MenuIgnoresOnce(PathBuf),
    /// GRUB cannot write its environment.
    #[error(
        "GRUB cannot write to {} ({why}), so it would boot {entry} again and again; put /boot on a plain partition with ext4",
        path.display()
    )]
    NotWritable {
        /// The environment block.
        path: PathBuf,
        /// What it is on.
        why: String,
        /// What was to be booted once.
        entry: EntryId,
    },
    /// The boot after a failed one would be of Xen, too.
    #[error(
        "after a boot that fails, \"{title}\" would be booted, and that is not plain Linux; `ttvm boot default {}` first",
        EntryId::Linux
    )]
    NoWayBack {
        /// The default's title.
        title: String,
    },
    /// Xen would stand still after a panic.
    #[error(
        "Xen would stand still after a panic: take \"{0}\" out of xen_options in /etc/ttvm/ttvm.toml, or out of GRUB_CMDLINE_XEN, and run update-grub"
    )]
    NoReboot(String),
    /// systemd would start neither the deadline nor the verdict.
    #[error("{} masks what reads systemd.wants=, so a boot that hangs would stay as it is; remove it", .0.display())]
    NoDeadline(PathBuf),
    /// GRUB boots nothing by itself.
    #[error("GRUB waits for a key before it boots anything; set GRUB_TIMEOUT in /etc/default/grub and run update-grub")]
    Waits,
    /// Plain Linux is not tried.
    #[error("{0} needs no proof; `ttvm boot default {0}` makes it the default", EntryId::Linux)]
    NothingToProve,
    /// It has not been tried.
    #[error(
        "{0} has not been booted successfully as it is now; `ttvm boot once --keep {0}` tries it and then makes it the default"
    )]
    NotProved(EntryId),
    /// GRUB does not use what is remembered, and there is no place for a setting.
    #[error(
        "GRUB boots \"{0}\" whatever is chosen; set GRUB_DEFAULT=saved in /etc/default/grub and run grub2-mkconfig -o /boot/grub2/grub.cfg"
    )]
    DefaultIsFixed(String),
    /// Somebody else's file is in the place of ours.
    #[error("{DROP_IN} is not as ttvm writes it; remove it, or set GRUB_DEFAULT=saved in it")]
    ForeignDropIn,
    /// Another boot is on its way.
    #[error(
        "\"{0}\" is already set to be booted once, and not by ttvm; `grub-editenv - unset next_entry` takes it back"
    )]
    ForeignOnce(String),
}

impl From<Refusal> for Error {
    fn from(why: Refusal) -> Self {
        Self::Refused(why)
    }
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Refused(_) => Exit::Refused,
            _ => Exit::Failed,
        }
    }
}
