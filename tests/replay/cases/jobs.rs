// SPDX-License-Identifier: MIT OR Apache-2.0
//! A proof in pieces, several machines at once, comes to what one replay does.

use std::fs;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::Outcome;
use super::super::lab::{GUEST, Lab, Place, Running, STATE, until};
use super::explain::{KERNEL_TEXT, LINUX};

const TWO: [&str; 4] = ["verify", GUEST, "--jobs", "2"];

/// What says that there are pieces.
const PIECES: &str = " in 2 pieces at once";

fn nothing_is_left(place: &Place) {
    let left: Vec<_> = fs::read_dir(place.path(STATE).join("overlays"))
        .expect("overlays")
        .flatten()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// After how many instructions each checkpoint is.
fn checkpoints(place: &Place) -> Vec<u64> {
    let listed = place.run(&["recordings", "checkpoints", GUEST]).out;
    let numbers = listed.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    numbers
        .map(|number| number.replace(',', "").parse().expect("a number"))
        .collect()
}

/// The emulators that all threads of the program have begun.
fn emulators(running: &Running) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{}/task", running.pid())).expect("its threads");
    let children = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<String> = children.collect();
    let is_qemu = |pid: &Pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.starts_with("qemu-system")
    };
    children
        .iter()
        .flat_map(|pids| pids.split_whitespace())
        .map(|pid| Pid::from_raw(pid.parse().expect("a number")))
        .filter(is_qemu)
        .collect()
}

/// The same words, whether it was the same run or in which piece it was not; and whoever it is ended by, nothing is left.
pub fn verdicts(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("random,disk,net", "");
    place.record(&[]);
    // Nothing to begin at.
    place
        .run(&TWO)
        .expect(0, &["IDENTICAL", "as one: there are no checkpoints"]);
    let one = place.replay(&["--verify"]);
    let two = place.run(&TWO);
    two.expect(0, &[PIECES]);
    assert_eq!(two.out, one.out);
    let replays = place.recording().replays().expect("its replays");
    assert_eq!(replays.identical, 3);
    let many = place.run(&["verify", GUEST, "--jobs", "5"]);
    many.expect(0, &[" in 5 pieces at once"]);
    assert_eq!(many.out, one.out);
    nothing_is_left(&place);

    // An emulator that was killed is no verdict, nor is somebody who does not want it any more.
    let before = place.recording().replays();
    for is_signal in [false, true] {
        let running = place.start(&TWO, PIECES);
        until("both are there", || emulators(&running).len() == 2);
        match is_signal {
            true => running.signal(Signal::SIGINT),
            false => kill(emulators(&running)[1], Signal::SIGKILL).expect("kill"),
        }
        let ran = running.end();
        // It may be before it was there at all.
        ran.expect(1, &[if is_signal { "interrupted" } else { "QEMU " }]);
        assert_eq!(ran.out, "");
        nothing_is_left(&place);
    }
    assert_eq!(place.recording().replays(), before);
    Ok(())
}

/// What differs is said in the words of one replay, whichever piece it is in; and a piece that begins with another disk is none.
pub fn differences(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("random,disk,net", "");
    place.record(&[]);
    let one = place.replay(&["--verify"]);
    // One that was the first piece's, and one of another.
    let end = *checkpoints(&place).last().expect("checkpoints");
    for at in [LINUX + 123_456_789, end - 1_234_567] {
        let flipped = |args: &[&str]| {
            let mut command = place.command(args);
            command.env("TTVM_FLIP", format!("{at}:{KERNEL_TEXT:#x}"));
            Running::start(command).end()
        };
        let one = flipped(&["replay", GUEST, "--verify", "--no-explain"]);
        one.expect(5, &["DIVERGED: demo ", ": the memory "]);
        let two = flipped(&TWO);
        two.expect(5, &[PIECES]);
        assert_eq!(two.out, one.out);
    }
    nothing_is_left(&place);

    // The disk of the checkpoint in the middle is not what the run had there.
    let all = checkpoints(&place);
    let recording = place.recording();
    let end = recording
        .manifest()
        .result
        .as_ref()
        .and_then(|result| result.instructions);
    let middle = all.iter().min_by_key(|at| at.abs_diff(end.expect("a count") / 2));
    let name = format!("c{}", middle.expect("a checkpoint"));
    let disk = recording.directory().join("checkpoints/demo-vda.qcow2");
    for args in [
        &["qemu-img", "snapshot", "-a", &name][..],
        &["qemu-img", "snapshot", "-d", &name],
        &["qemu-io", "-c", "write -P 7 1M 64k"],
        &["qemu-img", "snapshot", "-c", &name],
    ] {
        let ran = Command::new(args[0])
            .args(&args[1..])
            .arg(&disk)
            .output()
            .expect(args[0]);
        assert!(
            ran.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&ran.stderr)
        );
    }
    place.give();
    let two = place.run(&TWO);
    two.expect(0, &[PIECES, "it is replayed as one: disk vda was another after "]);
    assert_eq!(two.out, one.out);
    nothing_is_left(&place);
    Ok(())
}

/// What cannot be cut, and what is no replay.
pub fn refused(lab: &Lab) -> Outcome {
    let place = lab.place();
    super::describe_tiny(&place, "");
    place.record(&[]);
    place.run(&["verify", GUEST, "--jobs", "0"]).expect(2, &["--jobs"]);
    place.run(&TWO).expect(
        0,
        &["IDENTICAL", "as one: its kernel is loaded by its Multiboot header"],
    );
    // What it was made from is another now.
    place.write("base.img", &[7; super::TINY_DISK]);
    place.run(&TWO).expect(4, &["would not be a replay", "disk vda"]);
    Ok(())
}
