// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an image may have. Whoever reads one remembers something of each segment, file and name, and an archive of nothing but
//! those takes little room where it is compressed.

/// Entries of all archives. Directories that are made on the way to a file count as if they were there.
const ENTRIES: u64 = 1_000_000;
/// Bytes of their names.
const NAMES: u64 = 64 << 20;
/// Runs of an image that are compressed as one.
const SEGMENTS: u64 = 1000;

/// What there may still be.
pub(crate) struct Limits {
    content: u64,
    bytes: u64,
    segments: u64,
    entries: u64,
    names: u64,
}

/// There is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exceeded {
    /// Than the caller has said, in bytes.
    Content(u64),
    /// Than anybody makes, of this.
    Known(&'static str),
}

impl Limits {
    /// Those of an image in which there may be so many bytes.
    pub fn new(content: u64) -> Self {
        Self {
            content,
            bytes: 0,
            segments: 0,
            entries: 0,
            names: 0,
        }
    }

    /// Bytes of what it holds.
    pub fn content(&mut self, bytes: usize) -> Result<(), Exceeded> {
        self.bytes += bytes as u64;
        match self.bytes > self.content {
            true => Err(Exceeded::Content(self.content)),
            false => Ok(()),
        }
    }

    /// A segment.
    pub fn segment(&mut self) -> Result<(), Exceeded> {
        self.segments += 1;
        match self.segments > SEGMENTS {
            true => Err(Exceeded::Known("1000 segments")),
            false => Ok(()),
        }
    }

    /// An entry, or the end of an archive: each archive gets a directory.
    pub fn entry(&mut self, name: usize) -> Result<(), Exceeded> {
        self.entries += 1;
        self.names += name as u64;
        if self.entries > ENTRIES {
            return Err(Exceeded::Known("1000000 entries"));
        }
        match self.names > NAMES {
            true => Err(Exceeded::Known("64 MiB of names")),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_is_one_too_many() {
        let mut limits = Limits::new(1 << 20);
        assert_eq!(limits.content(1 << 20), Ok(()));
        assert_eq!(limits.content(1), Err(Exceeded::Content(1 << 20)));
        for _ in 0..SEGMENTS {
            assert_eq!(limits.segment(), Ok(()));
        }
        assert!(limits.segment().is_err());
        for _ in 0..ENTRIES {
            assert_eq!(limits.entry(10), Ok(()));
        }
        assert_eq!(limits.entry(10), Err(Exceeded::Known("1000000 entries")));
        let mut limits = Limits::new(1 << 20);
        for _ in 0..NAMES / 4096 {
            assert_eq!(limits.entry(4096), Ok(()));
        }
        assert_eq!(limits.entry(1), Err(Exceeded::Known("64 MiB of names")));
    }
}
