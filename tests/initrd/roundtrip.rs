// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unpacked, packed, unpacked: by root and by others, as it was and with changes.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use super::archive::{Archive, Entry};
use super::{Place, said, tree};

/// An archive with everything a file can be.
fn odd() -> Vec<u8> {
    let of = |name: &'static str, mode: u32, owner: (u32, u32)| Entry {
        name: name.as_bytes(),
        mode,
        owner,
        ..Entry::default()
    };
    Archive::new()
        .directory(".", 0o755)
        .directory("bin", 0o755)
        .hard_link("bin/one", 9, 3, b"")
        .hard_link("bin/two", 9, 3, b"")
        .hard_link("bin/three", 9, 3, b"the same")
        .entry(&of("secret", 0o100_000, (0, 0)))
        .entry(&of("suid", 0o104_711, (12, 34)))
        .entry(&of("sgid", 0o102_755, (12, 34)))
        .entry(&of("tmp", 0o041_777, (0, 0)))
        .entry(&of("closed", 0o040_000, (5, 6)))
        .file("closed/x", 0o444, b"x")
        .entry(&Entry {
            mtime: 0,
            ..of("old", 0o100_644, (0, 0))
        })
        .entry(&Entry {
            mtime: u32::MAX,
            ..of("new", 0o100_644, (0, 0))
        })
        .entry(&Entry {
            owner: (7, 8),
            mtime: 5,
            name: b"link",
            mode: 0o120_777,
            data: b"/etc/pass\xffwd",
            ..Entry::default()
        })
        .node("null", 0o020_666, (1, 3))
        .node("disk", 0o060_660, (8, 17))
        .entry(&Entry {
            ino: 77,
            nlink: 2,
            rdev: (4, 64),
            ..of("tty", 0o020_620, (0, 5))
        })
        .entry(&Entry {
            ino: 77,
            nlink: 2,
            rdev: (4, 64),
            ..of("tty-too", 0o020_620, (0, 5))
        })
        .node("fifo", 0o010_640, (0, 0))
        .node("socket", 0o140_755, (0, 0))
        .entry(&Entry {
            name: b"n\xffm\ne",
            ..Entry::default()
        })
        .file("made/on/the/way", 0o600, b"")
        .file("empty", 0o644, b"")
        .file("twice", 0o600, b"first")
        .file("twice", 0o644, b"second")
        .end(512)
}

/// The list, without the name that is twice in the image and once in what is packed.
fn list(place: &Place, directory: &str) -> Vec<String> {
    let text = fs::read_to_string(place.path(directory).join("ttvm-initrd.jsonl")).expect("the list");
    text.lines()
        .filter(|line| !line.contains("\"twice\""))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_same_again_by_root() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let place = Place::new("root");
    place.put("i", &odd());
    for line in ["unpack i u", "pack u p", "pack u q", "unpack p v"] {
        let said = place.session(line);
        assert!(said.ends_with("[0]"), "{said}");
    }
    let read = |name: &str| fs::read(place.path(name)).expect("a file");
    assert!(read("p") == read("q"));
    assert_eq!(tree(&place.path("u")), tree(&place.path("v")));
    assert_eq!(list(&place, "u"), list(&place, "v"));
    let data = |name: &str| fs::symlink_metadata(place.path("u").join(name)).expect(name);
    assert_eq!(
        (data("suid").uid(), data("suid").gid(), data("suid").mode()),
        (12, 34, 0o104_711)
    );
    assert_eq!(data("sgid").mode(), 0o102_755);
    assert_eq!(data("closed").mode(), 0o040_000);
    assert_eq!(data("bin/one").ino(), data("bin/three").ino());
    assert_eq!(data("tty").ino(), data("tty-too").ino());
    assert_eq!((data("link").uid(), data("link").mtime()), (7, 5));
    assert_eq!(data("bin").mtime(), 1_000_000_000);
    assert_eq!((data("old").mtime(), data("new").mtime()), (0, i64::from(u32::MAX)));
    assert_eq!(read("u/twice"), b"second");
    assert_eq!(read("u/bin/two"), b"the same");
    // A name that was there twice is there once; nothing else is different.
    let listed = |image: &str| -> Vec<String> {
        place
            .session(&format!("list -l {image}"))
            .lines()
            .map(str::to_owned)
            .collect()
    };
    let mut before = listed("i");
    before.retain(|line| !line.ends_with(" twice") || !line.contains(" 5 2001"));
    let mut after = listed("p");
    for lines in [&mut before, &mut after] {
        lines.sort();
    }
    assert_eq!(before, after);
}

#[test]
fn the_same_again_by_anybody() {
    let place = Place::new("anybody");
    place.put("i", &odd());
    for line in ["unpack i u", "pack u p", "pack u q", "unpack p v"] {
        let Some(mut command) = place.of_user(line) else { return };
        let said = said(&mut command);
        assert!(said.ends_with("[0]"), "{said}");
        let told = said.contains("owners and devices are in u/ttvm-initrd.jsonl only");
        assert_eq!(told, line == "unpack i u", "{said}");
    }
    let read = |name: &str| fs::read(place.path(name)).expect("a file");
    assert!(read("p") == read("q"));
    assert_eq!(tree(&place.path("u")), tree(&place.path("v")));
    assert_eq!(list(&place, "u"), list(&place, "v"));
    let sorted = |image: &str| {
        let listed = place.session(&format!("list -l {image}"));
        let mut lines: Vec<String> = listed
            .lines()
            .filter(|line| !line.contains(" 5 2001"))
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted("i"), sorted("p"), "owners and devices are kept");
    // Whoever packs it.
    place.session("pack --force u q");
    assert!(read("p") == read("q"));
}

#[test]
fn what_was_changed_is_packed() {
    let place = Place::new("changed");
    let root = Archive::new()
        .directory(".", 0o755)
        .directory("d", 0o755)
        .file("d/gone", 0o644, b"gone")
        .file("d/longer", 0o644, b"short")
        .hard_link("h1", 5, 3, b"")
        .hard_link("h2", 5, 3, b"")
        .hard_link("h3", 5, 3, b"linked")
        .file("kind", 0o644, b"a file")
        .end(512);
    place.put(
        "i",
        &[
            super::sample()[..2048].to_vec(),
            zstd::encode_all(&root[..], 3).expect("zstd"),
        ]
        .concat(),
    );
    place.session("unpack i u");
    let at = |name: &str| place.path("u/2").join(name);
    fs::remove_file(at("d/gone")).expect("it goes");
    fs::write(at("d/longer"), b"much longer than it was").expect("another content");
    fs::set_permissions(at("d/longer"), fs::Permissions::from_mode(0o700)).expect("another mode");
    fs::create_dir_all(at("new/deep")).expect("new directories");
    fs::write(at("new/deep/file"), b"new").expect("a new file");
    fs::hard_link(at("new/deep/file"), at("new/linked")).expect("a new link");
    symlink("deep/file", at("new/link")).expect("a new link");
    // As an editor does, one of three; another goes.
    fs::remove_file(at("h2")).expect("it goes");
    fs::write(at("h2"), b"its own").expect("a new file");
    fs::remove_file(at("h3")).expect("it goes");
    fs::remove_file(at("kind")).expect("it goes");
    fs::create_dir(at("kind")).expect("a directory");
    fs::write(at("kind/of"), b"").expect("a file in it");
    assert!(place.session("pack u p").ends_with("[0]"));
    let listed = place.session("list p");
    let names: Vec<&str> = listed.lines().skip(4).collect();
    assert_eq!(
        names,
        [
            ".",
            "d",
            "d/longer",
            "h1",
            "h2",
            "kind",
            "kind/of",
            "new",
            "new/deep",
            "new/deep/file",
            "new/link",
            "new/linked",
            "[0]"
        ]
    );
    let long = place.session("list -l p");
    let line = |name: &str| {
        let end = format!(" {name}");
        let line = long.lines().find(|line| line.ends_with(&end)).expect(name);
        line.split_whitespace().take(5).map(str::to_owned).collect::<Vec<_>>()
    };
    let me = nix::unistd::geteuid().to_string();
    assert_eq!(line("d/longer")[0], "-rwx------");
    assert_eq!(line("d/longer")[4], "23");
    assert_eq!((line("h1")[1].as_str(), line("h1")[4].as_str()), ("1", "6"));
    assert_eq!((line("h2")[1].as_str(), line("h2")[4].as_str()), ("1", "7"));
    assert_eq!(
        (line("new/deep/file")[1].as_str(), line("new/deep/file")[4].as_str()),
        ("2", "0")
    );
    assert_eq!(
        (line("new/linked")[1].as_str(), line("new/linked")[4].as_str()),
        ("2", "3")
    );
    assert!(me != "0" || line("new")[2] == "0");
    place.session("unpack p v");
    let ino = |name: &str| fs::symlink_metadata(place.path("v/2").join(name)).expect(name).ino();
    assert!(ino("h1") != ino("h2") && ino("new/linked") == ino("new/deep/file"));
    let read = |name: &str| fs::read(place.path(name)).expect(name);
    assert_eq!(
        (read("v/2/h1"), read("v/2/h2")),
        (b"linked".to_vec(), b"its own".to_vec())
    );
    // The same from what it became.
    place.session("pack v q");
    assert!(read("p") == read("q"));
}

#[test]
fn any_directory_makes_an_image() {
    let place = Place::new("plain");
    fs::create_dir_all(place.path("d/b/c")).expect("directories");
    place.put("d/b/file", b"content");
    place.put("d/init", b"#!/bin/sh\n");
    let late = UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    let early = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for (name, time) in [("d/b/file", late), ("d/init", early), ("d/b/c", late), ("d/b", late)] {
        File::open(place.path(name))
            .and_then(|file| file.set_modified(time))
            .expect("a time");
    }
    let mut pack = place.command("pack d p");
    let said = said(pack.env("SOURCE_DATE_EPOCH", "1500000000"));
    assert!(
        said.starts_with("d packed to p: 1 segment, ") && said.ends_with(" bytes\n[0]"),
        "{said}"
    );
    let listed = place.session("list -l p");
    let lines: Vec<Vec<&str>> = listed
        .lines()
        .map(|line| line.split_whitespace().skip(4).collect())
        .collect();
    assert_eq!(lines[0], ["0", "2017-07-14", "02:40:00", "b"]);
    assert_eq!(lines[2], ["7", "2017-07-14", "02:40:00", "b/file"]);
    assert_eq!(lines[3], ["10", "2001-09-09", "01:46:40", "init"]);
    // A copy has other inodes and was made in another order, and makes the same image.
    fs::create_dir_all(place.path("e")).expect("a directory");
    place.put("e/init", b"#!/bin/sh\n");
    fs::create_dir_all(place.path("e/b")).expect("a directory");
    place.put("e/b/file", b"content");
    fs::create_dir(place.path("e/b/c")).expect("a directory");
    File::open(place.path("e/init"))
        .and_then(|file| file.set_modified(early))
        .expect("a time");
    super::said(place.command("pack e q").env("SOURCE_DATE_EPOCH", "1500000000"));
    let read = |name: &str| fs::read(place.path(name)).expect("an image");
    assert!(read("p") == read("q"));
    // In place of an image: its mode stays, and a link stays one.
    fs::set_permissions(place.path("p"), fs::Permissions::from_mode(0o600)).expect("a mode");
    symlink("p", place.path("l")).expect("a link");
    assert!(place.session("pack --force --compression none d l").ends_with("[0]"));
    let data = fs::symlink_metadata(place.path("p")).expect("the image");
    assert_eq!(data.mode() & 0o777, 0o600);
    assert!(place.path("l").is_symlink() && read("p").starts_with(b"070701"));
}

/// Linux passes over a file with a longer name, and says nothing.
#[test]
fn a_name_that_linux_does_not_read() {
    let place = Place::new("long");
    // Longer than a path can be, so step by step.
    let make = |steps: usize, last: usize| {
        let _ = fs::remove_dir_all(place.path("d"));
        fs::create_dir(place.path("d")).expect("a directory");
        let script = "i=0; while [ $i -lt $1 ]; do mkdir $2; cd -P $2; i=$((i+1)); done; : >$3";
        let status = Command::new("sh")
            .current_dir(place.path("d"))
            .args([
                "-ec",
                script,
                "sh",
                &steps.to_string(),
                &"d".repeat(255),
                &"f".repeat(last),
            ])
            .status();
        assert!(status.is_ok_and(|status| status.success()));
    };
    // 15 directories with a / after each.
    make(15, 255);
    assert!(place.session("pack d p").starts_with("d packed to p: "));
    assert!(place.session("list p").ends_with(&format!("/{}\n[0]", "f".repeat(255))));
    make(16, 1);
    place.says(
        "pack --force d p",
        &format!(
            "ttvm: d/{}…: its name has more than 4095 bytes, and Linux passes over such files: move it up, or remove it\n[1]",
            "d".repeat(100)
        ),
    );
}

/// An empty directory is where people unpack to: `mktemp -d`.
#[test]
fn an_empty_directory_is_used() {
    let place = Place::new("empty");
    place.put("i", &super::sample());
    fs::create_dir(place.path("u")).expect("a directory");
    fs::set_permissions(place.path("u"), fs::Permissions::from_mode(0o700)).expect("a mode");
    place.session("unpack i u/");
    let data = fs::metadata(place.path("u")).expect("the directory");
    assert_eq!(data.mode() & 0o777, 0o700);
    assert!(place.path("u/2/init").exists());
    assert_eq!(place.names(), ["i", "u"]);
}
