// SPDX-License-Identifier: MIT OR Apache-2.0
//! A snapshot made fresh without LVM: its volume stays, what it has kept of changes is forgotten.
//!
//! The device gets a table in which nothing is, which has the kernel let go of what is kept; that is forgotten ([`thick`], [`thin`]);
//! the device gets the table that it had. LVM's metadata is only read, and LVM's lock held meanwhile: its commands see the device
//! before, or after.
//!
//! Nobody can be kept from opening the device meanwhile. So it is looked at again before anything is forgotten, and a device that
//! somebody has opened gets its table back.
//!
//! Who is killed in between leaves a device that reads as zeros and forgets what is written, and no suspended one of the guest's: the
//! next reset finds something unusual, and has LVM remove it, as it does with all that is not exactly what is expected here.

mod thick;
mod thin;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::device::LOOK_AGAIN;
use super::error::Error;
use super::examine::{self, Place};
use super::{Store, lock};
use crate::base::{fail_point, signals};
use crate::config::guest::Snapshot;
use crate::dm::{self, By, Device, State, Table, device_number};
use crate::lvm2_cmd::{LogicalVolume, Metadata, disk};

const SECTOR: u64 = 512;
/// How long udev's programs may look at a device that has just changed.
const LOOK: Duration = Duration::from_secs(1);

/// Why a snapshot is left to LVM.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusual {
    /// Something is not as it is after an ordinary run.
    #[error("{0}")]
    Not(&'static str),
    /// The kernel said no.
    #[error(transparent)]
    DeviceMapper(#[from] dm::Error),
    /// The metadata on the disks cannot be read.
    #[error(transparent)]
    Metadata(#[from] disk::Error),
    /// The proof failed, or somebody has it open.
    #[error(transparent)]
    Snapshot(#[from] Error),
    /// It is not to be left to LVM, either.
    #[error(transparent)]
    LeftAlone(Error),
    /// A file or a device.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What was proved to be a snapshot that may be emptied.
pub(super) struct Proven {
    device: Device,
    table: Table,
    kept: Kept,
}

/// Where its changes are.
enum Kept {
    Thick(thick::Area),
    Thin(thin::Place),
}

fn must(holds: bool, otherwise: &'static str) -> Result<(), Unusual> {
    holds.then_some(()).ok_or(Unusual::Not(otherwise))
}

impl Store<'_> {
    /// Makes the snapshot fresh in its place. If anything is unusual, it is to be removed and made anew.
    pub(super) fn empty(&self, snapshot: &Snapshot) -> Result<(), Unusual> {
        let lvm = lock::lvms(&snapshot.volume.vg)?;
        let _lvm = lvm.ok_or(Unusual::Not("an LVM command is at work on its group"))?;
        let proven = self.prove(snapshot)?;
        self.reach(snapshot, "emptying", "emptying");
        let written = self.forget_closed(snapshot, &proven)?;
        let table = self.dm.table(By::Uuid(&proven.device.uuid))?;
        must(table.as_ref() == Some(&proven.table), "its table is another one")?;
        // Whoever opened it meanwhile may have kept what was read, and not yet written what was to be: with the last who closes it,
        // the kernel forgets the one, and does the other.
        let device = self.device(&snapshot.volume.dm_name())?;
        self.device_is_free(snapshot, &device, LOOK)?;
        match &proven.kept {
            Kept::Thick(area) => {
                self.is_empty(snapshot, area)?;
                self.origin_is_idle(snapshot)?;
            }
            Kept::Thin(_) => {
                must(Some(thin::written(&proven.device)?) == written, "it is not empty")?;
                self.size_is_not_used(snapshot);
            }
        }
        self.step(snapshot, "created", "made fresh");
        Ok(())
    }

    /// Forgets what was kept, while the device has nothing of it. Returns what was written to a thin one by then.
    ///
    /// Nothing is logged meanwhile, and no terminal stops us: whoever uses the origin could wait for whoever is to read what is logged.
    fn forget_closed(&self, snapshot: &Snapshot, proven: &Proven) -> Result<Option<[u64; 4]>, Unusual> {
        let _goes_on = signals::defer_stop();
        self.close(proven)?;
        fail_point::reach("snapshot.closed");
        self.nobody_came(snapshot, proven)?;
        match &proven.kept {
            Kept::Thick(area) => thick::forget(area)?,
            Kept::Thin(place) => self.forget(snapshot, proven, place)?,
        }
        fail_point::reach("snapshot.emptied");
        let written = match proven.kept {
            Kept::Thick(_) => None,
            Kept::Thin(_) => Some(thin::written(&proven.device)?),
        };
        self.put_back(proven)?;
        Ok(written)
    }

    /// Has the kernel let go of the changes. Programs of udev's look at devices at any time: zeros do not have the kernel report an
    /// error of the disk, but not every kernel has the module for them.
    fn close(&self, proven: &Proven) -> Result<(), dm::Error> {
        let device = By::Uuid(&proven.device.uuid);
        let with = |kind| self.dm.replace(device, &Table::nothing(proven.table.sectors, kind));
        with("zero").or_else(|_| with("error"))
    }

    /// Gives the device the table that it had.
    fn put_back(&self, proven: &Proven) -> Result<(), dm::Error> {
        self.dm.replace(By::Uuid(&proven.device.uuid), &proven.table)
    }

    /// Makes sure that nobody has opened the device since it was proved that nobody had; udev's programs may, for a moment. If
    /// somebody has, all that was kept is in the device again. A signal to end waits: it would leave the device without content.
    fn nobody_came(&self, snapshot: &Snapshot, proven: &Proven) -> Result<(), Unusual> {
        let Err(somebody) = self.looked_at(snapshot, &proven.device) else {
            return Ok(());
        };
        self.undo(proven)?;
        Err(somebody.into())
    }

    /// Waits until nobody has the device open, for as long as udev's programs may.
    fn looked_at(&self, snapshot: &Snapshot, device: &Device) -> Result<(), Error> {
        self.device_is_closed(snapshot, device, LOOK, || std::thread::sleep(LOOK_AGAIN))
    }

    /// Gives the device its table while nothing was forgotten yet.
    fn undo(&self, proven: &Proven) -> Result<(), dm::Error> {
        self.put_back(proven)?;
        // Zeros that somebody has read are not to be what they read next, from the cache: as far as that can be had, since the device
        // is what it was.
        let file = File::open(Path::new("/dev/mapper").join(&proven.device.name));
        if let Ok(file) = file
            && is_device(&file, proven.device.number).unwrap_or(false)
        {
            let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
        Ok(())
    }

    /// Proves that it is this guest's, and nothing but a snapshot as LVM made it for the guest's file.
    pub(super) fn prove(&self, snapshot: &Snapshot) -> Result<Proven, Unusual> {
        let device = self.device(&snapshot.volume.dm_name())?;
        must(!device.read_only, "it is read-only")?;
        // Whoever has written to it has just closed it, and udev's programs look at it.
        self.looked_at(snapshot, &device)?;
        must(self.path_fits(snapshot, Some(&device)), "its path leads elsewhere")?;
        let table = self.dm.table(By::Number(device.number))?;
        let table = table.ok_or(Unusual::Not("it is of several parts"))?;
        let kept = match device.state {
            State::Snapshot { used, total } => {
                Kept::Thick(self.prove_thick(snapshot, &device, &table, (used, total))?)
            }
            State::Thin => Kept::Thin(self.prove_thin(snapshot, &device, &table)?),
            _ => return Err(Unusual::Not("it is no snapshot, or lost")),
        };
        Ok(Proven { device, table, kept })
    }

    /// What LVM would have to find to remove it, and that it is the volume whose device that is. `None` of an origin has no device.
    fn volumes<'a>(
        &self,
        snapshot: &Snapshot,
        metadata: &'a Metadata,
        (device, origin): (&Device, Option<&Device>),
    ) -> Result<[&'a LogicalVolume; 2], Unusual> {
        must(
            metadata.is_ordinary,
            "its group is another host's, shared, exported, or lacks a disk",
        )?;
        let place = examine::examine_disks(metadata, &self.guest, snapshot)?;
        must(matches!(place, Place::Ours(_)), "LVM does not know it")?;
        let named = |name: &str| metadata.volumes.iter().find(|volume| volume.name == name);
        let is = |volume: &LogicalVolume, device: &Device| uuid(metadata, volume) == device.uuid;
        let volume = named(snapshot.volume.lv.as_str()).filter(|volume| is(volume, device));
        let volume = volume.ok_or(Unusual::Not("LVM knows another one"))?;
        let base = named(snapshot.origin.lv.as_str()).filter(|volume| origin.is_none_or(|device| is(volume, device)));
        let base = base.ok_or(Unusual::Not("LVM knows another origin"))?;
        must(volume.is("snapshot"), "LVM knows it otherwise")?;
        must(volume.permissions == "writeable", "it is read-only")?;
        Ok([volume, base])
    }

    /// The metadata on the disk that a device begins on, which is of one part.
    fn metadata(&self, snapshot: &Snapshot, device: u64, otherwise: &'static str) -> Result<Metadata, Unusual> {
        let table = self.dm.table(By::Number(device))?;
        let number = match &table {
            Some(table) if table.kind == "linear" => table.parameters.split(' ').next().and_then(device_number),
            _ => None,
        };
        Ok(disk::read(number.ok_or(Unusual::Not(otherwise))?, &snapshot.volume.vg)?)
    }

    fn device(&self, name: &str) -> Result<Device, Unusual> {
        let device = self.dm.find(By::Name(name))?;
        at_rest(device.ok_or(Unusual::Not("a device of it is missing"))?)
    }
}

fn at_rest(device: Device) -> Result<Device, Unusual> {
    must(!device.suspended, "a device of it is suspended")?;
    // By us or by LVM, who was killed then: what that table has in use is nothing that is proved here. It is not cleared: LVM
    // loads one of its own over it, or removes it with the device.
    must(!device.changing, "a change of a device of it was begun")?;
    Ok(device)
}

fn is_device(file: &File, number: u64) -> io::Result<bool> {
    file.metadata().map(|data: fs::Metadata| data.rdev() == number)
}

/// A volume's UUID as device-mapper has it.
fn uuid(metadata: &Metadata, volume: &LogicalVolume) -> String {
    let both = format!("{}{}", metadata.uuid, volume.uuid).replace('-', "");
    format!("LVM-{both}")
}
