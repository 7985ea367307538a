// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an image is made of, without unpacking it.

use std::collections::BTreeSet;

use serde::Serialize;

use super::compression::Compression;
use super::error::Error;
use super::names::{COMPONENT, escape};
use super::newc::Header;
use super::reader::Reader;
use super::reader::event::Event;
use super::reader::linux::Linux;

/// How much is told of what a segment is for.
const CONTENTS: usize = 16;

/// A segment of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Counted from 1.
    pub segment: usize,
    /// Where in the image it begins.
    pub offset: u64,
    /// Bytes of the image.
    pub size: u64,
    /// What it is compressed with.
    pub compression: Compression,
    /// Bytes of what it holds.
    pub unpacked: u64,
    /// Archives in it.
    pub archives: usize,
    /// Entries of those.
    pub entries: u64,
    /// Zeros that follow it.
    pub padding: u64,
    /// What it is for, as far as that can be told.
    pub content: BTreeSet<String>,
    /// What Linux does not take of it, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// Adds what there is in the image to `summaries`: also what comes before something that is wrong. `judge` is asked of each
/// entry.
///
/// # Errors
///
/// What is wrong with the image, and where, or what `judge` says.
pub fn inspect(
    reader: &mut Reader,
    summaries: &mut Vec<Summary>,
    judge: &mut dyn FnMut(&Reader, &Header) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut linux = Linux::default();
    let result = look(reader, summaries, judge, &mut linux);
    for (segment, why) in linux.remarks() {
        if let Some(summary) = summaries.iter_mut().find(|summary| summary.segment == *segment) {
            summary.remarks.push(why.clone());
        }
    }
    result
}

fn look(
    reader: &mut Reader,
    summaries: &mut Vec<Summary>,
    judge: &mut dyn FnMut(&Reader, &Header) -> Result<(), Error>,
    linux: &mut Linux,
) -> Result<(), Error> {
    while let Some(event) = reader.event()? {
        linux.see(&event);
        if let Event::Segment(segment) = &event {
            summaries.push(Summary {
                segment: segment.number,
                offset: segment.offset,
                size: 0,
                compression: segment.compression,
                unpacked: 0,
                archives: 0,
                entries: 0,
                padding: 0,
                content: BTreeSet::new(),
                remarks: Vec::new(),
            });
        }
        let Some(last) = summaries.last_mut() else { continue };
        match event {
            Event::Segment(_) | Event::ArchiveEnd { .. } => {}
            Event::Archive => last.archives += 1,
            Event::Entry(header) => {
                judge(reader, &header)?;
                last.entries += 1;
                if last.content.len() < CONTENTS {
                    last.content.extend(content(&header.name));
                }
            }
            Event::BootConfig(_) => drop(last.content.insert("boot configuration".to_owned())),
            Event::SegmentEnd {
                size,
                unpacked,
                padding,
                ..
            } => (last.size, last.unpacked, last.padding) = (size, unpacked, padding),
        }
    }
    Ok(())
}

/// What a file of that name tells of what the archive is for.
fn content(name: &[u8]) -> Option<String> {
    let name = name.strip_prefix(b".").unwrap_or(name);
    let name = &name[name.iter().take_while(|byte| **byte == b'/').count()..];
    if let Some(vendor) = name.strip_prefix(b"kernel/x86/microcode/") {
        return Some(match vendor {
            b"AuthenticAMD.bin" => "microcode of AMD".to_owned(),
            b"GenuineIntel.bin" => "microcode of Intel".to_owned(),
            _ => "microcode".to_owned(),
        });
    }
    if name.starts_with(b"kernel/firmware/acpi/") {
        return Some("ACPI tables".to_owned());
    }
    let modules = name.strip_prefix(b"usr/").unwrap_or(name).strip_prefix(b"lib/modules/");
    if let Some(version) = modules.filter(|version| !version.is_empty()) {
        let version = version.split(|byte| *byte == b'/').next()?;
        return (version.len() <= COMPONENT).then(|| format!("modules of {}", escape(version)));
    }
    let what = match name {
        b"init" => "init",
        b"conf/initramfs.conf" => "initramfs-tools",
        b"usr/lib/dracut" | b"lib/dracut" => "dracut",
        b"etc/initrd-release" => "systemd",
        _ => return None,
    };
    Some(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_tell() {
        let told = |name: &str| content(name.as_bytes()).unwrap_or_default();
        assert_eq!(told("kernel/x86/microcode/GenuineIntel.bin"), "microcode of Intel");
        assert_eq!(told("./kernel/x86/microcode/AuthenticAMD.bin"), "microcode of AMD");
        assert_eq!(told("usr/lib/modules/6.1.0-9-amd64/kernel"), "modules of 6.1.0-9-amd64");
        for init in ["init", "./init", "/init"] {
            assert_eq!(told(init), "init");
        }
        assert_eq!(told("usr/bin/init"), "");
    }
}
