// SPDX-License-Identifier: MIT OR Apache-2.0
//! The seal of a logical volume: LVM's permission, and tags.
//!
//! The group is locked for what changes it, not while the content is read: guests start meanwhile.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::error::Error;
use super::seal::{Outcome, State};
use super::{Origin, interruptible};
use crate::base::progress::Progress;
use crate::base::{fail_point, signals};
use crate::config::types::{Size, Volume};
use crate::dm::{By, Device, DeviceMapper};
use crate::file::digest::{self, Digest};
use crate::lvm2_cmd::{self, Failure, LogicalVolume};
use crate::snapshot::lock::lock;
use crate::snapshot::{self, guest_of, holders};

/// Before the digest.
const DIGEST_TAG: &str = "ttvm.digest=";
/// Before the size in bytes that it is the digest of: a read-only volume can still be extended.
const SIZE_TAG: &str = "ttvm.size=";

/// How long it is waited for somebody who has the volume open: udev looks into each device that was open for writing.
const SETTLE: Duration = Duration::from_secs(2);
/// How often it is looked again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// All volumes of the group that `volume` is in.
pub(super) fn all(volume: &Volume) -> Result<Vec<LogicalVolume>, Error> {
    lvm2_cmd::volumes(&volume.vg).map_err(|source| match lvm2_cmd::report(&volume.vg) {
        Ok(None) => Error::NoGroup(volume.clone()),
        _ => Failure::to("examine", volume)(source).into(),
    })
}

/// Whether the volume is sealed, by what LVM says of its group and the kernel of itself.
pub(super) fn state(volume: &Volume, volumes: &[LogicalVolume]) -> Result<State, Error> {
    let found = find(volume, volumes)?;
    let device = DeviceMapper::open()?.find(By::Name(&volume.dm_name()))?;
    Ok(judge(found, device.as_ref()))
}

/// The digest of what is in it now.
pub(super) fn read(volume: &Volume, progress: &mut Progress<'_>) -> Result<Digest, Error> {
    let device = device(&DeviceMapper::open()?, volume)?;
    digest::of_file(&open(volume, &device)?, progress).map_err(unread(volume))
}

pub(super) fn plan_seal(volume: &Volume) -> Result<Vec<String>, Error> {
    let found = examine(volume)?;
    let dm = DeviceMapper::open()?;
    let device = device(&dm, volume)?;
    if let State::Sealed { .. } = judge(&found, Some(&device)) {
        return Ok(Vec::new());
    }
    free(&dm, volume, Duration::ZERO)?;
    let mut plan = Vec::new();
    if !our_tags(&found).is_empty() {
        plan.push(format!("take the old digest from {volume}"));
    }
    if !is_read_only(&found, &device) {
        plan.push(format!("make {volume} read-only"));
    }
    let size = Size::from_bytes(found.size);
    plan.push(format!("read {volume} ({size}) and keep the digest in its tags"));
    Ok(plan)
}

pub(super) fn seal(volume: &Volume, limit: Duration, progress: &mut Progress<'_>) -> Result<Outcome, Error> {
    let _deferred = signals::defer();
    let dm = DeviceMapper::open()?;
    let before = {
        let _lock = lock(&volume.vg, limit)?;
        let found = examine(volume)?;
        let device = device(&dm, volume)?;
        if let State::Sealed { digest } = judge(&found, Some(&device)) {
            return Ok(Outcome::Already(digest));
        }
        free(&dm, volume, SETTLE)?;
        let old = our_tags(&found);
        if !old.is_empty() {
            lvm2_cmd::remove_tags(volume, &old).map_err(Failure::to("take the old digest from", volume))?;
        }
        if !is_read_only(&found, &device) {
            lvm2_cmd::set_read_only(volume, true).map_err(Failure::to("make read-only", volume))?;
        }
        found
    };
    fail_point::reach("image.read-only");
    let result = read_and_tag(&dm, volume, &before, limit, progress);
    if result.is_err() && before.permissions != READ_ONLY {
        undo(volume, limit);
    }
    result.map(Outcome::Sealed)
}

/// The second half of sealing: the volume is read-only.
fn read_and_tag(
    dm: &DeviceMapper,
    volume: &Volume,
    before: &LogicalVolume,
    limit: Duration,
    progress: &mut Progress<'_>,
) -> Result<Digest, Error> {
    // The kernel lets a file system or a guest that was there before write on. From now on nobody can come.
    let device = free(dm, volume, SETTLE)?;
    let file = open(volume, &device)?;
    // What was written is on the disk, not in its cache: a power cut must not take it back.
    file.sync_all().map_err(Error::io("write out", volume.device()))?;
    let digest = digest::of_file(&file, &mut interruptible(progress)).map_err(unread(volume))?;
    fail_point::reach("image.digested");
    let _lock = lock(&volume.vg, limit)?;
    let now = examine(volume)?;
    let same = (&now.uuid, now.size) == (&before.uuid, before.size);
    let device = dm.find(By::Name(&volume.dm_name()))?;
    if !same || !device.is_some_and(|device| is_read_only(&now, &device)) {
        return Err(Error::Changed(Origin::Volume(volume.clone())));
    }
    let tags = [format!("{DIGEST_TAG}{digest}"), format!("{SIZE_TAG}{}", now.size)];
    lvm2_cmd::add_tags(volume, &tags).map_err(Failure::to("keep the digest with", volume))?;
    fail_point::reach("image.sealed");
    Ok(digest)
}

/// Makes a volume that was not sealed writable again, as it was.
fn undo(volume: &Volume, limit: Duration) {
    let undone = (|| {
        let _lock = lock(&volume.vg, limit)?;
        match examine(volume)?.permissions == READ_ONLY {
            true => {
                let failed = Failure::to("make writable", volume);
                lvm2_cmd::set_read_only(volume, false).map_err(|source| Error::from(failed(source)))
            }
            // Somebody else was first.
            false => Ok(()),
        }
    })();
    match undone {
        Ok(()) => tracing::info!(ttvm_lv = %volume, "{volume} is writable again"),
        Err(error) => {
            let why = crate::base::error::one_line(&error);
            tracing::warn!(ttvm_lv = %volume, "{volume} is still read-only (`ttvm image unseal {volume}`): {why}");
        }
    }
}

pub(super) fn plan_unseal(volume: &Volume) -> Result<Vec<String>, Error> {
    let found = examine(volume)?;
    let mut plan = Vec::new();
    if !our_tags(&found).is_empty() {
        plan.push(format!("take the digest from the tags of {volume}"));
    }
    if refuses_writes(&found) {
        plan.push(format!("make {volume} writable"));
    }
    Ok(plan)
}

pub(super) fn unseal(volume: &Volume, limit: Duration) -> Result<bool, Error> {
    let _deferred = signals::defer();
    let _lock = lock(&volume.vg, limit)?;
    let found = examine(volume)?;
    let tags = our_tags(&found);
    if !tags.is_empty() {
        lvm2_cmd::remove_tags(volume, &tags).map_err(Failure::to("take the digest from", volume))?;
    }
    fail_point::reach("image.untagged");
    if refuses_writes(&found) {
        lvm2_cmd::set_read_only(volume, false).map_err(Failure::to("make writable", volume))?;
    }
    Ok(!tags.is_empty() || refuses_writes(&found))
}

/// The volume in LVM's report, if it is one that can be sealed.
fn examine(volume: &Volume) -> Result<LogicalVolume, Error> {
    let group = lvm2_cmd::report(&volume.vg)
        .map_err(Failure::to("examine", volume))?
        .ok_or_else(|| Error::NoGroup(volume.clone()))?;
    if !group.lock_type.is_empty() && group.lock_type != "none" {
        return Err(Error::Lock(snapshot::Error::Shared {
            vg: volume.vg.clone(),
            lock_type: group.lock_type,
        }));
    }
    let found = find(volume, &group.volumes)?;
    if let Some(guest) = guest_of(found) {
        return Err(Error::Snapshot {
            volume: volume.clone(),
            guest: guest.to_owned(),
        });
    }
    if !found.is("public") {
        return Err(Error::Private {
            volume: volume.clone(),
            kind: found.segtype.clone(),
        });
    }
    Ok(found.clone())
}

fn find<'a>(volume: &Volume, volumes: &'a [LogicalVolume]) -> Result<&'a LogicalVolume, Error> {
    let mut volumes = volumes.iter();
    let found = volumes.find(|found| found.name == volume.lv.as_str());
    found.ok_or_else(|| Error::NoVolume(volume.clone()))
}

fn device(dm: &DeviceMapper, volume: &Volume) -> Result<Device, Error> {
    let device = dm.find(By::Name(&volume.dm_name()))?;
    device.ok_or_else(|| Error::NotActive(volume.clone()))
}

/// The device, once nobody has it open. Its snapshots do not count: they have what is under it open.
fn free(dm: &DeviceMapper, volume: &Volume, limit: Duration) -> Result<Device, Error> {
    let until = Instant::now() + limit;
    loop {
        let device = device(dm, volume)?;
        if device.open_count == 0 {
            return Ok(device);
        }
        if Instant::now() >= until {
            return Err(Error::InUse {
                origin: Origin::Volume(volume.clone()),
                holders: holders::find(&device),
            });
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Opens `/dev/VG/LV`, if that is this device.
fn open(volume: &Volume, device: &Device) -> Result<File, Error> {
    let path = volume.device();
    let file = File::open(&path).map_err(Error::io("open", &path))?;
    let data = file.metadata().map_err(Error::io("open", &path))?;
    match data.rdev() == device.number {
        true => Ok(file),
        false => Err(Error::ForeignPath(volume.clone())),
    }
}

const READ_ONLY: &str = "read-only";

/// Whether neither LVM nor the kernel lets it be written. An `lvchange` that was killed may have told the one only.
fn is_read_only(found: &LogicalVolume, device: &Device) -> bool {
    found.permissions == READ_ONLY && device.read_only
}

/// Whether LVM or the kernel lets nobody write it.
fn refuses_writes(found: &LogicalVolume) -> bool {
    found.permissions.starts_with(READ_ONLY)
}

fn our_tags(found: &LogicalVolume) -> Vec<String> {
    let ours = |tag: &&String| tag.starts_with(DIGEST_TAG) || tag.starts_with(SIZE_TAG);
    found.tags.iter().filter(ours).cloned().collect()
}

fn judge(found: &LogicalVolume, device: Option<&Device>) -> State {
    let broken = |why: &str| State::Broken { why: why.to_owned() };
    let values = |name: &str| -> Vec<&str> { found.tags.iter().filter_map(|tag| tag.strip_prefix(name)).collect() };
    let (digests, sizes) = (values(DIGEST_TAG), values(SIZE_TAG));
    let Some(first) = digests.first() else {
        return State::Unsealed;
    };
    if found.permissions != READ_ONLY {
        return broken("somebody made it writable");
    }
    if device.is_some_and(|device| !device.read_only) {
        return broken("the kernel still lets it be written");
    }
    if sizes != [found.size.to_string()] {
        return broken("its size has changed");
    }
    match first.parse() {
        Ok(digest) if digests.len() == 1 => State::Sealed { digest },
        Ok(_) => broken("it has several digests"),
        Err(_) => broken("its digest cannot be read"),
    }
}

fn unread(volume: &Volume) -> impl FnOnce(digest::Error) -> Error {
    let origin = Origin::Volume(volume.clone());
    move |source| Error::Digest { origin, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dm;

    const DIGEST: &str = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    fn verdict(tags: &[&str], permissions: &str, kernel: Option<bool>) -> State {
        let volume = LogicalVolume {
            name: "base".into(),
            uuid: "U".into(),
            size: 4096,
            tags: tags.iter().map(|tag| tag.replace("DIGEST", DIGEST)).collect(),
            roles: vec!["public".into()],
            origin: String::new(),
            segtype: "linear".into(),
            permissions: permissions.into(),
        };
        let device = kernel.map(|read_only| Device {
            name: "vg-base".into(),
            uuid: String::new(),
            number: 0,
            open_count: 0,
            suspended: false,
            changing: false,
            read_only,
            state: dm::State::Other("linear".into()),
        });
        judge(&volume, device.as_ref())
    }

    #[test]
    fn a_seal_holds_only_if_all_of_it_does() {
        let tags = ["other", "ttvm.digest=DIGEST", "ttvm.size=4096"];
        let digest = DIGEST.parse().expect("a digest");
        assert_eq!(verdict(&tags, "read-only", Some(true)), State::Sealed { digest });
        assert_eq!(verdict(&tags, "read-only", None), State::Sealed { digest });
        assert_eq!(verdict(&tags[..1], "read-only", Some(true)), State::Unsealed);
        let broken = |tags: &[&str], permissions, kernel| match verdict(tags, permissions, Some(kernel)) {
            State::Broken { why } => why,
            other => format!("{other:?}"),
        };
        assert_eq!(broken(&tags, "writeable", false), "somebody made it writable");
        assert_eq!(broken(&tags, "read-only-override", true), "somebody made it writable");
        assert_eq!(broken(&tags, "unknown", true), "somebody made it writable");
        assert_eq!(broken(&tags, "read-only", false), "the kernel still lets it be written");
        assert_eq!(broken(&tags[..2], "read-only", true), "its size has changed");
        let larger = [tags[1], "ttvm.size=8192"];
        assert_eq!(broken(&larger, "read-only", true), "its size has changed");
        let other = ["ttvm.digest=DIGEST", "ttvm.digest=blake3:0", "ttvm.size=4096"];
        assert_eq!(broken(&other, "read-only", true), "it has several digests");
        assert_eq!(broken(&other[1..], "read-only", true), "its digest cannot be read");
    }
}
