// SPDX-License-Identifier: MIT OR Apache-2.0
//! However a run ends, there is a whole recording or an incomplete one, and the next run works.

use nix::sys::signal::{Signal, kill};
use ttvm::base::error::{Classify, Exit};
use ttvm::recording::{Entry, State};

use super::super::Outcome;
use super::super::lab::{self, GUEST, Lab, Place, Running, console_says};
use super::describe_tiny;
use super::plain::{Told, plain};

/// Records a guest that runs for ever, up to the moment where it does.
fn recorded_for_ever(place: &Place) -> Running {
    place.describe("loop", "");
    let running = place.start(&["record", GUEST], "recording as");
    console_says(place, "turn 3 ");
    running
}

/// It is known, its space is counted, and it is no recording; the next run works, and salvages it: then it is one.
fn incomplete(place: &Place, why: &str) {
    let entry = place.entry();
    let State::Incomplete(said) = &entry.state else {
        panic!("{entry:?}");
    };
    assert!(said.contains(why), "{said}");
    assert!(entry.size > 100_000, "{}", entry.size);
    place.replay(&["--verify"]).expect(1, &["complete"]);
    place.describe("random,disk", "");
    let id = entry.id.to_string();
    place.run(&["recordings", "list"]).expect(0, &[&id, "incomplete"]);
    place.record(&[]).expect(0, &[&format!("demo {id}: salvaged: ")]);
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    place.describe("loop", "");
    place.replay(&[&id, "--verify"]).expect(0, &["IDENTICAL"]);
    let removed = place.run(&["recordings", "rm", GUEST, &id]);
    removed.expect(0, &[&format!("removed demo {id} (")]);
    assert!(!entry.directory.exists());
}

pub fn supervisor_killed(lab: &Lab) -> Outcome {
    let place = lab.place();
    let running = recorded_for_ever(&place);
    let emulator = running.emulator();
    running.signal(Signal::SIGKILL);
    running.end().expect(-9, &[]);
    lab::until("QEMU is gone as well", || {
        lab::state(emulator).is_none_or(|state| state == 'Z')
    });
    incomplete(&place, "was killed, or the host lost power");
    Ok(())
}

pub fn emulator_killed(lab: &Lab) -> Outcome {
    let place = lab.place();
    let running = recorded_for_ever(&place);
    kill(running.emulator(), Signal::SIGKILL).expect("kill");
    running.end().expect(1, &["QEMU ended in the middle of the run"]);
    incomplete(&place, "QEMU ended in the middle of the run");
    Ok(())
}

fn in_use(place: &Place, entry: &Entry) {
    let id = entry.id.to_string();
    place.run(&["recordings", "rm", GUEST, &id]).expect(4, &[&id, "in use"]);
    assert!(entry.directory.join("replay.log").exists());
}

/// Ctrl-C is how one ends a run that does not end by itself. While it runs, it is left alone.
pub fn interrupted(lab: &Lab) -> Outcome {
    let place = lab.place();
    let running = recorded_for_ever(&place);
    place
        .run(&["record", GUEST])
        .expect(4, &["guest \"demo\" is running, or being recorded or replayed"]);
    let entry = place.entry();
    assert_eq!(entry.state, State::Recording);
    in_use(&place, &entry);
    running.signal(Signal::SIGINT);
    running.end().expect(0, &["recorded demo ", "stopped after"]);

    let replaying = place.start(&["replay", GUEST, "--verify"], "replaying");
    let entry = place.entry();
    assert_eq!(entry.state, State::Complete);
    in_use(&place, &entry);
    place
        .replay(&["--verify"])
        .expect(4, &["guest \"demo\" is running, or being recorded or replayed"]);
    replaying.end().expect(0, &["IDENTICAL"]);
    Ok(())
}

pub fn after_a_time(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("loop", "");
    place.record(&["--for", "5s"]).expect(0, &["stopped after"]);
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    Ok(())
}

/// It resets at once, and the next time again: recorded, it is left alone until that is enough, and is a run as it was.
pub fn rebooting(lab: &Lab) -> Outcome {
    let place = lab.place();
    describe_tiny(&place, "reset");
    place.record(&[]).expect(
        0,
        &[
            "5 times in a row the guest rebooted within a minute",
            "the recording is whole",
            "stopped after",
        ],
    );
    // What resets the machine once more is its firmware, which does not count.
    let console = std::fs::read(place.recording().console()).expect("its console");
    let console = String::from_utf8_lossy(&console);
    assert_eq!(console.matches("clock ").count(), 5, "{console}");
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    Ok(())
}

/// One that nobody records is slowed, as Xen's are, and given up.
pub fn rebooting_plain(lab: &Lab) -> Outcome {
    let place = lab.place();
    describe_tiny(&place, "reset");
    let (mut console, mut troubles) = (String::new(), Vec::new());
    // In a thread of its own: signals wait there from then on.
    let ran = std::thread::scope(|scope| {
        let run = || {
            plain(&place, &mut |told| match told {
                Told::Console(text) => console += &text,
                Told::Trouble(why) => troubles.extend(why),
            })
        };
        scope.spawn(run).join()
    });
    let error = ran.expect("no panic");
    let error = error.expect_err("it is given up");
    assert_eq!(error.exit(), Exit::Refused);
    let error = error.to_string();
    assert!(
        error.contains("5 times in a row it rebooted within a minute of its start"),
        "{error}"
    );
    let pauses = [(2, 5), (3, 10), (4, 20)];
    let expected = pauses.map(|(times, pause)| {
        format!("rebooted within a minute, {times} times in a row now: started again in {pause} s")
    });
    assert_eq!(troubles, expected);
    // What resets the machine once more is its firmware, which does not count.
    assert_eq!(console.matches("clock ").count(), 5, "{console}");
    Ok(())
}

pub fn rebooted(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("random,reboot", "on_reboot = \"stop\"");
    place.record(&[]).expect(0, &["rebooted after"]);
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    Ok(())
}

/// The same end each time, in the middle of a boot.
pub fn at_an_instruction(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("none", "");
    for limit in ["guest:300_000_000", "guest:2.4s"] {
        for _ in 0..2 {
            let ran = place.run(&["record", GUEST, "--for", limit]);
            ran.expect(
                0,
                &["recorded demo ", ": ended as it was to after 300,000,000 instructions"],
            );
        }
        place
            .replay(&["--verify"])
            .expect(0, &["IDENTICAL", ": 300,000,000 instructions"]);
        place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    }
    place.describe("none", "qemu = { icount = \"auto\" }");
    let ran = place.run(&["record", GUEST, "--for", "guest:2s"]);
    ran.expect(4, &["nobody can say at which instruction of guest \"demo\" that is"]);
    Ok(())
}
