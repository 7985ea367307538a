// SPDX-License-Identifier: MIT OR Apache-2.0
//! What files say: nothing here runs a program.

use std::path::{Path, PathBuf};

use super::purpose::Purpose;
use crate::base::error::one_line;
use crate::base::root::under;
use crate::config::guest::Guest;
use crate::config::host::{self, HostConfig};
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::config::{self, guests};
use crate::file::tree;
use crate::initrd::busybox;
use crate::initrd::kernel::Kernel;
use crate::network::{self, Network};
use crate::run;

/// What is known of a host before a program is asked.
pub struct Facts {
    pub(super) places: Places,
    /// ttvm.toml; the defaults if it is wrong.
    pub(super) config: HostConfig,
    /// Why ttvm.toml is wrong.
    pub(super) config_error: Option<config::Error>,
    /// The guests, with what their files say or why they say nothing.
    pub(super) guests: Vec<(GuestName, Result<Guest, config::Error>)>,
    /// Why there is no list of guests.
    pub(super) guests_error: Option<config::Error>,
    /// If there is no guest yet: what is missing to make one, if something is.
    pub(super) first_lacks: Option<Option<String>>,
    /// The network mode.
    pub(super) network: Result<network::Status, network::Error>,
    pub(super) purpose: Purpose,
}

/// What is missing to make a guest that is all in memory.
fn first_lacks(root: &Path) -> Option<String> {
    let kernel = Kernel::find(root, None).map(drop);
    let lacks = kernel.map_err(|error| one_line(&error)).and_then(|()| {
        let busybox = busybox::require(root);
        busybox.map_err(|error| one_line(&error))
    });
    lacks.err()
}

impl Facts {
    /// Reads what is in these places.
    pub fn read(places: &Places) -> Self {
        let (config, config_error) = host::load_or_defaults(places);
        let (names, guests_error) = match guests::names(places) {
            Ok(names) => (names, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let load = |name: GuestName| {
            let guest = guests::load(places, &config, &name);
            (name, guest)
        };
        let guests: Vec<_> = names.into_iter().map(load).collect();
        let network = Network::new(places.root()).status();
        let right: Vec<&Guest> = guests.iter().filter_map(|(_, guest)| guest.as_ref().ok()).collect();
        let mode = network.as_ref().ok().map(|status| status.desired);
        let purpose = Purpose::of(places, &right, mode);
        Self {
            places: places.clone(),
            config,
            config_error,
            first_lacks: guests.is_empty().then(|| first_lacks(places.root())),
            guests,
            guests_error,
            network,
            purpose,
        }
    }

    /// The tree that the system is in.
    pub(super) fn root(&self) -> &Path {
        self.places.root()
    }

    /// Whether it is the system that runs.
    pub(super) fn is_here(&self) -> bool {
        self.root() == Path::new("/")
    }

    /// Where the system's file `path` is opened.
    pub(super) fn real(&self, path: &str) -> PathBuf {
        under(self.root(), Path::new(path))
    }

    /// The text of the system's file `path`; nothing if it cannot be read.
    pub(super) fn text(&self, path: &str) -> String {
        let bytes = tree::read(self.root(), Path::new(path), tree::WRITTEN).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether GRUB has Fedora's names here.
    fn has_grub2(&self) -> bool {
        self.real("/boot/grub2").is_dir()
    }

    /// What writes the boot menu anew.
    pub(super) fn update_grub(&self) -> &'static str {
        match self.has_grub2() {
            true => "`grub2-mkconfig -o /boot/grub2/grub.cfg`",
            false => "update-grub",
        }
    }

    /// What makes GRUB's environment block.
    pub(super) fn grub_editenv(&self) -> &'static str {
        match self.has_grub2() {
            true => "grub2-editenv",
            false => "grub-editenv",
        }
    }

    /// Whether the system has the program `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        run::find(self.root(), name).is_some()
    }

    /// The guests whose files are right.
    pub(super) fn right(&self) -> impl Iterator<Item = &Guest> {
        self.guests.iter().filter_map(|(_, guest)| guest.as_ref().ok())
    }
}
