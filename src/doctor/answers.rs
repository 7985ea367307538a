// SPDX-License-Identifier: MIT OR Apache-2.0
//! What programs and the kernel say. Each is asked at most once, and only if a check needs it: eight processes at the most
//! (`lvm`, `xl` or `xm` or both, QEMU, three of GRUB's, `nft`).

use std::path::Path;

use nix::unistd::geteuid;

use super::facts::Facts;
use crate::boot::{BootMenu, EntryId, RunningXen, System, judge};
use crate::clock::now;
use crate::error::one_line;
use crate::lvm2_cmd::overview::{self, Overview};
use crate::network::{Mode, Network};
use crate::qemu::engine::{self, Version};
use crate::recording::Library;
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

/// All answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// What Xen's toolstack says.
    pub xen: Asked<RunningXen>,
    /// Whether Xen's store answers.
    pub store: Asked<()>,
    /// Whether GRUB can write to its environment block.
    pub grub_writes: Asked<()>,
    /// What LVM says.
    pub lvm: Asked<Overview>,
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
                XenStore::connect().map(drop).map_err(|error| one_line(&error))
            }),
            grub_writes: asker.as_root(purpose.xen.is_any(), || {
                BootMenu::read(root, &System)
                    .and_then(|menu| menu.grub_can_write(EntryId::TtXenLinux))
                    .map_err(|error| one_line(&error))
            }),
            lvm: asker.as_root(purpose.volumes.is_any() && facts.has("lvm"), || {
                overview::overview().map_err(|error| one_line(&error))
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
