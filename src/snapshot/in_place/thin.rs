// SPDX-License-Identifier: MIT OR Apache-2.0
//! Of a thin snapshot: the kernel knows a thin volume by a number in its pool. That one is deleted, and a snapshot of the origin made
//! under the same number (Documentation/admin-guide/device-mapper/thin-provisioning.rst). The kernel writes each of the two to the disk
//! before it says that it is done, but does not say if it could not: then a power cut takes it back. LVM counts its changes of a pool in
//! it, and this is none of them: the count stays.
//!
//! Who is killed between the two leaves a number of which the kernel knows nothing. LVM removes such a volume as any other, and an
//! inactive one, after a power cut, as well.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::{LOOK, Proven, SECTOR, Store, Unusual, at_rest, is_device, must, uuid};
use crate::base::fail_point;
use crate::config::guest::Snapshot;
use crate::dm::{self, By, Device, State, Table, device_number};
use crate::lvm2_cmd::{LogicalVolume, Metadata};
use crate::snapshot::device::LOOK_AGAIN;
use crate::snapshot::holders::{self, Holder};
use crate::snapshot::{Error, lock};

/// What a device that is read past the cache wants addresses and lengths to be multiples of.
const BLOCK: usize = 4096;

/// What a pool says that has failed.
const FAILED: Errno = Errno::EINVAL;
/// What a pool says that is read-only, or out of space for its metadata.
const READ_ONLY: Errno = Errno::EOPNOTSUPP;

/// A pool, as both know it.
struct Pool {
    device: Device,
    state: dm::Pool,
    /// LVM's name of it.
    name: String,
    metadata: Metadata,
}

/// Where a thin snapshot is.
pub(super) struct Place {
    pool: Device,
    number: u64,
    /// Its origin's number.
    origin: u64,
    /// The origin's device, if it is active.
    device: Option<Device>,
}

impl Store<'_> {
    /// That a thin snapshot is the one to be had, and nothing else, and that its pool is well.
    pub(super) fn prove_thin(&self, snapshot: &Snapshot, device: &Device, table: &Table) -> Result<Place, Unusual> {
        let (pool, number) = numbers(table)?;
        let Pool {
            device: pool,
            state,
            name,
            metadata,
        } = self.pool(snapshot, pool)?;
        must(state.writable && state.is_settled, "its pool wants to be looked at")?;
        let limit = self.config.thin_pool_limit;
        must(
            state.data_percent.max(state.metadata_percent) <= limit,
            "its pool is over its limit",
        )?;
        let [volume, base] = self.volumes(snapshot, &metadata, (device, None))?;
        let thin = |volume: &LogicalVolume| metadata.thin.get(&volume.name).filter(|thin| thin.is_plain);
        let (Some(own), Some(origin)) = (thin(volume), thin(base)) else {
            return Err(Unusual::Not("LVM knows it otherwise"));
        };
        must(
            own.pool == name && origin.pool == name && own.device == number,
            "LVM knows it otherwise",
        )?;
        // It is deleted by its number.
        must(metadata.is_alone(own), "LVM knows others of its number")?;
        must(volume.size == table.sectors * SECTOR, "LVM knows it otherwise")?;
        must(volume.size == base.size, "its origin has another size")?;
        let is_target = |name: &String| *name == base.name || *name == volume.name;
        let is_merged = metadata
            .thin
            .values()
            .any(|thin| thin.merged_into.as_ref().is_some_and(is_target));
        must(!is_merged, "a snapshot is merged into its origin")?;
        let table = |number| Table {
            parameters: format!("{} {number}", table.parameters.split(' ').next().unwrap_or_default()),
            ..table.clone()
        };
        must(is_counted(device)?, "the kernel does not count what is written to it")?;
        let device = self.active_origin(snapshot, &uuid(&metadata, base), &table(origin.device))?;
        Ok(Place {
            number,
            origin: origin.device,
            device,
            pool,
        })
    }

    /// A pool of which LVM and the kernel know the same: no change of it was begun.
    fn pool(&self, snapshot: &Snapshot, number: u64) -> Result<Pool, Unusual> {
        let device = self.dm.find(By::Number(number))?;
        let device = at_rest(device.ok_or(Unusual::Not("its pool is missing"))?)?;
        let State::ThinPool(state) = device.state.clone() else {
            return Err(Unusual::Not("its pool is none"));
        };
        let parts = self.dm.table(By::Number(number))?;
        let parts = parts.filter(|table| table.kind == "thin-pool");
        let first = parts.as_ref().and_then(|table| table.parameters.split(' ').next());
        let first = first.and_then(device_number).ok_or(Unusual::Not("its pool is none"))?;
        let metadata = self.metadata(snapshot, first, "the metadata of its pool is of several parts")?;
        let is_it = |volume: &&LogicalVolume| device.uuid == format!("{}-tpool", uuid(&metadata, volume));
        let name = metadata.volumes.iter().find(is_it).map(|volume| volume.name.clone());
        let name = name.ok_or(Unusual::Not("LVM knows another pool"))?;
        let is_told = metadata
            .pools
            .get(&name)
            .is_some_and(|known| !known.has_messages && known.transaction == state.transaction);
        must(is_told, "a change of its pool was begun")?;
        Ok(Pool {
            device,
            state,
            name,
            metadata,
        })
    }

    /// The device of the origin, if it has one: it has that table, and nobody has it open.
    fn active_origin(&self, snapshot: &Snapshot, uuid: &str, table: &Table) -> Result<Option<Device>, Unusual> {
        let Some(device) = self.dm.find(By::Uuid(uuid))? else {
            let layer = self.dm.find(By::Uuid(&format!("{uuid}-real")))?;
            must(layer.is_none(), "its origin is an origin otherwise, too")?;
            return Ok(None);
        };
        let device = at_rest(device)?;
        must(device.name == snapshot.origin.dm_name(), "its origin has another name")?;
        must(
            self.dm.table(By::Number(device.number))?.as_ref() == Some(table),
            "its origin is an origin otherwise, too",
        )?;
        must(!self.stays_open(&device)?, "its origin is in use")?;
        Ok(Some(device))
    }

    /// Whether a device is in use. To have gone on after it was suspended is an event for udev, whose programs then look at it.
    fn stays_open(&self, device: &Device) -> Result<bool, Unusual> {
        let until = Instant::now() + LOOK;
        loop {
            let now = self.dm.find(By::Number(device.number))?;
            if now.is_none_or(|device| device.open_count == 0) {
                return Ok(false);
            }
            let is_look = |holder: &Holder| matches!(holder, Holder::Process { .. });
            if Instant::now() >= until || !holders::find(device).iter().all(is_look) {
                return Ok(true);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Lets the origin go on if a reset in place was killed while it was suspended. LVM makes no snapshot of it as long as it is.
    pub(in crate::snapshot) fn thin_origin_goes_on(&self, snapshot: &Snapshot) -> Result<(), Error> {
        let find = || self.dm.find(By::Name(&snapshot.origin.dm_name()));
        let is_left = |origin: &Device| origin.suspended && !origin.changing && origin.state == State::Thin;
        if !find()?.is_some_and(|origin| is_left(&origin)) {
            return Ok(());
        }
        // An LVM command that is just at work has it go on by itself.
        let Ok(Some(_lvm)) = lock::lvms(&snapshot.volume.vg) else {
            return Ok(());
        };
        if let Some(origin) = find()?.filter(is_left)
            && self.is_left_by_a_reset(snapshot, &origin)
        {
            self.dm.resume(By::Uuid(&origin.uuid))?;
            self.step(snapshot, "resumed", "let the suspended origin go on for");
        }
        Ok(())
    }

    /// Whether it can have been a reset in place that has left a thin origin suspended. An LVM command that was killed has begun a change
    /// of the pool, which LVM is to end.
    fn is_left_by_a_reset(&self, snapshot: &Snapshot, origin: &Device) -> bool {
        let table = self.dm.table(By::Number(origin.number)).ok().flatten();
        let pool = table.and_then(|table| numbers(&table).ok());
        pool.is_some_and(|(pool, _)| self.pool(snapshot, pool).is_ok_and(|pool| pool.metadata.is_ordinary))
    }

    /// Deletes what the pool has of the snapshot, and makes one of the same number.
    pub(super) fn forget(&self, snapshot: &Snapshot, proven: &Proven, place: &Place) -> Result<(), Unusual> {
        let pool = By::Uuid(&place.pool.uuid);
        let delete = format!("delete {}", place.number);
        let create = format!("create_snap {} {}", place.number, place.origin);
        let deleted = self.dm.tell(pool, &delete);
        deleted.map_err(|error| self.not_deleted(snapshot, proven, error))?;
        fail_point::reach("snapshot.deleted");
        let make = || self.dm.tell(pool, &create);
        let made = match &place.device {
            None => make(),
            Some(origin) => self.dm.while_suspended(By::Uuid(&origin.uuid), || {
                fail_point::reach("snapshot.suspended");
                let made = make();
                fail_point::reach("snapshot.snapped");
                made
            })?,
        };
        made.map_err(|error| match error.errno() {
            Some(FAILED | READ_ONLY) => Unusual::LeftAlone(broken(snapshot)),
            _ => error.into(),
        })
    }

    /// What comes of it if the pool did not delete the number: only what is not there any more is for LVM to remove. All else LVM could
    /// not do, either: it would count the removal in its metadata, fail, and do nothing more with the pool from then on. So the device
    /// gets its table, and if it does not, it is left alone all the same.
    fn not_deleted(&self, snapshot: &Snapshot, proven: &Proven, error: dm::Error) -> Unusual {
        let errno = error.errno();
        if errno == Some(Errno::ENODATA) {
            return error.into();
        }
        let _ = self.undo(proven);
        Unusual::LeftAlone(match errno {
            // Another device has the same number, by hand.
            Some(Errno::EBUSY) => Error::InUse {
                volume: snapshot.volume.clone(),
                holders: Vec::new(),
                waited: Duration::ZERO,
            },
            Some(FAILED | READ_ONLY) => broken(snapshot),
            _ => error.into(),
        })
    }
}

fn broken(snapshot: &Snapshot) -> Error {
    Error::PoolBroken {
        origin: snapshot.origin.clone(),
    }
}

/// The pool's device, and the number in the pool, that the table of a thin volume names.
fn numbers(table: &Table) -> Result<(u64, u64), Unusual> {
    let parameters: Vec<&str> = table.parameters.split(' ').collect();
    // A third one would be an origin outside of the pool.
    let ("thin", [pool, number]) = (table.kind.as_str(), &parameters[..]) else {
        return Err(Unusual::Not("its table is unusual"));
    };
    let both = device_number(pool).zip(number.parse().ok());
    both.ok_or(Unusual::Not("its table is unusual"))
}

/// What was ever written to a device and discarded of it, by the kernel's count (Documentation/block/stat.rst). A thin volume has no
/// count of its own of what it does not share.
pub(super) fn written(device: &Device) -> Result<[u64; 4], Unusual> {
    let counts = counts(device)?;
    Ok([4, 6, 11, 13].map(|field| counts.get(field).copied().unwrap_or_default()))
}

/// Whether the kernel counts what it does with a device: whoever switches that off does so in other places in each version of it.
fn is_counted(device: &Device) -> Result<bool, Unusual> {
    let reads = || Ok::<_, Unusual>(counts(device)?.first().copied());
    let before = reads()?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_DIRECT)
        .open(Path::new("/dev/mapper").join(&device.name))?;
    must(is_device(&file, device.number)?, "its path leads elsewhere")?;
    let mut buffer = [0; 2 * BLOCK];
    let skip = buffer.as_ptr().align_offset(BLOCK);
    file.read_exact_at(&mut buffer[skip..skip + BLOCK], 0)?;
    Ok(reads()? > before)
}

fn counts(device: &Device) -> Result<Vec<u64>, Unusual> {
    let (major, minor) = (
        nix::sys::stat::major(device.number),
        nix::sys::stat::minor(device.number),
    );
    let text = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat"))?;
    Ok(text
        .split_ascii_whitespace()
        .map_while(|count| count.parse().ok())
        .collect())
}
