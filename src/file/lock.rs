// SPDX-License-Identifier: MIT OR Apache-2.0
//! Locks between ttvm's programs: files under /run with flock(2), which the kernel lets go when their holder dies.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{self, Receiver};

use nix::unistd::geteuid;

use crate::file;

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// The lock of `file`, which has been taken, alone or shared.
    pub fn taken(file: File) -> Self {
        Self(file)
    }

    /// Whether the file at `path` is the one that is locked: who locks it next could make another one there.
    pub fn is_of(&self, path: &Path) -> bool {
        let same = |own: &fs::Metadata, other: &fs::Metadata| (own.dev(), own.ino()) == (other.dev(), other.ino());
        matches!((self.0.metadata(), fs::symlink_metadata(path)), (Ok(own), Ok(other)) if same(&own, &other))
    }
}

/// Not by closing the file alone: a child that another thread is just making has it open, too, until it executes its program
/// (flock(2): the lock belongs to the open file description).
impl Drop for Lock {
    fn drop(&mut self) {
        // It cannot fail, and closing follows.
        drop(self.0.unlock());
    }
}

/// What came of asking for a lock.
#[derive(Debug)]
pub enum Attempt {
    /// It is ours.
    Taken(Lock),
    /// Another program has it.
    Busy(Waiting),
}

/// Asks for the lock of the file at `path`, which is made if it is not there.
pub fn take(path: &Path) -> io::Result<Attempt> {
    if let Some(directory) = path.parent() {
        file::directory(directory)?;
        // /run/lock is writable for everybody on Debian: whoever owns our directory there could take a lock, or its
        // file, from under its holder.
        let data = fs::symlink_metadata(directory)?;
        if !data.is_dir() || data.uid() != geteuid().as_raw() || data.mode() & 0o022 != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{} belongs to somebody else: remove it", directory.display()),
            ));
        }
    }
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Attempt::Taken(Lock(file))),
        Err(TryLockError::WouldBlock) => Waiting::new(file).map(Attempt::Busy),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A lock that is waited for; its descriptor polls readable once there is something to [`take`](Self::take). flock
/// itself can only wait without a deadline, so a thread does, and tells by closing a pipe.
#[derive(Debug)]
pub struct Waiting {
    closed: PipeReader,
    result: Receiver<io::Result<Lock>>,
}

impl Waiting {
    fn new(file: File) -> io::Result<Self> {
        let (closed, open) = io::pipe()?;
        let (sender, result) = mpsc::channel();
        std::thread::Builder::new().spawn(move || {
            let lock = file.lock().map(|()| Lock(file));
            // Nobody may be waiting any more: then the lock is dropped with the message.
            drop(sender.send(lock));
            drop(open);
        })?;
        Ok(Self { closed, result })
    }

    /// The lock, as soon as it is ours.
    pub fn take(self) -> io::Result<Lock> {
        self.result.recv().unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

impl AsFd for Waiting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.closed.as_fd()
    }
}
