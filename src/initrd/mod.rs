// SPDX-License-Identifier: MIT OR Apache-2.0
//! Initial RAM disks: what is in them, and making them.
//!
//! An image is a sequence of segments, bare archives and compressed ones in any order, with zeros between them. [`Reader`] goes
//! through it as Linux does; [`inspect`], [`unpack`] and [`pack`] are what is done with it.
//!
//! ```text
//! inspect unpack pack        what is done with an image
//! busybox kernel modules     one for guests without a disk, of what this system has
//! reader                     segments, archives, files, and what Linux makes of them
//! compression                the formats that are written here, and which there are
//! manifest                   the list beside unpacked files
//! newc kind names tree       files: in an archive, and below a directory
//! ```

mod beside;
pub mod busybox;
mod compression;
pub mod error;
pub mod images;
pub mod inspect;
pub mod kernel;
mod kind;
pub mod manifest;
pub mod modules;
pub mod names;
pub mod newc;
pub mod pack;
mod reader;
mod tree;
mod umask;
pub mod unpack;
mod watch;

pub use compression::Compression;
pub use images::Error;
pub use kind::{Kind, mode_text};
pub use reader::Reader;
pub use reader::event::{Event, Segment};
pub use reader::image::Image;
pub use reader::linux::Linux;
