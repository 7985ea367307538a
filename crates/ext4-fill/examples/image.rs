// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes a file system in a new file, with a directory, a file that has two names, and a symbolic link: without a privilege,
//! though all of it is root's.
//!
//! `cargo run -p ext4-fill --example image -- disk.img`; needs mke2fs.

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::process::Command;

use ext4_fill::{Attribute, FileType, Filesystem, Kind, Mapping, Meta, Time, mke2fs_arguments, room};

/// Bytes of the file.
const SIZE: u64 = 16 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: image FILE")?;
    make(path.as_ref())
}

/// Makes the file system in a new file at `path`.
pub fn make(path: &Path) -> Result<(), Box<dyn Error>> {
    File::create_new(path)?.set_len(SIZE)?;
    // A new file reads as zeros.
    let inodes = room(Kind::Ext4, SIZE, 4).inodes;
    let arguments = mke2fs_arguments(Kind::Ext4, inodes, true);
    let made = Command::new("mke2fs").args(arguments).arg(path).status()?;
    if !made.success() {
        return Err(format!("mke2fs failed: {made}").into());
    }
    let now = Time {
        seconds: 1_700_000_000,
        nanoseconds: 0,
    };
    let meta = |kind, permissions| Meta {
        kind,
        permissions,
        uid: 0,
        gid: 0,
        accessed: now,
        modified: now,
        device: (0, 0),
    };
    let file = File::options().read(true).write(true).open(path)?;
    let mut fs = Filesystem::open(file, true, now)?;
    let mut root = fs.root();
    let mut etc = fs.directory(&mut root, b"etc")?;

    let content = b"guest\n";
    let mut mapping = Mapping::default();
    fs.append(&mut mapping, 0, content)?;
    let comment = Attribute {
        name: b"user.comment".to_vec(),
        value: b"made without a mount".to_vec(),
    };
    let mut hostname = fs.file(
        &meta(FileType::Regular, 0o644),
        content.len() as u64,
        &mapping,
        &[comment],
    )?;
    etc.add(b"hostname", hostname.inode(), hostname.kind());
    hostname.link();
    root.add(b"hostname", hostname.inode(), hostname.kind());
    fs.finish_file(&hostname)?;

    let link = fs.symlink(&meta(FileType::Symlink, 0o777), b"etc/hostname", &[])?;
    root.add(b"name", link.inode(), link.kind());
    fs.finish_file(&link)?;

    let directory = meta(FileType::Directory, 0o755);
    fs.finish_directory(&etc, &directory, &[])?;
    fs.finish_directory(&root, &directory, &[])?;
    fs.finish()?;
    Ok(())
}
