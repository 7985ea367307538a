// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writing the segments of an image.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, fstat};

use super::Segment;
use super::output::Output;
use super::plan::{Data, Item};
use crate::compression::Compression;
use crate::compression::encode::Encoder;
use crate::error::Error;
use crate::manifest::Padding;
use crate::names::{escape, parts};
use crate::newc;
use crate::tree::Tree;
use crate::watch::Watch;

/// An image that is being made.
pub(super) struct Packing<'a> {
    pub(super) to: &'a Path,
    pub(super) done: u64,
    pub(super) total: u64,
    pub(super) watch: &'a mut dyn Watch,
}

impl Packing<'_> {
    pub(super) fn segment(
        &mut self,
        segment: &Segment,
        next: Option<&Segment>,
        output: Output,
    ) -> Result<Output, Error> {
        let to = self.to.to_owned();
        let failed = || Error::io("write", &to);
        let encoder = Encoder::new(output, segment.compression, segment.level).map_err(failed())?;
        let mut archive = newc::Writer::new(encoder);
        for planned in &segment.archives {
            let directory = &planned.directory;
            archive.uppercase(planned.uppercase);
            let mut tree = super::open(directory, planned.is_listed)?;
            for item in &planned.items {
                self.item(directory, &mut tree, item, &mut archive)?;
            }
            archive.trailer().map_err(failed())?;
            archive
                .zeros(planned.padding.count(archive.written()))
                .map_err(failed())?;
        }
        let mut output = archive.into_inner().finish().map_err(failed())?;
        let mut padding = match (segment.padding, next) {
            // Nothing follows that would be aligned, and not all decompressors like zeros.
            (Padding::Align(4), None) => 0,
            (padding, _) => padding.count(output.written),
        };
        if let Some(next) = next {
            padding = padding.max(segment.compression.end_mark());
            let is_bare = |segment: &Segment| segment.compression == Compression::None;
            if is_bare(next) || is_bare(segment) || segment.padding == Padding::Align(4) {
                // Linux looks for a bare archive only there, and for whatever follows one.
                padding += newc::padding(output.written + padding);
            }
        }
        io::copy(&mut io::repeat(0).take(padding), &mut output).map_err(failed())?;
        Ok(output)
    }

    fn item(
        &mut self,
        directory: &Path,
        tree: &mut Tree,
        item: &Item,
        archive: &mut newc::Writer<Encoder<Output>>,
    ) -> Result<(), Error> {
        let path = || directory.join(escape(&item.path));
        let written = |result: io::Result<()>, to: &Path| match result {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Error::Changed(path())),
            result => result.map_err(Error::io("write", to)),
        };
        match &item.data {
            Data::None => written(archive.entry(&item.header, &mut io::empty()), self.to)?,
            Data::Target { terminated } => {
                let (parent, name) = place(tree, &item.path, &path)?;
                let target = readlinkat(parent, name).map_err(Error::io("read", path()))?;
                let mut target = target.into_vec();
                target.extend(terminated.then_some(0));
                if target.len() != item.header.size as usize {
                    return Err(Error::Changed(path()));
                }
                written(archive.entry(&item.header, &mut &target[..]), self.to)?;
            }
            Data::File(device, number) => {
                let mut file = open(tree, item, &path)?;
                let data = fstat(&file).map_err(Error::io("look at", path()))?;
                if (data.st_dev, data.st_ino, data.st_size) != (*device, *number, i64::from(item.header.size)) {
                    return Err(Error::Changed(path()));
                }
                let mut header = item.header.clone();
                if header.sum.is_some() {
                    header.sum = Some(sum(&mut file).map_err(Error::io("read", path()))?);
                }
                let mut reading = Reading {
                    file,
                    error: None,
                    packing: self,
                };
                let result = archive.entry(&header, &mut reading);
                match reading.error.take() {
                    Some(Stopped::Interrupted) => return Err(Error::Interrupted),
                    Some(Stopped::Failed(error)) => return Err(Error::io("read", path())(error)),
                    None => written(result, self.to)?,
                }
            }
        }
        match self.watch.interrupted() {
            true => Err(Error::Interrupted),
            false => Ok(()),
        }
    }
}

/// Opens a file to be read, and only that file.
fn open(tree: &mut Tree, item: &Item, path: &dyn Fn() -> PathBuf) -> Result<File, Error> {
    let (parent, name) = place(tree, &item.path, path)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = openat(parent, name, flags, Mode::empty()).map_err(Error::io("read", path()))?;
    Ok(File::from(file))
}

/// The directory that a file is in, and its name in that.
fn place<'a, 'b>(
    tree: &'a mut Tree,
    file: &'b [u8],
    path: &dyn Fn() -> PathBuf,
) -> Result<(BorrowedFd<'a>, &'b [u8]), Error> {
    let way = parts(file).map_err(|why| Error::Unfit { path: path(), why })?;
    let (name, parents) = way.split_last().ok_or_else(|| Error::Changed(path()))?;
    let parent = tree.directory(parents);
    let parent = parent.map_err(|blocked| Error::io("read", path())(blocked.error))?;
    Ok((parent, name))
}

/// The sum that the header of a file has.
fn sum(file: &mut File) -> io::Result<u32> {
    let mut buffer = vec![0; 1 << 16];
    let mut sum = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => sum = newc::sum(sum, &buffer[..length]),
        }
    }
    file.rewind()?;
    Ok(sum)
}

/// Why a file was not read to its end.
enum Stopped {
    Interrupted,
    Failed(io::Error),
}

/// A file that is read, with its progress. What fails on this side is told apart from what fails on the other.
struct Reading<'a, 'b> {
    file: File,
    error: Option<Stopped>,
    packing: &'a mut Packing<'b>,
}

impl Read for Reading<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Packing { done, total, watch, .. } = self.packing;
        if let ControlFlow::Break(()) = watch.progress(*done, *total) {
            self.error = Some(Stopped::Interrupted);
            return Err(io::Error::other("interrupted"));
        }
        match self.file.read(buffer) {
            Ok(length) => {
                *done += length as u64;
                Ok(length)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.error = Some(Stopped::Failed(error));
                Err(io::Error::other("not read"))
            }
        }
    }
}
