// SPDX-License-Identifier: MIT OR Apache-2.0
//! File systems as the real mke2fs makes them; what is filled, the real e2fsck judges. Where they are not, nothing is tested.

use std::fs::{self, File};
use std::process::Command;

use ext4_fill::{BLOCK, Error, FileType, Filesystem, Kind, Meta, Time, mke2fs_arguments, room};

/// A program of e2fsprogs. Debian has them where an ordinary user's PATH does not lead.
fn program(name: &str) -> Command {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("env");
    command.arg(format!("PATH={path}")).arg(name);
    command
}

/// What mke2fs makes in a file of `size` bytes, which has no name any more; none where there is no mke2fs.
fn fresh(name: &str, kind: Kind, size: u64, inodes: u64) -> Option<File> {
    let name = format!("ext4-fill-{name}-{}-{}-{size}", std::process::id(), kind.as_str());
    let path = std::env::temp_dir().join(name);
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .expect("a file");
    file.set_len(size).expect("its size");
    let made = program("mke2fs")
        .args(mke2fs_arguments(kind, inodes, true))
        .arg(&path)
        .status();
    fs::remove_file(&path).expect("the file goes");
    match made.expect("env runs").code() {
        // There is no such program.
        Some(127) => None,
        status => {
            assert_eq!(status, Some(0), "mke2fs");
            Some(file)
        }
    }
}

#[test]
fn links_lead_to_names() {
    let Some(file) = fresh("links", Kind::Ext4, 8 << 20, 100) else {
        return eprintln!("skipped: there is no mke2fs");
    };
    let mut fs = Filesystem::open(file, true, Time::default()).expect("a fresh file system");
    let meta = Meta {
        kind: FileType::Symlink,
        permissions: 0o777,
        uid: 0,
        gid: 0,
        accessed: Time::default(),
        modified: Time::default(),
        device: (0, 0),
    };
    let free = fs.free_inodes();
    for bad in [&b""[..], b"a\0b", &[b'a'; BLOCK]] {
        assert!(matches!(fs.symlink(&meta, bad, &[]), Err(Error::Target)));
    }
    assert_eq!(fs.free_inodes(), free);
    for good in [&b"a"[..], &[b'a'; BLOCK - 1]] {
        assert!(fs.symlink(&meta, good, &[]).is_ok());
    }
}

/// What mke2fs leaves free in a file of this size.
fn left(kind: Kind, size: u64, files: u64) -> Option<(u64, u64)> {
    let file = fresh("room", kind, size, room(kind, size, files).inodes)?;
    let fs = Filesystem::open(file, true, Time::default()).expect("a fresh file system");
    Some((fs.free_blocks(), fs.free_inodes()))
}

#[test]
fn there_is_as_much_room_as_was_said() {
    for kind in [Kind::Ext4, Kind::Ext3, Kind::Ext2] {
        for (mib, files) in [
            (8, 10),
            (64, 100_000),
            (300, 0),
            (1100, 0),
            (3072, 1_000_000),
            (20_000, 0),
            (150_000, 0),
        ] {
            let size = mib << 20;
            let said = room(kind, size, files);
            let Some((blocks, inodes)) = left(kind, size, files) else {
                return eprintln!("skipped: there is no mke2fs");
            };
            assert!(
                inodes >= files && inodes <= said.inodes + said.inodes / 10 + 1000,
                "{kind:?} {mib}M: {inodes} {said:?}"
            );
            assert!(blocks >= said.blocks, "{kind:?} {mib}M: {blocks} {said:?}");
            assert!(
                blocks - said.blocks <= blocks / 50 + 128,
                "{kind:?} {mib}M: {blocks} {said:?}"
            );
        }
    }
}

#[test]
fn the_example_is_whole() {
    let path = std::env::temp_dir().join(format!("ext4-fill-example-{}", std::process::id()));
    if !program("mke2fs").arg("-V").output().is_ok_and(|it| it.status.success()) {
        return eprintln!("skipped: there is no mke2fs");
    }
    example::make(&path).expect("a file system");
    let checked = program("e2fsck").arg("-fn").arg(&path).output();
    fs::remove_file(&path).expect("the file goes");
    let checked = checked.expect("e2fsck runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

#[path = "../examples/image.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod example;
