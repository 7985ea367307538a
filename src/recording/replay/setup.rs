// SPDX-License-Identifier: MIT OR Apache-2.0
//! A recorded machine put together once more: fresh disks, and everything else as it was.

use std::path::PathBuf;

use crate::config::guest::{DiskFormat, DiskSource, Guest};
use crate::qemu::machine::Machine;
use crate::recording::Recording;
use crate::recording::session::disks::{Disks, Wanted, origin_of};
use crate::recording::session::{Environment, Error, different, recorded_machine};

/// How the disks are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::recording) enum Fresh {
    /// As the guest's file says: LVM's snapshots, and overlays.
    AsConfigured,
    /// The same, with an overlay over each snapshot: QEMU can keep a machine's state only beside qcow2 files.
    Covered,
    /// Overlays alone, over what the disks are made from. Several machines can have them at once.
    OverOrigins,
}

/// A machine and its disks. Dropped, the disks are gone.
pub(in crate::recording) struct Setup<'a> {
    pub(in crate::recording) disks: Disks<'a>,
    pub(in crate::recording) machine: Machine,
}

impl<'a> Setup<'a> {
    /// That of `recording`; `guest` is the guest's file as it is now, if there still is one.
    pub(in crate::recording) fn new(
        recording: &Recording,
        guest: Option<&Guest>,
        environment: &Environment<'a>,
        fresh: Fresh,
    ) -> Result<Self, Error> {
        let manifest = recording.manifest();
        let sources = sources(recording, guest, fresh);
        let wanted: Vec<Wanted<'_>> = manifest
            .disks
            .iter()
            .zip(&sources)
            .map(|(disk, (source, base))| Wanted {
                target: disk.target.clone(),
                source,
                base: base.clone(),
                size: disk.size,
            })
            .collect();
        // By the name that is locked: the manifest has the sender's.
        let name = recording.guest();
        let mut disks = Disks::make(name, &wanted, environment)?;
        if fresh == Fresh::Covered {
            disks.cover(name, environment)?;
        }
        let mut machine = recorded_machine(manifest, recording.kernel_path(), recording.initrd_path());
        machine.drives.clone_from(&disks.drives);
        let (was, now) = (manifest.engine.config, machine.digest());
        match was == now {
            true => Ok(Self { disks, machine }),
            false => {
                let difference =
                    format!("this version of ttvm makes another machine of it: it was {was}, now it is {now}");
                Err(different(recording, vec![difference]))
            }
        }
    }
}

/// What each disk is made from, and the copy of its base if it came from another host.
fn sources(recording: &Recording, guest: Option<&Guest>, fresh: Fresh) -> Vec<(DiskSource, Option<PathBuf>)> {
    let disks = recording.manifest().disks.iter().map(|disk| {
        let now = guest.and_then(|guest| guest.disks.iter().find(|it| it.target == disk.target));
        let source = match now.map(|it| &it.source) {
            Some(source @ DiskSource::Snapshot(_)) if fresh == Fresh::OverOrigins => {
                DiskSource::Overlay(origin_of(source))
            }
            Some(source) => source.clone(),
            None if !disk.writable => DiskSource::Path {
                path: disk.origin.path(),
                format: DiskFormat::Raw,
                writable: false,
            },
            None => DiskSource::Overlay(disk.origin.clone()),
        };
        let base = recording
            .base_path(disk, guest)
            .filter(|base| *base != disk.origin.path());
        (source, base)
    });
    disks.collect()
}
