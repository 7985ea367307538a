// SPDX-License-Identifier: MIT OR Apache-2.0
//! Of a thick snapshot: the kernel keeps a header at the beginning of the area for changes; a header of zeros is that of a new area
//! (Documentation/admin-guide/device-mapper/snapshot.rst, and it is all that `lvcreate` writes there). The kernel reads it when the
//! snapshot's table is loaded.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::{SECTOR, Store, Unusual, is_device, must};
use crate::config::guest::Snapshot;
use crate::dm::{Device, State, Table, device_number};

/// As much as `lvcreate` zeroes.
const HEADER: usize = 4096;
/// What the kernel writes down of a changed chunk, in bytes.
const EXCEPTION: u64 = 16;
/// There as long as dmeventd runs.
const DMEVENTD: &str = "/run/dmeventd.pid";

/// The area for changes.
pub(super) struct Area {
    device: Device,
    /// Sectors in use of one in which there is nothing yet: the header, and the first list of changes.
    empty: u64,
}

impl Store<'_> {
    /// That a thick snapshot, with so many sectors in use of so many, is the one to be had, and nothing else.
    pub(super) fn prove_thick(
        &self,
        snapshot: &Snapshot,
        device: &Device,
        table: &Table,
        (used, total): (u64, u64),
    ) -> Result<Area, Unusual> {
        let wanted = snapshot.size.ok_or(Unusual::Not("it has no size"))?;
        // It warns, and has the snapshot extended, from half of it on, once for each twentieth; only LVM tells it of a new one.
        let is_watched = used >= total / 2 && Path::new(DMEVENTD).exists();
        must(!is_watched, "dmeventd has seen it half full")?;
        let parameters: Vec<&str> = table.parameters.split(' ').collect();
        let ("snapshot", [origin, area, "P" | "PO", chunk]) = (table.kind.as_str(), &parameters[..]) else {
            return Err(Unusual::Not("its table is unusual"));
        };
        let chunk: u64 = chunk.parse().map_err(|_| Unusual::Not("its table is unusual"))?;
        let base = self.origin_is_idle(snapshot)?;
        self.is_layer(&base, "-real", origin, "it is a snapshot of something else")?;
        let area = self.is_layer(device, "-cow", area, "its changes are elsewhere")?;
        // By the snapshot itself.
        must(area.open_count == 1, "the area of its changes is in use")?;
        let metadata = self.metadata(snapshot, area.number, "the area of its changes is of several parts")?;
        let [volume, origin] = self.volumes(snapshot, &metadata, (device, Some(&base)))?;
        must(volume.size == total * SECTOR, "LVM knows it otherwise")?;
        let made = made_size(wanted.bytes(), origin.size, chunk * SECTOR, metadata.extent_size);
        must(made == Some(volume.size), "the guest's file wants another size")?;
        Ok(Area {
            device: area,
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

    /// Nobody has the origin open: what is written to it in the very moment could be in the snapshot or not.
    pub(super) fn origin_is_idle(&self, snapshot: &Snapshot) -> Result<Device, Unusual> {
        let origin = self.device(&snapshot.origin.dm_name())?;
        let is_origin = origin.state == State::SnapshotOrigin && origin.open_count == 0;
        must(is_origin, "its origin is in use")?;
        Ok(origin)
    }

    /// Nothing has been kept yet.
    pub(super) fn is_empty(&self, snapshot: &Snapshot, area: &Area) -> Result<(), Unusual> {
        let state = self.device(&snapshot.volume.dm_name())?.state;
        let is_fresh = matches!(state, State::Snapshot { used, .. } if used <= area.empty);
        must(is_fresh, "it is not empty")
    }
}

/// Zeroes the header of the area, past the cache. The kernel lets only one have it open this way (O_EXCL): no snapshot has it.
pub(super) fn forget(area: &Area) -> Result<(), Unusual> {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(nix::libc::O_DIRECT | nix::libc::O_EXCL)
        .open(Path::new("/dev/mapper").join(&area.device.name))?;
    must(
        is_device(&file, area.device.number)?,
        "the path of its changes leads elsewhere",
    )?;
    let buffer = [0; 2 * HEADER];
    let skip = buffer.as_ptr().align_offset(HEADER);
    file.write_all_at(&buffer[skip..skip + HEADER], 0)?;
    Ok(())
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
