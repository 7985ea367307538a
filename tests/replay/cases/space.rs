// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk that fills up during a run, in a mount namespace of our own.

use std::fs::File;
use std::io::Write;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use ttvm::recording::State;

use super::super::lab::{GUEST, Lab, Place, STATE, console_says, with_own_mounts};
use super::super::{Outcome, Skipped};

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
