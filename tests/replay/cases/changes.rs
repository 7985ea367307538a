// SPDX-License-Identifier: MIT OR Apache-2.0
//! What would not be the run that was recorded is named, before it runs or where it becomes another.

use std::fs;

use nix::unistd::geteuid;
use ttvm::qemu::machine::{Backing, Drive};
use ttvm::recording::library::sealed;

use super::super::lab::{self, FILE, Lab, Place, contents, put_over, with_own_mounts};
use super::super::{Outcome, Skipped};

pub fn named_before_anything_runs(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("random,disk", "");
    place.record(&[]);
    let recording = place.recording();
    let inner = |name: &str| {
        let path = recording.directory().join(name);
        path.strip_prefix(place.path(""))
            .expect("in the place")
            .display()
            .to_string()
    };
    let refused = |words: &[&str]| {
        let ran = place.replay(&["--verify"]);
        ran.expect(4, &["this would not be a replay of demo"]).expect(4, words);
        // One thing was changed, so one thing is named.
        assert_eq!(ran.err.matches("\n    ").count(), 1, "{}", ran.err);
    };
    let changed = |name: &str, words: &[&str], change: &dyn Fn(&mut Vec<u8>)| {
        let before = fs::read(place.path(name)).expect(name);
        let mut after = before.clone();
        change(&mut after);
        place.write(name, &after);
        refused(words);
        place.write(name, &before);
    };
    let flip = |at: usize| move |bytes: &mut Vec<u8>| bytes[at] ^= 1;
    changed(
        "base.img",
        &["disk vda: the content of", "base.img has changed"],
        &flip(3_000_000),
    );
    changed("base.img", &["disk vda:", "base.img had 4M, now it has"], &|bytes| {
        bytes.truncate(3 << 20)
    });
    changed("vmlinuz", &["kernel:", "vmlinuz has changed"], &flip(5_000_000));
    changed("initrd", &["initrd:", "initrd has changed"], &flip(1_000_000));
    changed(&inner("replay.log"), &["replay.log was truncated"], &|bytes| {
        bytes.truncate(bytes.len() - 1);
    });
    changed(&inner("replay.log"), &["replay.log was changed"], &flip(100_000));
    changed(&inner("console.log"), &["console.log was edited"], &flip(10));
    let edited = |old: &str, new: &str, words: &[&str]| {
        place.edit(FILE, old, new);
        refused(words);
        place.edit(FILE, new, old);
    };
    edited("128M", "160M", &["memory: it was 128M, now it is 160M"]);
    edited(
        "52:54:00:74:74:01",
        "52:54:00:74:74:02",
        &["vif: it was 52:54:00:74:74:01, now it is 52:54:00:74:74:02"],
    );
    edited("do=random,disk", "do=disk,random", &["cmdline: it was", "now it is"]);
    edited(
        "\n[[disk]]",
        "[qemu]\nmachine = \"pc-i440fx-7.0\"\n[[disk]]",
        &["machine type: it was pc-i440fx-", "now it is pc-i440fx-7.0"],
    );

    // A manifest that was edited counts for nothing.
    let manifest = inner("manifest.toml");
    let before = fs::read(place.path(&manifest)).expect("a manifest");
    place.edit(&manifest, "powered-off", "stopped");
    let id = recording.id().to_string();
    place
        .replay(&["--verify", &id])
        .expect(1, &["manifest.toml was edited: its digest is"]);
    place.write(&manifest, &before);

    // All is as it was; the guest's file is not needed.
    fs::remove_file(place.path(FILE)).expect("the guest's file");
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    Ok(())
}

/// The guest reads it, and prints something else than it did.
pub fn stale_disk(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("random,disk,clocks", "");
    place.record(&[]);
    let recording = place.recording();
    let console = contents(&recording.console());
    let (number, line) = console
        .lines()
        .enumerate()
        .find(|(_, line)| line.starts_with("disk "))
        .expect("a digest");
    let ran = lab::behind_its_back(&place, &[]).end();
    let line = format!("it was \"{}", line.trim_end());
    let at = format!("the console is another from line {}, column ", number + 1);
    // What was recorded may have a moment between the reading and the printing: then its memory says it first.
    match ran.out.contains("the memory is not the same after") {
        true => ran.expect(5, &["DIVERGED: demo "]),
        false => ran.expect(
            5,
            &["DIVERGED: demo ", &at, " instructions", &line, "it became \"disk "],
        ),
    };
    assert_eq!(
        recording.replays().map(|it| it.to_string()).as_deref(),
        Some("diverged")
    );
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    Ok(())
}

/// Records a run, and makes a recording of it that no machine can replay, and that everything beforehand says can be: whoever made this
/// manifest made another machine of it.
pub fn made_another_run(place: &Place) {
    place.describe("random,clocks", "");
    place.record(&[]);
    let recording = place.recording();
    let mut manifest = recording.manifest().clone();
    let cmdline = manifest
        .engine
        .cmdline
        .clone()
        .expect("a command line")
        .replace("random,clocks", "clocks,random");
    let drives = manifest.disks.iter().map(|disk| Drive {
        target: disk.target.clone(),
        backing: Backing::Raw {
            path: "/dev/null".into(),
            writable: true,
        },
    });
    let mut machine = place.machine(drives.collect());
    machine.kernel.as_mut().expect("a kernel").cmdline.clone_from(&cmdline);
    manifest.engine.config = machine.digest();
    manifest.engine.cmdline = Some(cmdline);
    fs::write(
        recording.directory().join(sealed::NAME),
        manifest.to_text().expect("text"),
    )
    .expect("a manifest");
    place.give();
    place.describe("clocks,random", "");
}

/// Another BIOS is named before anything runs. Who has it run all the same is told that it is not chance.
pub fn other_firmware(lab: &Lab) -> Outcome {
    if !geteuid().is_root() {
        return Err(Skipped("only root has QEMU find another BIOS"));
    }
    let place = lab.place();
    place.describe("none", "");
    place.record(&[]);
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    let manifest = place.recording().manifest().clone();
    let files = manifest.engine.firmware.into_iter().map(|file| file.path);
    let bios = files
        .into_iter()
        .find(|path| path.ends_with("bios-256k.bin"))
        .expect("a BIOS");
    let mut other = fs::read(&bios).expect("it is read");
    // Of the version that it gives to Linux, `1.16.2-debian-1.16.2-1`, the last digit.
    let version = other
        .windows(7)
        .rposition(|text| text == b"-debian")
        .expect("a version");
    other[version - 1] ^= 1;
    place.write("bios", &other);
    with_own_mounts(|| {
        put_over(&bios, &place.path("bios"));
        let refused = place.replay(&["--verify"]);
        refused.expect(4, &["firmware bios-256k.bin: ", " has changed: it was "]);
        place
            .replay(&["--verify", "--any-engine", "--explain"])
            .expect(5, &["each replay on this host goes the same way", "--engine capsule"]);
    });
    // With its own, it is what it was.
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    Ok(())
}
