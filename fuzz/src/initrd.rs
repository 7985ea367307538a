// SPDX-License-Identifier: MIT OR Apache-2.0
//! Going through an initial RAM disk as `ttvm initrd` does, without making anything of it.

use std::io::Cursor;

use initrd::inspect::inspect;
use initrd::manifest::Entry;
use initrd::names::{escape, unescape};
use initrd::{Event, Image, Kind, Reader};

/// The bytes that may be in it: so much is decompressed in less than a second.
const CONTENT: u64 = 16 << 20;

fn reader(image: Vec<u8>) -> Reader {
    let size = image.len() as u64;
    let (content, name) = (Cursor::new(image), "image".to_owned());
    Reader::new(Image { content, name, size }, CONTENT)
}

/// Reads all of it, twice: by summaries, and with each file.
///
/// # Panics
///
/// When a name that is written down is read as another one.
pub fn read(image: Vec<u8>) {
    let mut summaries = Vec::new();
    if let Err(error) = inspect(&mut reader(image.clone()), &mut summaries, &mut |_, _| Ok(())) {
        drop(error.to_string());
    }
    let mut reader = reader(image);
    loop {
        match reader.event() {
            Ok(Some(Event::Entry(header))) => {
                let entry = Entry::of(&header);
                assert_eq!(unescape(&entry.name).as_ref(), Some(&header.name));
                let read = match Kind::of(&header) {
                    Ok(Kind::Link) => reader.target().map(|target| drop(escape(&target.path))),
                    Ok(_) => data(&mut reader),
                    Err(_) => continue,
                };
                if read.is_err() {
                    return;
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(error) => return drop(error.to_string()),
        }
    }
}

fn data(reader: &mut Reader) -> Result<(), initrd::Error> {
    while reader.data()?.is_some() {}
    Ok(())
}
