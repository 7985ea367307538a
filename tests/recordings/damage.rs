// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every byte that is not as it was recorded is found.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use ttvm::file::digest;
use ttvm::recording::State;

use super::{START, World};

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("a file");
}

#[test]
fn of_a_manifest() {
    let world = World::new("manifest");
    let path = world.record(START).directory().join("manifest.toml");
    let right = fs::read(&path).expect("a manifest");
    let state = || {
        let entry = world.library.entry(&world.guest, "2026").expect("it");
        entry.state
    };
    for at in 0..right.len() {
        for bit in [1, 0x20, 0x80] {
            let mut wrong = right.clone();
            wrong[at] ^= bit;
            fs::write(&path, wrong).expect("a file");
            assert!(matches!(state(), State::Damaged(_)), "byte {at}, bit {bit}");
        }
    }
    for length in 0..right.len() {
        fs::write(&path, &right[..length]).expect("a file");
        assert!(matches!(state(), State::Damaged(_)), "{length} bytes");
    }
    fs::write(&path, [&right[..], b"\n"].concat()).expect("a file");
    assert!(matches!(state(), State::Damaged(_)));
    // One that is damaged does not hide the others.
    world.record(START + 1);
    let list = world.ttvm("list");
    assert!(list.contains("clientA 20261125-130700 - - damaged SIZE -\n"), "{list}");
    assert!(
        list.contains("clientA 20261125-130701 2026-11-25 13:07:01 1min 12s complete SIZE -\n"),
        "{list}"
    );
    let why = "manifest.toml was cut off or edited: its last line is not its digest";
    assert_eq!(
        world.exact("verify clientA 20261125-130700"),
        format!("clientA 20261125-130700: {why}\n[1]\n")
    );
    fs::remove_file(&path).expect("it goes");
    assert_eq!(
        world.exact("verify clientA 20261125-130700"),
        "clientA 20261125-130700: manifest.toml is missing\n[1]\n"
    );
    let text = String::from_utf8(right).expect("text");
    fs::write(&path, text.replace("guest = \"clientA\"", "guest = \"clientB\"")).expect("a file");
    let shown = world.exact("show clientA 20261125-130700");
    assert!(
        shown.contains("state: damaged: manifest.toml was edited: its digest is blake3:"),
        "{shown}"
    );
    // Another format, by a newer ttvm.
    let newer = text.replace("format = 2", "format = 3");
    let content = newer.rsplit_once("# digest").expect("a seal").0;
    let seal = format!(
        "# digest of the lines above: {}\n",
        digest::of_bytes(content.as_bytes())
    );
    fs::write(&path, content.to_owned() + &seal).expect("a file");
    assert_eq!(
        world.exact("verify clientA 20261125-130700"),
        "clientA 20261125-130700: manifest.toml has format 3, this ttvm knows 1 to 2: update ttvm\n[1]\n"
    );
    assert!(world.ttvm("rm clientA 20261125-130700").starts_with("removed "));
}

#[test]
fn of_other_files() {
    let world = World::new("damage");
    let recording = world.record(START);
    let (log, console, guest) = (recording.log(), recording.console(), recording.guest_file());
    let whole = "clientA 20261125-130700 is as it was recorded\n";
    assert_eq!(world.exact("verify clientA"), whole);
    assert_eq!(
        world.exact("verify --all"),
        "clientA 20261125-130700: is as it was recorded; no replay of it was identical so far\n"
    );
    let result = recording.manifest().result.clone().expect("a result");
    // Each change, and what is said of it.
    let check = |path: &Path, change: &dyn Fn(&Path), expected: &str| {
        let right = fs::read(path).expect("a file");
        change(path);
        let found = world.exact("verify clientA");
        assert_eq!(found, format!("clientA 20261125-130700: {expected}\n[1]\n"));
        drop(fs::remove_file(path));
        fs::write(path, right).expect("a file");
    };
    let truncate = |length: u64| {
        move |path: &Path| {
            let file = fs::OpenOptions::new().write(true).open(path).expect("a file");
            file.set_len(length).expect("another length");
        }
    };
    check(
        &log,
        &truncate(299_999),
        "replay.log was truncated: 299999 bytes, recorded 300000",
    );
    check(&log, &truncate(0), "replay.log was truncated: 0 bytes, recorded 300000");
    check(
        &log,
        &truncate(300_001),
        "replay.log was appended to: 300001 bytes, recorded 300000",
    );
    check(
        &log,
        &|path| fs::remove_file(path).expect("it goes"),
        "replay.log is missing",
    );
    let link = |path: &Path| {
        fs::remove_file(path).expect("it goes");
        symlink("/dev/null", path).expect("a link");
    };
    check(&log, &link, "replay.log is not a file any more");
    for at in [0, 150_000, 299_999] {
        let right = fs::read(&log).expect("a log");
        flip(&log, at);
        let found = digest::of_bytes(&fs::read(&log).expect("a log"));
        fs::write(&log, right).expect("a log");
        let expected = format!(
            "replay.log was changed: its digest is {found}, recorded {}",
            result.log.digest
        );
        check(&log, &|path| flip(path, at), &expected);
    }
    let edited = b"Linux version 6.2\nwelcome\n".repeat(100);
    let expected = format!(
        "console.log was edited: its digest is {}, recorded {}",
        digest::of_bytes(&edited),
        result.console.digest
    );
    check(&console, &|path| fs::write(path, &edited).expect("a file"), &expected);
    check(&guest, &truncate(3), "guest.toml was truncated: 3 bytes, recorded 19");
    assert_eq!(world.exact("verify clientA"), whole);
    // All that is wrong, not the first only.
    fs::remove_file(&console).expect("it goes");
    flip(&log, 7);
    let json: serde_json::Value =
        serde_json::from_str(world.exact("verify clientA --json").trim_end_matches("[1]\n")).expect("JSON");
    assert_eq!(json["whole"], false);
    assert_eq!(json["faults"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["faults"][1], "console.log is missing");
}
