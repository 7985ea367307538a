// SPDX-License-Identifier: MIT OR Apache-2.0
//! LVM, and the groups and pools that guests' snapshots are made in.

use std::collections::BTreeSet;
use std::fs;

use super::host::rough;
use crate::config::guest::{DiskSource, Origin, Snapshot};
use crate::config::types::{Size, Volume};
use crate::doctor::answers::{Answers, Asked, Socket};
use crate::doctor::check::{Area, Check};
use crate::doctor::facts::Facts;
use crate::doctor::fix::{Dmeventd, Fix};
use crate::doctor::purpose::Need;
use crate::lvm2_cmd::overview::{Overview, ThinPool};

const AREA: Area = Area::Snapshots;

/// A pool fuller than this, in percent, is soon too full.
const POOL_NEARLY_FULL: u8 = 80;

/// Where the unit that starts dmeventd is enabled, by whoever runs the host or by the distribution.
const ENABLED: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

pub(in crate::doctor) fn check(facts: &Facts, answers: &Answers) -> Vec<Check> {
    if let Need::No(why) = facts.purpose.volumes {
        return vec![Check::skipped(AREA, "lvm", format!("not needed: {why}"))];
    }
    if !facts.has("lvm") {
        let sentence = "LVM is not installed, and guests here have disks on its volumes";
        return vec![Check::fail(AREA, "lvm", sentence, "install lvm2")];
    }
    let lvm = match &answers.lvm {
        Asked::Answer(lvm) => lvm,
        Asked::Failed(why) => {
            let sentence = format!("LVM cannot be asked: {why}");
            return vec![Check::fail(AREA, "lvm", sentence, "see what `vgs` and `lvs` say")];
        }
        Asked::Denied => {
            let sentence = "LVM answers root only";
            return vec![Check::warn(AREA, "lvm", sentence, "`sudo ttvm doctor`")];
        }
        Asked::Elsewhere | Asked::Nobody => {
            return vec![Check::skipped(AREA, "lvm", "the LVM of another system cannot be asked")];
        }
    };
    let mut checks = vec![Check::ok(AREA, "lvm", format!("LVM {} answers", lvm.version))];
    let names: BTreeSet<String> = volumes(facts).map(|volume| volume.vg.to_string()).collect();
    checks.extend(names.iter().map(|name| group(facts, lvm, name)));
    let pools = pools(facts, lvm);
    checks.extend(pools.iter().map(|pool| thin_pool(facts, pool)));
    checks.extend(autoextend(lvm, !thick(facts, lvm).is_empty(), &pools));
    if facts.right().any(|guest| guest.snapshots().next().is_some()) {
        checks.push(dmeventd(facts, answers, lvm, &pools));
    }
    checks
}

/// The volumes that guests' disks are made from.
fn volumes(facts: &Facts) -> impl Iterator<Item = &Volume> {
    let disks = facts.right().flat_map(|guest| &guest.disks);
    disks.filter_map(|disk| match &disk.source {
        DiskSource::Snapshot(snapshot) => Some(&snapshot.origin),
        DiskSource::Overlay(Origin::Volume(volume)) => Some(volume),
        _ => None,
    })
}

/// The snapshots that have an area of their own for what is written, and its size.
fn thick<'a>(facts: &'a Facts, lvm: &Overview) -> Vec<(&'a Snapshot, Size)> {
    let snapshots = facts.right().flat_map(|guest| guest.snapshots());
    let sized = snapshots.filter_map(|snapshot| {
        let (vg, lv) = (snapshot.origin.vg.as_str(), snapshot.origin.lv.as_str());
        let is_thin = lvm.thin.iter().any(|thin| thin.vg == vg && thin.lv == lv);
        Some((snapshot, snapshot.size?)).filter(|_| !is_thin)
    });
    sized.collect()
}

fn group(facts: &Facts, lvm: &Overview, name: &str) -> Check {
    const ID: &str = "group";
    let Some(group) = lvm.group(name) else {
        return Check::fail(
            AREA,
            ID,
            format!("there is no volume group {name}, which guests' disks are in"),
            format!("see that its disks are there (`pvs`), or make it (`vgcreate {name} DEVICE`)"),
        );
    };
    if !["", "none"].contains(&group.lock_type.as_str()) {
        return Check::fail(
            AREA,
            ID,
            format!(
                "the volume group {name} is shared with other hosts (lock type {})",
                group.lock_type
            ),
            "snapshots are made only in a group of this host alone: put guests' origins there",
        );
    }
    if let Some((_, missing)) = lvm.incomplete.iter().find(|(vg, _)| vg == name) {
        return Check::fail(
            AREA,
            ID,
            format!("the volume group {name} lacks {missing} of its disks"),
            format!("bring them back (`pvs`), or give them up (`vgreduce --removemissing {name}`)"),
        );
    }
    // Those that are there have their room already.
    let absent = thick(facts, lvm).into_iter().filter(|(snapshot, _)| {
        let lv = snapshot.volume.lv.as_str();
        snapshot.volume.vg.as_str() == name && !group.volumes.iter().any(|volume| volume.name == lv)
    });
    let absent: Vec<(&Snapshot, u64)> = absent.map(|(snapshot, size)| (snapshot, size.bytes())).collect();
    let need: u64 = absent.iter().map(|(_, size)| size).sum();
    let free = rough(group.free);
    let remedy = format!(
        "remove what is not needed (`lvs {name}`), add a disk (`vgextend {name} DEVICE`), or lower \"size\" of the snapshots"
    );
    if let Some((snapshot, size)) = absent.iter().find(|(_, size)| *size > group.free) {
        return Check::fail(
            AREA,
            ID,
            format!(
                "the volume group {name} has {free} free, and the snapshot {} takes {}",
                snapshot.volume,
                Size::from_bytes(*size)
            ),
            remedy,
        );
    }
    match need > group.free {
        true => Check::warn(
            AREA,
            ID,
            format!(
                "the volume group {name} has {free} free, and all guests' snapshots together take {} more",
                Size::from_bytes(need)
            ),
            remedy,
        ),
        false => Check::ok(AREA, ID, format!("the volume group {name} has {free} free")),
    }
}

/// The pools that guests' origins are in.
fn pools<'a>(facts: &Facts, lvm: &'a Overview) -> Vec<&'a ThinPool> {
    let mut pools: Vec<&ThinPool> = Vec::new();
    for volume in volumes(facts) {
        let pool = lvm.pool_of(volume.vg.as_str(), volume.lv.as_str());
        pools.extend(pool.filter(|pool| !pools.contains(pool)));
    }
    pools
}

fn thin_pool(facts: &Facts, pool: &ThinPool) -> Check {
    const ID: &str = "thin-pool";
    let name = format!("{}/{}", pool.vg, pool.lv);
    if !pool.health.is_empty() {
        return Check::fail(
            AREA,
            ID,
            format!("the thin pool {name} is broken ({})", pool.health),
            format!("make it larger if it is full (`lvextend`), else repair it (`lvconvert --repair {name}`)"),
        );
    }
    let (Some(data), Some(metadata)) = (pool.data_percent, pool.metadata_percent) else {
        return Check::warn(
            AREA,
            ID,
            format!("the thin pool {name} is not active: how full it is, is not known"),
            format!("`lvchange -ay {name}`"),
        );
    };
    let extend = match data >= metadata {
        true => format!("`lvextend -L +SIZE {name}`, or remove volumes that are not needed"),
        false => format!("`lvextend --poolmetadatasize +SIZE {name}`"),
    };
    let fill = format!("{data}% of its data and {metadata}% of its metadata");
    let fullest = data.max(metadata);
    if fullest > facts.config.snapshot.thin_pool_limit {
        let sentence = format!("the thin pool {name} is too full for another snapshot: {fill}");
        Check::fail(AREA, ID, sentence, extend)
    } else if fullest > POOL_NEARLY_FULL {
        Check::warn(AREA, ID, format!("the thin pool {name} is nearly full: {fill}"), extend)
    } else {
        Check::ok(AREA, ID, format!("the thin pool {name} has used {fill}"))
    }
}

/// Whether what is nearly full is made larger, and whether somebody is there who does it.
fn autoextend(lvm: &Overview, has_thick: bool, pools: &[&ThinPool]) -> Vec<Check> {
    let kinds = [
        (
            has_thick,
            lvm.snapshot_autoextend,
            "snapshot_autoextend_threshold",
            "a thick snapshot that is full is lost, with all that its guest wrote",
        ),
        (
            !pools.is_empty(),
            lvm.pool_autoextend,
            "thin_pool_autoextend_threshold",
            "a thin pool that is full stops every guest that has a disk in it",
        ),
    ];
    let mut checks = Vec::new();
    for (is_used, threshold, key, harm) in kinds {
        if !is_used {
            continue;
        }
        checks.push(match threshold {
            100.. => Check::warn(
                AREA,
                "autoextend",
                format!("LVM does not make room in time: {harm}"),
                format!("set {key} = 70 in the section activation of /etc/lvm/lvm.conf"),
            ),
            _ => Check::ok(
                AREA,
                "autoextend",
                format!("LVM is told to make room from {threshold}% on ({key})"),
            ),
        });
    }
    checks
}

/// dmeventd does what `autoextend` says, and says in the journal what is nearly full.
fn dmeventd(facts: &Facts, answers: &Answers, lvm: &Overview, pools: &[&ThinPool]) -> Check {
    const ID: &str = "dmeventd";
    if !facts.has("dmeventd") {
        let sentence = "dmeventd is not installed: nobody watches how full snapshots and pools are";
        return Check::warn(
            AREA,
            ID,
            sentence,
            "install dmeventd (Debian) or device-mapper-event (Fedora)",
        );
    }
    if !lvm.monitoring {
        let sentence = "LVM does not tell dmeventd what to watch";
        return Check::warn(
            AREA,
            ID,
            sentence,
            "set monitoring = 1 in the section activation of /etc/lvm/lvm.conf",
        );
    }
    let socket = match &answers.dm_event {
        Asked::Answer(socket) => socket,
        Asked::Failed(why) => {
            let sentence = format!("whether dm-event.socket is active, systemd does not say: {why}");
            return Check::warn(AREA, ID, sentence, "see what `systemctl status dm-event.socket` says");
        }
        Asked::Denied | Asked::Elsewhere | Asked::Nobody => {
            return Check::skipped(AREA, ID, "the systemd of another system cannot be asked");
        }
    };
    if let Some(check) = not_listening(facts, *socket) {
        return check;
    }
    // One that is not there now will be watched from its first moment on.
    let snapshots = thick(facts, lvm).into_iter().filter(|(snapshot, _)| {
        let Volume { vg, lv } = &snapshot.volume;
        let is_it = |(group, name): &(String, String)| group == vg.as_str() && name == lv.as_str();
        lvm.unwatched.iter().any(is_it)
    });
    let snapshots = snapshots.map(|(snapshot, _)| ("snapshot", snapshot.volume.to_string()));
    let pools = pools.iter().filter(|pool| !pool.monitored);
    let pools = pools.map(|pool| ("thin pool", format!("{}/{}", pool.vg, pool.lv)));
    match snapshots.chain(pools).next() {
        Some((kind, name)) => Check::warn(
            AREA,
            ID,
            format!("dmeventd does not watch the {kind} {name}"),
            format!("`lvchange --monitor y {name}`"),
        ),
        None => Check::ok(
            AREA,
            ID,
            "dm-event.socket is enabled and active: dmeventd can watch how full snapshots and pools are",
        ),
    }
}

/// What keeps systemd from starting dmeventd, if something does.
fn not_listening(facts: &Facts, socket: Socket) -> Option<Check> {
    const ID: &str = "dmeventd";
    let is_enabled = |directory: &&str| {
        let link = facts.real(&format!("{directory}/sockets.target.wants/dm-event.socket"));
        fs::symlink_metadata(link).is_ok()
    };
    if socket.masked {
        // Somebody's decision, and the link of what was enabled before may still be there.
        let sentence = "dm-event.socket is masked: dmeventd is started in the unit of some guest, and ends with it";
        let remedy = "`systemctl unmask dm-event.socket`, and `systemctl enable --now dm-event.socket`";
        return Some(Check::warn(AREA, ID, sentence, remedy));
    }
    // Without its socket, LVM starts dmeventd by itself, as a process of the unit that made the first snapshot.
    let (sentence, how) = match (ENABLED.iter().any(is_enabled), socket.active) {
        (true, true) => return None,
        (false, true) => (
            "dm-event.socket is not enabled, and will not be active after the next boot: dmeventd will be started in the unit of some \
             guest, and end with it",
            Dmeventd::Enable,
        ),
        (false, false) => (
            "dm-event.socket is not enabled: dmeventd is started in the unit of some guest, and ends with it",
            Dmeventd::EnableAndStart,
        ),
        (true, false) => (
            "dm-event.socket is enabled and not active: dmeventd is started in the unit of some guest, and ends with it",
            Dmeventd::Start,
        ),
    };
    let fix = Fix::StartDmeventd(how);
    Some(Check::warn(AREA, ID, sentence, format!("`{}`", how.command())).with_fix(fix))
}
