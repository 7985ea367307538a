// SPDX-License-Identifier: MIT OR Apache-2.0
//! Recordings that nobody finished, made whole again.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use ttvm::config::guest::Toolstack;
use ttvm::recording::library::manifest::{Outcome, RunExit};
use ttvm::recording::{Entry, State};

use super::{GUEST_FILE, START, World, goes_on};

const SALVAGED: &str = "clientA 20261125-130700: salvaged: 1,234 instructions, console 3 bytes";

/// What QEMU had logged: up to 1234 instructions, in which three bytes were printed, and a fourth behind them.
fn log() -> Vec<u8> {
    let printed = [22, 0, 0, 0, 1, 0, 0, 0, 1];
    let instructions = |count: u32| [&[0][..], &count.to_be_bytes()].concat();
    let parts = [
        &[0; 12][..],
        &[37],
        &instructions(1000),
        &printed.repeat(3),
        &instructions(234),
        // It goes on, prints, and is cut off within what comes next.
        &[31],
        &instructions(5),
        &printed,
        &[29, 0, 0, 7],
    ];
    parts.concat()
}

/// A recording whose writer is dead.
fn killed(world: &World, log: &[u8], console: &[u8]) -> PathBuf {
    let draft = world.draft(START);
    fs::write(draft.log(), log).expect("a log");
    fs::write(draft.console(), console).expect("a console");
    draft.note_why("the power failed");
    draft.directory().to_owned()
}

fn entry(world: &World) -> Entry {
    world.library.entry(&world.guest, "2026").expect("it")
}

fn result(world: &World) -> Outcome {
    let recording = world.library.find(&world.guest, None).expect("a whole one");
    assert_eq!(recording.check(&mut goes_on).expect("a check"), []);
    recording.manifest().result.clone().expect("a result")
}

#[test]
fn up_to_what_is_known() {
    let world = World::new("salvage");
    let directory = killed(&world, &log(), b"one\ntwo\n");
    let (long, kept) = (log().len(), log().len() - 19);
    assert_eq!(
        world.exact("salvage clientA"),
        format!("{SALVAGED}; {} bytes of the log were lost\n", long - kept)
    );
    let found = result(&world);
    assert_eq!(
        (found.exit, found.instructions, found.console_complete),
        (RunExit::Cut, Some(1234), true)
    );
    assert_eq!(fs::read(directory.join("console.log")).expect("it"), b"one");
    let whole = fs::read(directory.join("replay.log")).expect("it");
    assert_eq!(whole[..4], [0, 0xe0, 0x20, 0x0c]);
    // QEMU is told to quit, and the log ends.
    assert_eq!(whole[4..], [&log()[4..kept], &[12, 39]].concat());
    assert!(!directory.join("incomplete").exists());
    assert!(world.exact("show clientA").contains("because: the guest was cut off\n"));
    let manifest = world.library.find(&world.guest, None).expect("it").manifest().clone();
    assert!(manifest.disks[0].end.is_none());
    assert_eq!(
        world.exact("salvage clientA 2026"),
        "clientA 20261125-130700 is whole: there is nothing to salvage\n"
    );
    assert_eq!(
        world.exact("salvage clientA"),
        "guest \"clientA\" has no incomplete recording\n"
    );
}

/// After a power cut, zeros stand for what was not written any more.
#[test]
fn the_end_of_the_console_is_lost() {
    for (console, kept) in [
        (&b"on"[..], 2),
        (b"on\0", 2),
        (b"one\0\0", 3),
        (b"\0\0\0\0", 0),
        (b"", 0),
    ] {
        let world = World::new("salvage-console");
        let directory = killed(&world, &log(), console);
        world.exact("salvage clientA");
        let found = result(&world);
        assert_eq!((found.console.size, found.console_complete), (kept, kept == 3));
        let manifest = fs::read_to_string(directory.join("manifest.toml")).expect("it");
        assert_eq!(manifest.contains("console_complete = false"), kept < 3);
    }
}

/// Done once more, it comes to the same.
#[test]
fn killed_at_each_step() {
    let world = World::new("salvage-killed");
    killed(&world, &log(), b"one\ntwo\n");
    world.exact("salvage clientA");
    let once = result(&world);
    for point in ["salvage.log", "recording.synced", "recording.finished"] {
        let world = World::new("salvage-killed");
        let directory = killed(&world, &log(), b"one\ntwo\n");
        let mut command = world.command();
        command.args(["recordings", "salvage", "clientA"]);
        let status = command.env("TTVM_FAIL_POINT", point).status().expect("ttvm runs");
        assert_eq!(status.signal(), Some(9), "{point}");
        let is_whole = entry(&world).state == State::Complete;
        assert_eq!(is_whole, point == "recording.finished");
        let again = world.exact("salvage clientA 2026");
        match is_whole {
            true => assert!(again.contains("is whole"), "{again}"),
            false => assert_eq!(again, format!("{SALVAGED}\n"), "{point}"),
        }
        let found = result(&world);
        assert_eq!((&found.log, &found.console), (&once.log, &once.console), "{point}");
        assert_eq!((found.exit, found.instructions), (once.exit, once.instructions));
        assert!(is_whole || !directory.join("incomplete").exists());
    }
}

#[test]
fn nothing_to_salvage() {
    let refused = "ttvm: nothing of the recording 20261125-130700 of guest \"clientA\" can be salvaged; remove it with `ttvm recordings rm \
                   clientA 20261125-130700`\n  because: ";
    for (log, why) in [
        (&[0; 12][..], "not one instruction was logged"),
        (
            &[0, 0, 0],
            "it is cut off: it ends at byte 0, within an event or before the last one",
        ),
        (&[0; 400], "not one instruction was logged"),
        (
            b"Linux version",
            "it is no log of a QEMU from 7.2 to 10.0: it begins with 0x4c696e75, not with 0xe0200c",
        ),
    ] {
        let world = World::new("salvage-nothing");
        let directory = killed(&world, log, b"one");
        for line in ["salvage clientA", "salvage clientA 2026"] {
            assert_eq!(world.exact(line), format!("{refused}{why}\n[4]\n"));
        }
        assert_eq!(fs::read(directory.join("replay.log")).expect("it"), log, "as it was");
        assert_eq!(entry(&world).state, State::Incomplete("the power failed".to_owned()));
    }
    let world = World::new("salvage-nothing");
    drop(world.draft(START));
    assert_eq!(
        world.exact("salvage clientA"),
        format!("{refused}not one instruction was logged\n[4]\n")
    );
    let lock = entry(&world).directory.join("lock");
    fs::remove_file(lock).expect("it goes");
    assert!(world.exact("salvage clientA").ends_with("logged\n[4]\n"));
}

#[test]
fn of_somebody_else() {
    let world = World::new("salvage-refused");
    let draft = world.draft(START);
    fs::write(draft.log(), log()).expect("a log");
    assert_eq!(
        world.exact("salvage clientA 2026"),
        "ttvm: the recording 20261125-130700 of guest \"clientA\" is being made: wait for its end\n[4]\n"
    );
    assert_eq!(
        world.exact("salvage clientA"),
        "guest \"clientA\" has no incomplete recording\n"
    );
    let log_path = draft.log();
    drop(draft);
    let in_use = |world: &World| {
        let said = world.exact("salvage clientA");
        assert!(said.contains("is in use") && said.ends_with("[4]\n"), "{said}");
    };
    // Somebody looks at it.
    let lock = File::open(log_path.with_file_name("lock")).expect("it");
    lock.lock_shared().expect("a lock");
    in_use(&world);
    drop(lock);
    // QEMU is just dying.
    let qemu = File::open(&log_path).expect("it");
    qemu.lock().expect("a lock");
    in_use(&world);
    drop(qemu);
    assert_eq!(fs::read(&log_path).expect("it"), log(), "as it was");
    assert!(world.exact("salvage clientA").contains("salvaged: "));

    let world = World::new("salvage-xm");
    let mut manifest = world.manifest(START);
    manifest.engine.toolstack = Toolstack::Xm;
    drop(
        world
            .library
            .create(&world.guest, &manifest, GUEST_FILE)
            .expect("a draft"),
    );
    assert_eq!(
        world.exact("salvage clientA"),
        "ttvm: the recording 20261125-130700 of guest \"clientA\" cannot be salvaged: only QEMU's can; remove it with `ttvm recordings rm \
         clientA 20261125-130700`\n[4]\n"
    );
    let path = entry(&world).directory.join("manifest.toml");
    fs::write(path, "edited\n").expect("a file");
    assert!(world.exact("salvage clientA 2026").ends_with("[1]\n"));
}

#[test]
fn the_page_knows_it() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/ttvm-recording.5");
    let page = fs::read_to_string(page).expect("a man page");
    for word in ["console_complete", "cut", "ttvm recordings salvage"] {
        assert!(page.contains(word), "{word}");
    }
}
