// SPDX-License-Identifier: MIT OR Apache-2.0
//! Killed at each step, and disks that run full.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::unistd::geteuid;
use ttvm::recording::{Library, State};

use super::{START, World, again, goes_on};

/// What a program does that records: not a test by itself.
#[test]
fn child_that_records() {
    let Some(state) = std::env::var_os("TTVM_TEST_STATE") else {
        return;
    };
    let mut world = World::new(&format!("child-{}", std::process::id()));
    world.library = Library::open(Path::new(&state));
    let draft = world.draft(START);
    world.run(draft, START);
}

/// Lets it record and be killed at `point`.
fn killed_at(world: &World, point: &str) {
    let status = again("killed::child_that_records", world.library.state_directory())
        .env("TTVM_FAIL_POINT", point)
        .status()
        .expect("a child");
    assert_eq!(status.signal(), Some(9), "{point}");
}

#[test]
fn killed_at_each_step() {
    let world = World::new("killed");
    let killed = "what recorded it was killed, or the host lost power";
    let cases = [
        ("recording.made", State::Incomplete(killed.to_owned())),
        ("recording.begun", State::Incomplete(killed.to_owned())),
        ("recording.synced", State::Incomplete(killed.to_owned())),
        ("recording.finished", State::Complete),
    ];
    for (point, _) in &cases {
        killed_at(&world, point);
    }
    let list = world.library.list(None).expect("a list");
    let states: Vec<&State> = list.iter().map(|entry| &entry.state).collect();
    assert_eq!(states, cases.iter().map(|(_, state)| state).collect::<Vec<_>>());
    // What it wrote is accounted for.
    assert!(list[2].size > 300_000);
    assert!(
        world
            .exact("show clientA 20261125-130700-3")
            .contains(&format!("state: incomplete: {killed}\n"))
    );
    // The next one works, and the space comes back.
    world.record(START);
    assert_eq!(
        world.ttvm("rm clientA --incomplete"),
        "removed clientA 20261125-130700 SIZE\nremoved clientA 20261125-130700-2 SIZE\n\
         removed clientA 20261125-130700-3 SIZE\nfreed SIZE\n"
    );
    let list = world.library.list(None).expect("a list");
    assert_eq!(list.len(), 2);
    for entry in list {
        let recording = world.library.complete(entry).expect("it is whole");
        assert_eq!(recording.check(&mut goes_on).expect("a check"), []);
    }
}

#[test]
fn killed_while_it_is_being_recorded() {
    let world = World::new("held");
    let mut child = again("killed::child_that_records", world.library.state_directory())
        .env("TTVM_FAIL_POINT", "recording.begun:hang")
        .spawn()
        .expect("a child");
    let state = || world.library.list(None).expect("a list").pop().map(|entry| entry.state);
    for _ in 0..500 {
        if state() == Some(State::Recording) {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(state(), Some(State::Recording));
    assert!(world.exact("rm clientA 2026").ends_with("[4]\n"));
    assert_eq!(world.exact("rm clientA --incomplete"), "nothing to remove\n");
    child.kill().expect("it is killed");
    child.wait().expect("it ends");
    assert!(matches!(state(), Some(State::Incomplete(_))));
    assert!(
        world
            .ttvm("rm clientA 2026")
            .starts_with("removed clientA 20261125-130700")
    );
}

#[test]
fn killed_while_it_is_being_removed() {
    let world = World::new("removing");
    world.record(START);
    world.record(START + 1);
    let status = world
        .command()
        .args(["recordings", "rm", "clientA", "20261125-130700"])
        .env("TTVM_FAIL_POINT", "recording.removing")
        .status()
        .expect("ttvm runs");
    assert_eq!(status.signal(), Some(9));
    // Nothing of it looks whole.
    assert_eq!(world.library.list(None).expect("a list").len(), 1);
    assert!(world.recordings().join("clientA/.removing-20261125-130700").is_dir());
    assert!(world.ttvm("rm clientA 20261125-130701").ends_with("freed SIZE\n"));
    assert!(!world.recordings().join("clientA/.removing-20261125-130700").exists());
}

/// Fills a file system: not a test by itself.
#[test]
fn child_that_runs_full() {
    let Some(state) = std::env::var_os("TTVM_TEST_STATE") else {
        return;
    };
    let mut world = World::new("full-files");
    world.library = Library::open(Path::new(&state));
    let draft = world.draft(START);
    let mut log = File::create(draft.log()).expect("a log");
    while log.write_all(&[7; 65_536]).is_ok() {}
    drop(log);
    File::create(draft.console()).expect("a console");
    let mut manifest = world.manifest(START);
    let (log, console) = draft.digests(&mut goes_on).expect("digests");
    manifest.result = Some(ttvm::recording::library::manifest::Outcome {
        ended: START + 1,
        exit: ttvm::recording::library::manifest::RunExit::Stopped,
        instructions: Some(1),
        console_complete: true,
        log,
        console,
        moments: Vec::new(),
    });
    draft.note_why("the disk ran full");
    let error = draft.finish(&manifest).expect_err("no room");
    assert!(
        ttvm::base::error::chain(&error).contains("No space left on device"),
        "{error}"
    );
    let entry = world.library.entry(&world.guest, "2026").expect("it");
    assert!(matches!(entry.state, State::Incomplete(_)), "{:?}", entry.state);
    assert!(world.library.remove(&entry).expect("it goes") > 500_000);
    assert!(world.library.free_space().expect("a size") > 500_000);
}

#[test]
fn a_disk_that_runs_full() {
    if !geteuid().is_root() {
        eprintln!("a_disk_that_runs_full: skipped, it needs root to mount a file system");
        return;
    }
    let world = World::new("full");
    let mount = world.directory.join("mount");
    fs::create_dir(&mount).expect("a directory");
    let script = "mount -t tmpfs -o size=1m none \"$TTVM_TEST_STATE\" && exec \"$@\"";
    let child = again("killed::child_that_runs_full", &mount);
    let status = Command::new("unshare")
        .args(["--mount", "sh", "-ec", script, "sh"])
        .arg(child.get_program())
        .args(child.get_args())
        .env("TTVM_TEST_STATE", &mount)
        .status()
        .expect("unshare");
    assert!(status.success());
}
