// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest takes for itself on the host, so that no two guests take the same thing.

use std::ops::Range;
use std::path::PathBuf;

use super::guest::{DiskSource, Guest};
use super::reader::Source;
use super::types::{GuestName, GuestUuid, Mac, Volume};

/// One thing a guest takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Claim {
    /// A volume that is removed and made again.
    Snapshot(Volume),
    /// A volume that must stay as it is.
    Origin(Volume),
    /// A device or file that is written.
    Written(PathBuf),
    Uuid(GuestUuid),
    Mac(Mac),
}

impl Claim {
    /// What a disk takes.
    pub(super) fn of_disk(source: &DiskSource) -> Vec<Self> {
        match source {
            DiskSource::Snapshot(snapshot) => vec![
                Self::Snapshot(snapshot.volume.clone()),
                Self::Origin(snapshot.origin.clone()),
            ],
            DiskSource::Path {
                path, writable: true, ..
            } => vec![Self::Written(path.clone())],
            DiskSource::Path { .. } => Vec::new(),
        }
    }

    /// Why `self` and `other` can not both be, or `None` if they can.
    fn conflict(&self, other: &Self) -> Option<String> {
        let same_device = |path: &PathBuf, volume: &Volume| {
            let mapper = format!("/dev/mapper/{}", volume.dm_name());
            *path == PathBuf::from(volume.device()) || *path == PathBuf::from(mapper)
        };
        match (self, other) {
            (Self::Snapshot(a), Self::Snapshot(b)) if a == b => Some(format!("the snapshot {a} belongs to")),
            (Self::Snapshot(a), Self::Origin(b)) if a == b => {
                Some(format!("{a}, which would be removed as a snapshot, is an origin of"))
            }
            (Self::Origin(a), Self::Snapshot(b)) if a == b => Some(format!("the origin {a} is a snapshot of")),
            (Self::Written(path), Self::Origin(volume)) | (Self::Origin(volume), Self::Written(path))
                if same_device(path, volume) =>
            {
                Some(format!(
                    "{volume} would be written although it is an origin of, or written by,"
                ))
            }
            (Self::Written(path), Self::Snapshot(volume)) | (Self::Snapshot(volume), Self::Written(path))
                if same_device(path, volume) =>
            {
                Some(format!(
                    "{volume} is removed and made again as a snapshot, or used as it is, by"
                ))
            }
            (Self::Written(a), Self::Written(b)) if a == b => Some(format!("{} is written by", a.display())),
            (Self::Uuid(a), Self::Uuid(b)) if a == b => Some(format!("the UUID {a} belongs to")),
            (Self::Mac(a), Self::Mac(b)) if a == b => Some(format!("the address {a} belongs to")),
            _ => None,
        }
    }
}

/// What guests have taken so far.
#[derive(Debug, Default)]
pub(super) struct Claims(Vec<(GuestName, Claim)>);

impl Claims {
    pub(super) fn add(&mut self, owner: &GuestName, claim: Claim) {
        self.0.push((owner.clone(), claim));
    }

    /// Everything `guest` takes.
    pub(super) fn add_guest(&mut self, guest: &Guest) {
        let disks = guest.disks.iter().flat_map(|disk| Claim::of_disk(&disk.source));
        let macs = guest.vifs.iter().map(|vif| Claim::Mac(vif.mac));
        for claim in disks.chain(macs).chain([Claim::Uuid(guest.uuid)]) {
            self.add(&guest.name, claim);
        }
    }

    /// Notes in `source`, at `span`, what stands against `claim`.
    pub(super) fn check(&self, source: &Source, span: &Range<usize>, claim: &Claim) {
        for (owner, taken) in &self.0 {
            if let Some(why) = claim.conflict(taken) {
                source.problem(span, format!("{why} guest \"{owner}\" as well"));
            }
        }
    }
}
