// SPDX-License-Identifier: MIT OR Apache-2.0
//! The snapshot store: a fresh disk for each run, and nothing removed that is not provably ours.
//!
//! A snapshot that is there is emptied in its place ([`in_place`]). Otherwise a reset costs two LVM commands, the removal and the
//! creation. What else has to be known is asked of the kernel ([`crate::dm`]); what must hold of the old snapshot is part
//! of the removal itself ([`lvm2_cmd::Selection`]). Only when something is not as it should be is LVM asked for a report,
//! to say what.

mod device;
mod error;
mod examine;
mod fill;
pub mod holders;
mod in_place;
pub mod lock;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::base::error::one_line;
use crate::base::{fail_point, signals};
use crate::config::guest::Snapshot;
use crate::config::host::SnapshotConfig;
use crate::config::types::{GuestName, Size};
use crate::dm::{By, Device, DeviceMapper, State};
use crate::lvm2_cmd::{self, Failure, Group, Kind};
pub use error::{Error, Refusal};
use examine::Place;
pub use examine::guest_of;
pub use fill::Fill;

/// There on hosts that run LVM's lock manager.
const LVMLOCKD: &str = "/run/lvm/lvmlockd.socket";

/// The snapshots of one guest.
pub struct Store<'a> {
    guest: GuestName,
    snapshots: Vec<Snapshot>,
    config: &'a SnapshotConfig,
    dm: DeviceMapper,
}

impl<'a> Store<'a> {
    /// The store of a guest's snapshots.
    pub fn open(guest: &GuestName, snapshots: Vec<Snapshot>, config: &'a SnapshotConfig) -> Result<Self, Error> {
        Ok(Self {
            guest: guest.clone(),
            snapshots,
            config,
            dm: DeviceMapper::open()?,
        })
    }

    /// Removes what an earlier run left and makes every snapshot new.
    pub fn reset(&self) -> Result<(), Error> {
        for snapshot in &self.snapshots {
            let _lock = lock::lock(&snapshot.volume.vg, self.config.lock_timeout)?;
            let _deferred = signals::defer();
            self.step(snapshot, "locked", "resetting");
            let renewed = self.renew(snapshot);
            // Whether it could be made or not.
            let runs = self.origin_runs(snapshot);
            renewed.and(runs)?;
        }
        Ok(())
    }

    fn renew(&self, snapshot: &Snapshot) -> Result<(), Error> {
        if Path::new(LVMLOCKD).exists() {
            // Without it, LVM itself refuses a shared group; with it, it would not.
            self.examine(snapshot)?;
        }
        self.thin_origin_goes_on(snapshot)?;
        match self.dm.find(By::Name(&snapshot.volume.dm_name()))? {
            Some(device) => {
                self.path_is_ours(snapshot, Some(&device))?;
                self.device_is_free(snapshot, &device, self.config.busy_timeout)?;
                if self.is_emptied(snapshot)? {
                    return Ok(());
                }
                self.remove(snapshot)?;
            }
            None => self.path_is_ours(snapshot, None)?,
        }
        // LVM makes no snapshot of it as long as it is suspended.
        self.origin_runs(snapshot)?;
        self.create(snapshot)
    }

    /// Makes the snapshot fresh in its place, if that can be done.
    fn is_emptied(&self, snapshot: &Snapshot) -> Result<bool, Error> {
        match self.empty(snapshot) {
            Ok(()) => Ok(true),
            Err(in_place::Unusual::LeftAlone(why)) => Err(why),
            Err(unusual) => {
                tracing::info!(
                    ttvm_guest = %self.guest,
                    ttvm_lv = %snapshot.volume,
                    "{} is not emptied in its place: {}",
                    snapshot.volume,
                    one_line(&unusual)
                );
                Ok(false)
            }
        }
    }

    /// Removes every snapshot that is there. One that cannot be removed does not stand in the way of the others; the
    /// first error is returned.
    pub fn discard(&self) -> Result<(), Error> {
        let discard = |snapshot: &Snapshot| {
            let _lock = lock::lock(&snapshot.volume.vg, self.config.lock_timeout)?;
            let _deferred = signals::defer();
            let removed = self.remove(snapshot);
            let runs = self.origin_runs(snapshot);
            removed.and(runs)
        };
        let results: Vec<_> = self.snapshots.iter().map(discard).collect();
        results.into_iter().collect()
    }

    /// Waits for LVM commands that are still at work on the groups: an orphan of a ttvm that was killed must not be
    /// killed in turn, since it may hold an origin suspended. LVM's report takes LVM's own lock.
    pub fn settle(&self) {
        for snapshot in &self.snapshots {
            drop(self.group(snapshot));
        }
    }

    /// An LVM command, or a reset in place, that was killed may have left the origin suspended, and with it all guests that use it.
    fn origin_runs(&self, snapshot: &Snapshot) -> Result<(), Error> {
        match self.dm.find(By::Name(&snapshot.origin.dm_name()))? {
            Some(origin) if origin.suspended => {
                self.step(snapshot, "refreshing", "letting the suspended origin go on for");
                lvm2_cmd::refresh(&snapshot.origin).map_err(self.lvm("let go on the origin of", snapshot))
            }
            _ => Ok(()),
        }
    }

    /// What [`reset`](Self::reset) would do, in words; `Err` is what it would be refused for.
    pub fn plan_reset(&self) -> Result<Vec<String>, Error> {
        let mut plan = Vec::new();
        for snapshot in &self.snapshots {
            if self.prove(snapshot).is_ok() {
                plan.push(format!(
                    "make {}, a snapshot of {}, fresh in its place",
                    snapshot.volume, snapshot.origin
                ));
                continue;
            }
            let removal = self.plan_removal(snapshot)?;
            let kind = self.kind(snapshot)?;
            if removal.is_none() {
                self.path_is_ours(snapshot, None)?;
                if let Some(full) = self.no_space(snapshot, kind, &self.group(snapshot)?) {
                    return Err(full);
                }
            }
            plan.extend(removal);
            plan.push(match kind {
                Kind::Thick(size) => format!(
                    "create {} as a snapshot of {} with {size} for changes",
                    snapshot.volume, snapshot.origin
                ),
                Kind::Thin => format!("create {} as a thin snapshot of {}", snapshot.volume, snapshot.origin),
            });
        }
        Ok(plan)
    }

    /// What [`discard`](Self::discard) would do, in words; `Err` is what it would be refused for.
    pub fn plan_discard(&self) -> Result<Vec<String>, Error> {
        let removals = self
            .snapshots
            .iter()
            .filter_map(|snapshot| self.plan_removal(snapshot).transpose());
        removals.collect()
    }

    fn plan_removal(&self, snapshot: &Snapshot) -> Result<Option<String>, Error> {
        let removal = match self.examine(snapshot)? {
            Some(Place::Ours(_)) => format!("remove {}", snapshot.volume),
            Some(Place::Free) | None => return Ok(None),
        };
        if let Some(device) = self.dm.find(By::Name(&snapshot.volume.dm_name()))? {
            self.path_is_ours(snapshot, Some(&device))?;
            self.device_is_free(snapshot, &device, Duration::ZERO)?;
        }
        Ok(Some(removal))
    }

    /// The device-mapper connection, to wait for events on.
    pub fn device_mapper(&self) -> &DeviceMapper {
        &self.dm
    }

    /// Says what happens to which volume, and lets a test stop us right there.
    fn step(&self, snapshot: &Snapshot, point: &str, what: &str) {
        self.reach(snapshot, point, what);
        signals::deliver();
    }

    /// The same where a signal to end would be untimely.
    fn reach(&self, snapshot: &Snapshot, point: &str, what: &str) {
        tracing::info!(
            ttvm_guest = %self.guest,
            ttvm_lv = %snapshot.volume,
            ttvm_origin = %snapshot.origin,
            ttvm_step = point,
            "{what} {} (snapshot of {})",
            snapshot.volume,
            snapshot.origin
        );
        fail_point::reach(&format!("snapshot.{point}"));
    }

    /// Removes the snapshot if it is there and ours.
    fn remove(&self, snapshot: &Snapshot) -> Result<(), Error> {
        let name = snapshot.volume.dm_name();
        let until = Instant::now() + self.config.busy_timeout;
        let mut ask = false;
        loop {
            let device = self.dm.find(By::Name(&name))?;
            if let Some(device) = &device {
                self.path_is_ours(snapshot, Some(device))?;
                self.device_is_free(snapshot, device, self.config.busy_timeout)?;
            }
            let selection = match &device {
                // The usual case: what else must hold, LVM itself sees to.
                Some(device) if !ask => {
                    let uuid = device.lv_uuid();
                    let uuid = uuid.ok_or_else(|| self.refused(snapshot, Refusal::NotLvm(name.clone())))?;
                    examine::complete(&uuid, &self.guest, snapshot)
                }
                _ => match self.examine(snapshot)? {
                    Some(Place::Ours(selection)) => selection,
                    Some(Place::Free) | None => return Ok(()),
                },
            };
            self.step(snapshot, "removing", "removing the old");
            let result = lvm2_cmd::remove(&snapshot.volume, &selection);
            if result.is_ok() && self.dm.find(By::Name(&name))?.is_none() {
                self.step(snapshot, "removed", "removed");
                return Ok(());
            }
            match result {
                // It is still there: half-made, or not ours? LVM's report tells.
                _ if !ask => ask = true,
                // Opened by somebody between our look and LVM's: udev's blkid does that.
                _ if Instant::now() < until => self.pause(),
                Ok(()) => {
                    return Err(Error::InUse {
                        volume: snapshot.volume.clone(),
                        holders: device.as_ref().map(holders::find).unwrap_or_default(),
                        waited: self.config.busy_timeout,
                    });
                }
                Err(source) => return Err(self.lvm("remove", snapshot)(source)),
            }
        }
    }

    fn create(&self, snapshot: &Snapshot) -> Result<(), Error> {
        let kind = self.kind(snapshot)?;
        let tags = examine::tags(&self.guest, snapshot);
        let attempt = || lvm2_cmd::create_snapshot(&snapshot.volume, &snapshot.origin.lv, kind, &tags);
        self.step(snapshot, "creating", "creating");
        if let Err(first) = attempt() {
            // The name may be taken by an inactive or half-made snapshot of ours; everything else is said as it is.
            let group = self.group(snapshot)?;
            let place = examine::examine(&group, &self.guest, snapshot)?;
            let swept = self.sweep(snapshot, &group)?;
            match place {
                Place::Ours(_) => self.remove(snapshot)?,
                Place::Free if swept => {}
                Place::Free => {
                    return Err(self
                        .no_space(snapshot, kind, &group)
                        .unwrap_or(self.lvm("create", snapshot)(first)));
                }
            }
            attempt().map_err(self.lvm("create", snapshot))?;
        }
        self.step(snapshot, "created", "created");
        let find = || self.dm.find(By::Name(&snapshot.volume.dm_name()));
        let mut device = find()?;
        if device.is_none() {
            // A thick snapshot of an inactive origin is made inactive, too.
            lvm2_cmd::activate(&snapshot.volume).map_err(self.lvm("activate", snapshot))?;
            device = find()?;
        }
        let leads_there =
            |device: &Device| fs::metadata(snapshot.volume.device()).is_ok_and(|data| data.rdev() == device.number);
        if device.as_ref().is_some_and(leads_there) {
            return Ok(());
        }
        Err(Error::NotThere {
            volume: snapshot.volume.clone(),
        })
    }

    /// Removes mappings of the snapshot's name whose volume LVM does not know any more. An `lvremove` or `lvcreate`
    /// that was killed leaves them, and LVM then fails to make the name again ("Manual intervention required").
    fn sweep(&self, snapshot: &Snapshot, group: &Group) -> Result<bool, Error> {
        let mut swept = false;
        for layer in ["", "-cow"] {
            let name = format!("{}{layer}", snapshot.volume.dm_name());
            let Some(device) = self.dm.find(By::Name(&name))? else {
                continue;
            };
            let Some(uuid) = device.layer_uuid(layer) else {
                continue;
            };
            let unknown = group.owns(&device.uuid) && group.volumes.iter().all(|volume| volume.uuid != uuid);
            if unknown && device.open_count == 0 {
                self.step(snapshot, "sweeping", "removing what a killed LVM command left of");
                lvm2_cmd::remove_mapping(&device.uuid).map_err(self.lvm("clear the way for", snapshot))?;
                swept = true;
            }
        }
        Ok(swept)
    }

    /// Whether the group is too full. LVM makes no snapshot larger than its origin can fill.
    fn no_space(&self, snapshot: &Snapshot, kind: Kind, group: &Group) -> Option<Error> {
        let Kind::Thick(size) = kind else { return None };
        let origin = group
            .volumes
            .iter()
            .find(|volume| volume.name == snapshot.origin.lv.as_str())?;
        let need = size.bytes().min(origin.size);
        (need > group.free).then(|| Error::NoSpace {
            volume: snapshot.volume.clone(),
            need: Size::from_bytes(need),
            free: group.free,
        })
    }

    /// Thick or thin, told from the origin, and whether its pool has room.
    fn kind(&self, snapshot: &Snapshot) -> Result<Kind, Error> {
        let origin = &snapshot.origin;
        let device = self.dm.find(By::Name(&origin.dm_name()))?;
        // A thick snapshot of a thin volume puts a layer in between.
        let device = match device {
            Some(Device {
                state: State::SnapshotOrigin,
                ..
            }) => self.dm.find(By::Name(&format!("{}-real", origin.dm_name())))?,
            other => other,
        };
        let thin = match device.as_ref().map(|device| &device.state) {
            Some(State::ThinFailed) => return Err(Error::PoolBroken { origin: origin.clone() }),
            Some(state) => *state == State::Thin,
            None => {
                let group = self.group(snapshot)?;
                let volume = group.volumes.iter().find(|volume| volume.name == origin.lv.as_str());
                volume
                    .ok_or_else(|| Error::NoOrigin { origin: origin.clone() })?
                    .segtype
                    == "thin"
            }
        };
        if !thin {
            return snapshot.size.map(Kind::Thick).ok_or_else(|| Error::NoSize {
                origin: origin.clone(),
                guest: self.guest.clone(),
            });
        }
        if let Some(device) = &device
            && let Some(pool) = self.dm.pool_of(device)?
        {
            if !pool.writable {
                return Err(Error::PoolBroken { origin: origin.clone() });
            }
            let limit = self.config.thin_pool_limit;
            for (what, percent) in [("data", pool.data_percent), ("metadata", pool.metadata_percent)] {
                if percent > limit {
                    return Err(Error::PoolFull {
                        origin: origin.clone(),
                        what,
                        percent,
                        limit,
                    });
                }
            }
        }
        self.size_is_not_used(snapshot);
        Ok(Kind::Thin)
    }

    /// Says so of a thin snapshot for which the guest's file has one.
    fn size_is_not_used(&self, snapshot: &Snapshot) {
        let origin = &snapshot.origin;
        if snapshot.size.is_some() {
            tracing::info!(
                ttvm_guest = %self.guest,
                ttvm_origin = %origin,
                "{origin} is a thin volume: the configured snapshot size is not used"
            );
        }
    }

    fn refused(&self, snapshot: &Snapshot, why: Refusal) -> Error {
        Error::Refused {
            volume: snapshot.volume.clone(),
            why: Box::new(why),
        }
    }

    fn lvm(&self, action: &'static str, snapshot: &Snapshot) -> impl FnOnce(lvm2_cmd::Error) -> Error {
        let failed = Failure::to(action, &snapshot.volume);
        move |source| failed(source).into()
    }

    fn group(&self, snapshot: &Snapshot) -> Result<Group, Error> {
        let vg = &snapshot.volume.vg;
        let group = lvm2_cmd::report(vg).map_err(self.lvm("examine", snapshot))?;
        group.ok_or_else(|| Error::NoGroup { vg: vg.clone() })
    }

    /// What is in the snapshot's place; `None` without the group.
    fn examine(&self, snapshot: &Snapshot) -> Result<Option<Place>, Error> {
        match self.group(snapshot) {
            Ok(group) => examine::examine(&group, &self.guest, snapshot).map(Some),
            Err(Error::NoGroup { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
