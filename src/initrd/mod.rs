// SPDX-License-Identifier: MIT OR Apache-2.0
//! Initial RAM disks: what is in them, and making them.
//!
//! An image is a sequence of segments, bare archives and compressed ones in any order, with zeros between them. [`Reader`] goes
//! through it as Linux does; [`inspect`], [`unpack`] and [`pack`] are what is done with it.

mod archive;
mod beside;
mod blocks;
mod boot_config;
pub mod busybox;
mod compression;
mod decode;
mod draft;
mod encode;
mod error;
mod event;
mod input;
pub mod inspect;
mod instead;
pub mod kernel;
mod kind;
mod limits;
pub mod linux;
mod lz4_legacy;
mod lzop;
mod maker;
pub mod manifest;
pub mod modules;
pub mod names;
pub mod newc;
mod output;
pub mod pack;
mod plan;
mod reader;
mod scan;
mod source;
mod tree;
mod umask;
pub mod unpack;

pub use compression::Compression;
pub use error::{Error, Place};
pub use event::{Event, Segment};
pub use kind::{Kind, mode_text};
pub use reader::Reader;
