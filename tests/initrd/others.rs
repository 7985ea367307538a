// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images as other programs write them, and trees as people leave them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

use super::archive::Entry;
use super::{Archive, Place, said, tree};

/// gen_init_cpio writes the NUL after the target as a part of it.
#[test]
fn links_with_a_nul_after_them() {
    let place = Place::new("gen-init-cpio");
    let image = Archive::new()
        .link("sh", "busybox\0")
        .link("long", &format!("{}\0", "l".repeat(4095)))
        .link("plain", "busybox")
        .end(512);
    place.put("i", &image);
    place.says("list i", "sh\nlong\nplain\n[0]");
    assert!(place.session("list -l i").contains(" sh -> busybox\n"));
    assert!(place.session("unpack i u").ends_with("[0]"));
    assert_eq!(fs::read_link(place.path("u/sh")).unwrap().to_str(), Some("busybox"));
    assert!(place.session("pack u p").ends_with("[0]"));
    assert!(image == fs::read(place.path("p")).unwrap());
    for (target, why) in [("\0\0", "leads nowhere"), ("a\0b\0", "a NUL in it")] {
        place.put("i", &Archive::new().link("l", target).end(4));
        assert!(place.session("unpack i v").contains(why), "{target:?}");
    }
    // 4096 bytes are too many, with a NUL after them or without.
    for end in ["", "\0"] {
        let target = format!("{}{end}", "l".repeat(4096));
        place.put("i", &Archive::new().link("l", &target).end(4));
        assert!(place.session("unpack i v").contains("more than 4095 bytes"));
    }
}

/// GNU cpio has sums of files only: those of links are 0.
#[test]
fn sums_are_of_files() {
    let place = Place::new("crc");
    let with_sum = |name, mode, data, sum| Entry {
        magic: b"070702",
        name,
        mode,
        data,
        sum,
        ..Entry::default()
    };
    let image = Archive::new()
        .entry(&with_sum(b"f", 0o100_644, b"\x01\x02", 3))
        .entry(&with_sum(b"l", 0o120_777, b"f", 0))
        .end_with_sum(512);
    place.put("i", &image);
    assert!(place.session("unpack i u").ends_with("[0]"));
    place.session("pack u p");
    assert!(image == fs::read(place.path("p")).unwrap());
    fs::create_dir(place.path("d")).unwrap();
    fs::write(place.path("d/f"), "hello").unwrap();
    std::os::unix::fs::symlink("f", place.path("d/l")).unwrap();
    let cpio = Command::new("sh")
        .current_dir(place.path("d"))
        .args(["-c", "printf 'f\\nl\\n' | cpio -o --quiet -H crc > ../c"])
        .status();
    match cpio {
        Ok(status) if status.success() => assert_eq!(place.listed("c"), "f\nl\n[0]"),
        _ => eprintln!("skipped: no cpio"),
    }
}

/// Linux passes over zeros before each header.
#[test]
fn zeros_between_files() {
    let place = Place::new("zeros");
    for compression in ["none", "gzip"] {
        let mut first = Archive::new().file("a", 0o644, b"1").0;
        first.extend([0; 600]);
        let image = [first, Archive::new().file("b", 0o644, b"2").end(512)].concat();
        match compression {
            "none" => place.put("i", &image),
            _ => place.put("i", &super::formats::gzip(&image)),
        };
        place.says("list i", "a\nb\n[0]");
    }
    let cut = Archive::new().file("a", 0o644, b"1").0;
    place.put("i", &[cut, vec![0; 600]].concat());
    assert!(
        place
            .session("list i")
            .contains("the archive ends without a trailer: it is cut off")
    );
}

#[test]
fn a_file_that_would_end_the_archive() {
    let place = Place::new("trailer");
    fs::create_dir(place.path("d")).unwrap();
    for name in ["A", "TRAILER!!!", "Z"] {
        place.put(&format!("d/{name}"), b"");
    }
    place.says(
        "pack d p",
        "ttvm: d/TRAILER!!!: a file of this name ends an archive, for Linux and for everybody: rename it, or remove it\n[1]",
    );
    // Further down it is a name like others.
    fs::create_dir(place.path("d/sub")).unwrap();
    fs::rename(place.path("d/TRAILER!!!"), place.path("d/sub/TRAILER!!!")).unwrap();
    assert!(place.session("pack d p").ends_with("[0]"));
    place.says("list p", "A\nZ\nsub\nsub/TRAILER!!!\n[0]");
}

/// New files get a number that no other has, also behind the largest one.
#[test]
fn new_hard_links_are_of_nothing_else() {
    let place = Place::new("numbers");
    let last = Entry {
        name: b"z",
        ino: u32::MAX,
        ..Entry::default()
    };
    let image = Archive::new()
        .hard_link("a", 0, 2, b"")
        .hard_link("b", 0, 2, b"one")
        .entry(&last)
        .end(512);
    place.put("i", &image);
    place.session("unpack i u");
    place.put("u/n1", b"NEW");
    fs::hard_link(place.path("u/n1"), place.path("u/n2")).unwrap();
    assert!(place.session("pack u p").ends_with("[0]"));
    assert!(place.session("unpack p v").ends_with("[0]"));
    let read = |name: &str| fs::read_to_string(place.path("v").join(name)).unwrap();
    assert_eq!(
        [read("a"), read("b"), read("n1"), read("n2")],
        ["one", "one", "NEW", "NEW"]
    );
}

/// The later entry of a name wins, with what it does to the other names of that file.
#[test]
fn a_linked_name_that_comes_again() {
    let place = Place::new("again");
    let image = Archive::new()
        .hard_link("A", 5, 2, b"")
        .hard_link("B", 5, 2, b"")
        .hard_link("A", 6, 2, b"payload")
        .end(512);
    place.put("i", &image);
    place.session("unpack i u");
    let before = tree(&place.path("u"));
    assert!(place.session("pack u p").ends_with("[0]"));
    assert!(place.session("unpack p v").ends_with("[0]"));
    assert_eq!(before, tree(&place.path("v")));
    assert_eq!(fs::read_to_string(place.path("v/A")).unwrap(), "payload");
}

/// What not everybody may read is in no image that everybody may read.
#[test]
fn secrets_stay_secret() {
    let place = Place::new("secrets");
    let mode = |name: &str| fs::metadata(place.path(name)).unwrap().mode() & 0o777;
    let umask = |line: &str| {
        let program = env!("CARGO_BIN_EXE_ttvm");
        let script = format!("umask 022; exec {program} initrd {line}");
        Command::new("sh")
            .current_dir(place.path(""))
            .args(["-c", &script])
            .stdout(Stdio::null())
            .status()
            .unwrap()
    };
    fs::create_dir(place.path("d")).unwrap();
    place.put("d/key", b"secret");
    fs::set_permissions(place.path("d/key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(umask("pack d p").success());
    assert_eq!(mode("p"), 0o644);
    fs::set_permissions(place.path("d/key"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(umask("pack d q").success());
    assert_eq!(mode("q"), 0o600);
    // Somebody has decided about this one.
    assert!(umask("pack --force d p").success());
    assert_eq!(mode("p"), 0o644);
    // Root's tree may have programs with other rights in it, whoever made the directory.
    fs::create_dir(place.path("u")).unwrap();
    fs::set_permissions(place.path("u"), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(umask("unpack q u").success());
    let expected = if nix::unistd::geteuid().is_root() { 0o700 } else { 0o755 };
    assert_eq!(mode("u"), expected);
}

#[test]
fn what_is_no_place_for_an_image() {
    let place = Place::new("places");
    fs::create_dir(place.path("d")).unwrap();
    place.put("d/f", b"content");
    assert!(place.session("pack d d/p").ends_with("[0]"));
    for options in ["--force", "--force --dry-run"] {
        place.says(
            &format!("pack {options} d d/p"),
            "ttvm: d/p: this image would be in itself: name one outside of the directory, or remove it\n[1]",
        );
    }
    place.says(
        "pack d -",
        "ttvm: - is not the name of an image, which is whole before it has one: the standard output cannot have it (./- is a file)\n[1]",
    );
    place.put("i", &Archive::new().file("a", 0o644, b"").end(512));
    place.session("unpack i u");
    place.says("pack --level 5 u p", "ttvm: none has no level 5: it has but one\n[2]");
    place.says(
        "unpack i /proc/self",
        "ttvm: /proc/self is there already, and is not an empty directory: name one that is not there, or remove it\n[4]",
    );
}

/// A mode that was taken away stays away.
#[test]
fn without_the_group() {
    let place = Place::new("setgid");
    place.put("i", &Archive::new().file("f", 0o2755, b"").end(512));
    let Some(mut unpack) = place.of_user("unpack i u") else {
        return;
    };
    assert!(said(&mut unpack).ends_with("[0]"));
    let changed = fs::set_permissions(place.path("u/f"), fs::Permissions::from_mode(0o755));
    changed.unwrap();
    let Some(mut pack) = place.of_user("pack u p") else {
        return;
    };
    assert!(said(&mut pack).ends_with("[0]"));
    let listed = said(&mut place.of_user("list -l p").unwrap());
    assert!(listed.starts_with("-rwxr-xr-x"), "{listed}");
}

/// Whoever reads the array can read as far as it goes.
#[test]
fn json_up_to_what_is_wrong() {
    let place = Place::new("json");
    place.put("i", &Archive::new().file("a", 0o644, b"1").0);
    let output = place.command("list --json i").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows[0]["name"], "a");
}

/// One archive's files are in the directory itself, as whoever unpacks with cpio expects; the list beside them is none of them.
#[test]
fn one_segment_is_the_directory() {
    let place = Place::new("here");
    let root = Entry {
        name: b".",
        mode: 0o040_755,
        mtime: 1_000_000_000,
        ..Entry::default()
    };
    let image = Archive::new().entry(&root).file("a", 0o644, b"old").end(512);
    place.put("i", &image);
    assert!(place.session("unpack i u").ends_with("[0]"));
    assert_eq!(fs::read_to_string(place.path("u/a")).unwrap(), "old");
    assert!(place.session("pack u p").ends_with("[0]"));
    assert!(image == fs::read(place.path("p")).unwrap(), "packed as it was");
    place.put("u/a", b"new");
    place.put("u/b", b"more");
    assert!(place.session("pack --force u p").ends_with("[0]"));
    place.says("list p", ".\na\nb\n[0]");
    let names = place.names();
    assert_eq!(names, ["i", "p", "u"], "nothing is left");
    // With a file of the list's own name, it has a directory; that can be packed as well.
    let image = Archive::new().file("ttvm-initrd.jsonl", 0o644, b"its own").end(512);
    place.put("j", &image);
    assert!(place.session("unpack j v").ends_with("[0]"));
    assert_eq!(
        fs::read_to_string(place.path("v/1/ttvm-initrd.jsonl")).unwrap(),
        "its own"
    );
    assert!(place.session("pack v q").ends_with("[0]"));
    assert!(image == fs::read(place.path("q")).unwrap(), "packed as it was");
}
