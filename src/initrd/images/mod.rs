// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images read, unpacked and packed by a program that signals end: those wait until nothing is half-done.

mod error;

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;

pub use error::Error;
use initrd::inspect::Summary;
use initrd::pack::{self, Options, Packed};
use initrd::unpack::{self, Unpacked};
use initrd::{Image, Interrupted, Reader, Step, Watch};

use crate::base::progress::Progress;
use crate::base::{fail_point, signals};
use crate::config::types::Size;

/// The image at `path`, or the standard input if that is `-`. To be opened before signals are deferred: a named pipe may let
/// one wait here, too.
fn open(path: &Path) -> Result<Image<signals::Waiting<File>>, Error> {
    let image = Image::open(path)?;
    let arrival = signals::arrival().map_err(|source| initrd::Error::Io {
        action: "wait for",
        path: path.to_owned(),
        source,
    })?;
    Ok(image.map(|file| signals::Waiting::new(file, arrival, || Interrupted.into())))
}

/// Reads the image at `path`, or of the standard input if that is `-`; what is in it may not have more than `limit` bytes.
///
/// # Errors
///
/// If it cannot be opened.
pub fn reader(path: &Path, limit: Size) -> Result<Reader, Error> {
    Ok(Reader::new(open(path)?, limit.bytes()))
}

/// What would be unpacked of the image at `image`.
///
/// # Errors
///
/// What is wrong with the image, and where, as far as names and kinds tell.
pub fn plan(image: &Path, limit: Size) -> Result<Vec<Summary>, Error> {
    Ok(unpack::plan(&mut reader(image, limit)?)?)
}

/// Unpacks the image at `image` to the new directory `to`; what is in it may not have more than `limit` bytes.
///
/// # Errors
///
/// What is wrong with the image, and where; what cannot be written. There is nothing at `to` then.
pub fn unpack(image: &Path, to: &Path, limit: Size, progress: &mut Progress<'_>) -> Result<Unpacked, Error> {
    let image = open(image)?;
    // Before there are other threads: a signal would end the process in one of them.
    let _deferred = signals::defer();
    let mut reader = Reader::new(image, limit.bytes());
    Ok(unpack::unpack(&mut reader, to, &mut Watched(progress))?)
}

/// Makes the image `to` of `directory`.
///
/// # Errors
///
/// As [`Plan::of`](initrd::pack::Plan::of), and what cannot be read or written. What was at `to` before is there then.
pub fn pack(directory: &Path, to: &Path, options: &Options, progress: &mut Progress<'_>) -> Result<Packed, Error> {
    // As above.
    let _deferred = signals::defer();
    Ok(pack::pack(directory, to, options, &mut Watched(progress))?)
}

/// Work that a signal, a person, or a test ends.
struct Watched<'a, 'b>(&'a mut Progress<'b>);

impl Watch for Watched<'_, '_> {
    fn progress(&mut self, done: u64, total: u64) -> ControlFlow<()> {
        (self.0)(done, total)
    }

    fn interrupted(&mut self) -> bool {
        signals::waiting()
    }

    fn reached(&mut self, step: Step) {
        fail_point::reach(match step {
            Step::Entry => "initrd.entry",
            Step::Unpacked => "initrd.unpacked",
            Step::Packed => "initrd.packed",
        });
    }
}
