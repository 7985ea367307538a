// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/etc/ttvm/guests/NAME.toml`: what a guest is. `ttvm-guest(5)` describes each key.

pub(super) mod claims;
mod disk;
pub(super) mod file;
mod toolstack;
pub(crate) mod verbatim;
mod vif;

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

pub use super::origin::Origin;
use super::types::{BridgeName, GuestName, GuestUuid, InterfaceName, Invalid, Mac, Size, Target, Volume};

/// A guest, complete: what its file says and, where it is silent, the host's defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Guest {
    /// The file's name without `.toml`.
    pub name: GuestName,
    /// Given, or derived from the name and this machine's id.
    pub uuid: GuestUuid,
    /// What starts it.
    pub toolstack: Toolstack,
    /// How Xen runs it; an emulated machine is [`GuestType::Hvm`].
    #[serde(rename = "type")]
    pub kind: GuestType,
    /// Memory.
    pub memory: Size,
    /// Virtual CPUs, at least 1.
    pub vcpus: u32,
    /// What it boots.
    pub boot: Boot,
    /// Its disks, in the order of the file.
    pub disks: Vec<Disk>,
    /// Its network interfaces, in the order of the file.
    pub vifs: Vec<Vif>,
    /// What its own reboot does.
    pub on_reboot: OnReboot,
    /// How long the toolstack may take to build the domain.
    #[serde(serialize_with = "as_seconds")]
    pub start_timeout: Duration,
    /// How long it may take to shut down before it is destroyed.
    #[serde(serialize_with = "as_seconds")]
    pub shutdown_timeout: Duration,
    /// `[xl]`: further keys for xl.cfg, as they stand.
    pub xl: BTreeMap<String, XlValue>,
    /// `[xm]`: further variables for xm's file, as they stand; with toolstack `xm`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub xm: BTreeMap<String, XlValue>,
    /// `[qemu]`, with toolstack `qemu`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qemu: Option<QemuConfig>,
}

/// `toolstack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Toolstack {
    /// Xen's own, since 4.1.
    Xl,
    /// That of TT Xen, which records and replays.
    Xm,
    /// QEMU's emulated machine, which records and replays on any host.
    Qemu,
}

impl Toolstack {
    /// As a guest's file spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Xl => "xl",
            Self::Xm => "xm",
            Self::Qemu => "qemu",
        }
    }

    /// Whether its guests are domains of Xen; else QEMU emulates their machines.
    pub fn is_xen(self) -> bool {
        !self.is_emulated()
    }

    /// Whether QEMU emulates the machines of its guests.
    pub fn is_emulated(self) -> bool {
        self == Self::Qemu
    }
}

/// `[qemu]`: the emulated machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QemuConfig {
    /// A versioned machine type; without one, that of the QEMU that records.
    pub machine: Option<String>,
    /// How far the guest's clock goes with each instruction.
    pub icount: Shift,
}

/// `icount`: an instruction takes 2 to the power of this, in nanoseconds of the guest's time (QEMU's `-icount shift=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum Shift {
    /// QEMU keeps the guest's clock near the host's.
    Auto,
    /// Always the same.
    Fixed(u8),
}

impl fmt::Display for Shift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Fixed(shift) => shift.fmt(f),
        }
    }
}

impl FromStr for Shift {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.parse() {
            Ok(shift @ 0..=10) => Ok(Self::Fixed(shift)),
            _ if text == "auto" => Ok(Self::Auto),
            _ => Err(Invalid(format!("{text:?} is not \"auto\" or a number from 0 to 10"))),
        }
    }
}

impl From<Shift> for String {
    fn from(shift: Shift) -> Self {
        shift.to_string()
    }
}

fn as_seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(time.as_secs())
}

impl Guest {
    /// The snapshots its runs write to.
    pub fn snapshots(&self) -> impl Iterator<Item = &Snapshot> {
        self.disks.iter().filter_map(|disk| match &disk.source {
            DiskSource::Snapshot(snapshot) => Some(snapshot),
            DiskSource::Overlay(_) | DiskSource::Path { .. } => None,
        })
    }

    /// What its disks are made from.
    pub fn origins(&self) -> impl Iterator<Item = Origin> {
        self.disks.iter().filter_map(|disk| match &disk.source {
            DiskSource::Snapshot(snapshot) => Some(Origin::Volume(snapshot.origin.clone())),
            DiskSource::Overlay(origin) => Some(origin.clone()),
            DiskSource::Path { .. } => None,
        })
    }
}

/// `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestType {
    /// Paravirtual.
    Pv,
    /// Paravirtual in a hardware container.
    Pvh,
    /// Emulated machine.
    Hvm,
}

impl GuestType {
    /// As xl.cfg(5) spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pv => "pv",
            Self::Pvh => "pvh",
            Self::Hvm => "hvm",
        }
    }
}

/// What a guest boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Boot {
    /// A kernel from dom0's file system.
    Kernel {
        /// The kernel.
        kernel: PathBuf,
        /// Its initial RAM disk.
        initrd: Option<PathBuf>,
        /// Its command line.
        cmdline: Option<String>,
    },
    /// A program in dom0 that finds the kernel on the guest's disk (`pygrub`).
    Bootloader {
        /// Its name or path.
        program: String,
        /// Its arguments.
        args: Vec<String>,
    },
    /// An HVM guest's own firmware.
    Firmware,
}

/// `on_reboot`: what happens when the guest reboots itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnReboot {
    /// It is started again on the disk it wrote.
    Keep,
    /// The unit is restarted: it is started again on a fresh snapshot.
    Fresh,
    /// The unit stops.
    Stop,
}

/// A disk of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Its name in the guest.
    pub target: Target,
    /// What is behind it.
    pub source: DiskSource,
    /// What TT Xen's xm is told of it besides, as it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xm: Option<String>,
}

/// What is behind a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum DiskSource {
    /// A copy-on-write snapshot, made new before each run.
    Snapshot(Snapshot),
    /// A qcow2 file over an origin that is only read, made new before each run.
    Overlay(Origin),
    /// A device or file that is given to the guest as it is.
    Path {
        /// The device or file.
        path: PathBuf,
        /// Its format.
        format: DiskFormat,
        /// Whether the guest may write it.
        writable: bool,
    },
}

/// A snapshot that ttvm makes and removes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The volume it is made from, never written.
    pub origin: Volume,
    /// The snapshot itself, in the origin's volume group.
    pub volume: Volume,
    /// Its copy-on-write area, for thick origins; thin ones have none.
    pub size: Option<Size>,
}

/// `format` of a disk that is a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// Block for block.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
}

impl DiskFormat {
    /// As xl-disk-configuration(5) spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// A network interface of a guest (xl-network-configuration(5)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vif {
    /// Given, or derived from the guest's UUID and the position.
    pub mac: Mac,
    /// The bridge it is pinned to; without one it follows the network mode.
    pub bridge: Option<BridgeName>,
    /// The guest's IPv4 address: handed out by DHCP in mode `nat`, else set in the guest itself.
    pub address: Option<Ipv4Addr>,
    /// The address(es) the hotplug script lets it use.
    pub ip: Option<String>,
    /// The hotplug script.
    pub script: Option<String>,
    /// Its name in dom0.
    pub vifname: Option<InterfaceName>,
    /// The emulated card of an HVM guest.
    pub model: Option<String>,
    /// Its bandwidth limit (`10Mb/s`).
    pub rate: Option<String>,
    /// Whether an emulated guest reaches the host's own services, and what the host reaches.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub outside: bool,
}

/// A value of xl.cfg(5), or of the Python that xm reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum XlValue {
    /// A string.
    Text(String),
    /// A number (xl knows no negative ones); booleans are 0 and 1.
    Number(u64),
    /// A list of strings.
    List(Vec<String>),
}
