// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this host is for, told from its guests and from what is installed: a check is of use to somebody, or to nobody.

use std::path::Path;

use super::check::{Area, Check, State};
use crate::base::root::under;
use crate::boot::TT_DIRECTORY;
use crate::config::guest::{DiskSource, Guest, Origin, Toolstack};
use crate::config::places::Places;
use crate::network::Mode;
use crate::xenstore;

/// Whether something is needed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// A guest does not run without it.
    Must,
    /// It is there, or is what one begins with; no guest needs it so far.
    Wanted,
    /// By nobody, for this reason.
    No(&'static str),
}

impl Need {
    /// Whether anybody needs it.
    pub(super) fn is_any(self) -> bool {
        !matches!(self, Self::No(_))
    }

    /// What is not as it should be: a failure if a guest needs it.
    pub(super) fn wrong(
        self,
        area: Area,
        id: &'static str,
        sentence: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Check {
        let mut check = Check::warn(area, id, sentence, remedy);
        if self == Self::Must {
            check.state = State::Fail;
        }
        check
    }
}

/// What this host is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Purpose {
    /// Xen and what it is booted by.
    pub(super) xen: Need,
    /// TT Xen, which records and replays.
    pub(super) tt_xen: bool,
    /// xl, and not xm alone.
    pub(super) xl: bool,
    /// QEMU's record and replay.
    pub(super) qemu: Need,
    /// LVM.
    pub(super) volumes: Need,
    /// The network modes.
    pub(super) network: Need,
}

impl Purpose {
    /// The purpose of the host whose guests are `guests`, those whose files are right.
    pub(super) fn of(places: &Places, guests: &[&Guest], mode: Option<Mode>) -> Self {
        let root = places.root();
        let runs_on = |toolstack| guests.iter().any(|guest| guest.toolstack == toolstack);
        let (xl, xm, qemu) = (runs_on(Toolstack::Xl), runs_on(Toolstack::Xm), runs_on(Toolstack::Qemu));
        let is_system = places.toolstack() == Toolstack::Xl;
        let xen = if xl || xm {
            Need::Must
        } else if is_system && (xenstore::is_dom0(root) || (guests.is_empty() && has_xen(root))) {
            // Xen comes along with the package: who has guests of QEMU's only does not boot it.
            Need::Wanted
        } else {
            Need::No("no guest here runs on Xen")
        };
        let qemu = match (qemu, guests.is_empty()) {
            (true, _) => Need::Must,
            // What one begins with.
            (false, true) => Need::Wanted,
            (false, false) => Need::No("no guest here has toolstack \"qemu\""),
        };
        let volumes = match guests.iter().any(|guest| has_volume(guest)) {
            true => Need::Must,
            false => Need::No("no guest here has a disk on a volume of LVM"),
        };
        let follows = |guest: &&&Guest| guest.toolstack.is_xen() && guest.vifs.iter().any(|vif| vif.bridge.is_none());
        let network = match mode {
            _ if guests.iter().any(|guest| follows(&guest)) => Need::Must,
            Some(Mode::Nat | Mode::Bridge) if is_system => Need::Wanted,
            _ => Need::No("no guest here has a network interface that follows the network mode"),
        };
        Self {
            xen,
            tt_xen: xm,
            xl: xl || !xm,
            qemu,
            volumes,
            network,
        }
    }
}

fn has_volume(guest: &Guest) -> bool {
    guest.snapshots().next().is_some()
        || guest
            .disks
            .iter()
            .any(|disk| matches!(&disk.source, DiskSource::Overlay(Origin::Volume(_))))
}

/// Whether a Xen can be booted.
pub(super) fn has_xen(root: &Path) -> bool {
    ["/boot", TT_DIRECTORY].iter().any(|directory| {
        let entries = std::fs::read_dir(under(root, Path::new(directory)));
        let mut names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.any(|name| {
            let name = name.to_string_lossy();
            name == "xen.gz" || name == "xen" || (name.starts_with("xen-") && name.ends_with(".gz"))
        })
    })
}
