// SPDX-License-Identifier: MIT OR Apache-2.0
//! Puts ACPI tables before an image, where Linux takes them for those of the firmware
//! (<https://docs.kernel.org/admin-guide/acpi/initrd_table_override.html>): in a bare archive, as Linux looks for them before it
//! can decompress anything.
//!
//! `cargo run -p initrd --example acpi -- /boot/initrd.img new.img dsdt.aml`

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use initrd::newc::{Header, Writer};

/// Where Linux looks.
const DIRECTORY: [&str; 3] = ["kernel", "kernel/firmware", "kernel/firmware/acpi"];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let usage = "usage: acpi IMAGE NEW TABLE...";
    let (image, new) = (arguments.next().ok_or(usage)?, arguments.next().ok_or(usage)?);
    put_before(&image, &new, &arguments.collect::<Vec<_>>())
}

/// Makes the image `new`: `tables`, then all that is in `image`.
pub fn put_before(image: &Path, new: &Path, tables: &[PathBuf]) -> Result<(), Box<dyn Error>> {
    let mut archive = Writer::new(File::create_new(new)?);
    for name in DIRECTORY {
        let directory = Header {
            name: name.as_bytes().to_vec(),
            mode: 0o040_755,
            nlink: 2,
            ..Header::default()
        };
        archive.entry(&directory, &mut io::empty())?;
    }
    for table in tables {
        let content = fs::read(table)?;
        let name = table.file_name().ok_or("a table has no name")?;
        let header = Header {
            name: [DIRECTORY[2].as_bytes(), name.as_bytes()].join(&b'/'),
            mode: 0o100_644,
            nlink: 1,
            size: u32::try_from(content.len())?,
            ..Header::default()
        };
        archive.entry(&header, &mut &content[..])?;
    }
    // Behind what is not compressed, anything must begin at a multiple of 4 bytes.
    let mut new = archive.finish(512)?;
    io::copy(&mut File::open(image)?, &mut new)?;
    new.sync_all()?;
    Ok(())
}
