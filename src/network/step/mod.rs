// SPDX-License-Identifier: MIT OR Apache-2.0
//! One change that can be made, undone and looked at. All three may be called at any time and any number of times: what
//! is there already is not made again, and what was never made is not undone. So a change that was cut short can be
//! undone without knowing how far it came.

mod bridge;
pub mod dnsmasq;
pub mod firewall;
mod guests;
mod scripts;
mod sysctl;
mod uplink;
mod zone;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use bridge::Bridge;
pub use dnsmasq::Dnsmasq;
pub use firewall::Firewall;
pub use guests::Guests;
pub use scripts::Scripts;
pub use sysctl::{Sysctl, everything_is_forwarded};
pub use uplink::Uplink;
pub use zone::Zoned;

use super::Error;
use super::netlink::Netlink;
use crate::base::root::under;
use crate::config::host::HostConfig;

/// What a step works on.
pub struct Context<'a> {
    /// Where this system's files begin.
    pub root: &'a Path,
    /// `ttvm.toml`.
    pub config: &'a HostConfig,
    /// The kernel.
    pub kernel: Netlink,
}

impl<'a> Context<'a> {
    /// On the system below `root`.
    pub fn new(root: &'a Path, config: &'a HostConfig) -> Result<Self, Error> {
        Ok(Self {
            root,
            config,
            kernel: Netlink::open()?,
        })
    }

    fn path(&self, path: &str) -> PathBuf {
        under(self.root, Path::new(path))
    }
}

/// What every kind of step can do. `Display` completes "could not …" and "will …".
trait Change: fmt::Display {
    /// Makes the change.
    fn apply(&self, context: &mut Context<'_>) -> Result<(), Error>;
    /// Undoes it.
    fn undo(&self, context: &mut Context<'_>) -> Result<(), Error>;
    /// What is missing of it: a sentence, or `None` if it is as it should be.
    fn missing(&self, context: &mut Context<'_>) -> Result<Option<String>, Error>;
    /// How undoing it is called.
    fn undoing(&self) -> String;
}

/// A step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// A bridge of our own.
    Bridge(Bridge),
    /// A setting of the kernel.
    Sysctl(Sysctl),
    /// Our nft table.
    Firewall(Firewall),
    /// The bridge is in a zone of firewalld.
    Zone(Zoned),
    /// DHCP and DNS for guests.
    Dnsmasq(Dnsmasq),
    /// The host's own addresses on the bridge.
    Uplink(Uplink),
    /// Guests on the bridge.
    Guests(Guests),
    /// xend's network scripts.
    Scripts(Scripts),
}

impl Step {
    fn change(&self) -> &dyn Change {
        match self {
            Self::Bridge(step) => step,
            Self::Sysctl(step) => step,
            Self::Firewall(step) => step,
            Self::Zone(step) => step,
            Self::Dnsmasq(step) => step,
            Self::Uplink(step) => step,
            Self::Guests(step) => step,
            Self::Scripts(step) => step,
        }
    }

    /// What is missing of it: a sentence, or `None` if it is as it should be.
    pub fn missing(&self, context: &mut Context<'_>) -> Result<Option<String>, Error> {
        self.change().missing(context)
    }

    /// The two cannot be there at the same time.
    pub fn takes_the_place_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bridge(a), Self::Bridge(b)) => a.name == b.name,
            (Self::Firewall(_), Self::Firewall(_)) | (Self::Dnsmasq(_), Self::Dnsmasq(_)) => true,
            _ => false,
        }
    }

    /// It carries the host's own addresses.
    pub fn is_hosts_own(&self) -> bool {
        matches!(self, Self::Uplink(_) | Self::Scripts(_))
    }

    /// It outlasts a reboot.
    pub fn is_lasting(&self) -> bool {
        matches!(self, Self::Scripts(_))
    }
}

/// The value of a setting below /proc/sys; `None` if there is no such setting.
pub fn sysctl_value(key: &str) -> Result<Option<String>, Error> {
    sysctl::read(key)
}

/// A step in one of the two directions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// It is made.
    Do(Step),
    /// It is undone.
    Undo(Step),
}

impl Op {
    /// The step.
    pub fn step(&self) -> &Step {
        match self {
            Self::Do(step) | Self::Undo(step) => step,
        }
    }

    /// Does it.
    pub fn apply(&self, context: &mut Context<'_>) -> Result<(), Error> {
        match self {
            Self::Do(step) => step.change().apply(context),
            Self::Undo(step) => step.change().undo(context),
        }
    }

    /// Takes it back.
    pub fn revert(&self, context: &mut Context<'_>) -> Result<(), Error> {
        match self {
            Self::Do(step) => step.change().undo(context),
            Self::Undo(step) => step.change().apply(context),
        }
    }

    /// What taking it back is called.
    pub fn reverting(&self) -> String {
        match self {
            Self::Do(step) => step.change().undoing(),
            Self::Undo(step) => step.change().to_string(),
        }
    }
}

/// Completes "could not …" and "will …".
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Do(step) => step.change().fmt(f),
            Self::Undo(step) => f.write_str(&step.change().undoing()),
        }
    }
}
