// SPDX-License-Identifier: MIT OR Apache-2.0
//! A logical volume in the making. It has another name until it is whole, and a tag that says what it was going to be; so the
//! next run knows what one that was killed has left, and a lock says that it is none that runs.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::libc;

use crate::base::fail_point;
use crate::config::types::{LvmName, Size, Volume};
use crate::dm::{By, DeviceMapper, State};
use crate::file::lock::{Attempt, Lock, take};
use crate::image::create::error::Error;
use crate::lvm2_cmd::{self, Failure, Group, LogicalVolume, Selection};
use crate::snapshot;
use crate::snapshot::lock::lock;

/// Before the name that a volume gets when it is whole.
const TAG: &str = "ttvm.unfinished=";
/// Behind it, as long as it is not.
const SUFFIX: &str = ".ttvm-new";
const LOCKS: &str = "/run/lock/ttvm/create";
/// How long it is waited for udev, which looks into each device that was open for writing.
const SETTLE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What is to be made.
#[derive(Debug)]
pub(in crate::image::create) struct Wanted<'a> {
    pub(in crate::image::create) volume: &'a Volume,
    pub(in crate::image::create) pool: Option<&'a LvmName>,
    pub(in crate::image::create) size: Size,
    /// How full the pool may be, in percent.
    pub(in crate::image::create) pool_limit: u8,
    /// How long to wait for another ttvm that works on the group.
    pub(in crate::image::create) limit: Duration,
}

/// A volume that is not yet whole; dropped, it is removed.
#[derive(Debug)]
pub(in crate::image::create) struct Unfinished<'a> {
    wanted: &'a Wanted<'a>,
    volume: Volume,
    uuid: String,
    finished: bool,
    _lock: Lock,
}

impl Wanted<'_> {
    fn temporary(&self) -> Result<Volume, Error> {
        let name = format!("{}{SUFFIX}", self.volume.lv);
        Ok(Volume {
            vg: self.volume.vg.clone(),
            lv: name.parse().map_err(|_| Error::LongName(self.volume.clone()))?,
        })
    }

    fn tag(&self) -> String {
        format!("{TAG}{}", self.volume.lv)
    }

    /// The group, unless the volume is there or the group has no room for it.
    pub(in crate::image::create) fn examine(&self) -> Result<Group, Error> {
        let vg = &self.volume.vg;
        let group = lvm2_cmd::report(vg).map_err(Failure::to("examine the group of", self.volume))?;
        let group = group.ok_or_else(|| Error::NoGroup(vg.clone()))?;
        if !group.lock_type.is_empty() && group.lock_type != "none" {
            let lock_type = group.lock_type;
            return Err(snapshot::Error::Shared {
                vg: vg.clone(),
                lock_type,
            }
            .into());
        }
        let named = |name: &str| group.volumes.iter().find(|volume| volume.name == name);
        if named(self.volume.lv.as_str()).is_some() {
            return Err(Error::Exists(self.volume.to_string()));
        }
        // A thin one takes nothing of the group itself.
        let left = self
            .left(&group)?
            .filter(|left| left.segtype != "thin")
            .map_or(0, |left| left.size);
        match self.pool {
            Some(pool) if named(pool.as_str()).is_none_or(|found| found.segtype != "thin-pool") => {
                let (vg, lv) = (vg.clone(), pool.clone());
                Err(Error::NoPool(Volume { vg, lv }))
            }
            Some(_) => Ok(group),
            None if self.size.bytes() > group.free + left => Err(Error::GroupFull {
                vg: vg.clone(),
                free: Size::from_bytes(group.free + left),
                need: self.size,
            }),
            None => Ok(group),
        }
    }

    /// Refuses what would fill the pool: it gives room when it is written, and once it is full, all its volumes stand still.
    /// What a run that was killed has left there goes before.
    pub(in crate::image::create) fn fits(&self, group: &Group, need: u64) -> Result<(), Error> {
        let Some(pool) = self.pool else { return Ok(()) };
        let found = group.volumes.iter().find(|volume| volume.name == pool.as_str());
        let (Some(found), None) = (found, self.left(group)?) else {
            return Ok(());
        };
        let (vg, lv) = (self.volume.vg.clone(), pool.clone());
        let pool = Volume { vg, lv };
        let dm = DeviceMapper::open().map_err(|error| Error::Lock(error.into()))?;
        // With volumes in it, it is a layer below the one that has its name.
        for name in [format!("{}-tpool", pool.dm_name()), pool.dm_name()] {
            let device = dm.find(By::Name(&name)).map_err(|error| Error::Lock(error.into()))?;
            let Some(State::ThinPool(state)) = device.map(|device| device.state) else {
                continue;
            };
            let limit = self.pool_limit;
            let left = match state.writable && state.metadata_percent <= limit {
                true => limit.saturating_sub(state.data_percent),
                false => 0,
            };
            let free = found.size / 100 * u64::from(left);
            return match need <= free {
                true => Ok(()),
                false => Err(Error::PoolFull {
                    pool,
                    free: Size::from_bytes(free),
                    limit,
                    need: Size::from_bytes(need.next_multiple_of(1 << 20)),
                }),
            };
        }
        Ok(())
    }

    /// What a run that was killed has left.
    fn left<'g>(&self, group: &'g Group) -> Result<Option<&'g LogicalVolume>, Error> {
        let temporary = self.temporary()?;
        let found = group.volumes.iter().find(|volume| volume.name == temporary.lv.as_str());
        match found {
            Some(found) if !found.tags.contains(&self.tag()) => Err(Error::InTheWay(temporary)),
            found => Ok(found),
        }
    }

    /// Removes it; LVM sees to it that it is this one, and no snapshot or origin.
    fn remove(&self, temporary: &Volume, uuid: &str, is_thin: bool) -> Result<(), Error> {
        let selection = Selection::uuid(uuid).tag(&self.tag());
        let selection = match is_thin {
            true => selection.thin(),
            false => selection.plain(),
        };
        lvm2_cmd::remove(temporary, &selection).map_err(Failure::to("remove", temporary))?;
        Ok(())
    }

    /// Makes it, under its temporary name; so many bytes of it will be written.
    pub(in crate::image::create) fn make(&self, need: u64) -> Result<Unfinished<'_>, Error> {
        let temporary = self.temporary()?;
        let path = Path::new(LOCKS).join(temporary.dm_name());
        let failed = |source| Error::Image {
            action: "lock",
            path: path.clone(),
            source,
        };
        let Attempt::Taken(own) = take(&path).map_err(failed)? else {
            return Err(Error::Busy(self.volume.clone()));
        };
        let _group = lock(&self.volume.vg, self.limit)?;
        let mut group = self.examine()?;
        if let Some(left) = self.left(&group)? {
            tracing::info!(ttvm_lv = %temporary, "removing {temporary}, which a run that was killed has left");
            self.settle(&temporary)?;
            self.remove(&temporary, &left.uuid, left.segtype == "thin")?;
            group.volumes.retain(|volume| volume.name != temporary.lv.as_str());
        }
        self.fits(&group, need)?;
        fail_point::reach("create.volume");
        let tags = ["ttvm".to_owned(), self.tag()];
        lvm2_cmd::create_volume(&temporary, self.size, self.pool, &tags).map_err(Failure::to("make", &temporary))?;
        let volumes = lvm2_cmd::volumes(&temporary.vg).map_err(Failure::to("examine", &temporary))?;
        let made = volumes.into_iter().find(|volume| volume.name == temporary.lv.as_str());
        let made = made.ok_or_else(|| Error::InTheWay(temporary.clone()))?;
        fail_point::reach("create.volume-made");
        Ok(Unfinished {
            wanted: self,
            volume: temporary,
            uuid: made.uuid,
            finished: false,
            _lock: own,
        })
    }

    /// Waits until nobody has the volume open; LVM says it if somebody still has.
    fn settle(&self, volume: &Volume) -> Result<(), Error> {
        let dm = DeviceMapper::open().map_err(|error| Error::Lock(error.into()))?;
        let until = Instant::now() + SETTLE;
        let is_open = || -> Result<bool, Error> {
            let device = dm
                .find(By::Name(&volume.dm_name()))
                .map_err(|error| Error::Lock(error.into()))?;
            Ok(device.is_some_and(|device| device.open_count > 0))
        };
        // The kernel has no event for a block device being closed.
        while is_open()? && Instant::now() < until {
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

impl Unfinished<'_> {
    /// `/dev/VG/LV`, which leads to this volume and no other.
    pub(in crate::image::create) fn device(&self) -> Result<String, Error> {
        let path = self.volume.device();
        let data = fs::metadata(&path).map_err(|source| Error::Image {
            action: "look at",
            path: path.clone().into(),
            source,
        })?;
        self.check(data.rdev())?;
        Ok(path)
    }

    /// A name in /dev can be out of date.
    fn check(&self, number: u64) -> Result<(), Error> {
        let dm = DeviceMapper::open().map_err(|error| Error::Lock(error.into()))?;
        let device = dm
            .find(By::Name(&self.volume.dm_name()))
            .map_err(|error| Error::Lock(error.into()))?;
        match device.is_some_and(|device| device.number == number) {
            true => Ok(()),
            false => Err(Error::InTheWay(self.volume.clone())),
        }
    }

    /// Opens the device, so that nobody mounts it meanwhile.
    pub(in crate::image::create) fn open(&self) -> Result<File, Error> {
        let path = self.volume.device();
        let failed = |source| Error::Image {
            action: "open",
            path: path.clone().into(),
            source,
        };
        self.wanted.settle(&self.volume)?;
        let mut file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_EXCL)
            .open(&path)
            .map_err(failed)?;
        self.check(file.metadata().map_err(failed)?.rdev())?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(file)
    }

    /// Gives it its name. A tag that stays means nothing: it is one of the other name.
    pub(in crate::image::create) fn finish(mut self) -> Result<(), Error> {
        let wanted = self.wanted;
        let _group = lock(&wanted.volume.vg, wanted.limit)?;
        lvm2_cmd::rename(&self.volume, &wanted.volume.lv).map_err(Failure::to("rename", &self.volume))?;
        self.finished = true;
        fail_point::reach("create.volume-named");
        let tags = ["ttvm".to_owned(), wanted.tag()];
        if let Err(error) = lvm2_cmd::remove_tags(wanted.volume, &tags) {
            // It is whole, and has its name.
            let why = crate::base::error::one_line(&error);
            tracing::warn!(ttvm_lv = %wanted.volume, "{} is made, but still has the tag {}: {why}", wanted.volume, wanted.tag());
        }
        Ok(())
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let removed = lock(&self.volume.vg, self.wanted.limit)
            .map_err(Error::from)
            .and_then(|_lock| {
                self.wanted.settle(&self.volume)?;
                self.wanted.remove(&self.volume, &self.uuid, self.wanted.pool.is_some())
            });
        if let Err(error) = removed {
            let why = crate::base::error::one_line(&error);
            tracing::warn!(ttvm_lv = %self.volume, "{} is left, and the next `ttvm image create` removes it: {why}", self.volume);
        }
    }
}
