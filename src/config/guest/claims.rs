// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest takes for itself on the host, so that no two guests take the same thing.

use std::fs;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{DiskSource, Guest, Origin};
use crate::config::reader::Source;
use crate::config::types::{GuestName, GuestUuid, Mac, Volume};

/// One thing a guest takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::config) enum Claim {
    /// A volume that is removed and made again.
    Snapshot(Volume),
    /// A volume that must stay as it is.
    Origin(Volume),
    /// A file that must stay as it is.
    OriginFile(Place),
    /// A device or file that is written.
    Written(Place),
    Uuid(GuestUuid),
    Mac(Mac),
    Address(Ipv4Addr),
}

impl Claim {
    /// What a disk takes.
    pub(in crate::config) fn of_disk(source: &DiskSource) -> Vec<Self> {
        match source {
            DiskSource::Snapshot(snapshot) => vec![
                Self::Snapshot(snapshot.volume.clone()),
                Self::Origin(snapshot.origin.clone()),
            ],
            DiskSource::Overlay(Origin::Volume(volume)) => vec![Self::Origin(volume.clone())],
            DiskSource::Overlay(Origin::File(path)) => vec![Self::OriginFile(Place::of(path))],
            DiskSource::Path {
                path, writable: true, ..
            } => vec![Self::Written(Place::of(path))],
            DiskSource::Path { .. } => Vec::new(),
        }
    }

    /// Why `self` cannot be next to what `owner` has taken, or `None` if it can.
    fn conflict(&self, taken: &Self, owner: &GuestName) -> Option<String> {
        match (self, taken) {
            (Self::Snapshot(own), Self::Snapshot(other)) if own == other => {
                Some(format!("the snapshot {own} belongs to guest \"{owner}\" already"))
            }
            (Self::Snapshot(own), Self::Origin(other)) if own == other => Some(format!(
                "the snapshot {own} would be removed, and it is an origin of guest \"{owner}\""
            )),
            (Self::Origin(own), Self::Snapshot(other)) if own == other => Some(format!(
                "the origin {own} is removed and made anew as a snapshot of guest \"{owner}\""
            )),
            (Self::Written(path), Self::Origin(volume)) if is_device_of(path, volume) => Some(format!(
                "the guest would write to {volume}, which is an origin of guest \"{owner}\""
            )),
            (Self::Origin(volume), Self::Written(path)) if is_device_of(path, volume) => {
                Some(format!("guest \"{owner}\" writes to the origin {volume}"))
            }
            (Self::Written(path), Self::Snapshot(volume)) if is_device_of(path, volume) => Some(format!(
                "{volume} is a snapshot of guest \"{owner}\", removed and made anew at its start"
            )),
            (Self::Snapshot(volume), Self::Written(path)) if is_device_of(path, volume) => Some(format!(
                "the snapshot {volume} would be removed, and it is a disk of guest \"{owner}\""
            )),
            (Self::Written(own), Self::OriginFile(other)) if own.is(other) => Some(format!(
                "the guest would write to {}, which is an origin of guest \"{owner}\"",
                own.display()
            )),
            (Self::OriginFile(own), Self::Written(other)) if own.is(other) => {
                Some(format!("guest \"{owner}\" writes to the origin {}", own.display()))
            }
            (Self::Written(own), Self::Written(other)) if own.is(other) => {
                Some(format!("guest \"{owner}\" writes to {} already", own.display()))
            }
            (Self::Uuid(own), Self::Uuid(other)) if own == other => {
                Some(format!("guest \"{owner}\" has the UUID {own} already"))
            }
            (Self::Mac(own), Self::Mac(other)) if own == other => {
                Some(format!("guest \"{owner}\" has the address {own} already"))
            }
            (Self::Address(own), Self::Address(other)) if own == other => {
                Some(format!("guest \"{owner}\" has the address {own} already"))
            }
            _ => None,
        }
    }
}

/// A device or file, which may have many names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::config) struct Place {
    path: PathBuf,
    identity: Option<Identity>,
}

/// What there is one of, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Identity {
    /// A device's number.
    Device(u64),
    /// A file's device and number.
    File(u64, u64),
}

impl Place {
    /// What `path` leads to; nothing is opened.
    fn of(path: &Path) -> Self {
        let data = fs::metadata(path).ok();
        let identity = data.and_then(|data| match data.file_type() {
            kind if kind.is_block_device() => Some(Identity::Device(data.rdev())),
            kind if kind.is_file() => Some(Identity::File(data.dev(), data.ino())),
            _ => None,
        });
        // Without doubled slashes, by which it would be another text.
        let path = path.components().collect();
        Self { path, identity }
    }

    /// Whether both are the same.
    fn is(&self, other: &Self) -> bool {
        self.path == other.path || self.identity.is_some() && self.identity == other.identity
    }

    fn display(&self) -> std::path::Display<'_> {
        self.path.display()
    }
}

/// Whether `place` is a volume's device, by one of its two names or by another.
fn is_device_of(place: &Place, volume: &Volume) -> bool {
    let mapper = format!("/dev/mapper/{}", volume.dm_name());
    let device = volume.device();
    let is_called = |name: &str| place.path.as_os_str() == name;
    let is_device = || matches!(place.identity, Some(Identity::Device(_))) && place.is(&Place::of(Path::new(&device)));
    is_called(&device) || is_called(&mapper) || is_device()
}

/// What guests have taken so far.
#[derive(Debug, Default)]
pub(in crate::config) struct Claims(Vec<(GuestName, Claim)>);

impl Claims {
    pub(in crate::config) fn add(&mut self, owner: &GuestName, claim: Claim) {
        self.0.push((owner.clone(), claim));
    }

    /// Everything `guest` takes.
    pub(in crate::config) fn add_guest(&mut self, guest: &Guest) {
        let disks = guest.disks.iter().flat_map(|disk| Claim::of_disk(&disk.source));
        let macs = guest.vifs.iter().map(|vif| Claim::Mac(vif.mac));
        let addresses = guest.vifs.iter().filter_map(|vif| vif.address.map(Claim::Address));
        for claim in disks.chain(macs).chain(addresses).chain([Claim::Uuid(guest.uuid)]) {
            self.add(&guest.name, claim);
        }
    }

    /// Notes in `source`, at `span`, what stands against `claim`.
    pub(in crate::config) fn check(&self, source: &Source, span: &Range<usize>, claim: &Claim) {
        for (owner, taken) in &self.0 {
            if let Some(why) = claim.conflict(taken, owner) {
                source.problem(span, why);
            }
        }
    }
}
