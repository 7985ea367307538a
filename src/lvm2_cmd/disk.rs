// SPDX-License-Identifier: MIT OR Apache-2.0
//! LVM's metadata, read from the disks themselves: what a command takes a quarter of a second to report is a text of a few
//! kilobytes at a known place. It is what LVM would act on as long as LVM's own lock of the group is held.
//!
//! The layout (label, header of the physical volume, header of a metadata area) is that of LVM2's lib/label/label.h and
//! lib/format_text/layout.h. It has been the same since 2002.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use super::metadata::{self, Metadata};
use crate::config::types::LvmName;

/// A label is in one of the first sectors.
const SECTOR: usize = 512;
const LABEL_SECTORS: usize = 4;
const MDA_MAGIC: &[u8; 16] = b" LVM2 x[5A%r0N*>";
/// The header of a metadata area; the text never lies there.
const MDA_HEADER: u64 = 512;
/// Of a place of metadata: another disk has the ones to be used (`vgmetadatacopies`).
const IGNORED: u32 = 1;
/// No group's metadata is as long (LVM's default area is 1 MiB).
const LONGEST: u64 = 16 << 20;
/// What a device that is read past the cache wants addresses and lengths to be multiples of.
const ALIGNMENT: usize = 4096;

/// Why the metadata could not be read from the disks. LVM's commands may still know it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A disk cannot be read.
    #[error("{} cannot be read", device.display())]
    Read {
        /// The disk.
        device: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// There is something else on a disk than there should be.
    #[error("{}: {what}", device.display())]
    Layout {
        /// The disk.
        device: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// The text is not what LVM writes.
    #[error(transparent)]
    Text(#[from] metadata::Error),
}

/// Where a disk says that the group's metadata is, and its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Where the area begins, and its size.
    area: (u64, u64),
    /// Where the text begins in the area, and its length.
    text: (u64, u64),
    checksum: u32,
}

/// A physical volume.
struct Disk {
    device: PathBuf,
    file: File,
    uuid: String,
    places: Vec<Place>,
}

/// The metadata of group `vg`, as the disk with this device number has it, and only if every disk of the group has the same.
///
/// # Errors
///
/// If a disk cannot be read, is not LVM's, or has other metadata than the others.
pub fn read(number: u64, vg: &LvmName) -> Result<Metadata, Error> {
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let disk = Disk::open(PathBuf::from(format!("/dev/block/{major}:{minor}")))?;
    let is_it = disk.file.metadata().is_ok_and(|data| data.rdev() == number);
    if !is_it {
        return Err(disk.layout("it is another disk than the kernel says"));
    }
    let place = *disk.places.first().ok_or_else(|| disk.layout("no metadata is on it"))?;
    let metadata = metadata::parse(&disk.text(place)?, vg.as_str())?;
    let same = |other: &Place| (other.checksum, other.text.1) == (place.checksum, place.text.1);
    for (uuid, device) in &metadata.disks {
        let other = Disk::open(PathBuf::from(device))?;
        if other.uuid != *uuid {
            return Err(other.layout("it is another disk than the group's metadata says"));
        }
        if !other.places.iter().all(same) {
            return Err(other.layout("its metadata is not that of the other disks"));
        }
    }
    Ok(metadata)
}

impl Disk {
    fn open(device: PathBuf) -> Result<Self, Error> {
        let failed = |source| Error::Read {
            device: device.clone(),
            source,
        };
        // LVM writes past the cache, and so is it read here.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_DIRECT)
            .open(&device)
            .map_err(failed)?;
        let head = read_at(&file, 0, SECTOR * LABEL_SECTORS).map_err(failed)?;
        let layout = |what| Error::Layout {
            device: device.clone(),
            what,
        };
        let header = header(&head).ok_or_else(|| layout("no label of LVM is on it"))?;
        let (uuid, areas) = physical_volume(header).ok_or_else(|| layout("its header is not whole"))?;
        let mut places = Vec::new();
        for area in areas {
            let bytes = read_at(&file, area.0, MDA_HEADER as usize).map_err(failed)?;
            places.extend(place(&bytes, area).map_err(layout)?);
        }
        Ok(Self {
            device,
            file,
            uuid,
            places,
        })
    }

    fn layout(&self, what: &'static str) -> Error {
        Error::Layout {
            device: self.device.clone(),
            what,
        }
    }

    /// The text at `place`, which goes on at the beginning of its area, behind the header, where it reaches the end.
    fn text(&self, place: Place) -> Result<String, Error> {
        let ((area, size), (start, length)) = (place.area, place.text);
        let failed = |source| Error::Read {
            device: self.device.clone(),
            source,
        };
        let first = length.min(size - start);
        let mut bytes = read_at(&self.file, area + start, first as usize).map_err(failed)?;
        if first < length {
            bytes.extend(read_at(&self.file, area + MDA_HEADER, (length - first) as usize).map_err(failed)?);
        }
        if checksum(&bytes) != place.checksum {
            return Err(self.layout("the checksum of its metadata is another"));
        }
        // LVM counts the NUL at the end in.
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        bytes.truncate(end);
        String::from_utf8(bytes).map_err(|_| self.layout("its metadata is no text"))
    }
}

/// The header of the physical volume behind its label.
fn header(head: &[u8]) -> Option<&[u8]> {
    head.chunks_exact(SECTOR).zip(0..).find_map(|(sector, number)| {
        let is_label = sector.starts_with(b"LABELONE")
            && sector.get(24..32)? == b"LVM2 001"
            && u64_at(sector, 8)? == number
            && u32_at(sector, 16)? == checksum(sector.get(20..)?);
        is_label.then(|| sector.get(u32_at(sector, 20)? as usize..))?
    })
}

/// UUID and metadata areas.
fn physical_volume(header: &[u8]) -> Option<(String, Vec<(u64, u64)>)> {
    let uuid = std::str::from_utf8(header.get(..32)?).ok()?.to_owned();
    let mut at = 40;
    let mut list = || -> Option<Vec<(u64, u64)>> {
        let mut areas = Vec::new();
        loop {
            let area = (u64_at(header, at)?, u64_at(header, at + 8)?);
            at += 16;
            match area {
                (0, _) => return Some(areas),
                area => areas.push(area),
            }
        }
    };
    // Those of data come first.
    list()?;
    Some((uuid, list()?))
}

/// Where the text is by the header of a metadata area; `None` if this area is not in use.
fn place(bytes: &[u8], area: (u64, u64)) -> Result<Option<Place>, &'static str> {
    let read = || {
        let right = bytes.get(4..20)? == MDA_MAGIC
            && u32_at(bytes, 0)? == checksum(bytes.get(4..)?)
            && u32_at(bytes, 20)? == 1
            && u64_at(bytes, 24)? == area.0;
        right.then_some(())?;
        let place = Place {
            area: (area.0, u64_at(bytes, 32)?),
            text: (u64_at(bytes, 40)?, u64_at(bytes, 48)?),
            checksum: u32_at(bytes, 56)?,
        };
        Some((place, u32_at(bytes, 60)?))
    };
    let (place, flags) = read().ok_or("the header of a metadata area is not whole")?;
    let (start, length) = place.text;
    if start == 0 || flags & IGNORED != 0 {
        return Ok(None);
    }
    let room = place.area.1.saturating_sub(MDA_HEADER);
    let fits = start >= MDA_HEADER && start < place.area.1 && length <= room.min(LONGEST) && place.area.1 <= area.1;
    fits.then_some(Some(place))
        .ok_or("its metadata lies outside of its area")
}

/// Bytes of a device that is read past the cache.
fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let before = (offset % ALIGNMENT as u64) as usize;
    let whole = (before + length).next_multiple_of(ALIGNMENT);
    let mut buffer = vec![0; whole + ALIGNMENT];
    let skip = buffer.as_ptr().align_offset(ALIGNMENT);
    let aligned = &mut buffer[skip..skip + whole];
    file.read_exact_at(aligned, offset - before as u64)?;
    Ok(aligned[before..before + length].to_vec())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// LVM's checksum: CRC-32 with a beginning of its own, and not inverted at the end (lib/misc/crc.c).
fn checksum(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut index = 0;
        while index < 16 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 4 {
                value = (value >> 1) ^ (0xedb8_8320 * (value & 1));
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    let half = |crc: u32| TABLE[(crc & 15) as usize] ^ (crc >> 4);
    let step = |crc: u32, byte: &u8| half(half(crc ^ u32::from(*byte)));
    bytes.iter().fold(0xf597_a6cf, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_lvms() {
        // CRC-32 of the same is 0xcbf43926, with its own beginning and inverted at the end.
        let standard = |bytes: &[u8]| {
            let mut crc = u32::MAX;
            for byte in bytes {
                crc ^= u32::from(*byte);
                for _ in 0..8 {
                    crc = (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
                }
            }
            !crc
        };
        assert_eq!(standard(b"123456789"), 0xcbf4_3926);
        // The checksum is affine: what differs is what the beginnings make of nine zeros.
        assert_eq!(
            checksum(b"123456789") ^ checksum(&[0; 9]),
            standard(b"123456789") ^ standard(&[0; 9])
        );
        assert_eq!(checksum(b""), 0xf597_a6cf);
    }

    #[test]
    fn areas_that_reach_beyond_themselves() {
        let area = (4096, 8192);
        let header = |start: u64, length: u64, flags: u32| {
            let mut bytes = vec![0; 512];
            bytes[4..20].copy_from_slice(MDA_MAGIC);
            bytes[20..24].copy_from_slice(&1_u32.to_le_bytes());
            for (at, value) in [(24, area.0), (32, area.1), (40, start), (48, length)] {
                bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
            bytes[60..64].copy_from_slice(&flags.to_le_bytes());
            let sum = checksum(&bytes[4..]);
            bytes[..4].copy_from_slice(&sum.to_le_bytes());
            bytes
        };
        let found = |bytes: &[u8]| place(bytes, area).map(|place| place.map(|place| place.text));
        assert_eq!(found(&header(512, 100, 0)), Ok(Some((512, 100))));
        assert_eq!(found(&header(8000, 7680, 0)), Ok(Some((8000, 7680))));
        assert_eq!(found(&header(0, 0, 0)), Ok(None));
        assert_eq!(found(&header(512, 100, IGNORED)), Ok(None));
        for (start, length) in [(512, 7681), (8192, 1), (100, 1), (u64::MAX, u64::MAX)] {
            assert!(found(&header(start, length, 0)).is_err(), "{start} {length}");
        }
        let mut torn = header(512, 100, 0);
        torn[40] ^= 1;
        assert!(found(&torn).is_err());
        assert!(found(&[]).is_err());
    }
}
