// SPDX-License-Identifier: MIT OR Apache-2.0
//! What survives the death of every program, and a reboot: the mode that was chosen, with what was made for it
//! (`state.json`), and the change on its way, with everything that is needed to undo it (`transaction.json`).

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::step::{Op, Step};
use super::{Error, Mode, Options};
pub use crate::base::clock::boot_id as boot;
use crate::base::root::under;
use crate::config::network::{Subnet, Zone};
use crate::config::types::InterfaceName;
use crate::file;

const DIRECTORY: &str = "/var/lib/ttvm/network";

/// A mode with everything that it depends on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Settings {
    /// The mode.
    pub mode: Mode,
    /// The bridge that guests join.
    pub bridge: Option<InterfaceName>,
    /// The guests' network in mode `nat`.
    pub subnet: Option<Subnet>,
    /// Guests get addresses in it.
    pub dhcp: bool,
    /// The zone of firewalld that the bridge is in.
    pub zone: Option<Zone>,
    /// ttvm makes the bridge of mode `bridge`.
    pub manage_uplink: bool,
    /// The interface that is moved to the bridge.
    pub uplink: Option<InterfaceName>,
}

/// The mode that was chosen.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Chosen {
    /// What was asked for: read again with the configuration when the host boots.
    pub options: Options,
    /// What that came to.
    pub settings: Settings,
    /// What was made, in order.
    pub steps: Vec<Step>,
    /// What could not be removed when it was chosen, and is still to be removed.
    pub leftover: Vec<Step>,
    /// Whether it was made although something spoke against it.
    pub force: bool,
    /// The boot in which it was made.
    pub boot: String,
    /// The boot in which it was tried to be made again.
    pub tried: String,
    /// Why it is not wholly in force.
    pub degraded: Option<String>,
    /// The number of the last change.
    pub last: u64,
}

impl Chosen {
    /// What is left of it in this boot.
    pub fn in_force(&self) -> Self {
        if self.boot == boot() {
            return self.clone();
        }
        let steps: Vec<Step> = self.steps.iter().filter(|step| step.is_lasting()).cloned().collect();
        match steps.is_empty() {
            true => Self::default(),
            false => Self { steps, ..self.clone() },
        }
    }
}

/// How far a change has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It is being made.
    Applying,
    /// It is made and waits.
    Pending,
    /// It is confirmed; what it replaces is being removed. There is no way back.
    Keeping,
    /// It is being undone.
    Reverting,
}

/// A change on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transaction {
    /// Its number.
    pub id: u64,
    /// The boot it belongs to.
    pub boot: String,
    /// How far it has come.
    pub phase: Phase,
    /// The mode before.
    pub from: Settings,
    /// What is true once it is kept.
    pub to: Chosen,
    /// What is done, in order.
    pub ops: Vec<Op>,
    /// What is done once it is confirmed.
    pub afterwards: Vec<Op>,
    /// How long it waits to be confirmed.
    pub confirm: Duration,
    /// When it is undone, on the clock that also runs while the host sleeps.
    pub deadline: Option<Duration>,
}

impl Transaction {
    /// The time left; none if it does not wait.
    pub fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_sub(uptime()))
    }

    /// When it is undone, in µs since 1970.
    pub fn deadline_usec(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.left()
            .map_or(0, |left| u64::try_from((now + left).as_micros()).unwrap_or(0))
    }
}

/// Time since boot, with the time asleep (CLOCK_BOOTTIME).
pub fn uptime() -> Duration {
    // It fails only for a clock that does not exist.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// The two files.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
}

impl Journal {
    /// Below `root`.
    pub fn new(root: &Path) -> Self {
        Self {
            directory: under(root, Path::new(DIRECTORY)),
        }
    }

    fn state(&self) -> PathBuf {
        self.directory.join("state.json")
    }

    fn transaction(&self) -> PathBuf {
        self.directory.join("transaction.json")
    }

    /// The mode that was chosen; `none` if never.
    pub fn chosen(&self) -> Result<Chosen, Error> {
        Ok(read(self.state())?.unwrap_or_default())
    }

    /// The change on its way.
    pub fn pending(&self) -> Result<Option<Transaction>, Error> {
        read(self.transaction())
    }

    /// Writes the mode.
    pub fn choose(&self, chosen: &Chosen) -> Result<(), Error> {
        self.write(self.state(), chosen)
    }

    /// Writes the change; when this returns, no power cut loses it.
    pub fn save(&self, transaction: &Transaction) -> Result<(), Error> {
        self.write(self.transaction(), transaction)
    }

    /// Forgets the change.
    pub fn clear(&self) -> Result<(), Error> {
        let path = self.transaction();
        match fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(Error::File {
                action: "remove",
                path,
                source,
            }),
            _ => Ok(()),
        }
    }

    fn write(&self, path: PathBuf, value: &impl Serialize) -> Result<(), Error> {
        let write = || {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&self.directory)?;
            file::replace(&path, &serde_json::to_vec(value)?, 0o600)
        };
        write().map_err(|source| Error::File {
            action: "write",
            path: path.clone(),
            source,
        })
    }
}

fn read<T: DeserializeOwned>(path: PathBuf) -> Result<Option<T>, Error> {
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| Error::Foreign {
            what: format!("{} cannot be understood: {error}", path.display()),
            remedy: "look at what it says of the host's network, put that right by hand, and remove it".to_owned(),
        }),
        Err(source) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File {
            action: "read",
            path,
            source,
        }),
    }
}
