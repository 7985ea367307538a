// SPDX-License-Identifier: MIT OR Apache-2.0
//! What few programs write, and places that are not what they seem.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::process::Command;

use super::archive::{Archive, Entry, TRAILER};
use super::{Place, said};

/// Unpacked and packed again it is the same, byte by byte.
#[track_caller]
fn comes_back(place: &Place, image: &[u8]) {
    place.put("i", image);
    for line in ["unpack i u", "pack u p"] {
        let said = place.session(line);
        assert!(said.ends_with("[0]"), "{said}");
    }
    assert!(fs::read(place.path("p")).expect("an image") == image);
    fs::remove_dir_all(place.path("u")).expect("it goes");
    fs::remove_file(place.path("p")).expect("it goes");
}

/// By NULs behind names, iucode_tool, 3cpio and dracut-cpio align data.
#[test]
fn aligned_data() {
    let place = Place::new("aligned");
    let aligned = Archive::new()
        .directory("kernel", 0o755)
        .entry(&Entry {
            name: b"kernel/GenuineIntel.bin\0\0\0\0\0\0\0",
            data: b"microcode",
            ..Entry::default()
        })
        .end(512);
    comes_back(&place, &aligned);
    // More than a name can have.
    let name = [b"a".as_slice(), &[0; 4094]].concat();
    let long = Archive::new().entry(&Entry {
        name: &name,
        ..Entry::default()
    });
    comes_back(&place, &long.end(512));
}

#[test]
fn trailers() {
    let place = Place::new("trailers");
    // `cpio -H crc`.
    let summed = |name: &'static [u8], data: &'static [u8], sum| Entry {
        magic: b"070702",
        name,
        data,
        sum,
        ..Entry::default()
    };
    let archive = Archive::new().entry(&summed(b"a", b"\x01\x02", 3));
    comes_back(&place, &archive.end_with_sum(4));
    // One with zeros behind its name ends an archive, too.
    let padded = Entry {
        name: b"TRAILER!!!\0\0\0\0",
        ..TRAILER
    };
    let padded = Archive::new().file("a", 0o644, b"x").end_with(&padded, 4);
    let packed = zstd::encode_all(&Archive::new().file("b", 0o644, b"y").end(4)[..], 3).expect("zstd");
    place.put("i", &[padded, packed].concat());
    place.says("list i", "a\nb\n[0]");
}

/// As `bootconfig -a` adds it.
fn with_boot_config(image: &[u8]) -> Vec<u8> {
    let text = b"kernel.quiet = \"\\\xc3\xa9\"\n";
    let sum: u32 = text.iter().map(|byte| u32::from(*byte)).sum();
    let size = text.len() as u32;
    [image, text, &size.to_le_bytes(), &sum.to_le_bytes(), b"#BOOTCONFIG\n"].concat()
}

#[test]
fn boot_configurations() {
    let place = Place::new("bootconfig");
    let bare = Archive::new().file("a", 0o644, b"x").end(512);
    comes_back(&place, &with_boot_config(&bare));
    let mut packed = lz4::EncoderBuilder::new().build(Vec::new()).expect("lz4");
    packed.write_all(&bare).expect("lz4");
    let packed = packed.finish().0;
    for image in [zstd::encode_all(&bare[..], 3).expect("zstd"), packed] {
        place.put("i", &with_boot_config(&image));
        assert_eq!(place.listed("i"), "a\n[0]");
        assert!(place.session("inspect i").contains("boot configuration"));
    }
    // Nothing but that; and one that is damaged.
    place.put("i", &with_boot_config(b""));
    assert!(place.session("list i").ends_with("[1]"));
    let mut damaged = with_boot_config(&bare);
    let at = bare.len() + 3;
    damaged[at] ^= 1;
    place.put("i", &damaged);
    let said = place.session("inspect --json i");
    assert!(
        said.contains("what is there is no archive") && said.ends_with("[1]"),
        "{said}"
    );
    assert!(said.starts_with("[\n"), "what comes before is an array: {said}");
}

/// What a link leads to is what would be replaced.
#[test]
fn a_link_to_no_file() {
    let place = Place::new("link");
    place.put("i", &Archive::new().file("a", 0o644, b"x").end(512));
    place.session("unpack i u");
    let fifo = place.path("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status();
    assert!(made.is_ok_and(|status| status.success()));
    symlink("fifo", place.path("l")).expect("a link");
    let said = place.session("pack --force u l");
    assert!(
        said.contains("is not a file that an image could replace") && said.ends_with("]"),
        "{said}"
    );
    assert!(!said.ends_with("[0]"), "{said}");
    assert!(fs::metadata(&fifo).is_ok_and(|data| data.file_type().is_fifo()));
    assert_eq!(place.names(), ["fifo", "i", "l", "u"]);
}

/// What a pack that was killed has left is no part of the image.
#[test]
fn left_in_the_directory() {
    let place = Place::new("left");
    place.put("i", &Archive::new().file("a", 0o644, b"x").end(512));
    place.session("unpack i u");
    // No process has this number (pid_max(5)).
    fs::write(place.path("u/.new.packing-99999999"), "half").expect("a file");
    let said = place.session("pack u u/new");
    assert!(said.ends_with("[0]"), "{said}");
    assert!(!place.path("u/.new.packing-99999999").exists());
    assert!(place.session("list u/new").ends_with("a\n[0]"));
}

#[test]
fn told_before() {
    let place = Place::new("before");
    place.put("i", &Archive::new().file("../x", 0o644, b"x").end(512));
    let planned = place.session("unpack --dry-run i u");
    assert!(planned.ends_with("[1]"), "{planned}");
    assert_eq!(planned, place.session("unpack i u"));
    let here =
        "is not a directory that another one can take the place of, as you are in it: go up, or name a new one in it";
    for line in ["unpack i ../initrd-before", "unpack --dry-run i ../initrd-before"] {
        let said = place.session(line);
        assert!(said.contains(here), "{said}");
    }
}

/// Where root is not root of all owners, those are in the list.
#[test]
fn in_a_user_namespace() {
    let place = Place::new("namespace");
    let of_others = Entry {
        owner: (12, 34),
        ..Entry::default()
    };
    let image = Archive::new().entry(&of_others).end(512);
    place.put("i", &image);
    let run = |line: &str| {
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", env!("CARGO_BIN_EXE_ttvm"), "initrd"])
            .args(line.split_whitespace())
            .current_dir(&place.0);
        said(&mut command)
    };
    if run("list i") != "a\n[0]" {
        return eprintln!("skipped: there are no user namespaces here");
    }
    for line in ["unpack i u", "pack u p"] {
        let said = run(line);
        assert!(said.ends_with("[0]"), "{said}");
    }
    assert!(fs::read(place.path("p")).expect("an image") == image);
}
