// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where an image comes from: a file, or something that may let one wait, a pipe.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use crate::base::signals;
use crate::initrd::error::Error;

/// An image to be read.
#[derive(Debug)]
pub(in crate::initrd) struct Source {
    file: File,
    arrival: SignalFd,
    /// What messages call it.
    pub name: String,
    /// Bytes; 0 if nobody knows.
    pub size: u64,
}

impl Source {
    /// The image at `path`, or the standard input if that is `-`. To be opened before signals are deferred: a named pipe may let
    /// one wait here, too.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let arrival = signals::arrival().map_err(Error::io("wait for", path))?;
        if path == Path::new("-") {
            let file = io::stdin().as_fd().try_clone_to_owned();
            return Ok(Self {
                file: file.map_err(Error::io("read", path))?.into(),
                arrival,
                name: "the standard input".to_owned(),
                size: 0,
            });
        }
        let file = File::open(path).map_err(Error::io("open", path))?;
        let data = file.metadata().map_err(Error::io("look at", path))?;
        if data.is_dir() {
            return Err(Error::NotA {
                path: path.to_owned(),
                wanted: "an image: it is a directory",
            });
        }
        Ok(Self {
            file,
            arrival,
            name: path.display().to_string(),
            size: data.len(),
        })
    }
}

impl Read for Source {
    /// Ends with an error as soon as a signal waits that was deferred.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut both = [
            PollFd::new(self.file.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.arrival.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut both, PollTimeout::NONE) {
            Ok(_) if both[1].any() == Some(true) => Err(io::Error::other("interrupted")),
            Ok(_) | Err(Errno::EINTR) => self.file.read(buffer),
            Err(error) => Err(error.into()),
        }
    }
}
