// SPDX-License-Identifier: MIT OR Apache-2.0
//! A thick snapshot made fresh without LVM: its volume stays, what it has kept of changes is forgotten.
//!
//! The kernel keeps a header at the beginning of the area for changes; a header of zeros is that of a new area
//! (Documentation/admin-guide/device-mapper/snapshot.rst, and it is all that `lvcreate` writes there). The kernel reads it when the
//! snapshot's table is loaded. So the device gets a table in which nothing is, which closes the area; the header is zeroed; the device
//! gets the table that it had. LVM's metadata is only read, and LVM's lock held meanwhile: its commands see the device before, or after.
//!
//! Nobody can be kept from opening the device meanwhile. So it is looked at again before the header is zeroed: nothing kept is lost
//! until then, and a device that somebody has opened gets its table back.
//!
//! Who is killed in between leaves a device that reads as zeros and forgets what is written, and never a suspended one: the next reset
//! finds something unusual, and has LVM remove it, as it does with all that is not exactly what is expected here.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::device::LOOK_AGAIN;
use super::error::Error;
use super::examine::{self, Place};
use super::{Store, lock};
use crate::config::guest::Snapshot;
use crate::config::types::Size;
use crate::dm::{self, By, Device, State, Table, device_number};
use crate::lvm2_cmd::{Metadata, disk};

/// As much as `lvcreate` zeroes.
const HEADER: usize = 4096;
const SECTOR: u64 = 512;
/// What the kernel writes down of a changed chunk, in bytes.
const EXCEPTION: u64 = 16;
/// How long udev's programs may look at a device that has just changed.
const LOOK: Duration = Duration::from_secs(1);
/// There as long as dmeventd runs.
const DMEVENTD: &str = "/run/dmeventd.pid";

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
    /// A file or a device.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What was proved to be a snapshot that may be emptied.
pub(super) struct Proven {
    device: Device,
    table: Table,
    area: Device,
    /// Sectors in use of an area in which there is nothing yet: the header, and the first list of changes.
    empty: u64,
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
        self.close(&proven)?;
        self.reach(snapshot, "closed", "closed the changes of");
        self.nobody_came(snapshot, &proven)?;
        self.zero(&proven.area)?;
        self.reach(snapshot, "emptied", "forgot the changes of");
        self.put_back(&proven)?;
        let table = self.dm.table(By::Uuid(&proven.device.uuid))?;
        must(table == Some(proven.table), "its table is another one")?;
        // Whoever opened it meanwhile may have kept what was read, and not yet written what was to be: with the last who closes it,
        // the kernel forgets the one, and does the other.
        self.device_is_free(snapshot, &self.device(&snapshot.volume.dm_name())?, LOOK)?;
        let state = self.device(&snapshot.volume.dm_name())?.state;
        let is_fresh = matches!(state, State::Snapshot { used, .. } if used <= proven.empty);
        must(is_fresh, "it is not empty")?;
        self.origin_is_idle(snapshot)?;
        self.step(snapshot, "created", "made fresh");
        Ok(())
    }

    /// Has the kernel let go of the area. Programs of udev's look at devices at any time: zeros do not have the kernel report an error
    /// of the disk, but not every kernel has the module for them.
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
        let pause = || std::thread::sleep(LOOK_AGAIN);
        let Err(somebody) = self.device_is_closed(snapshot, &proven.device, LOOK, pause) else {
            return Ok(());
        };
        self.put_back(proven)?;
        // Zeros that somebody has read are not to be what they read next, from the cache.
        let file = File::open(Path::new("/dev/mapper").join(&proven.device.name))?;
        must(is_device(&file, proven.device.number)?, "its path leads elsewhere")?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).map_err(io::Error::from)?;
        Err(somebody.into())
    }

    /// Proves that it is this guest's, and nothing but a thick snapshot as LVM made it for the guest's file.
    pub(super) fn prove(&self, snapshot: &Snapshot) -> Result<Proven, Unusual> {
        let size = snapshot.size.ok_or(Unusual::Not("it has no size"))?;
        let name = snapshot.volume.dm_name();
        let device = self.device(&name)?;
        let State::Snapshot { used, total } = device.state else {
            return Err(Unusual::Not("it is no thick snapshot, or lost"));
        };
        must(!device.read_only && device.open_count == 0, "it is in use")?;
        must(self.path_fits(snapshot, Some(&device)), "its path leads elsewhere")?;
        // It warns, and has the snapshot extended, from half of it on, once for each twentieth; only LVM tells it of a new one.
        let is_watched = used >= total / 2 && Path::new(DMEVENTD).exists();
        must(!is_watched, "dmeventd has seen it half full")?;
        let table = self.dm.table(By::Number(device.number))?;
        let table = table.ok_or(Unusual::Not("it is of several parts"))?;
        let parameters: Vec<&str> = table.parameters.split(' ').collect();
        let ("snapshot", [origin, area, "P" | "PO", chunk]) = (table.kind.as_str(), &parameters[..]) else {
            return Err(Unusual::Not("its table is unusual"));
        };
        let chunk: u64 = chunk.parse().map_err(|_| Unusual::Not("its table is unusual"))?;
        let base = self.origin_is_idle(snapshot)?;
        self.is_layer(&base, "-real", origin, "it is a snapshot of something else")?;
        let area = self.is_layer(&device, "-cow", area, "its changes are elsewhere")?;
        // By the snapshot itself.
        must(area.open_count == 1, "the area of its changes is in use")?;
        self.prove_metadata(
            snapshot,
            &self.metadata(snapshot, &area)?,
            &device,
            &base,
            (size, total * SECTOR),
            chunk * SECTOR,
        )?;
        Ok(Proven {
            device,
            table,
            area,
            empty: 2 * chunk,
        })
    }

    /// The inner layer of a volume, which is the device that a table names (`253:7`).
    fn is_layer(&self, of: &Device, layer: &str, named: &str, otherwise: &'static str) -> Result<Device, Unusual> {
        let device = self.device(&format!("{}{layer}", of.name))?;
        let is_it = Some(device.number) == device_number(named) && device.uuid == format!("{}{layer}", of.uuid);
        must(is_it, otherwise)?;
        Ok(device)
    }

    /// What LVM would have to find to remove it, and that the kernel has of it what the metadata says.
    fn prove_metadata(
        &self,
        snapshot: &Snapshot,
        metadata: &Metadata,
        device: &Device,
        base: &Device,
        (wanted, size): (Size, u64),
        chunk: u64,
    ) -> Result<(), Unusual> {
        must(
            metadata.is_ordinary,
            "its group is another host's, shared, exported, or lacks a disk",
        )?;
        let place = examine::examine_disks(metadata, &self.guest, snapshot)?;
        must(matches!(place, Place::Ours(_)), "LVM does not know it")?;
        let named = |name: &str| metadata.volumes.iter().find(|volume| volume.name == name);
        let is = |name: &str, device: &Device| named(name).filter(|volume| uuid(metadata, &volume.uuid) == device.uuid);
        let volume = is(snapshot.volume.lv.as_str(), device).ok_or(Unusual::Not("LVM knows another one"))?;
        let origin = is(snapshot.origin.lv.as_str(), base).ok_or(Unusual::Not("LVM knows another origin"))?;
        must(volume.is("snapshot") && volume.size == size, "LVM knows it otherwise")?;
        must(volume.permissions == "writeable", "it is read-only")?;
        let made = made_size(wanted.bytes(), origin.size, chunk, metadata.extent_size);
        must(made == Some(size), "the guest's file wants another size")
    }

    /// The metadata on the disk that the area begins on.
    fn metadata(&self, snapshot: &Snapshot, area: &Device) -> Result<Metadata, Unusual> {
        let table = self.dm.table(By::Number(area.number))?;
        let number = match &table {
            Some(table) if table.kind == "linear" => table.parameters.split(' ').next().and_then(device_number),
            _ => None,
        };
        let number = number.ok_or(Unusual::Not("the area of its changes is of several parts"))?;
        Ok(disk::read(number, &snapshot.volume.vg)?)
    }

    /// Nobody has the origin open: what is written to it in the very moment could be in the snapshot or not.
    fn origin_is_idle(&self, snapshot: &Snapshot) -> Result<Device, Unusual> {
        let origin = self.device(&snapshot.origin.dm_name())?;
        let is_origin = origin.state == State::SnapshotOrigin && origin.open_count == 0;
        must(is_origin, "its origin is in use")?;
        Ok(origin)
    }

    fn device(&self, name: &str) -> Result<Device, Unusual> {
        let device = self.dm.find(By::Name(name))?;
        let device = device.ok_or(Unusual::Not("a device of it is missing"))?;
        must(!device.suspended, "a device of it is suspended")?;
        // By us or by LVM, who was killed then: what that table has in use is nothing that is proved here. It is not cleared: LVM
        // loads one of its own over it, or removes it with the device.
        must(!device.changing, "a change of a device of it was begun")?;
        Ok(device)
    }

    /// Zeroes the header of the area, past the cache. The kernel lets only one have it open this way (O_EXCL): no snapshot has it.
    fn zero(&self, area: &Device) -> Result<(), Unusual> {
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(nix::libc::O_DIRECT | nix::libc::O_EXCL)
            .open(Path::new("/dev/mapper").join(&area.name))?;
        must(
            is_device(&file, area.number)?,
            "the path of its changes leads elsewhere",
        )?;
        let buffer = [0; 2 * HEADER];
        let skip = buffer.as_ptr().align_offset(HEADER);
        file.write_all_at(&buffer[skip..skip + HEADER], 0)?;
        Ok(())
    }
}

fn is_device(file: &File, number: u64) -> io::Result<bool> {
    file.metadata().map(|data: fs::Metadata| data.rdev() == number)
}

/// The size that LVM gives a snapshot for which `wanted` is asked, all in bytes: whole extents, and no more than an area for changes
/// can be filled with if all of the origin is changed (cow_max_extents in LVM2's lib/metadata/snapshot_manip.c). That is a chunk for
/// the header, one for each of the origin, and one for each list of them, of which the last may be empty. `None` if that is no size.
fn made_size(wanted: u64, origin: u64, chunk: u64, extent: u64) -> Option<u64> {
    let in_a_list = chunk / EXCEPTION;
    let changed = origin.checked_add(chunk.checked_sub(1)?)?.checked_div(chunk)?;
    let lists = changed.checked_div(in_a_list)? + 1;
    let most = (1 + changed + lists).checked_mul(chunk)?;
    let extents = |size: u64| size.checked_next_multiple_of(extent);
    Some(extents(wanted)?.min(extents(most)?))
}

/// A volume's UUID as device-mapper has it.
fn uuid(metadata: &Metadata, volume: &str) -> String {
    let both = format!("{}{volume}", metadata.uuid).replace('-', "");
    format!("LVM-{both}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_the_one_that_lvm_makes() {
        const KIB: u64 = 1 << 10;
        const MIB: u64 = 1 << 20;
        const GIB: u64 = 1 << 30;
        let of_ten = |wanted| made_size(wanted, 10 * GIB, 4 * KIB, 4 * MIB);
        assert_eq!(of_ten(GIB), Some(GIB));
        assert_eq!(of_ten(30 * MIB), Some(32 * MIB));
        // Each of the extents between the origin's size and the largest area is another size.
        for extents in 2560..=2571 {
            assert_eq!(of_ten(extents * 4 * MIB), Some(extents * 4 * MIB));
        }
        for more in [10_284 * MIB + 1, 11 * GIB, 100 * GIB] {
            assert_eq!(of_ten(more), Some(10_284 * MIB));
        }
        // `lvcreate -s -L 1G` of 64 MiB, on Debian 12 and 13.
        assert_eq!(made_size(GIB, 64 * MIB, 4 * KIB, 4 * MIB), Some(68 * MIB));
        for (chunk, extent) in [(0, 4 * MIB), (8, 4 * MIB), (4 * KIB, 0)] {
            assert_eq!(made_size(GIB, 64 * MIB, chunk, extent), None);
        }
        assert_eq!(made_size(GIB, u64::MAX, 4 * KIB, 4 * MIB), None);
    }
}
