// SPDX-License-Identifier: MIT OR Apache-2.0
//! How guests reach the world: the network modes, and switching between them as a transaction.
//!
//! ```text
//! Network        what the programs call (service), a change from beginning to end (change), making it again (reconcile)
//! plan           which steps lead from one mode to another
//! step           one change that can be made, undone and looked at
//! journal        the transaction on disk
//! netlink xend firewalld                what the steps are done with
//! uplink subnet conflicts attachments   what is looked at first
//! ```
//!
//! A change is planned, written to disk with everything that is needed to undo it, made, looked at, and then waits to
//! be confirmed. Whatever happens before that (an error, the death of a program, a reboot), it is undone.
//! Nothing here needs D-Bus or an executor: the service, the timer that backs it up and the boot call the same code.

mod attachments;
mod change;
pub mod conflicts;
pub mod error;
pub mod firewalld;
mod journal;
pub mod netlink;
mod plan;
mod reconcile;
mod service;
mod step;
mod subnet;
mod uplink;
pub mod xend;

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::network::Subnet;
use crate::config::types::InterfaceName;
pub use change::{Begun, Recovered};
pub use error::Error;
pub use service::Network;

/// How guests reach the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// ttvm does nothing for them.
    #[default]
    None,
    /// They share the host's addresses, behind a bridge of their own.
    Nat,
    /// They are on the host's own network segment.
    Bridge,
}

impl Mode {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Nat => "nat",
            Self::Bridge => "bridge",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "none" => Ok(Self::None),
            "nat" => Ok(Self::Nat),
            "bridge" => Ok(Self::Bridge),
            _ => Err(Error::InvalidArgument(format!(
                "{text:?} is no network mode: nat, bridge or none"
            ))),
        }
    }
}

/// What a switch may say in place of `[network]` in ttvm.toml.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Options {
    /// The bridge's name.
    pub bridge: Option<InterfaceName>,
    /// The interface whose addresses move to the bridge.
    pub uplink: Option<InterfaceName>,
    /// Whether they do.
    pub manage_uplink: Option<bool>,
    /// The guests' network in mode `nat`.
    pub subnet: Option<Subnet>,
    /// Whether guests get addresses in mode `nat`.
    pub dhcp: Option<bool>,
}

/// A switch that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The mode that is wanted.
    pub mode: Mode,
    /// In place of the configuration.
    pub options: Options,
    /// How long the change waits to be confirmed; zero keeps it as soon as it has been looked at.
    pub confirm: Duration,
    /// Do what can be done although something speaks against it.
    pub force: bool,
}

/// How long a change may wait to be confirmed, in seconds.
pub const CONFIRM: RangeInclusive<u64> = 10..=3600;

/// Whether a change may wait for `time` to be confirmed.
///
/// # Errors
///
/// [`Error::InvalidArgument`] if not.
pub fn may_wait(time: Duration) -> Result<(), Error> {
    if CONFIRM.contains(&time.as_secs()) {
        return Ok(());
    }
    Err(Error::InvalidArgument(format!(
        "a change can wait {} to {} s to be confirmed, not {} s",
        CONFIRM.start(),
        CONFIRM.end(),
        time.as_secs()
    )))
}

/// What is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nothing: the mode in force is the one that was chosen.
    Idle,
    /// A change is being made.
    Applying,
    /// It is made, and undone at its deadline if nobody confirms it.
    AwaitingConfirm,
    /// It is being undone.
    RollingBack,
    /// The mode that was chosen is not, or not wholly, in force.
    Degraded,
}

impl State {
    /// Its name on D-Bus.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Applying => "applying",
            Self::AwaitingConfirm => "awaiting-confirm",
            Self::RollingBack => "rolling-back",
            Self::Degraded => "degraded",
        }
    }
}

/// How a change ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// The mode that was asked for is in force.
    Kept,
    /// Everything is as it was before.
    RolledBack,
    /// Neither: what could not be undone is tried again.
    Failed,
}

impl Ending {
    /// Its name on D-Bus.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::RolledBack => "rolled-back",
            Self::Failed => "failed",
        }
    }

    /// By its name on D-Bus; what another version says, and this one has no word for, is no good end.
    pub fn of(name: &str) -> Self {
        let known = [Self::Kept, Self::RolledBack];
        known
            .into_iter()
            .find(|known| known.as_str() == name)
            .unwrap_or(Self::Failed)
    }
}

/// What makes guests' networks on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// ttvm itself; vifs are attached by Xen's hotplug scripts, or there is no Xen.
    Xl,
    /// xend's network scripts (TT Xen).
    Xend,
}

impl Backend {
    /// Its name on D-Bus.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Xl => "xl",
            Self::Xend => "xend",
        }
    }
}

/// What can be said at once, from files alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The mode in force.
    pub mode: Mode,
    /// The mode that was chosen last and kept.
    pub desired: Mode,
    /// What is going on.
    pub state: State,
    /// What makes it.
    pub backend: Backend,
    /// The bridge that guests join; none in mode `none`.
    pub bridge: Option<InterfaceName>,
    /// The interface that ttvm has moved to the bridge.
    pub uplink: Option<InterfaceName>,
    /// The guests' network in mode `nat`.
    pub subnet: Option<Subnet>,
    /// The change that is on its way.
    pub pending: Option<Pending>,
    /// Why the mode that was chosen is not wholly in force.
    pub degraded: Option<String>,
    /// Whether guests get addresses from this host in mode `nat`.
    #[serde(skip)]
    pub dhcp: bool,
}

/// A change on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pending {
    /// Its number, unique on this host.
    pub id: u64,
    /// The mode before.
    pub from: Mode,
    /// The mode after.
    pub to: Mode,
    /// When it is undone, in µs since 1970; 0 as long as that is not known.
    pub deadline_usec: u64,
    /// The time left until then.
    #[serde(skip)]
    pub left: Duration,
}

/// What a switch would do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Preview {
    /// The mode now.
    pub from: Mode,
    /// The mode after.
    pub to: Mode,
    /// What is done, in order: sentences.
    pub steps: Vec<String>,
    /// What is done once it is confirmed.
    pub afterwards: Vec<String>,
    /// What one should know.
    pub warnings: Vec<String>,
    /// Whether the host's own addresses move: then a confirmation is needed.
    pub moves_uplink: bool,
}

/// A virtual interface of a guest, as it is attached now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// The guest's domain.
    pub domid: u32,
    /// The number of the interface in that domain.
    pub devid: u32,
    /// The guest, if it is one of ttvm's.
    pub guest: Option<String>,
    /// Its name in dom0.
    pub vif: String,
    /// The bridge it is a port of; empty if of none.
    pub bridge: String,
    /// Xen's hotplug script for it.
    pub script: String,
    /// Why it stays where it is when the mode changes; none if it moves.
    pub stays: Option<String>,
}

impl Attachment {
    /// Whether `name` is it, or the emulated card that an HVM guest has beside it until its drivers run
    /// (libxl__device_nic_devname in Xen's libxl_nic.c).
    pub fn is_called(&self, name: &str) -> bool {
        name.strip_prefix(self.vif.as_str())
            .is_some_and(|rest| matches!(rest, "" | "-emu"))
    }
}

/// What has become of a change that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It is kept.
    Kept,
    /// It waits to be confirmed, for this long.
    Pending(Duration),
}
