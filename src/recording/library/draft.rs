// SPDX-License-Identifier: MIT OR Apache-2.0
//! A recording that is being made.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::id::Id;
use super::manifest::{FileDigest, Manifest};
use super::sealed;
use super::stored::{self, Recording};
use crate::base::fail_point;
use crate::base::progress::Progress;
use crate::config::types::GuestName;
use crate::file::lock::Lock;
use crate::file::{self, digest};
use crate::recording::error::Error;

/// The toolstack's log.
pub const LOG: &str = "replay.log";
/// What the guest printed.
pub const CONSOLE: &str = "console.log";
/// The guest's file.
pub const GUEST_FILE: &str = "guest.toml";
/// Why there is no more of an incomplete one.
const WHY: &str = "incomplete";
/// A sentence is not longer.
const WHY_LIMIT: usize = 2000;

/// A recording that is being made. It is incomplete until [`finish`](Self::finish), however this ends; as long as this lives,
/// it is known to be in the making.
#[derive(Debug)]
pub struct Draft {
    state: PathBuf,
    directory: PathBuf,
    guest: GuestName,
    id: Id,
    _lock: Lock,
}

/// Makes a directory for root, or this user, alone.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// The same with those above it, each of which is on the disk then.
pub(super) fn make_directories(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directories(parent)?;
    }
    match make_directory(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::file("make", path)(error)),
        _ => path.parent().map_or(Ok(()), sync),
    }
}

/// Waits until the file or directory at `path` is on the disk.
pub(in crate::recording) fn sync(path: &Path) -> Result<(), Error> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(Error::file("write", path))
}

/// Makes a new file.
pub(in crate::recording) fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// A new file with that content, on the disk.
fn put(path: &Path, content: &[u8]) -> Result<(), Error> {
    let write = || {
        let mut file = new_file(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(Error::file("write", path))
}

impl Draft {
    /// Begins a recording of `guest` below `recordings`, the guest's own directory.
    pub(in crate::recording) fn begin(
        state: &Path,
        recordings: &Path,
        guest: &GuestName,
        manifest: &Manifest,
        guest_file: &str,
    ) -> Result<Self, Error> {
        make_directories(recordings)?;
        let (id, directory) = Self::claim(recordings, manifest.run.started)?;
        let path = directory.join(stored::LOCK);
        // Whoever looks whether it is held lets it go at once.
        let lock = new_file(&path).and_then(|file| file.lock().map(|()| Lock::taken(file)));
        let draft = Self {
            state: state.to_owned(),
            _lock: lock.map_err(Error::file("lock", &path))?,
            guest: guest.clone(),
            id,
            directory,
        };
        fail_point::reach("recording.made");
        let unfinished = Manifest {
            result: None,
            ..manifest.clone()
        };
        put(&draft.directory.join(sealed::NAME), unfinished.to_text()?.as_bytes())?;
        put(&draft.directory.join(GUEST_FILE), guest_file.as_bytes())?;
        sync(&draft.directory)?;
        sync(recordings)?;
        fail_point::reach("recording.begun");
        Ok(draft)
    }

    /// A directory that nobody had before.
    pub(super) fn claim(recordings: &Path, started: u64) -> Result<(Id, PathBuf), Error> {
        let mut number = 1;
        loop {
            let id = Id::new(started, number);
            let directory = recordings.join(id.to_string());
            match make_directory(&directory) {
                Ok(()) => return Ok((id, directory)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                // Whoever removed the guest's last recording removed that, too.
                Err(error) if error.kind() == io::ErrorKind::NotFound => make_directories(recordings)?,
                Err(error) => return Err(Error::file("make", &directory)(error)),
            }
        }
    }

    /// The guest.
    pub fn guest(&self) -> &GuestName {
        &self.guest
    }

    /// Its name.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the toolstack writes its log.
    pub fn log(&self) -> PathBuf {
        self.directory.join(LOG)
    }

    /// Where what the guest prints is written.
    pub fn console(&self) -> PathBuf {
        self.directory.join(CONSOLE)
    }

    /// The log and the console as they are now, for the manifest's result.
    pub fn digests(&self, progress: &mut Progress<'_>) -> Result<(FileDigest, FileDigest), Error> {
        digests(&self.directory, progress)
    }

    /// Says in a sentence why it stays incomplete: `the disk ran full`. If that cannot be written, it is incomplete all the
    /// same.
    pub fn note_why(&self, why: &str) {
        let path = self.directory.join(WHY);
        if let Err(error) = file::replace(&path, why.as_bytes(), 0o600) {
            tracing::warn!(ttvm_guest = %self.guest, "cannot write {}: {error}", path.display());
        }
    }

    /// Makes it a whole recording: everything is on the disk before `manifest`, which has a result, takes the place of the
    /// one that had none.
    pub fn finish(self, manifest: &Manifest) -> Result<Recording, Error> {
        if manifest.result.is_none() {
            return Err(Error::NoResult {
                guest: self.guest.clone(),
                id: self.id.clone(),
            });
        }
        complete(&self.directory, manifest)?;
        Ok(Recording::new(
            &self.state,
            self.directory.clone(),
            self.guest.clone(),
            self.id.clone(),
            manifest.clone(),
        ))
    }
}

/// The log and the console in `directory`.
pub(in crate::recording) fn digests(
    directory: &Path,
    progress: &mut Progress<'_>,
) -> Result<(FileDigest, FileDigest), Error> {
    let mut of = |name: &str| file_digest(&directory.join(name), Path::new(name), progress);
    Ok((of(LOG)?, of(CONSOLE)?))
}

/// Makes what is in `directory` a whole recording: everything is on the disk before `manifest`.
pub(in crate::recording) fn complete(directory: &Path, manifest: &Manifest) -> Result<(), Error> {
    let text = manifest.to_text()?;
    sync(&directory.join(LOG))?;
    sync(&directory.join(CONSOLE))?;
    sync(directory)?;
    fail_point::reach("recording.synced");
    let path = directory.join(sealed::NAME);
    file::replace(&path, text.as_bytes(), 0o600).map_err(Error::file("write", &path))?;
    fail_point::reach("recording.finished");
    forget_why(directory);
    Ok(())
}

/// It would have been true if the program had ended before.
pub(in crate::recording) fn forget_why(directory: &Path) {
    drop(fs::remove_file(directory.join(WHY)));
}

/// Why the recording in `directory` is incomplete.
pub(in crate::recording) fn why(directory: &Path) -> String {
    let unknown = || "what recorded it was killed, or the host lost power".to_owned();
    let text = fs::read_to_string(directory.join(WHY)).unwrap_or_default();
    let line = text.lines().next().unwrap_or_default().trim();
    let line: String = crate::base::text::line(line).chars().take(WHY_LIMIT).collect();
    if line.is_empty() { unknown() } else { line }
}

/// The file at `path` as a manifest has it, by the name `shown`.
pub fn file_digest(path: &Path, shown: &Path, progress: &mut Progress<'_>) -> Result<FileDigest, Error> {
    let file = File::open(path).map_err(Error::file("open", path))?;
    let size = file.metadata().map_err(Error::file("open", path))?.len();
    let digest = digest::of_file(&file, progress).map_err(Error::read(path))?;
    Ok(FileDigest {
        path: shown.to_owned(),
        size,
        digest,
    })
}
