// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where an image comes from.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use crate::error::Error;

/// An image to be read.
#[derive(Debug)]
pub struct Image<R = File> {
    /// What gives its bytes.
    pub content: R,
    /// What messages call it.
    pub name: String,
    /// Bytes; 0 if nobody knows.
    pub size: u64,
}

impl Image {
    /// The image at `path`, or the standard input if that is `-`.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, or is a directory.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if path == Path::new("-") {
            let file = io::stdin().as_fd().try_clone_to_owned();
            return Ok(Self {
                content: file.map_err(Error::io("read", path))?.into(),
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
            content: file,
            name: path.display().to_string(),
            size: data.len(),
        })
    }
}

impl<R> Image<R> {
    /// The same image, read through what `change` makes of what gives its bytes.
    pub fn map<S>(self, change: impl FnOnce(R) -> S) -> Image<S> {
        Image {
            content: change(self.content),
            name: self.name,
            size: self.size,
        }
    }
}
