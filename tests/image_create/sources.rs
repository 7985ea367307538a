// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sources that are no root file system, no tar, or a tar that not everybody makes.

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

use tar::{Builder, EntryType, Header};

use super::{Place, header, sh};

/// What `docker save` and its like write is refused; of anything else that cannot boot, it is said.
#[test]
fn no_root_file_system() {
    let place = Place::new("no-root");
    let save = "is what docker save writes: layers, and no file system; docker export writes one";
    let oci = "is what programs for containers (OCI) writes: layers, and no file system; podman export writes one, and umoci unpack makes a directory of one";
    let manifest = r#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l/layer.tar"]}]"#;
    let old = r#"{"a":{"1":"5f"}}"#;
    for (files, why) in [
        (&[("manifest.json", manifest), ("l/layer.tar", "x")][..], save),
        (&[("repositories", old), ("5f/layer.tar", "x")], save),
        (
            &[
                ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#),
                ("index.json", "{}"),
            ],
            oci,
        ),
    ] {
        fs::remove_dir_all(place.path("src")).expect("it goes");
        for (name, content) in files {
            place.file(name, content);
        }
        sh("tar -C src -cf x.tar .", &place.0);
        for source in ["x.tar", "src"] {
            place.says(
                &format!("--size 64M --from DIR/{source} --file DIR/image"),
                &format!("ttvm: DIR/{source} {why}\n[4]"),
            );
        }
    }
    // A system that has such a file is one.
    place.file("etc/hostname", "x");
    assert!(!place.made("--size 64M --from DIR/src").contains("can boot"));
    fs::remove_file(place.path("image")).expect("the image goes");
    fs::remove_dir_all(place.path("src")).expect("it goes");
    place.file("manifest.json", r#"{"name":"a page of the web"}"#);
    place.file("srv/data", "x");
    sh("tar -C src -cf x.tar .", &place.0);
    let nothing = "nothing in it can boot: the source has neither /etc nor an init (/sbin/init, /init, /usr/lib/systemd/systemd, /bin/sh)\n";
    for source in ["x.tar", "src"] {
        assert!(place.made(&format!("--size 64M --from DIR/{source}")).contains(nothing));
        fs::remove_file(place.path("image")).expect("the image goes");
        let plan = place.session(&format!("--size 64M --from DIR/{source} --file DIR/image --dry-run"));
        assert!(plan.contains(nothing.trim_end()), "{plan}");
    }
    // Through a link, as all have it today.
    fs::remove_dir_all(place.path("src")).expect("it goes");
    place.file("usr/sbin/init", "x");
    sh("ln -s usr/sbin src/sbin; tar -C src -cf x.tar sbin usr", &place.0);
    assert!(!place.made("--size 64M --from DIR/x.tar").contains("can boot"));
}

/// Kinds of entries that GNU tar writes, and takes for something simple.
#[test]
fn kinds_of_gnu_tar() {
    let place = Place::new("gnu-kinds");
    place.file("etc/hostname", "x");
    place.file("etc/sub/f", "y");
    for format in ["gnu", "posix"] {
        sh(
            &format!(
                "rm -f snap; tar -C src --format={format} --listed-incremental=snap -cf level0.tar . 2>/dev/null; cp snap snap1"
            ),
            &place.0,
        );
        place.made("--size 64M --from DIR/level0.tar");
        assert_eq!(place.content("/etc/sub/f"), "y", "{format}");
        fs::remove_file(place.path("image")).expect("the image goes");
        sh(
            &format!(
                "sleep 1.1; echo z >src/etc/new; tar -C src --format={format} --listed-incremental=snap1 -cf level1.tar . 2>/dev/null; rm src/etc/new"
            ),
            &place.0,
        );
        let said = place.session("--size 64M --from DIR/level1.tar --file DIR/image");
        assert!(
            said.contains("it is an incremental backup: some files are in an earlier one") && said.ends_with("[4]"),
            "{format}: {said}"
        );
    }
    // A directory before there was a type for it; a label in the middle; Solaris' type for pax's headers.
    let mut builder = Builder::new(File::create(place.path("x.tar")).expect("a file"));
    let mut add = |name: &str, kind: u8, content: &[u8]| {
        let mut header = header();
        header.as_gnu_mut().expect("a header").name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(EntryType::new(kind));
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).expect("a member");
    };
    add("etc/", 0, b"");
    add("a label", b'V', b"");
    add("etc/f", 0, b"f");
    add("pax", b'X', b"14 path=etc/g\n");
    add("short", b'0', b"g");
    builder
        .into_inner()
        .and_then(|mut file| file.flush())
        .expect("an archive");
    place.made("--size 64M --from DIR/x.tar");
    assert_eq!(
        (place.content("/etc/f").as_str(), place.content("/etc/g").as_str()),
        ("f", "g")
    );
}

/// How else a tar may be packed, and what else people have.
#[test]
fn packed_otherwise() {
    let place = Place::new("packed");
    for (beginning, what) in [
        (
            &b"\x04\x22\x4d\x18"[..],
            "compressed with lz4, which is not taken here: lz4 -d first",
        ),
        (
            b"\x02\x21\x4c\x18",
            "compressed with lz4, which is not taken here: lz4 -d first",
        ),
        (
            b"\x5d\x00\x00\x80",
            "compressed with lzma, which is not taken here: xz -d --format=lzma first",
        ),
        (
            b"LZIP\x01",
            "compressed with lzip, which is not taken here: lzip -d first",
        ),
        (
            b"\x89LZO\x00\x0d\x0a",
            "compressed with lzop, which is not taken here: lzop -d first",
        ),
        (
            b"\x1f\x9d\x90",
            "compressed with compress, which is not taken here: gzip -d first",
        ),
        (
            b"PK\x03\x04",
            "a zip archive, which is not taken here: unzip it into a directory first",
        ),
        (
            b"070701",
            "an archive of cpio, which is not taken here: unpack it into a directory with cpio -id first",
        ),
    ] {
        fs::write(place.path("x"), [beginning, &[7; 600]].concat()).expect("a file");
        let said = place.session("--size 64M --from DIR/x --file DIR/image");
        assert!(
            said.starts_with(&format!("ttvm: DIR/x is {what}"))
                && said.ends_with("(--from takes /, a directory, or a tar archive, as it is or packed with gzip, zstd, xz or bzip2)\n[2]"),
            "{said}"
        );
    }
    // Older than POSIX: nothing says what it is but its checksum.
    place.file("etc/hostname", "x");
    sh("tar -C src --format=v7 -cf x etc", &place.0);
    place.made("--size 64M --from DIR/x");
}

/// Numbers that a head leaves empty are 0, as GNU tar and bsdtar have it; the archives of npm have no owners.
#[test]
fn empty_numbers() {
    let place = Place::new("empty-numbers");
    let archive = |blank: &[std::ops::Range<usize>], with: u8| {
        let mut builder = Builder::new(File::create(place.path("x.tar")).expect("a file"));
        let mut header = Header::new_ustar();
        header.set_path("etc/motd").expect("a path");
        header.set_size(3);
        header.set_mode(0o644);
        for number in [Header::set_uid, Header::set_gid, Header::set_mtime] {
            number(&mut header, 7);
        }
        for place in blank {
            header.as_mut_bytes()[place.clone()].fill(with);
        }
        header.set_cksum();
        builder.append(&header, &b"hi\n"[..]).expect("a member");
        builder
            .into_inner()
            .and_then(|mut file| file.flush())
            .expect("an archive");
    };
    let (owner, group, time, devices) = (108..116, 116..124, 136..148, 329..345);
    for with in [0, b' '] {
        archive(&[owner.clone(), group.clone(), time.clone(), devices.clone()], with);
        place.made("--size 64M --from DIR/x.tar");
        assert_eq!(place.content("/etc/motd"), "hi\n");
        let stat = super::debugfs(&place.path("image"), "stat /etc/motd");
        assert!(
            stat.contains("User:     0   Group:     0") && stat.contains("Mode:  0644"),
            "{stat}"
        );
        fs::remove_file(place.path("image")).expect("the image goes");
    }
    archive(&[owner], b'x');
    place.says(
        "--size 64M --from DIR/x.tar --file DIR/image",
        "ttvm: DIR/x.tar cannot be used: /etc/motd: its owner is no number\n[4]",
    );
}

/// What takes little room, and would take minutes or all memory.
#[test]
fn bounds() {
    let place = Place::new("little-room");
    let begun = Instant::now();
    // Some hundred archives of directories in one another, as one.
    let mut builder = Builder::new(File::create(place.path("deep.tar")).expect("a file"));
    for number in 0..20 {
        let mut header = header();
        header.set_entry_type(EntryType::Directory);
        let path = format!("{number}/{}", "d/".repeat(2000));
        builder
            .append_data(&mut header, path, std::io::empty())
            .expect("a member");
    }
    builder
        .into_inner()
        .and_then(|mut file| file.flush())
        .expect("an archive");
    place.says(
        "--size 64M --from DIR/deep.tar --file DIR/image",
        "ttvm: DIR/deep.tar cannot be used: it has a path through more than 256 directories\n[4]",
    );
    // Attributes: those that fit are taken, and it does not take long to see which.
    let records: String = (0..40_000)
        .map(|number| {
            let record = format!("SCHILY.xattr.user.a{number:05}=x\n");
            format!("{} {record}", record.len() + 3)
        })
        .collect();
    let mut builder = Builder::new(File::create(place.path("attributes.tar")).expect("a file"));
    let mut extended = header();
    extended.set_entry_type(EntryType::XHeader);
    extended.set_path("x").expect("a path");
    extended.set_size(records.len() as u64);
    extended.set_cksum();
    builder.append(&extended, records.as_bytes()).expect("a head");
    let mut file = header();
    file.set_path("etc/file").expect("a path");
    file.set_cksum();
    builder.append(&file, std::io::empty()).expect("a member");
    builder
        .into_inner()
        .and_then(|mut file| file.flush())
        .expect("an archive");
    let said = place.made("--size 64M --from DIR/attributes.tar");
    assert!(said.contains("lost extended attributes: 1 (/etc/file)"), "{said}");
    // Without optimisations, on a busy machine.
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

/// The head of xz's block says how much memory its reader is to take.
#[test]
fn memory_for_xz() {
    let place = Place::new("xz-memory");
    sh("tar -C src -c . | xz -0 >x.tar.xz", &place.0);
    let mut bytes = fs::read(place.path("x.tar.xz")).expect("an archive");
    // Behind the head of the stream; its last four bytes are its sum (<https://tukaani.org/xz/xz-file-format.txt>).
    let end = 12 + (usize::from(bytes[12]) + 1) * 4;
    let lzma = bytes[12..end]
        .windows(2)
        .position(|pair| pair == [0x21, 1])
        .expect("LZMA2");
    // 4 GiB.
    bytes[12 + lzma + 2] = 40;
    let mut sum = flate2::Crc::new();
    sum.update(&bytes[12..end - 4]);
    bytes[end - 4..end].copy_from_slice(&sum.sum().to_le_bytes());
    fs::write(place.path("x.tar.xz"), bytes).expect("an archive");
    let said = place.session("--size 64M --from DIR/x.tar.xz --file DIR/image");
    assert!(
        said.contains("would need more than 128MiB of memory") && said.ends_with("[4]"),
        "{said}"
    );
    assert_eq!(place.rest(), ["x.tar.xz"]);
}
