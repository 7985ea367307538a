// SPDX-License-Identifier: MIT OR Apache-2.0
//! gdb on a replay, in both directions.

use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};

use super::super::lab::{GUEST, Lab, Place};
use super::super::{Outcome, Skipped};
use super::describe_tiny;

pub fn forwards_and_backwards(lab: &Lab) -> Outcome {
    if ttvm::run::find("/".as_ref(), "gdb").is_none() {
        return Err(Skipped("gdb is not installed"));
    }
    let place = lab.place();
    place.describe("random", "");
    place.record(&[]);
    steps(&place, &[]);
    Ok(())
}

/// Goes to and fro in a replay with these arguments.
fn steps(place: &Place, arguments: &[&str]) {
    let arguments = [&["replay", GUEST, "--gdb", "--paused"], arguments].concat();
    let mut replaying = place.start(&arguments, "replaying");
    // As somebody would paste it.
    let line = replaying.line();
    let script = format!(
        "exec timeout 120 {line} -q -batch -ex 'set pagination off' -ex 'set confirm off' -ex 'set remotetimeout 120' \
         -ex 'stepi 1000' -ex 'printf \"A %#lx\\n\", $pc' -ex 'reverse-stepi' -ex 'printf \"B %#lx\\n\", $pc' \
         -ex 'stepi' -ex 'printf \"C %#lx\\n\", $pc' -ex 'set $w = $pc' -ex 'stepi 3000' -ex 'printf \"D %#lx\\n\", $pc' \
         -ex 'hbreak *$w' -ex 'reverse-continue' -ex 'printf \"E %#lx\\n\", $pc' -ex 'delete' \
         -ex 'reverse-continue' -ex 'printf \"F %#lx\\n\", $pc' -ex 'detach'"
    );
    assert!(line.starts_with("gdb "), "{line}");
    let gdb = Command::new("sh")
        .arg("-c")
        .arg(script)
        .stdin(Stdio::null())
        .output()
        .expect("gdb");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&gdb.stdout),
        String::from_utf8_lossy(&gdb.stderr)
    );
    let at = |letter: &str| {
        let line = said
            .lines()
            .find_map(|line| line.strip_prefix(letter)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {letter}:\n{said}")).to_owned()
    };
    // Back by one and forwards by one is where it was; back to a breakpoint, and back to the first instruction.
    assert_ne!(at("A"), at("B"), "{said}");
    assert_eq!(at("A"), at("C"), "{said}");
    assert_ne!(at("D"), at("C"), "{said}");
    assert_eq!(at("E"), at("C"), "{said}");
    assert_eq!(at("F"), "0xfff0", "{said}");
    replaying.signal(Signal::SIGINT);
    replaying.end().expect(0, &[]);
}

/// What ends QEMU there is no end of the debugging either.
pub fn emulator_killed(lab: &Lab) -> Outcome {
    let place = lab.place();
    describe_tiny(&place, "");
    place.record(&[]);
    let replaying = place.start(&["replay", GUEST, "--gdb", "--paused"], "replaying");
    kill(replaying.emulator(), Signal::SIGKILL).expect("kill");
    replaying
        .end()
        .expect(1, &["QEMU ended in the middle of the run: SIGKILL ended it"]);
    assert_eq!(place.recording().replays(), None);
    Ok(())
}
