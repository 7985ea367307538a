// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk of the host that fills up during a run, or fails, in a mount namespace of our own.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use ttvm::guest::record::Ending;
use ttvm::recording::State;

use super::super::lab::{FILE, GUEST, Lab, Place, STATE, console_says, with_own_mounts};
use super::super::{Outcome, Skipped};
use super::plain::{Told, plain};

const SIZE: u64 = 320 << 20;

/// Calls `test` with a place whose state is on a file system of its own.
fn on_a_small_disk(lab: &Lab, test: impl FnOnce(&Place) + Send) -> Outcome {
    if !geteuid().is_root() {
        return Err(Skipped("mounting a file system takes root"));
    }
    with_own_mounts(|| {
        let place = lab.place();
        let state = place.path(STATE);
        std::fs::create_dir_all(&state).expect("a directory");
        mount(
            Some("tmpfs"),
            &state,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(format!("size={SIZE}").as_str()),
        )
        .expect("a file system");
        place.give();
        test(&place);
        nix::mount::umount(&state).expect("unmounted");
    });
    Ok(())
}

/// Takes all room but `left`.
fn fill(place: &Place, left: u64) {
    let free = place.library().free_space().expect("free space");
    let mut file = File::create(place.path(STATE).join("ballast")).expect("ballast");
    let zeros = vec![0; 1 << 20];
    for _ in 0..(free.saturating_sub(left)).div_ceil(1 << 20) {
        // The last one may not fit.
        if file.write_all(&zeros).is_err() {
            return;
        }
    }
}

/// While there is room to end it in good order, it is.
pub fn nearly_full(lab: &Lab) -> Outcome {
    on_a_small_disk(lab, |place| {
        place.describe("loop", "");
        let running = place.start(&["record", GUEST], "recording as");
        fill(place, 60 << 20);
        running.end().expect(
            0,
            &["the disk was nearly full", "the recording is whole", "recorded demo"],
        );
        place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
        // And there is no room for another one.
        place
            .run(&["record", GUEST])
            .expect(4, &["MiB free in", "and a recording needs 256 MiB"]);
    })
}

/// All of it is gone at once, and comes back before the end: QEMU goes on as if nothing had been.
pub fn full(lab: &Lab) -> Outcome {
    on_a_small_disk(lab, |place| {
        // It is busy, and prints nothing, while the disk is full: only the log has a hole then.
        place.describe("none", "");
        place.script("echo entropy of none; n=0; while [ $n -lt 600000 ]; do n=$((n + 1)); done; poweroff -f");
        let running = place.start(&["record", GUEST], "recording as");
        console_says(place, "entropy ");
        // Looked at rarely as long as it shrinks slowly: not in these moments.
        running.signal(Signal::SIGSTOP);
        fill(place, 0);
        std::thread::sleep(std::time::Duration::from_secs(3));
        std::fs::remove_file(place.path(STATE).join("ballast")).expect("ballast");
        running.signal(Signal::SIGCONT);
        running.end().expect(1, &["replay.log"]);
        let entry = place.entry();
        assert!(
            matches!(&entry.state, State::Incomplete(why) if why.contains("replay.log")),
            "{entry:?}"
        );
    })
}

/// What the guest writes to its disk in a replay has no room: that says nothing about the run.
pub fn none_for_disks(lab: &Lab) -> Outcome {
    on_a_small_disk(lab, |place| {
        place.describe("none", "");
        place.script("dd if=/dev/urandom of=/dev/vda bs=64k count=60 conv=notrunc; sync; poweroff -f");
        place.record(&[]);
        fill(place, 2 << 20);
        place
            .replay(&["--verify"])
            .expect(1, &["there is no room in ", "for what the guest writes to its disks"]);
        assert_eq!(place.recording().replays(), None);
        std::fs::remove_file(place.path(STATE).join("ballast")).expect("ballast");
        place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    })
}

/// A file system whose disk can be made to fail: its sectors are cut off, and their blocks forgotten.
pub struct Failing {
    disk: PathBuf,
    content: Vec<u8>,
    file: PathBuf,
}

impl Failing {
    /// Puts the disk of the guest of `place`, which is described already, on one. `None` where there are no loop devices.
    pub fn below(place: &Place) -> Option<Self> {
        let (below, above) = (place.path("below"), place.path("above"));
        for directory in [&below, &above] {
            std::fs::create_dir(directory).expect("a directory");
        }
        let options = Some("size=32m");
        mount(Some("tmpfs"), &below, Some("tmpfs"), MsFlags::empty(), options).expect("a file system");
        let disk = below.join("disk.img");
        File::create(&disk).and_then(|it| it.set_len(16 << 20)).expect("a disk");
        let run = |program: &str, args: &[&str]| {
            let ran = Command::new(program).args(args).arg(&disk).output();
            ran.is_ok_and(|ran| ran.status.success())
        };
        // mkfs's options come before the file, and mount's last word after it.
        let made = run("mkfs.ext4", &["-q", "-F", "-m", "0", "-O", "^has_journal"]);
        let mounted = made
            && Command::new("mount")
                .args(["-o", "loop"])
                .args([&disk, &above])
                .status()
                .is_ok_and(|status| status.success());
        if !mounted {
            nix::mount::umount(&below).expect("unmounted");
            return None;
        }
        let file = above.join("base.img");
        std::fs::copy(place.path("base.img"), &file).expect("a copy");
        place.edit(FILE, "base.img", "above/base.img");
        place.give();
        nix::unistd::sync();
        let content = std::fs::read(&disk).expect("the disk");
        let failing = Self { disk, content, file };
        // Linux 6.1, for one, reads zeros behind the end of a loop device's file.
        failing.fail();
        let fails = std::fs::read(&failing.file).is_err();
        failing.mend();
        failing.forget();
        fails.then_some(failing)
    }

    /// What is read from it from now on fails.
    pub fn fail(&self) {
        let disk = File::options().write(true).open(&self.disk).expect("the disk");
        disk.set_len(1 << 20).expect("it is shorter");
        self.forget();
    }

    /// What was read of the file is read anew.
    fn forget(&self) {
        let file = File::open(&self.file).expect("the file");
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).expect("it is forgotten");
    }

    /// It is as it was.
    pub fn mend(&self) {
        let disk = File::options().write(true).open(&self.disk).expect("the disk");
        disk.write_all_at(&self.content, 0).expect("it is whole");
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        for directory in [self.file.parent(), self.disk.parent()].into_iter().flatten() {
            let _ = nix::mount::umount(directory);
        }
    }
}

/// A guest that waits for a while, then reads its disk.
fn reads_later(place: &Place) {
    place.describe("none", "");
    place.script(
        "echo entropy of none; n=0; while [ $n -lt 60000 ]; do n=$((n + 1)); done; dd if=/dev/vda of=/dev/null bs=64k && echo all read; sleep 4; poweroff -f",
    );
}

/// Calls `test` with a place whose guest's disk can be made to fail.
fn on_a_failing_disk(lab: &Lab, test: impl FnOnce(&Place, &Failing) + Send) -> Outcome {
    if !geteuid().is_root() {
        return Err(Skipped("mounting a file system takes root"));
    }
    with_own_mounts(|| {
        let place = lab.place();
        reads_later(&place);
        let Some(disk) = Failing::below(&place) else {
            return Err(Skipped("there are no loop devices that fail, or no mkfs.ext4"));
        };
        test(&place, &disk);
        Ok(())
    })
}

/// The host cannot read the disk: the guest is not told, so what was recorded is a run as it was, and a replay has no verdict.
pub fn disk_fails(lab: &Lab) -> Outcome {
    on_a_failing_disk(lab, |place, disk| {
        let running = place.start(&["record", GUEST], "recording as");
        console_says(place, "entropy ");
        disk.fail();
        running.end().expect(
            0,
            &[
                "disk vda cannot be read: Input/output error",
                "the recording is whole",
                "was cut off after",
            ],
        );
        disk.mend();
        place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
        place.record(&[]).expect(0, &["powered itself off"]);
        let running = place.start(&["replay", GUEST, "--verify"], "replaying");
        disk.fail();
        let failed = running.end();
        disk.mend();
        failed.expect(
            1,
            &[
                "disk vda cannot be read: Input/output error",
                "above/base.img",
                "this says nothing about the run",
            ],
        );
        assert_eq!(place.recording().replays(), None);
    })
}

/// A plain run stands still, says why, and goes on when the disk is there again.
pub fn disk_of_a_plain_run(lab: &Lab) -> Outcome {
    on_a_failing_disk(lab, |place, disk| {
        let (mut console, mut troubles, mut failed) = (String::new(), Vec::new(), false);
        let ending = plain(place, &mut |told| match told {
            Told::Console(text) => {
                console += &text;
                if !failed && console.contains("entropy ") {
                    failed = true;
                    disk.fail();
                }
            }
            Told::Trouble(why) => {
                if why.is_some() {
                    disk.mend();
                }
                troubles.push(why);
            }
        });
        assert_eq!(ending.expect("it ends"), Ending::PoweredOff, "{console}");
        let [Some(why), None] = &troubles[..] else {
            panic!("{troubles:?}");
        };
        assert!(why.contains("disk vda cannot be read: Input/output error"), "{why}");
        assert!(console.contains("all read"), "{console}");
    })
}
