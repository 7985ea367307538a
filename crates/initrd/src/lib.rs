// SPDX-License-Identifier: MIT OR Apache-2.0
//! Initial RAM disks of Linux: what is in them, unpacking them, and packing them again.
//!
//! An image is a sequence of segments, bare archives and compressed ones in any order, with zeros between them. [`Reader`] goes
//! through it as Linux does; [`inspect`], [`unpack`] and [`pack`] are what is done with it. All that is decompressed or compressed
//! is so in this process, because only the decoder knows where a segment ends and the next one begins. Images may be anybody's:
//! nothing gets out of the directory that one is unpacked to, and whatever is in one, there is an answer.
//!
//! ```text
//! inspect unpack pack        what is done with an image
//! reader                     segments, archives, files, and what Linux makes of them
//! compression                the formats that are written here, and which there are
//! manifest                   the list beside unpacked files
//! newc kind names tree       files: in an archive, and below a directory
//! ```
//!
//! # Example
//!
//! An image of one segment is made, and its files are listed:
//!
//! ```
//! use std::io::Cursor;
//!
//! use initrd::newc::{Header, Writer};
//! use initrd::{Compression, Encoder, Event, Image, Reader};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let segment = Encoder::new(Vec::new(), Compression::Zstd, 9)?;
//! let mut archive = Writer::new(segment);
//! let init = Header {
//!     name: b"init".to_vec(),
//!     mode: 0o100_755,
//!     nlink: 1,
//!     size: 10,
//!     ..Header::default()
//! };
//! archive.entry(&init, &mut &b"#!/bin/sh\n"[..])?;
//! let content = archive.finish(512)?.finish()?;
//!
//! let image = Image {
//!     size: content.len() as u64,
//!     content: Cursor::new(content),
//!     name: "image".to_owned(),
//! };
//! // There may be a megabyte in it.
//! let mut reader = Reader::new(image, 1 << 20);
//! let mut names = Vec::new();
//! while let Some(event) = reader.event()? {
//!     if let Event::Entry(header) = event {
//!         names.push(header.name);
//!     }
//! }
//! assert_eq!(names, [b"init"]);
//! # Ok(())
//! # }
//! ```

#![warn(missing_docs)]
// Tests say by them what they expect; the programs have errors.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod beside;
mod compression;
mod error;
pub mod inspect;
mod kind;
pub mod manifest;
pub mod names;
pub mod newc;
pub mod pack;
mod reader;
mod tree;
mod umask;
pub mod unpack;
mod watch;

pub use compression::Compression;
pub use compression::encode::Encoder;
pub use error::{Error, Place};
pub use kind::{Kind, Node, mode_text};
pub use reader::Reader;
pub use reader::content::Target;
pub use reader::event::{Event, Segment};
pub use reader::image::Image;
pub use reader::linux::Linux;
pub use watch::{Interrupted, Step, Watch};
