// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a replay would be one: what was recorded beside what is there now, each difference as a sentence.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use super::Choice;
use crate::base::text;
use crate::config::guest::{Boot, Guest, OnReboot, Origin, Shift};
use crate::config::types::Size;
use crate::file;
use crate::qemu::engine::Version;
use crate::qemu::machine::CPU;
use crate::recording::Recording;
use crate::recording::library::manifest::{FileDigest, Manifest, Outcome};
use crate::recording::session::disks::{self, Seals};
use crate::recording::session::{self, Error, Listener};

/// The last second of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// The recording's own files and the host's, which are read for it.
pub(in crate::recording) fn files(
    recording: &Recording,
    guest: Option<&Guest>,
    seals: &Seals,
    listener: &mut dyn Listener,
) -> Result<Vec<String>, Error> {
    let mut differences: Vec<String> = recording
        .check(&mut session::reading("reading the recording", listener))?
        .iter()
        .map(ToString::to_string)
        .collect();
    let manifest = recording.manifest();
    let pairs = [
        ("kernel", &manifest.kernel, recording.kernel_path()),
        ("initrd", &manifest.initrd, recording.initrd_path()),
    ];
    for (what, recorded, now) in pairs {
        if let (Some(recorded), Some(now)) = (recorded, now) {
            differences.extend(changed(what, recorded, &now, listener)?);
        }
    }
    for disk in &manifest.disks {
        let Some(base) = recording.base_path(disk, guest) else {
            differences.push(match recording.is_imported() {
                true => format!(
                    "disk {}: what it was made from did not come with the recording: import it once more, from a file that was \
                     exported with --with-disks or with --disk FILE",
                    disk.target
                ),
                false => format!("disk {}: {} is not there any more", disk.target, disk.origin),
            });
            continue;
        };
        // The copy of an imported recording is one of its own files, which were read already.
        if base != disk.origin.path() {
            continue;
        }
        let origin = &disk.origin;
        // By its name it is one; whatever else there may be is not read.
        if let Origin::Volume(volume) = origin
            && !file::is_volume(&base)
        {
            differences.push(format!("disk {}: {volume} is no logical volume here", disk.target));
            continue;
        }
        let now = disks::digest_origin(&disk.target, origin, seals, listener)?;
        if now.size != disk.size {
            let (then, now) = (Size::from_bytes(disk.size), Size::from_bytes(now.size));
            differences.push(format!("disk {}: {origin} had {then}, now it has {now}", disk.target));
        } else if now.digest != disk.digest {
            differences.push(format!(
                "disk {}: the content of {origin} has changed: it was {}, now it is {}",
                disk.target, disk.digest, now.digest
            ));
        }
    }
    Ok(differences)
}

fn changed(
    what: &str,
    recorded: &FileDigest,
    now: &Path,
    listener: &mut dyn Listener,
) -> Result<Option<String>, Error> {
    if !now.exists() {
        return Ok(Some(format!("{what}: {} is not there any more", now.display())));
    }
    let found = disks::digest_file(now, listener)?;
    let now = now.display();
    Ok(if found.digest != recorded.digest {
        let (was, is) = (recorded.digest, found.digest);
        Some(format!("{what}: {now} has changed: it was {was}, now it is {is}"))
    } else if found.size != recorded.size {
        // Whoever wrote that has not measured it.
        let (was, is) = (recorded.size, found.size);
        Some(format!("{what}: {now} has {is} bytes, and the recording says {was}"))
    } else {
        None
    })
}

/// What of a manifest, which may have come from anywhere, becomes words of QEMU's command line, and what a replay is compared
/// with.
pub(in crate::recording) fn words(manifest: &Manifest) -> Vec<String> {
    let mut differences = Differences::default();
    let engine = &manifest.engine;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if engine.machine.is_empty() || !engine.machine.chars().all(plain) {
        differences
            .0
            .push(format!("machine type: {:?} is none", engine.machine));
    }
    if (manifest.format == 1) != engine.began.is_none() {
        differences
            .0
            .push("format: 1 has no time of day of its own, and every other has one".to_owned());
    }
    if let Some(began) = engine.began.filter(|began| *began > LAST_SECOND) {
        differences
            .0
            .push(format!("time of day: {began} is none that a clock shows"));
    }
    if engine.icount.parse::<Shift>().is_err() {
        differences
            .0
            .push(format!("icount: {:?} is no setting of it", engine.icount));
    }
    differences.of("processor", engine.cpu.as_str(), CPU);
    // QEMU is told MiB; of none it makes what it likes.
    if engine.memory == 0 || !engine.memory.is_multiple_of(1 << 20) {
        let memory = engine.memory;
        differences
            .0
            .push(format!("memory: {memory} bytes are no machine's, which has whole MiB"));
    }
    let is_cut = manifest.result.as_ref().is_some_and(Outcome::is_cut);
    for (index, disk) in manifest.disks.iter().enumerate() {
        let target = &disk.target;
        if manifest.disks[..index].iter().any(|other| other.target == *target) {
            differences.0.push(format!("disk {target}: there are two of this name"));
        }
        if disk.end.is_none() && !is_cut {
            differences
                .0
                .push(format!("disk {target}: nobody says what was on it at the end"));
        }
    }
    if manifest.result.as_ref().is_none_or(|it| it.instructions.is_none()) {
        differences
            .0
            .push("instructions: nobody says how many there were".to_owned());
    }
    differences.0
}

/// The engine: Xen, as it says it.
pub(in crate::recording) fn xen(manifest: &Manifest, version: &str) -> Vec<String> {
    let mut differences = Differences::default();
    differences.of("Xen", manifest.engine.version.as_str(), version);
    differences.0
}

/// What can be done where another engine is installed.
const IN_CAPSULE: &str = "`--engine capsule` replays it on the engine that came with it";
const ALL_THE_SAME: &str = "`--any-engine` replays it all the same, and the verdict is what it is";
/// The same for who wants to see more than a replay.
const ONLY_REPLAYED: &str = "`ttvm replay --engine capsule` replays it on the engine that came with it";
const WATCHED: &str = "`ttvm ask` and `ttvm trace` need the QEMU that recorded it: install that";

/// QEMU, and the firmware that is its own. Another package of the same version makes the same machine: that is proved by the
/// replay, and so it may be tried. Another version reads logs otherwise.
pub(in crate::recording) fn qemu(
    recording: &Recording,
    version: &Version,
    firmware: &[PathBuf],
    choice: Choice,
    listener: &mut dyn Listener,
) -> Result<Vec<String>, Error> {
    let mut differences = Differences::default();
    let manifest = recording.manifest();
    let recorded = &manifest.engine.version;
    if !version.is_of(recorded) {
        differences.of("QEMU", recorded.as_str(), version.text.as_str());
    }
    // Which QEMU puts into the machine is told by the kernel. That there is none is said of the kernel.
    let is_known = recording.kernel_path().is_none_or(|kernel| kernel.exists());
    for file in manifest.engine.firmware.iter().filter(|_| is_known) {
        let name = file.path.file_name().unwrap_or_default();
        let what = format!("firmware {}", text::line(&name.to_string_lossy()));
        match firmware.iter().find(|now| now.file_name() == Some(name)) {
            Some(now) => differences.0.extend(changed(&what, file, now, listener)?),
            None => differences.0.push(format!("{what}: this QEMU has none")),
        }
    }
    let is_named =
        |now: &PathBuf| (manifest.engine.firmware.iter()).any(|file| file.path.file_name() == now.file_name());
    for now in firmware
        .iter()
        .filter(|now| is_known && manifest.format > 1 && !is_named(now))
    {
        let name = now.file_name().unwrap_or_default().display();
        differences
            .0
            .push(format!("firmware {name}: the recording does not say which it had"));
    }
    if !differences.0.is_empty() {
        let has_capsule = matches!(recording.capsule(), Ok(Some(_)));
        let remedies = match (choice, has_capsule) {
            (Choice::Watched, true) => &[ONLY_REPLAYED, WATCHED][..],
            (Choice::Watched, false) => &[WATCHED],
            (_, true) => &[IN_CAPSULE, ALL_THE_SAME],
            (_, false) => &[ALL_THE_SAME],
        };
        differences.0.extend(remedies.iter().map(|it| (*it).to_owned()));
    }
    Ok(differences.0)
}

/// The guest's file as it is now, if there still is one. `emulator` is what would emulate its machine.
pub(in crate::recording) fn guest(manifest: &Manifest, guest: &Guest, emulator: Option<&Version>) -> Vec<String> {
    let mut differences = Differences::default();
    let engine = &manifest.engine;
    differences.of("toolstack", engine.toolstack.as_str(), guest.toolstack.as_str());
    if engine.toolstack != guest.toolstack {
        return differences.0;
    }
    if let Some(version) = emulator {
        let machine = session::machine_of(guest, version, 0);
        differences.of("machine type", &engine.machine, &machine.machine);
        differences.of("icount", &engine.icount, &machine.icount.to_string());
        let on_reboot = |ends: bool| if ends { "ends the run" } else { "goes on" };
        differences.of(
            "on_reboot",
            on_reboot(engine.reset_ends),
            on_reboot(guest.on_reboot != OnReboot::Keep),
        );
    }
    differences.of("memory", Size::from_bytes(engine.memory), guest.memory);
    let (kernel, initrd, cmdline) = match &guest.boot {
        Boot::Kernel {
            kernel,
            initrd,
            cmdline,
        } => (Some(kernel), initrd.as_ref(), cmdline.clone()),
        Boot::Bootloader { .. } | Boot::Firmware => (None, None, None),
    };
    for (what, recorded, now) in [
        ("kernel", &manifest.kernel, kernel),
        ("initrd", &manifest.initrd, initrd),
    ] {
        let path = |path: Option<&Path>| path.map_or_else(|| "none".to_owned(), |path| path.display().to_string());
        differences.of(
            what,
            path(recorded.as_ref().map(|file| file.path.as_path())),
            path(now.map(std::path::PathBuf::as_path)),
        );
    }
    let words = |cmdline: &Option<String>| cmdline.clone().unwrap_or_default();
    differences.of("cmdline", words(&engine.cmdline), words(&cmdline));
    let disks = |disks: Vec<String>| {
        if disks.is_empty() {
            "none".to_owned()
        } else {
            disks.join(", ")
        }
    };
    differences.of(
        "disks",
        disks(
            manifest
                .disks
                .iter()
                .map(|it| format!("{} of {}", it.target, it.origin))
                .collect(),
        ),
        disks(
            guest
                .disks
                .iter()
                .map(|it| format!("{} of {}", it.target, disks::origin_of(&it.source)))
                .collect(),
        ),
    );
    differences.of(
        "vif",
        disks(manifest.vifs.iter().map(|vif| vif.mac.to_string()).collect()),
        disks(guest.vifs.iter().map(|vif| vif.mac.to_string()).collect()),
    );
    differences.0
}

#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn of<T: Display>(&mut self, what: &str, recorded: T, now: T) {
        let (recorded, now) = (recorded.to_string(), now.to_string());
        if recorded != now {
            self.0
                .push(format!("{what}: it was {}, now it is {now}", text::line(&recorded)));
        }
    }
}
