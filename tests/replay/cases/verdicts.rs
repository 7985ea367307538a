// SPDX-License-Identifier: MIT OR Apache-2.0
//! A verdict says something about the run: not about how its disks were closed, nor about what became of QEMU.

use nix::sys::signal::{Signal, kill};

use super::super::Outcome;
use super::super::lab::{FILE, GUEST, Lab, Place, contents, state, until};

/// Records what the script does, and replays it.
fn same(place: &Place, end: &str) {
    place.record(&[]).expect(0, &[end]);
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
}

/// Guests as others write them: QEMU has what they wrote in its memory when they switch themselves off.
pub fn written_and_off(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("none", "");
    place.script("dd if=/dev/urandom of=/dev/vda bs=64k count=30 conv=notrunc; sync; echo written; poweroff -f");
    same(&place, "powered itself off");
    let place = lab.place();
    place.describe("none", "");
    place.script("dd if=/dev/urandom of=/dev/vda bs=64k count=30 conv=notrunc; echo written; poweroff -f");
    same(&place, "powered itself off");
    Ok(())
}

pub fn crash(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("none", "on_reboot = \"stop\"");
    place.script("dd if=/dev/urandom of=/dev/vda bs=64k count=9 conv=notrunc; echo now; echo c >/proc/sysrq-trigger");
    same(&place, "rebooted");
    assert!(contents(&place.recording().console()).contains("sysrq triggered crash"));
    Ok(())
}

/// A kernel that measures its timers, as every kernel does that nobody tells not to.
pub fn no_timer_options(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("random", "");
    place.edit(FILE, " nolapic_timer no_timer_check", "");
    same(&place, "powered itself off");
    Ok(())
}

/// What the kernel, an administrator or a bug ends is no other run.
pub fn emulator_killed(lab: &Lab) -> Outcome {
    for (signal, name) in [(Signal::SIGKILL, "SIGKILL"), (Signal::SIGSEGV, "SIGSEGV")] {
        let place = lab.place();
        place.describe("random,sleep:20", "");
        place.record(&[]);
        let running = place.start(&["replay", GUEST, "--verify"], "replaying");
        let emulator = running.emulator();
        kill(emulator, signal).expect("kill");
        let ran = running.end();
        ran.expect(1, &["QEMU ended in the middle of the run", name]);
        assert!(!ran.out.contains("DIVERGED"), "{}", ran.out);
        assert_eq!(place.recording().replays(), None);
        place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    }
    Ok(())
}

/// Nor is what stands still because the host does.
pub fn emulator_stopped(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("random,sleep:20", "");
    place.record(&[]);
    let running = place.start(&["replay", GUEST, "--verify"], "replaying");
    let emulator = running.emulator();
    kill(emulator, Signal::SIGSTOP).expect("kill");
    running.end().expect(1, &["QEMU did not answer for 60 s", "dmesg"]);
    until("QEMU is gone as well", || {
        state(emulator).is_none_or(|state| state == 'Z')
    });
    assert_eq!(place.recording().replays(), None);
    Ok(())
}

/// Of a guest whose kernel prints elsewhere there is nothing to compare.
pub fn nothing_printed(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("none", "");
    place.edit(FILE, "console=ttyS0", "console=hvc0");
    place.write_init("#!/bin/busybox sh\n/bin/busybox poweroff -f\n");
    place.record(&[]).expect(
        0,
        &[
            "add console=ttyS0 to its cmdline",
            "the guest has printed nothing",
            "console 0 bytes",
        ],
    );
    place
        .replay(&["--verify"])
        .expect(0, &["IDENTICAL", "nothing was printed in this run"]);
    Ok(())
}

/// A disk that is only read, beside the one that is made fresh.
pub fn disk_that_is_only_read(lab: &Lab) -> Outcome {
    let place = lab.place();
    let disk = format!(
        "[[disk]]\ntarget = \"vda\"\npath = \"{}\"\naccess = \"ro\"\n",
        place.path("base.img").display()
    );
    place.describe("disk", "");
    place.edit(FILE, "[[disk]]\ntarget = \"vda\"", "[[disk]]\ntarget = \"vdb\"");
    place.edit(FILE, "[[disk]]", &format!("{disk}\n[[disk]]"));
    same(&place, "powered itself off");
    let console = contents(&place.recording().console());
    let digest = |word: &str| {
        console
            .lines()
            .find_map(|line| line.strip_prefix(word).map(str::trim).map(str::to_owned))
    };
    assert!(
        digest("disk ").is_some() && digest("disk ") == digest("written "),
        "{console}"
    );
    Ok(())
}

pub fn nothing_booted(lab: &Lab) -> Outcome {
    let place = lab.place();
    let here = place.path("").display().to_string();
    let disk = format!("memory = \"32M\"\n\n[[disk]]\ntarget = \"vda\"\norigin = \"{here}base.img\"\n");
    place.write(FILE, disk.as_bytes());
    place
        .record(&["--for", "3s"])
        .expect(0, &["no boot loader on disk vda: its machine boots nothing"]);
    place.write(FILE, b"memory = \"32M\"\n");
    place
        .record(&["--for", "3s"])
        .expect(0, &["neither a kernel nor a disk: its machine boots nothing"]);
    Ok(())
}
