// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is said of images that Linux does not take whole. Each was booted with Debian's 6.1, whose words are beside it.

use std::io::Write;

use flate2::write::GzEncoder;

use super::Place;
use super::archive::{Archive, Entry};
use super::formats::piped;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("it is compressed");
    encoder.finish().expect("it ends")
}

const STOPS: &str = "Linux stops here, and unpacks nothing of what follows";

#[track_caller]
fn remarks(place: &Place, image: &[u8], expected: &[&str]) {
    place.put("i", image);
    let said = place.session("inspect i");
    let found: Vec<&str> = said.lines().filter(|line| line.starts_with("segment ")).collect();
    assert_eq!(found, expected, "{said}");
    assert!(said.ends_with("[0]"), "{said}");
    let listed = place.command("list i").output().expect("ttvm runs");
    let listed = String::from_utf8_lossy(&listed.stderr).into_owned();
    assert_eq!(listed.lines().collect::<Vec<_>>(), expected, "list");
}

#[test]
fn where_it_stops() {
    let place = Place::new("linux");
    let large = Archive::new().file("a", 0o644, &[b'x'; 3000]).end(4);
    let small = Archive::new().file("b", 0o644, b"y").end(4);
    let at = |segment: u32, why: &str| format!("segment {segment}: {why}: {STOPS}");
    // What is right.
    for image in [
        gzip(&large),
        [large.clone(), vec![0; 4], gzip(&small)].concat(),
        [gzip(&small), gzip(b""), gzip(&large)].concat(),
        [gzip(&small), gzip(&large)].concat(),
        // Zeros before a header, but not the first of what is compressed.
        [vec![0; 510], gzip(&large)].concat(),
        [vec![0; 512], large.clone()].concat(),
        [gzip(&large), gzip(&[&[0; 512], &small[..]].concat())].concat(),
        // A stream may end between two files.
        [gzip(&large[..large.len() - 124]), gzip(&large[large.len() - 124..])].concat(),
    ] {
        remarks(&place, &image, &[]);
    }
    // "broken padding"
    let behind = at(
        2,
        "behind what is not compressed it must begin at a multiple of 4 bytes",
    );
    remarks(&place, &[large.clone(), vec![0], gzip(&small)].concat(), &[&behind]);
    // "invalid magic at start of compressed archive"
    let unaligned = at(2, "what is not compressed must begin at a multiple of 4 bytes");
    let mut image = gzip(&large);
    image.resize(image.len().next_multiple_of(4) + 1, 0);
    remarks(&place, &[image, small.clone()].concat(), &[&unaligned]);
    // "broken padding"
    let padding = at(
        1,
        "a header in it is behind so many zeros that it does not begin at a multiple of 4 bytes",
    );
    remarks(&place, &gzip(&[&large[..], &[0; 2], &small].concat()), &[&padding]);
    // "no cpio magic"
    let zeros = at(
        1,
        "there are zeros before its first header, where Linux takes zeros only behind an archive or where nothing is compressed",
    );
    for count in [4, 512, 100_000] {
        remarks(&place, &gzip(&[&vec![0; count][..], &large].concat()), &[&zeros]);
    }
    // "junk at the end of compressed archive"
    let nothing = at(1, "a compressed stream without an archive comes before it");
    for first in [gzip(b""), gzip(&[0; 512])] {
        remarks(&place, &[first, vec![0; 4], gzip(&large)].concat(), &[&nothing]);
    }
    let cut = at(
        1,
        "an archive goes over several streams, each compressed by itself, and Linux takes the first one for all (one thread, or a program that makes one stream)",
    );
    remarks(&place, &[gzip(&large[..1000]), gzip(&large[1000..])].concat(), &[&cut]);
    remarks(&place, &[gzip(b""), gzip(&large)].concat(), &[&cut]);
    // "uncompression error"
    let mut comment = gzip(&large);
    comment[3] = 0x10;
    comment.splice(10..10, *b"hi\0");
    let head = at(
        1,
        "its head has more than a name (a comment, an extra field), which Linux takes for data (gzip -n)",
    );
    remarks(&place, &comment, &[&head]);
    for (program, why) in [
        // "invalid magic at start of compressed archive"
        (
            &["lz4", "-c"][..],
            "it is in the newer format of lz4, and Linux knows the old one only (lz4 -l)",
        ),
        // "Input was encoded with settings that are not supported by this XZ decoder"
        (
            &["xz", "--check=crc64", "-c"],
            "its check is not CRC32, and Linux knows no other (xz --check=crc32)",
        ),
        (
            &["xz", "--check=crc32", "--delta=dist=4", "--lzma2=preset=6", "-c"],
            "it is made with a filter that Linux has not (xz without --delta, --arm64 and --riscv)",
        ),
        (&["xz", "--check=crc32", "--x86", "--lzma2", "-c"], ""),
        (&["xz", "--check=none", "-c"], ""),
        (&["xz", "--format=lzma", "-c"], ""),
        (&["lz4", "-lc"], ""),
        (&["zstd", "-qc"], ""),
        (&["lzop", "-c"], ""),
        (
            &["lzop", "-F", "-c"],
            "its blocks do not have one checksum each, which Linux goes by (lzop without -F)",
        ),
        (&["bzip2", "-c"], ""),
    ] {
        let Some(image) = piped(program, &large) else { continue };
        let expected = at(1, why);
        let expected: &[&str] = if why.is_empty() { &[] } else { &[&expected] };
        remarks(&place, &image, expected);
    }
    // "invalid magic at start of compressed archive"
    if let Some(image) = piped(&["zstd", "-qc"], &large) {
        let skipped = at(
            1,
            "it begins with a frame of zstd that is to be skipped, which Linux does not know (zstd, and not pzstd)",
        );
        remarks(
            &place,
            &[b"\x50\x2a\x4d\x18\x04\0\0\0text".to_vec(), image].concat(),
            &[&skipped],
        );
    }
}

#[test]
fn what_it_passes_over() {
    let place = Place::new("passed-over");
    let image = Archive::new()
        .directory("usr", 0o755)
        .link("lib", "usr/lib")
        .file("usr/bin/a", 0o755, b"a")
        .file("usr/bin/b", 0o755, b"b")
        .file("lib/c", 0o644, b"c")
        .file("dev/d", 0o644, b"d")
        .file("kernel/x86/microcode/GenuineIntel.bin", 0o644, b"m")
        .end(4);
    let lost = "segment 1: Linux passes over files that it has no directory for (2, the first is usr/bin/a): the directory must come before";
    remarks(&place, &image, &[lost]);
    // The directory may be in a segment before.
    let directories = Archive::new()
        .directory("usr", 0o755)
        .directory("usr/bin", 0o755)
        .end(4);
    let files = Archive::new().file("usr/bin/a", 0o755, b"a").end(4);
    remarks(&place, &[directories, gzip(&files)].concat(), &[]);
    let sums = Archive::new()
        .entry(&Entry {
            magic: b"070702",
            data: b"x",
            sum: u32::from(b'x'),
            ..Entry::default()
        })
        .end(4);
    remarks(
        &place,
        &sums,
        &["segment 1: its archive has sums (070702), which Linux before 5.19 does not read"],
    );
    let json = place.session("inspect --json i");
    assert!(json.contains("\"remarks\": [\n      \"its archive has sums"), "{json}");
}

/// Linux boots it; here it is unpacked below the directory, and packed as it was.
#[test]
fn absolute_names() {
    let place = Place::new("absolute");
    let image = Archive::new()
        .directory("/bin", 0o755)
        .file("/bin/sh", 0o755, b"sh")
        .link("/sbin", "/bin")
        .file("/init", 0o755, b"init")
        .hard_link("/one", 7, 2, b"")
        .hard_link("/two", 7, 2, b"both")
        .end(512);
    place.put("i", &image);
    let inspected = place.session("inspect i");
    assert!(inspected.contains(" init\n"), "{inspected}");
    let said = place.session("unpack i u");
    assert!(said.ends_with("[0]"), "{said}");
    assert_eq!(std::fs::read(place.path("u/bin/sh")).expect("a file"), b"sh");
    assert_eq!(std::fs::read(place.path("u/one")).expect("a file"), b"both");
    place.session("pack u p");
    assert!(
        std::fs::read(place.path("p")).expect("an image") == image,
        "packed as it was"
    );
    place.put("i", &Archive::new().file("/../x", 0o644, b"x").end(4));
    let said = place.session("unpack i v");
    assert!(
        said.contains("its name has .. in it") && said.ends_with("[1]"),
        "{said}"
    );
}

/// Common wrong files are called by their names, whether compressed or not.
#[test]
fn what_it_is_instead() {
    let place = Place::new("instead");
    let with = |beginning: &[u8]| [beginning, &[b'x'; 600]].concat();
    let mut tar = [b'a'; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    let mut ext = [0; 4096];
    ext[1024..2048].copy_from_slice(&[b'x'; 1024]);
    // 8192 inodes.
    ext[1024..1028].copy_from_slice(&8192_u32.to_le_bytes());
    ext[1080..1082].copy_from_slice(&[0x53, 0xef]);
    for (bytes, why) in [
        (
            with(b"\xc7\x71"),
            "it is in the old binary format of cpio, which Linux does not read (cpio -H newc)",
        ),
        (with(b"\x27\x05\x19\x56"), "it has U-Boot's header (64 bytes)"),
        (with(b"hsqs"), "it is a squashfs"),
        (
            with(b"070707"),
            "it is in the old portable format of cpio (odc), which Linux does not read",
        ),
        (tar.to_vec(), "it is an archive of tar, which Linux does not read"),
        (ext.to_vec(), "it is a file system (ext2, ext3 or ext4)"),
        (
            [&[0; 32768][..], &with(b"\x01CD001")].concat(),
            "it is an image of a CD",
        ),
        ([&[0; 1024][..], &with(b"\xe2\xe1\xf5\xe0")].concat(), "it is an erofs"),
    ] {
        for image in [bytes.clone(), gzip(&bytes)] {
            place.put("i", &image);
            let said = place.session("inspect i");
            assert!(said.contains(why) && said.ends_with("[1]"), "{said}");
        }
    }
}

/// A list from somebody else names no file that is not in the directory, and cannot be waited for.
#[test]
fn a_list_of_somebody_else() {
    let place = Place::new("foreign-list");
    let archive = Archive::new().file("a", 0o644, b"x").end(4);
    // Of two segments, each has a directory.
    place.put("i", &[archive.clone(), gzip(&archive)].concat());
    place.session("unpack i u");
    std::fs::create_dir(place.path("secret")).expect("a directory");
    std::fs::write(place.path("secret/key"), "k").expect("a file");
    std::fs::rename(place.path("u/1"), place.path("gone")).expect("it goes");
    std::os::unix::fs::symlink("../secret", place.path("u/1")).expect("a link");
    let said = place.session("pack u p");
    assert!(
        said.contains("a link is not followed out of the directory that is packed") && !said.ends_with("[0]"),
        "{said}"
    );
    std::fs::remove_file(place.path("u/1")).expect("it goes");
    std::fs::rename(place.path("gone"), place.path("u/1")).expect("it comes back");
    let list = place.path("u/ttvm-initrd.jsonl");
    let text = std::fs::read_to_string(&list).expect("the list");
    std::fs::write(&list, format!("{text}{}", " ".repeat(2 << 20))).expect("the list");
    let said = place.session("pack u p");
    assert!(said.contains("this line has no end"), "{said}");
    std::fs::remove_file(&list).expect("it goes");
    let made = std::process::Command::new("mkfifo").arg(&list).status();
    assert!(made.is_ok_and(|status| status.success()));
    let said = place.session("pack u p");
    assert!(
        said.contains("is not a regular file, as the list of an image is"),
        "{said}"
    );
}
