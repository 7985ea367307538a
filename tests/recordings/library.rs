// SPDX-License-Identifier: MIT OR Apache-2.0
//! Made, listed, shown, used, pinned and removed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ttvm::recording::{Divergence, Error, Verdict};

use super::{GUEST_FILE, START, World};

const DAY: u64 = 86_400;

#[test]
fn from_a_draft_to_a_whole_one() {
    let world = World::new("draft");
    assert_eq!(world.exact("list"), "there are no recordings in DIR/state\n");
    assert_eq!(
        world.exact("show clientA"),
        "ttvm: guest \"clientA\" has no recording: `ttvm recordings list` shows what is there, `ttvm record clientA` makes one\n[1]\n"
    );
    let said = world.exact("show --json clientA");
    let (json, text) = said.split_once("\nttvm: ").expect("for programs, and for people");
    let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
    assert_eq!(
        (&json["error"]["kind"], &json["error"]["exit"]),
        (&"failed".into(), &1.into())
    );
    assert!(
        text.starts_with(json["error"]["message"].as_str().expect("a sentence")),
        "{said}"
    );
    let draft = world.draft(START);
    assert_eq!(draft.id().to_string(), "20261125-130700");
    let state = |line: &str| world.ttvm(&format!("list {line}"));
    let head = "GUEST ID STARTED LENGTH STATE SIZE REPLAYED\n";
    assert_eq!(
        state("clientA"),
        format!("{head}clientA 20261125-130700 2026-11-25 13:07:00 - being recorded SIZE -\n1 recording, SIZE\n")
    );
    assert_eq!(
        world.exact("verify clientA 20261125"),
        "ttvm: the recording 20261125-130700 of guest \"clientA\" is being made: wait for its end\n[4]\n"
    );
    assert_eq!(
        world.exact("rm clientA 20261125"),
        "ttvm: the recording 20261125-130700 of guest \"clientA\" is in use: it is being recorded, replayed, exported or removed; wait for the end of that\n[4]\n"
    );
    // Another in the same second has another name.
    let other = world.draft(START);
    assert_eq!(other.id().to_string(), "20261125-130700-2");
    other.note_why("the disk ran full\nand more");
    drop(other);
    let recording = world.run(draft, START);
    assert_eq!(
        state(""),
        format!(
            "{head}clientA 20261125-130700 2026-11-25 13:07:00 1min 12s complete SIZE -\n\
             clientA 20261125-130700-2 2026-11-25 13:07:00 - incomplete SIZE -\n2 recordings, SIZE\n"
        )
    );
    assert_eq!(
        world.exact("verify clientA 20261125-130700-2"),
        "ttvm: the recording 20261125-130700-2 of guest \"clientA\" is incomplete: the disk ran full; `ttvm recordings salvage clientA 20261125-130700-2` makes a whole one of what there is of it\n[4]\n"
    );
    // The newest complete one.
    let found = world.library.find(&world.guest, None).expect("a recording");
    assert_eq!(found.id(), recording.id());
    assert_eq!(found.manifest(), recording.manifest());
    assert_eq!(
        world.exact("verify clientA"),
        "clientA 20261125-130700 is as it was recorded\n"
    );
    // For nobody else's eyes.
    for path in [world.recordings(), recording.directory().to_owned()] {
        let mode = fs::metadata(&path).expect("a directory").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", path.display());
    }
}

#[test]
fn shown_with_everything() {
    let world = World::new("show");
    let recording = world.record(START);
    let identical = Verdict::Identical {
        instructions: Some(123_456_789),
        from: None,
        moments: 3,
        memory: true,
        disks: 1,
    };
    recording.note_verdict(&identical, "7.2.22");
    recording.note_verdict(&identical, "7.2.22");
    let list = world.ttvm("list clientA");
    assert!(list.contains(" complete SIZE identical ×2\n"), "{list}");
    recording.note_verdict(
        &Verdict::Diverged {
            at: Divergence::Console {
                line: 2,
                column: 3,
                byte: 20,
                expected: "welcome".to_owned(),
                found: "wekcome".to_owned(),
                instructions: Some(1000),
            },
        },
        "7.2.22",
    );
    let list = world.ttvm("list clientA");
    assert!(list.contains(" complete SIZE diverged\n"), "{list}");
    let shown = world.ttvm("show clientA 2026");
    let manifest = recording.manifest();
    let result = manifest.result.as_ref().expect("a result");
    let kernel = manifest.kernel.as_ref().expect("a kernel");
    let initrd = manifest.initrd.as_ref().expect("an initrd");
    let expected = format!(
        "guest: clientA\nrecording: 20261125-130700\ndirectory: DIR/state/recordings/clientA/20261125-130700\n\
         state: complete\npinned: no\nsize on disk: SIZE\nstarted: 2026-11-25 13:07:00\n\
         ended: 2026-11-25 13:08:12, after 1min 12s\nbecause: the guest powered itself off\ninstructions: 123456789\n\
         log: replay.log, 300000 bytes, {}\nconsole: console.log, 2600 bytes, {}\nttvm: 0.1.0\n\
         host's boot: 8b1c2d3e-0000-4000-8000-000000000000\nnetwork: user\nengine: qemu 7.2.22\nmachine: pc-i440fx-7.2\n\
         cpu: qemu64\nicount: 3\nmemory: 96M\ncmdline: console=ttyS0\na reset: goes on\nconfiguration: {}\n\
         guest's file: /etc/ttvm/guests/clientA.toml, {} bytes, {}\nkernel: DIR/vmlinuz, 70000 bytes, {}\n\
         initrd: DIR/initrd.img, 5000 bytes, {}\ndisk: vda: from DIR/base.img, 3145728 bytes, {}\nvif: 00:16:3e:00:00:01\n",
        result.log.digest,
        result.console.digest,
        manifest.engine.config,
        GUEST_FILE.len(),
        manifest.guest_file.digest,
        kernel.digest,
        initrd.digest,
        manifest.disks[0].digest,
    );
    let (before, after) = shown.split_once("replayed: diverged, the last time ").expect(&shown);
    assert_eq!(before, expected);
    assert!(
        after.ends_with(
            "\nlast replay: diverged: the console is another from line 2, column 3 on (byte 20, after 1,000 instructions): \
             it was \"welcome\", it became \"wekcome\"\nidentical on: 7.2.22\n"
        ),
        "{after}"
    );
    let json: serde_json::Value = serde_json::from_str(&world.exact("show clientA --json")).expect("JSON");
    assert_eq!(json["state"], "complete");
    assert_eq!(json["replays"]["verdict"], "diverged");
    assert_eq!(json["replays"]["at"]["what"], "console");
    assert_eq!(json["manifest"]["engine"]["memory"], 96 << 20);
    let json: serde_json::Value = serde_json::from_str(&world.exact("list --json")).expect("JSON");
    assert_eq!(json[0]["id"], "20261125-130700");
    assert_eq!(json[0]["ended"], START + 72);
}

#[test]
fn beginnings_of_ids() {
    let world = World::new("prefix");
    for started in [START, START, START + 1, START + DAY] {
        world.record(started);
    }
    let find = |wanted: &str| {
        let found = world.library.find(&world.guest, Some(wanted));
        found.map(|recording| recording.id().to_string())
    };
    assert_eq!(find("20261126").ok().as_deref(), Some("20261126-130700"));
    // Itself, although another begins so.
    assert_eq!(find("20261125-130700").ok().as_deref(), Some("20261125-130700"));
    assert_eq!(
        find("20261125-13").expect_err("more than one").to_string(),
        "\"20261125-13\" is the beginning of more than one recording: 20261125-130701, 20261125-130700-2, 20261125-130700"
    );
    for wanted in ["", "2027", "../clientA", ".", "x"] {
        assert_eq!(
            find(wanted).expect_err("none").to_string(),
            format!(
                "guest \"clientA\" has no recording {wanted:?}; there is 20261126-130700, 20261125-130701, 20261125-130700-2, 20261125-130700"
            )
        );
    }
    assert!(world.exact("show clientA 2026").ends_with("[2]\n"));
}

#[test]
fn removed_pinned_and_in_use() {
    let world = World::new("rm");
    let ids = |world: &World| -> Vec<String> {
        let list = world.library.list(Some(&world.guest)).expect("a list");
        list.iter().map(|entry| entry.id.to_string()).collect()
    };
    for day in 0..4 {
        world.record(START + day * DAY);
    }
    drop(world.draft(START + 4 * DAY));
    assert_eq!(
        world.exact("rm clientA"),
        "ttvm: which? Name recordings, or say --incomplete, --keep N or --older-than DAYS\n[2]\n"
    );
    assert_eq!(
        world.exact("pin clientA 20261125"),
        "clientA 20261125-130700 is pinned: it is not removed\n"
    );
    let pinned = "the recording 20261125-130700 of guest \"clientA\" is pinned: `ttvm recordings unpin clientA 20261125-130700` lets it be removed";
    assert_eq!(world.exact("rm clientA 20261125"), format!("ttvm: {pinned}\n[4]\n"));
    assert!(world.ttvm("list").contains(" complete, pinned SIZE -\n"));
    let used = world.library.find(&world.guest, Some("20261126")).expect("a recording");
    let in_use = used.use_shared().expect("a lock");
    // Any number at once.
    let also = used.use_shared().expect("a lock");
    let busy = "the recording 20261126-130700 of guest \"clientA\" is in use: it is being recorded, replayed, exported or removed; wait for the end of that";
    assert_eq!(world.exact("rm clientA 20261126"), format!("ttvm: {busy}\n[4]\n"));
    drop(in_use);
    assert!(matches!(
        world
            .library
            .check_removal(&world.library.entry(&world.guest, "20261126").expect("it")),
        Err(Error::InUse { .. })
    ));
    assert_eq!(
        world.ttvm("rm clientA --keep 1 --dry-run"),
        format!(
            "left alone: {pinned}\nleft alone: {busy}\nwould remove clientA 20261127-130700 SIZE\nwould free SIZE\n"
        )
    );
    assert_eq!(ids(&world).len(), 5);
    drop(also);
    assert_eq!(
        world.ttvm("rm clientA --keep 1 --incomplete"),
        format!(
            "left alone: {pinned}\nremoved clientA 20261126-130700 SIZE\nremoved clientA 20261127-130700 SIZE\n\
             removed clientA 20261129-130700 SIZE\nfreed SIZE\n"
        )
    );
    assert_eq!(ids(&world), ["20261125-130700", "20261128-130700"]);
    assert_eq!(world.exact("rm clientA --incomplete"), "nothing to remove\n");
    // What it took is what is free then.
    let entry = world.library.entry(&world.guest, "20261128").expect("it");
    assert!(entry.size >= 300_000);
    assert_eq!(world.library.remove(&entry).expect("it goes"), entry.size);
    assert!(used.use_shared().is_err());
    assert_eq!(
        world.exact("unpin clientA"),
        "clientA 20261125-130700 is not pinned: it may be removed\n"
    );
    // From long ago, so that it is old whatever the clock says.
    world.record(START - 20_000 * DAY);
    assert_eq!(
        world.ttvm("rm clientA --older-than 15000"),
        "removed clientA 19720222-130700 SIZE\nfreed SIZE\n"
    );
    assert_eq!(
        world.ttvm("rm clientA 20261125 20261125-13"),
        "removed clientA 20261125-130700 SIZE\nfreed SIZE\n"
    );
    assert_eq!(world.tree(), ["recordings", "recordings/.lock"]);
}

/// The keys of a table and of those in it.
fn keys(table: &toml::Table, found: &mut Vec<String>) {
    for (key, value) in table {
        found.push(key.clone());
        match value {
            toml::Value::Table(table) => keys(table, found),
            toml::Value::Array(tables) => {
                tables
                    .iter()
                    .filter_map(toml::Value::as_table)
                    .for_each(|table| keys(table, found));
            }
            _ => {}
        }
    }
}

#[test]
fn every_key_is_documented() {
    let world = World::new("keys");
    let path = world.record(START).directory().join("manifest.toml");
    let text = fs::read_to_string(path).expect("a manifest");
    let mut found = Vec::new();
    keys(&text.parse().expect("TOML"), &mut found);
    assert!(found.len() > 30);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/ttvm-recording.5");
    let page = fs::read_to_string(page).expect("a man page");
    let words: Vec<&str> = page.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    for key in found {
        assert!(words.contains(&key.as_str()), "ttvm-recording.5 does not tell of {key}");
    }
}
