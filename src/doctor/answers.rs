// SPDX-License-Identifier: MIT OR Apache-2.0
//! What programs and the kernel say. Each is asked at most once, and only if a check needs it: nine processes at the most
//! (`lvm`, `systemctl`, `xl` or `xm` or both, QEMU, three of GRUB's, `nft`).

use std::path::Path;

use nix::unistd::geteuid;

use super::facts::Facts;
use super::fix::DM_EVENT;
use crate::base::clock::now;
use crate::base::error::one_line;
use crate::boot::next::judge;
use crate::boot::{BootMenu, EntryId, RunningXen, System};
use crate::guest::domain;
use crate::lvm2_cmd::overview::{self, Overview};
use crate::network::{Mode, Network};
use crate::qemu::engine::{self, Version};
use crate::recording::Library;
use crate::run::{self, Command, Program};
use crate::xenstore::{self, XenStore};

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked<T> {
    /// Nobody asked: no check needs it.
    Nobody,
    /// Files of another tree are looked at, and its programs are not run.
    Elsewhere,
    /// Only root may ask.
    Denied,
    /// The answer.
    Answer(T),
    /// Why there is none.
    Failed(String),
}

static SYSTEMCTL: Program = Program::new(&["systemctl"]);

/// What systemd says of the socket that dmeventd is started through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    /// Whether somebody said that it is never to be started.
    pub masked: bool,
    /// Whether systemd listens at it.
    pub active: bool,
}

impl Socket {
    fn ask() -> Result<Self, run::Error> {
        let asked = Command::new(&SYSTEMCTL).args(["show", "--property=LoadState,ActiveState", DM_EVENT]);
        Ok(Self::parse(&asked.run()?.stdout))
    }

    /// Takes apart what `systemctl show` prints.
    pub fn parse(text: &str) -> Self {
        let has = |wanted: &str| text.lines().any(|line| line == wanted);
        Self {
            masked: has("LoadState=masked"),
            active: has("ActiveState=active"),
        }
    }
}

/// All answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// What Xen's toolstack says.
    pub xen: Asked<RunningXen>,
    /// The names of the domains beside dom0, as Xen's store has them.
    pub store: Asked<Vec<String>>,
    /// Whether GRUB can write to its environment block.
    pub grub_writes: Asked<()>,
    /// What LVM says.
    pub lvm: Asked<Overview>,
    /// What systemd says of dmeventd's socket.
    pub dm_event: Asked<Socket>,
    /// What else stops guests' packets.
    pub conflicts: Asked<Vec<String>>,
    /// QEMU's version.
    pub qemu: Asked<Version>,
    /// Bytes that are free where recordings are.
    pub free_space: Asked<u64>,
    /// The time, in seconds since 1970.
    pub now: u64,
}

impl Answers {
    /// Asks what the checks of `facts` need.
    pub fn ask(facts: &Facts) -> Self {
        let purpose = facts.purpose;
        let root = Path::new("/");
        let asker = Asker {
            is_here: facts.is_here(),
            is_root: geteuid().is_root(),
        };
        let is_dom0 = purpose.xen.is_any() && xenstore::is_dom0(facts.root());
        let has_mode = facts.network.as_ref().is_ok_and(|status| status.mode != Mode::None);
        Self {
            xen: asker.as_root(is_dom0, || match judge::running_xen() {
                Ok(Some(xen)) => Ok(xen),
                Ok(None) => Err("it does not run".to_owned()),
                Err(error) => Err(one_line(&error)),
            }),
            store: asker.as_root(is_dom0, || {
                let domains = XenStore::connect().and_then(|mut store| domain::list(&mut store));
                let names = domains.map(|domains| domains.into_values().map(|domain| domain.name).collect());
                names.map_err(|error| one_line(&error))
            }),
            grub_writes: asker.as_root(purpose.xen.is_any(), || {
                BootMenu::read(root, &System)
                    .and_then(|menu| menu.grub_can_write(EntryId::TtXenLinux))
                    .map_err(|error| one_line(&error))
            }),
            lvm: asker.as_root(purpose.volumes.is_any() && facts.has("lvm"), || {
                overview::overview().map_err(|error| one_line(&error))
            }),
            dm_event: asker.as_root(purpose.volumes.is_any() && facts.has("dmeventd"), || {
                Socket::ask().map_err(|error| one_line(&error))
            }),
            conflicts: asker.as_root(purpose.network.is_any() && has_mode, || {
                Network::new(root).conflicts().map_err(|error| one_line(&error))
            }),
            qemu: asker.as_anybody(purpose.qemu.is_any(), || {
                engine::find().map_err(|error| one_line(&error))
            }),
            free_space: match Library::open(facts.places.state_dir()).free_space() {
                Ok(bytes) => Asked::Answer(bytes),
                Err(error) => Asked::Failed(one_line(&error)),
            },
            now: now(),
        }
    }
}

/// Who may ask what.
struct Asker {
    is_here: bool,
    is_root: bool,
}

impl Asker {
    fn as_anybody<T>(&self, needed: bool, ask: impl FnOnce() -> Result<T, String>) -> Asked<T> {
        match (needed, self.is_here) {
            (false, _) => Asked::Nobody,
            (true, false) => Asked::Elsewhere,
            (true, true) => ask().map_or_else(Asked::Failed, Asked::Answer),
        }
    }

    fn as_root<T>(&self, needed: bool, ask: impl FnOnce() -> Result<T, String>) -> Asked<T> {
        match needed && self.is_here && !self.is_root {
            true => Asked::Denied,
            false => self.as_anybody(needed, ask),
        }
    }
}
