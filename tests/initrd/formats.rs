// SPDX-License-Identifier: MIT OR Apache-2.0
//! All compressions, from the system's own programs and for them, and segments in every order.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use flate2::write::GzEncoder;

use super::Place;
use super::archive::Archive;

/// Compressions with the programs that compress and decompress.
const PROGRAMS: [(&str, &[&str], &[&str]); 8] = [
    ("gzip", &["gzip", "-9nc"], &["gzip", "-dc"]),
    ("bzip2", &["bzip2", "-c"], &["bzip2", "-dc"]),
    (
        "lzma",
        &["xz", "-1", "--format=lzma", "-c"],
        &["xz", "--format=lzma", "-dc"],
    ),
    ("xz", &["xz", "-1", "--check=crc32", "-c"], &["xz", "-dc"]),
    ("lzo", &["lzop", "-9c"], &["lzop", "-dc"]),
    ("lz4", &["lz4", "-lc9"], &["lz4", "-dc"]),
    ("lz4", &["lz4", "-c"], &["lz4", "-dc"]),
    ("zstd", &["zstd", "-qc"], &["zstd", "-qdc"]),
];

/// An archive that is larger than any block, and has what ends archives in a file.
fn large() -> Vec<u8> {
    let lines: String = (0u64..300_000)
        .map(|number| format!("{number} {}\n", number * number % 1009))
        .collect();
    let noise: Vec<u8> = (0u32..600_000)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    Archive::new()
        .file("text", 0o644, lines.as_bytes())
        .file("trailer", 0o644, b"070701TRAILER!!!\0\0\0")
        .file("noise", 0o644, &noise)
        .file("last", 0o644, b"\x1f\x8b\x08\0")
        .end(512)
}

const NAMES: &str = "text\ntrailer\nnoise\nlast\n";

pub fn piped(program: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut child = Command::new(program[0])
        .args(&program[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .inspect_err(|_| eprintln!("skipped: there is no {}", program[0]))
        .ok()?;
    let mut stdin = child.stdin.take().expect("its input");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).expect("it reads"));
        child.wait_with_output().expect("it ends")
    });
    assert!(
        output.status.success(),
        "{program:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(output.stdout)
}

pub fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(content).expect("gzip");
    encoder.finish().expect("gzip")
}

fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::encode_all(content, 3).expect("zstd")
}

fn small(name: &str) -> Vec<u8> {
    Archive::new().file(name, 0o644, name.as_bytes()).end(4)
}

#[test]
fn what_the_programs_of_the_system_write() {
    let place = Place::new("theirs");
    let archive = large();
    for (name, program, _) in PROGRAMS {
        let Some(packed) = piped(program, &archive) else {
            continue;
        };
        // Another segment right after it: only who finds its exact end finds that.
        place.put("i", &[&packed[..], &gzip(&small("after"))].concat());
        assert_eq!(place.listed("i"), format!("{NAMES}after\n[0]"));
        let shown = place.session("inspect i");
        let first: Vec<&str> = shown
            .lines()
            .nth(1)
            .expect("a segment")
            .split_whitespace()
            .take(4)
            .collect();
        assert_eq!(first, ["1", "0", &packed.len().to_string(), name], "{program:?}");
    }
}

/// The usual levels of lzma would take long.
fn pack(compression: &str, directory: &str) -> String {
    let level = if matches!(compression, "lzma" | "xz") {
        "--level 1 "
    } else {
        ""
    };
    format!("pack --force --compression {compression} {level}{directory}")
}

#[test]
fn what_the_programs_of_the_system_read() {
    let place = Place::new("ours");
    place.put("i", &large());
    place.session("unpack i u");
    let directory = "u";
    // Without it, it is a directory like any other.
    fs::remove_file(place.path("u/ttvm-initrd.jsonl")).expect("the list");
    let mut bare = None;
    for (name, _, program) in [("none", &[][..], &["cat"][..])].into_iter().chain(PROGRAMS) {
        let pack = pack(name, directory);
        let said = place.session(&format!("{pack} {name}"));
        assert!(said.contains("1 segment, "), "{said}");
        let packed = fs::read(place.path(name)).expect("the image");
        place.says(&format!("list {name}"), "last\nnoise\ntext\ntrailer\n[0]");
        let Some(content) = piped(program, &packed) else {
            continue;
        };
        let bare = bare.get_or_insert_with(|| content.clone());
        assert!(*bare == content, "{name}");
    }
    let names = piped(&["cpio", "-t", "--quiet"], &bare.expect("the archive"));
    assert!(names.is_none_or(|names| names == b"last\nnoise\ntext\ntrailer\n"));
    // For Linux: lz4 as it was at first, xz without another checksum than CRC32.
    let begins = |name: &str, magic: &[u8]| fs::read(place.path(name)).expect("the image").starts_with(magic);
    assert!(begins("lz4", &[0x02, 0x21, 0x4c, 0x18]));
    assert!(begins("xz", b"\xfd7zXZ\0\0\x01"));
    let same = |one: &str, other: &str| {
        assert!(
            fs::read(place.path(one)).expect("one") == fs::read(place.path(other)).expect("the other"),
            "{one}"
        );
    };
    for (name, ..) in PROGRAMS {
        place.session(&format!("{} again", pack(name, directory)));
        same(name, "again");
    }
}

#[test]
fn segments_in_every_order() {
    let place = Place::new("orders");
    let archive = |name: &str| Archive::new().file(name, 0o644, name.as_bytes()).end(512);
    let zeros = |count: usize| vec![0; count];
    let two = [archive("c"), archive("d")].concat();
    let halves = archive("h").split_at(150).0.to_vec();
    let rest = archive("h").split_off(150);
    let skippable = [&b"\x50\x2a\x4d\x18\x05\0\0\0hello"[..], &zstd(&archive("s"))].concat();
    for (parts, names, segments) in [
        (vec![archive("a"), zstd(&archive("b")), archive("c")], "a b c", 3),
        (vec![archive("a"), gzip(&archive("b"))], "a b", 2),
        (
            vec![gzip(&archive("a")), zstd(&archive("b")), gzip(&archive("c"))],
            "a b c",
            3,
        ),
        (vec![gzip(&archive("a")), gzip(&archive("b"))], "a b", 2),
        (vec![archive("a"), archive("b")], "a b", 2),
        (vec![zstd(&two), gzip(&two)], "c d c d", 2),
        (
            vec![
                zeros(4),
                small("a"),
                zeros(1000),
                gzip(&small("b")),
                zeros(7),
                zstd(&small("c")),
                zeros(3),
            ],
            "a b c",
            3,
        ),
        // Compressed in pieces.
        (vec![gzip(&halves), gzip(&rest), gzip(&archive("i"))], "h i", 2),
        (vec![zstd(&halves), zstd(&rest), archive("i")], "h i", 2),
        (vec![skippable.clone(), skippable], "s s", 2),
        // What holds nothing is no segment.
        (vec![gzip(b""), archive("a"), zstd(&zeros(512))], "a", 1),
    ] {
        place.put("i", &parts.concat());
        let listed = place.listed("i").replace('\n', " ");
        assert_eq!(listed, format!("{names} [0]"));
        let shown = place.session("inspect i");
        let rows = shown.lines().filter(|line| !line.starts_with("segment "));
        assert_eq!(rows.count(), segments + 2, "{names}: {shown}");
        let _ = fs::remove_dir_all(place.path("u"));
        let said = place.session("unpack i u");
        assert!(said.ends_with("[0]"), "{names}: {said}");
        place.session("pack --force u p");
        let listed = place.session("list p").replace('\n', " ");
        assert_eq!(listed, format!("{names} [0]"));
        let again = place.session("inspect p");
        let columns = |shown: &str| -> Vec<String> {
            let column = |line: &str| line.split_whitespace().nth(3).map(str::to_owned);
            let rows = shown.lines().filter(|line| !line.starts_with("segment "));
            rows.filter_map(column).collect()
        };
        assert_eq!(columns(&shown), columns(&again), "{names}");
        for line in again.lines().filter(|line| line.contains(" none ")) {
            let offset: u64 = line
                .split_whitespace()
                .nth(1)
                .expect("an offset")
                .parse()
                .expect("a number");
            assert_eq!(offset % 4, 0, "Linux finds it: {line}");
        }
    }
}

/// Linux knows the end of a segment of lz4 by a block of size 0 only.
#[test]
fn zeros_follow_a_segment_of_lz4() {
    let place = Place::new("lz4");
    place.put("i", &small("a"));
    place.session("unpack i u");
    fs::remove_file(place.path("u/ttvm-initrd.jsonl")).expect("the list");
    place.session("pack --compression lz4 u lz4");
    let lz4 = fs::read(place.path("lz4")).expect("the image");
    let packed = |image: &[Vec<u8>], name: &str| {
        place.put("i", &image.concat());
        let _ = fs::remove_dir_all(place.path(name));
        assert!(place.session(&format!("unpack i {name}")).ends_with("[0]"));
        place.session(&format!("pack --force {name} p"));
        assert!(place.session("list p").starts_with("a\na\nb\nc\n"));
        fs::read(place.path("p")).expect("the image")
    };
    let image = packed(&[gzip(&small("a")), lz4.clone(), zstd(&small("b")), small("c")], "v");
    assert!(!image.is_empty());
    let shown = place.session("inspect --json p");
    let zeros: Vec<u64> = shown
        .lines()
        .filter_map(|line| {
            line.trim()
                .strip_prefix("\"padding\": ")?
                .trim_end_matches(',')
                .parse()
                .ok()
        })
        .collect();
    assert!((4..8).contains(&zeros[1]), "{shown}");
    packed(&[image], "w");
    let list = |name: &str| fs::read(place.path(name).join("ttvm-initrd.jsonl")).expect("the list");
    assert!(list("v") == list("w"));
}

#[test]
fn bare_archives_are_packed_as_they_were() {
    let place = Place::new("bare");
    // In capitals, with the sum of the data, with names that begin with "./", without "." itself.
    let first = Archive::new()
        .directory("./d", 0o755)
        .hard_link("./d/x", 5, 2, b"")
        .hard_link("./d/y", 5, 2, b"data");
    let entry = super::archive::Entry {
        magic: b"070702",
        name: b"sum",
        data: b"\xff\xff\x01",
        sum: 0x1ff,
        ..super::archive::Entry::default()
    };
    let link = super::archive::Entry {
        name: b"link",
        mode: 0o120_777,
        data: b"\x01\x02",
        sum: 0,
        ..entry
    };
    let image = [
        first.entry(&entry).entry(&link).end_with_sum(512),
        small("b"),
        vec![0; 500],
        Archive::new().file("c/d", 0o600, b"").end(512),
    ];
    place.put("i", &image.concat());
    assert!(place.session("unpack i u").ends_with("[0]"));
    assert!(place.session("pack u p").ends_with("[0]"));
    assert!(image.concat() == fs::read(place.path("p")).expect("the image"));
    // The early microcode comes first, uncompressed, where Linux looks for it.
    place.put("i", &super::sample());
    place.session("unpack i v");
    place.session("pack --force v p");
    let packed = fs::read(place.path("p")).expect("the image");
    assert!(packed[..2048] == super::sample()[..2048]);
}
