// SPDX-License-Identifier: MIT OR Apache-2.0
//! What stands against a change of xend's network.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::{edit, sxp};
use crate::base::error::{Classify, Exit, one_line};
use crate::run;

/// Why the network was not switched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// xend would not take it either.
    #[error("{} is not what xend can read: correct it; nothing was changed", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where, and what.
        #[source]
        source: sxp::Error,
    },
    /// The file does not let itself be changed.
    #[error("{} was left alone", path.display())]
    Left {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: edit::Error,
    },
    /// Guests would lose their network.
    #[error(
        "{count} interfaces of running guests are on the bridge that would go away: shut these guests down first, or use --force"
    )]
    Attached {
        /// How many.
        count: usize,
    },
    /// What was there before cannot be kept.
    #[error("cannot keep a copy of xend's configuration in {}; nothing was changed", path.display())]
    Backup {
        /// The copy.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A step failed, and what was done before it was undone.
    #[error("the network was not switched; everything is as it was before")]
    Undone(#[source] Step),
    /// A step failed, and so did the way back.
    #[error("the network was not switched ({}), and the way back failed as well: see that {} is as it should be (it was {}), then run `xend restart`", one_line(&**first), path.display(), backup.display())]
    Stuck {
        /// The step that failed first.
        first: Box<Step>,
        /// What failed on the way back.
        #[source]
        second: Box<Error>,
        /// The configuration.
        path: PathBuf,
        /// The copy of what it was before.
        backup: PathBuf,
    },
    /// A step of the way back failed. It can be tried again.
    #[error("the network was not switched back; it can be tried again")]
    Revert(#[source] Step),
    /// The file is neither what it was before the switch nor what that made of it.
    #[error("{} has been changed by somebody else since; the network was not switched back. What it was is in {}", path.display(), backup.display())]
    Changed {
        /// The configuration.
        path: PathBuf,
        /// The copy of what it was before.
        backup: PathBuf,
    },
    /// An address for which vif-nat has no partner.
    #[error(
        "{0} cannot be a guest's address with vif-nat, which gives dom0 the address 127 above it: its last number has to be between 1 and 127"
    )]
    Address(Ipv4Addr),
    /// What is needed for the configuration of an interface was not given.
    #[error("{0}")]
    Missing(&'static str),
}

/// A step of a switch that failed.
#[derive(Debug, thiserror::Error)]
pub enum Step {
    /// The script of the old network.
    #[error("the network script of before could not be stopped")]
    Stop(#[source] run::Error),
    /// The same script, on the way back.
    #[error("the network script of before could not be started again")]
    Start(#[source] run::Error),
    /// The configuration.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// xend.
    #[error("xend did not restart")]
    Restart(#[source] run::Error),
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Syntax { .. } | Self::Left { .. } | Self::Attached { .. } | Self::Changed { .. } => Exit::Refused,
            Self::Address(_) | Self::Missing(_) => Exit::Config,
            _ => Exit::Failed,
        }
    }
}
