// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a network cannot be what was asked for.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::netlink;
use crate::base::error::{Classify, Exit, one_line};
use crate::{config, run};

/// Why something about the network was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for makes no sense.
    #[error("{0}")]
    InvalidArgument(String),
    /// Another change is on its way.
    #[error("{0}")]
    Busy(String),
    /// There is no such change, or it is over.
    #[error("there is no change {0} to be confirmed or undone; `ttvm network status` shows what is pending")]
    NoSuchTransaction(u64),
    /// Something a person or another program made stands in the way.
    #[error("{what}; {remedy}")]
    Foreign {
        /// What.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// The guests' network is somebody else's.
    #[error(
        "{subnet} cannot be the guests' network: this host has {by}; choose another one (`--subnet`, or subnet in [network.nat] of ttvm.toml)"
    )]
    SubnetInUse {
        /// The network.
        subnet: String,
        /// Whose it is.
        by: String,
    },
    /// There is no interface to bridge.
    #[error(
        "this host has no uplink: no default route; name one (`--uplink`, or uplink in [network.bridge] of ttvm.toml)"
    )]
    NoUplink,
    /// Mode `bridge` joins a bridge that is not there.
    #[error(
        "there is no bridge {bridge}; make one with whatever sets up this host's network, or let ttvm make it (`--manage-uplink`, or manage_uplink in [network.bridge] of ttvm.toml)"
    )]
    NoBridge {
        /// Its name.
        bridge: String,
    },
    /// The interface cannot be moved.
    #[error("{interface} cannot be moved to a bridge: {why}")]
    UplinkUnsuitable {
        /// The interface.
        interface: String,
        /// Why, and what to do.
        why: String,
    },
    /// Guests would lose their network.
    #[error("guests are attached to {bridge} ({guests}), which would go; stop them, or use --force")]
    GuestsAttached {
        /// The bridge.
        bridge: String,
        /// Their names.
        guests: String,
    },
    /// A run that must not be disturbed.
    #[error(
        "{unit} is recording or replaying: a change of its network would be in the recording; wait for its end, or stop it"
    )]
    RecordingActive {
        /// Its unit.
        unit: String,
    },
    /// A program is not there.
    #[error("{what}")]
    BackendMissing {
        /// Which, and what to install.
        what: String,
    },
    /// It cannot be had on this host.
    #[error("{0}")]
    NotSupported(String),
    /// It was tried, failed, and everything is as before.
    #[error("the change failed and was undone: could not {step}")]
    ApplyFailed {
        /// The step.
        step: String,
        /// What went wrong.
        #[source]
        source: Box<Error>,
    },
    /// It was made, did not work, and everything is as before.
    #[error("the change was made, did not work and was undone: {0}")]
    RolledBack(String),
    /// It failed, and so did the way back.
    #[error("{what}, and not everything could be undone: {}", failures.join("; "))]
    RollbackFailed {
        /// What was tried.
        what: String,
        /// Each step that could not be undone, and why.
        failures: Vec<String>,
    },
    /// A file under /etc/ttvm is wrong.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The kernel said no.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// A program failed.
    #[error(transparent)]
    Run(#[from] run::Error),
    /// A file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `read`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Xen's store.
    #[error(transparent)]
    XenStore(#[from] crate::xenstore::Error),
    /// firewalld.
    #[error(transparent)]
    Firewalld(#[from] super::firewalld::Error),
    /// The packet filters of others.
    #[error(transparent)]
    Conflicts(#[from] super::conflicts::Error),
    /// xend's configuration.
    #[error(transparent)]
    Xend(Box<super::xend::Error>),
    /// Domains are being built.
    #[error("a guest's domain has been in the making for {} s; try again", .0.as_secs())]
    DomainInTheMaking(Duration),
}

impl Error {
    /// The last word of its name on D-Bus (`org.ttvm.Network1.Error.…`).
    pub fn name(&self) -> &'static str {
        match self {
            Self::InvalidArgument(_) => "InvalidArgument",
            Self::Busy(_) | Self::DomainInTheMaking(_) => "Busy",
            Self::NoSuchTransaction(_) => "NoSuchTransaction",
            Self::Foreign { .. } => "ForeignConfiguration",
            Self::Xend(error) if error.exit() == Exit::Refused => "ForeignConfiguration",
            Self::SubnetInUse { .. } => "SubnetInUse",
            Self::NoUplink => "NoUplink",
            Self::NoBridge { .. } => "NoBridge",
            Self::UplinkUnsuitable { .. } => "UplinkUnsuitable",
            Self::GuestsAttached { .. } => "GuestsAttached",
            Self::RecordingActive { .. } => "RecordingActive",
            Self::BackendMissing { .. } => "BackendMissing",
            Self::NotSupported(_) => "NotSupported",
            Self::ApplyFailed { .. } => "ApplyFailed",
            Self::RolledBack(_) => "RolledBack",
            Self::RollbackFailed { .. } => "RollbackFailed",
            Self::Config(_) => "Configuration",
            Self::Netlink(_)
            | Self::Run(_)
            | Self::File { .. }
            | Self::XenStore(_)
            | Self::Firewalld(_)
            | Self::Conflicts(_)
            | Self::Xend(_) => "Failed",
        }
    }

    /// The whole of it as one line.
    pub fn text(&self) -> String {
        one_line(self)
    }
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        exit_of(self.name())
    }
}

/// The exit code for an error of this name; the command line knows errors of the service only by name.
pub fn exit_of(name: &str) -> Exit {
    match name {
        "InvalidArgument" => Exit::Usage,
        "Configuration" => Exit::Config,
        "Busy"
        | "NoSuchTransaction"
        | "ForeignConfiguration"
        | "SubnetInUse"
        | "NoUplink"
        | "NoBridge"
        | "UplinkUnsuitable"
        | "GuestsAttached"
        | "RecordingActive" => Exit::Refused,
        _ => Exit::Failed,
    }
}
