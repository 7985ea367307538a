// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images of two segments in each compression: made, read, unpacked, packed again; and the examples.

use std::error::Error;
use std::fs;
use std::io::{self, Cursor, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use initrd::inspect::inspect;
use initrd::newc::{Header, Writer};
use initrd::pack::{Options, pack};
use initrd::unpack::unpack;
use initrd::{Compression, Encoder, Event, Image, Reader};

type Answer = Result<(), Box<dyn Error>>;

/// A new directory of one test.
fn place(name: &str) -> io::Result<PathBuf> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("initrd-crate-{name}"));
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place)?;
    Ok(place)
}

/// An archive of one file, compressed, behind what is in `out`.
fn segment(out: Vec<u8>, compression: Compression, name: &str, data: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = Writer::new(Encoder::new(out, compression, compression.default_level())?);
    let file = Header {
        name: name.as_bytes().to_vec(),
        ino: 1,
        mode: 0o100_644,
        nlink: 1,
        size: data.len() as u32,
        mtime: 1_000_000_000,
        ..Header::default()
    };
    archive.entry(&file, &mut &data[..])?;
    archive.finish(4)?.finish()
}

/// One with a bare archive before it, as microcode is.
fn image(compression: Compression) -> io::Result<Vec<u8>> {
    let early = segment(Vec::new(), Compression::None, "early", b"bare")?;
    segment(early, compression, "late", &b"some content\n".repeat(10_000))
}

fn reader(image: &[u8]) -> Reader {
    let size = image.len() as u64;
    let (content, name) = (Cursor::new(image.to_vec()), "image".to_owned());
    Reader::new(Image { content, name, size }, 1 << 20)
}

#[test]
fn what_was_written_is_read() -> Answer {
    for compression in Compression::ALL {
        let image = image(compression)?;
        let mut reader = reader(&image);
        let (mut segments, mut files) = (Vec::new(), Vec::new());
        while let Some(event) = reader.event()? {
            match event {
                Event::Segment(segment) => segments.push(segment.compression),
                Event::Entry(header) => {
                    let mut data = Vec::new();
                    while let Some(piece) = reader.data()? {
                        data.write_all(piece)?;
                    }
                    files.push((String::from_utf8(header.name)?, data));
                }
                _ => {}
            }
        }
        assert_eq!(segments, [Compression::None, compression]);
        let expected = [("early", b"bare".to_vec()), ("late", b"some content\n".repeat(10_000))];
        assert_eq!(files, expected.map(|(name, data)| (name.to_owned(), data)));
        assert_eq!(reader.position(), image.len() as u64);
    }
    Ok(())
}

#[test]
fn unpacked_and_packed_it_is_the_same() -> Answer {
    let place = place("again")?;
    for compression in Compression::ALL {
        let image = image(compression)?;
        let (files, again) = (place.join("files"), place.join("again"));
        let go_on = |_, _| ControlFlow::Continue(());
        let unpacked = unpack(&mut reader(&image), &files, &mut { go_on })?;
        assert_eq!((unpacked.segments, unpacked.entries), (2, 2));
        assert_eq!(fs::read(files.join("1/early"))?, b"bare");
        pack(&files, &again, &Options::default(), &mut { go_on })?;
        assert!(fs::read(&again)? == image, "{compression}");
        fs::remove_dir_all(&files)?;
        fs::remove_file(&again)?;
    }
    Ok(())
}

#[test]
fn more_than_is_allowed() -> Answer {
    let image = image(Compression::Zstd)?;
    let (content, name) = (Cursor::new(image), "image".to_owned());
    let mut reader = Reader::new(Image { content, name, size: 0 }, 1000);
    let mut summaries = Vec::new();
    let answer = inspect(&mut reader, &mut summaries, &mut |_, _| Ok(()));
    let why = answer.map_err(|error| error.to_string());
    let expected = "image: segment 2 (zstd, at byte 244): there is more than 1000 bytes in it";
    assert_eq!(why, Err(expected.to_owned()));
    // What comes before is known.
    assert_eq!((summaries.len(), summaries[0].entries), (1, 1));
    Ok(())
}

#[test]
fn the_examples_do_what_they_say() -> Answer {
    let place = place("examples")?;
    let (old, new, table) = (place.join("old"), place.join("new"), place.join("dsdt.aml"));
    fs::write(&old, image(Compression::Xz)?)?;
    fs::write(&table, "a table")?;
    acpi::put_before(&old, &new, &[table])?;
    let mut said = Vec::new();
    segments::show(&new, &mut said)?;
    let said = String::from_utf8(said)?;
    let expected = "\
segment 1: none, at byte 0
  drwxr-xr-x         0 kernel
  drwxr-xr-x         0 kernel/firmware
  drwxr-xr-x         0 kernel/firmware/acpi
  -rw-r--r--         7 kernel/firmware/acpi/dsdt.aml
segment 2: none, at byte 1024
  -rw-r--r--         4 early
segment 3: xz, at byte 1268
  -rw-r--r--    130000 late
";
    assert_eq!(said, expected);
    Ok(())
}

#[path = "../examples/acpi.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod acpi;
#[path = "../examples/segments.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod segments;
