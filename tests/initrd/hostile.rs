// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images that somebody has made to do harm, and damaged ones: a clear answer, and nothing is left.

use std::fs;
use std::io::Write;
use std::process::Command;

use super::Place;
use super::archive::{Archive, Entry};

fn one(entry: &Entry<'_>) -> Vec<u8> {
    Archive::new().entry(entry).end(4)
}

#[test]
fn nothing_gets_out() {
    let place = Place::new("hostile");
    let victim = place.put("victim", b"untouched");
    let victim_name = victim.to_str().expect("a path");
    let file = |name: &'static str| Entry {
        name: name.as_bytes(),
        data: b"evil",
        ..Entry::default()
    };
    let long = [b'n'; 256];
    let deep = b"d/".repeat(129);
    let bare = "segment 1 (not compressed, at byte 0)";
    let outside = "which leads out of the directory";
    let full = "a directory that has something in it has this name already: it does not give way to a file";
    let no_name_end = {
        let mut image = one(&file("abc"));
        image[113] = b'x';
        image
    };
    let nul = {
        let mut image = one(&file("abcdefg"));
        image[113] = 0;
        image
    };
    let wrong_number = {
        let mut image = one(&file("a"));
        image[14] = b'-';
        image
    };
    let cases: Vec<(Vec<u8>, String)> = vec![
        (
            one(&file("/../x")),
            format!("{bare}, entry \"/../x\": its name has .. in it, {outside}"),
        ),
        (
            one(&file("../x")),
            format!("{bare}, entry \"../x\": its name has .. in it, {outside}"),
        ),
        (
            one(&file("a/../../x")),
            format!("{bare}, entry \"a/../../x\": its name has .. in it, {outside}"),
        ),
        (
            Archive::new().link("l", "..").file("l/x", 0o644, b"evil").end(4),
            format!(
                "{bare}, entry \"l/x\": its way leads through \"l\", which is no directory: nothing is followed out of the archive"
            ),
        ),
        (
            Archive::new().link("l", "l").file("l/x", 0o644, b"evil").end(4),
            format!(
                "{bare}, entry \"l/x\": its way leads through \"l\", which is no directory: nothing is followed out of the archive"
            ),
        ),
        (
            Archive::new()
                .directory("d", 0o755)
                .link("d/l", "/")
                .directory("d/l/etc", 0o755)
                .end(4),
            format!(
                "{bare}, entry \"d/l/etc\": its way leads through \"d/l\", which is no directory: nothing is followed out of the archive"
            ),
        ),
        (
            Archive::new()
                .hard_link("a", 7, 2, b"")
                .link("a", victim_name)
                .hard_link("b", 7, 2, b"evil")
                .end(4),
            format!("{bare}, entry \"b\": it is a hard link of \"a\", which is something else by now"),
        ),
        (
            Archive::new()
                .hard_link("a", 7, 2, b"")
                .node("a", 0o010_600, (0, 0))
                .hard_link("b", 7, 2, b"evil")
                .end(4),
            format!("{bare}, entry \"b\": it is a hard link of \"a\", which is something else by now"),
        ),
        (
            one(&Entry {
                size: Some(u32::MAX),
                ..file("big")
            }),
            format!("{bare}, entry \"big\": it is cut off"),
        ),
        (
            one(&Entry {
                mode: 0o170_000,
                ..file("odd")
            }),
            format!("{bare}, entry \"odd\": it is of a kind that there is not"),
        ),
        (
            one(&Entry {
                mode: 0o040_755,
                ..file("d")
            }),
            format!("{bare}, entry \"d\": it has data, but is no file"),
        ),
        (
            one(&Entry {
                mode: 0o120_777,
                data: b"",
                ..file("l")
            }),
            format!("{bare}, entry \"l\": it is a symbolic link that leads nowhere"),
        ),
        (
            one(&Entry {
                mode: 0o120_777,
                data: b"a\0b",
                ..file("l")
            }),
            format!("{bare}, entry \"l\": it is a symbolic link with a NUL in it"),
        ),
        (
            one(&Entry {
                mode: 0o120_777,
                size: Some(4097),
                ..file("l")
            }),
            format!("{bare}, entry \"l\": it is a symbolic link with more than 4095 bytes"),
        ),
        (
            Archive::new()
                .directory("d", 0o755)
                .file("d/x", 0o644, b"")
                .file("d", 0o644, b"")
                .end(4),
            format!("{bare}, entry \"d\": {full}"),
        ),
        (
            Archive::new()
                .directory("d", 0o755)
                .file("d/x", 0o644, b"")
                .link("d", "x")
                .end(4),
            format!("{bare}, entry \"d\": {full}"),
        ),
        (
            Archive::new()
                .directory("d", 0o755)
                .file("d/x", 0o644, b"")
                .node("d", 0o010_600, (0, 0))
                .end(4),
            format!("{bare}, entry \"d\": {full}"),
        ),
        (
            one(&file(".")),
            format!("{bare}, entry \".\": the archive's own directory is something else"),
        ),
        (
            one(&Entry { name: b"", ..file("") }),
            format!("{bare}, entry \"\": it has no name"),
        ),
        (
            one(&Entry {
                name: &long,
                ..file("")
            }),
            format!(
                "{bare}, entry \"{}\": a part of its name has more than 255 bytes",
                "n".repeat(256)
            ),
        ),
        (
            one(&Entry {
                name: &deep,
                ..file("")
            }),
            format!(
                "{bare}, entry \"{}\": it is more than 128 directories deep",
                "d/".repeat(129)
            ),
        ),
        (
            one(&Entry {
                magic: b"070702",
                sum: 5,
                ..file("sum")
            }),
            format!("{bare}, entry \"sum\": its data has another sum than its header says: it is damaged"),
        ),
        (
            one(&Entry {
                magic: b"070707",
                ..file("a")
            }),
            format!(
                "{bare}: it is in the old portable format of cpio (odc), which Linux does not read (byte 0 of its content)"
            ),
        ),
        (
            no_name_end,
            format!("{bare}: the name of an entry does not end with a NUL (byte 0 of its content)"),
        ),
        (
            nul,
            format!("{bare}: the name of an entry has a NUL in it (byte 0 of its content)"),
        ),
        (
            wrong_number,
            format!("{bare}: a number in its header is none (byte 0 of its content)"),
        ),
        (
            Archive::new().file("a", 0o644, b"").0,
            format!("{bare}: the archive ends without a trailer: it is cut off"),
        ),
        (
            [one(&file("a")), b"junk".to_vec()].concat(),
            "byte 240: what is there is no archive, and not compressed in a way that Linux knows".to_owned(),
        ),
        (
            vec![],
            "there is no archive in it, so it is no initial RAM disk".to_owned(),
        ),
        (
            vec![0; 5000],
            "there is no archive in it, so it is no initial RAM disk".to_owned(),
        ),
        (
            zstd::encode_all(&b"no archive at all, but long enough for a header"[..].repeat(9)[..], 3).expect("zstd"),
            "segment 1 (zstd, at byte 0): there is no header of cpio's newc format (byte 0 of its content)".to_owned(),
        ),
    ];
    for (image, why) in cases {
        place.put("i", &image);
        place.says("unpack i u", &format!("ttvm: i: {why}\n[1]"));
        assert_eq!(place.names(), ["i", "victim"], "{why}");
        assert_eq!(fs::read(&victim).expect("the victim"), b"untouched");
    }
}

#[test]
fn a_link_is_replaced_and_not_followed() {
    let place = Place::new("replaced");
    let victim = place.put("victim", b"untouched");
    let target = victim.to_str().expect("a path");
    place.put("i", &Archive::new().link("l", target).file("l", 0o666, b"evil").end(4));
    assert!(place.session("unpack i u").ends_with("[0]"));
    assert_eq!(fs::read(&victim).expect("the victim"), b"untouched");
    assert!(!place.path("u/l").is_symlink());
}

/// What is written to is what was linked, never a device that took its name.
#[test]
fn nothing_is_written_to_a_device() {
    let place = Place::new("device");
    let image = Archive::new()
        .hard_link("a", 7, 2, b"")
        .node("a", 0o060_600, (7, 250))
        .hard_link("b", 7, 2, b"evil")
        .end(4);
    place.put("i", &image);
    let said = place.session("unpack i u");
    assert!(
        said.ends_with("which is something else by now\n[1]") || said.ends_with("[0]"),
        "{said}"
    );
    let left = !nix::unistd::geteuid().is_root() || !place.path("u").exists();
    assert!(left, "{:?}", place.names());
}

#[test]
fn bombs() {
    let place = Place::new("bombs");
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("zstd");
    let head = Archive::new()
        .entry(&Entry {
            size: Some(100 << 20),
            ..Entry::default()
        })
        .0;
    encoder.write_all(&head).expect("zstd");
    for _ in 0..100 {
        encoder.write_all(&vec![0; 1 << 20]).expect("zstd");
    }
    encoder.write_all(&Archive::new().end(4)).expect("zstd");
    place.put("i", &encoder.finish().expect("zstd"));
    place.says(
        "unpack --max-size 64M i u",
        "ttvm: i: segment 1 (zstd, at byte 0), entry \"a\": there is more than 64M in it; if that is right, say how much it may be: `--max-size`\n[1]",
    );
    assert_eq!(place.names(), ["i"]);
    assert!(place.session("unpack --max-size 128M i u").ends_with("[0]"));
    assert_eq!(fs::metadata(place.path("u/a")).expect("the file").len(), 100 << 20);
}

/// `ttvm initrd LINE`, with less memory than a host that has 500 MB can spare.
fn with_little_memory(place: &Place, line: &str) -> (Vec<u8>, String) {
    let mut command = Command::new("prlimit");
    command
        .current_dir(place.path(""))
        .arg("--data=150000000")
        .args([env!("CARGO_BIN_EXE_ttvm"), "initrd"])
        .args(line.split_whitespace());
    let output = command.output().expect("prlimit runs");
    (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Whoever reads an image remembers names: there is an end to them, and to what else can be remembered.
#[test]
fn more_than_can_be_remembered() {
    let place = Place::new("more");
    let attack = "in it, which is taken for an attack; if you trust who made it, decompress its segments one by one, and unpack each with cpio(1)\n";
    let name = format!("/{}", "n".repeat(254)).repeat(15);
    let names = (0..40_000).fold(Archive::new(), |archive, number| {
        archive.entry(&Entry {
            name: format!("{number}{name}").as_bytes(),
            ino: number,
            nlink: 2,
            ..Entry::default()
        })
    });
    place.put("i", &zstd::encode_all(&names.end(4)[..], 1).expect("zstd"));
    for line in ["list --json i", "inspect i", "unpack --dry-run i u"] {
        let (_, said) = with_little_memory(&place, line);
        let why = format!(": there are more than 64 MiB of names {attack}");
        assert!(
            said.starts_with("ttvm: i: segment 1") && said.ends_with(&why),
            "{line}: {said}"
        );
    }
    // Directories on the way have names, too.
    let deep = (0..1000).fold(Archive::new(), |archive, number| {
        let name = format!("{number}{}/x", format!("/{}", "d".repeat(30)).repeat(125));
        archive.file(&name, 0o644, b"")
    });
    place.put("i", &deep.end(4));
    let (_, said) = with_little_memory(&place, "unpack i u");
    assert!(
        said.contains(&format!(": there are more than 64 MiB of names {attack}")),
        "{said}"
    );
    assert_eq!(place.names(), ["i"]);
    let one = Archive::new().file("a", 0o644, b"").end(4);
    place.put("i", &one.repeat(1001));
    for line in ["list i", "inspect i", "unpack i u"] {
        let said = place.session(line);
        assert!(
            said.contains(&format!(": there are more than 1000 segments {attack}")),
            "{line}: {said}"
        );
    }
    assert_eq!(place.names(), ["i"]);
}

/// What a header says of its memory is not taken at its word.
#[test]
fn a_dictionary_for_larger_machines() {
    let place = Place::new("dictionary");
    let options = liblzma::stream::LzmaOptions::new_preset(0).expect("lzma");
    let stream = liblzma::stream::Stream::new_lzma_encoder(&options).expect("lzma");
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    let archive = Archive::new().file("a", 0o644, b"").end(4);
    encoder.write_all(&archive).expect("lzma");
    let mut image = encoder.finish().expect("lzma");
    let mut listed = |dictionary: u32| {
        image[1..5].copy_from_slice(&dictionary.to_le_bytes());
        place.put("i", &image);
        place.session("list i")
    };
    assert_eq!(listed(64 << 20), "a\n[0]");
    assert_eq!(
        listed(256 << 20),
        "ttvm: i: segment 1 (lzma, at byte 0): it cannot be read: to decompress it takes more than 128 MiB of memory; compress it anew, with a dictionary of 64 MiB at the most (`xz -9`)\n[1]"
    );
}

#[test]
fn a_window_for_larger_machines() {
    let place = Place::new("window");
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("zstd");
    let archive = Archive::new().file("a", 0o644, b"").end(4);
    encoder.write_all(&archive).expect("zstd");
    let mut image = encoder.finish().expect("zstd");
    let mut listed = |log: u8| {
        image[5] = (log - 10) << 3;
        place.put("i", &image);
        place.session("list i")
    };
    assert_eq!(listed(27), "a\n[0]");
    assert_eq!(
        listed(28),
        "ttvm: i: segment 1 (zstd, at byte 0): it cannot be read: to decompress it takes more than 128 MiB of memory; compress it anew, with a window of 128 MiB at the most (`zstd --long=27`)\n[1]"
    );
}
