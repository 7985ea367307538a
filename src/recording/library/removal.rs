// SPDX-License-Identifier: MIT OR Apache-2.0
//! Removing recordings, and what a program that was killed has left of one.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::draft::{make_directories, sync};
use super::stored::{LOCK, bases, open_lock};
use super::{Entry, Library, State, allocated, capsules, names};
use crate::base::fail_point;
use crate::config::types::GuestName;
use crate::recording::checkpoints;
use crate::recording::error::Error;

/// A recording on its way out has a name that begins so: nobody takes it for a whole one.
pub(super) const REMOVING: &str = ".removing-";
/// One on its way in.
pub(super) const IMPORTING: &str = ".importing-";

/// How often a lock is asked for, and how long between: whoever only looks whether it is held has it for a moment.
const TRIES: u32 = 10;
const BETWEEN: Duration = Duration::from_millis(20);

impl Library {
    /// Whether `entry` would be removed now.
    pub fn check_removal(&self, entry: &Entry) -> Result<(), Error> {
        self.lock_for_removal(entry).map(drop)
    }

    /// Removes `entry`, and the copies of disks and the engine that no other needs. Returns the bytes that are free then.
    pub fn remove(&self, entry: &Entry) -> Result<u64, Error> {
        let _lock = self.lock_for_removal(entry)?;
        let recordings = self.of_guest(&entry.guest);
        let gone = recordings.join(format!("{REMOVING}{}", entry.id));
        // Of an earlier one of that name.
        remove_tree(&gone)?;
        let size = allocated(&entry.directory).unwrap_or(0);
        fs::rename(&entry.directory, &gone).map_err(Error::file("remove", &entry.directory))?;
        sync(&recordings)?;
        fail_point::reach("recording.removing");
        remove_tree(&gone)?;
        // It stays if there are others.
        drop(fs::remove_dir(&recordings));
        Ok(size + self.tidy()?)
    }

    /// Removes the checkpoints of `entry`, if it has any. Returns the bytes that are free then.
    pub fn remove_checkpoints(&self, entry: &Entry) -> Result<u64, Error> {
        let _lock = self.lock_for_removal(entry)?;
        let directory = entry.directory.join(checkpoints::NAME);
        let size = allocated(&directory).unwrap_or(0);
        remove_tree(&directory)?;
        sync(&entry.directory)?;
        Ok(size)
    }

    /// The recording's lock, if it may be removed. One whose lock was never made has none.
    fn lock_for_removal(&self, entry: &Entry) -> Result<Option<File>, Error> {
        let (guest, id) = (entry.guest.clone(), entry.id.clone());
        if entry.pinned {
            return Err(Error::Pinned { guest, id });
        }
        if entry.state == State::Recording {
            return Err(Error::InUse { guest, id });
        }
        let path = entry.directory.join(LOCK);
        let lock = match open_lock(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            lock => lock.map_err(Error::file("lock", &path))?,
        };
        match try_lock(&lock).map_err(Error::file("lock", &path))? {
            true => Ok(Some(lock)),
            false => Err(Error::InUse { guest, id }),
        }
    }

    /// Finishes what programs that were killed have begun: removals and imports; removes copies of disks and engines that no
    /// recording names any more. Returns the bytes that are free then. While somebody imports, nothing is done: that is part of
    /// nothing yet.
    pub fn tidy(&self) -> Result<u64, Error> {
        if !self.recordings().is_dir() {
            return Ok(0);
        }
        let lock = self.lock()?;
        match try_lock(&lock).map_err(Error::file("lock", &self.recordings()))? {
            true => self.tidy_locked(),
            false => Ok(0),
        }
    }

    /// The lock of everything that is not part of a recording yet: shared by imports.
    pub(in crate::recording) fn lock(&self) -> Result<File, Error> {
        let path = self.recordings().join(".lock");
        make_directories(&self.recordings())?;
        // For both, as `open_lock` has it.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        file.map_err(Error::file("lock", &path))
    }

    /// [`tidy`](Self::tidy) for whoever has the [`lock`](Self::lock) alone.
    pub(super) fn tidy_locked(&self) -> Result<u64, Error> {
        let mut freed = 0;
        for guest in names::<GuestName>(&self.recordings())? {
            freed += self.tidy_directory(&self.of_guest(&guest), &|name| {
                name.starts_with(REMOVING) || name.starts_with(IMPORTING)
            })?;
            // It stays if there is anything in it.
            drop(fs::remove_dir(self.of_guest(&guest)));
        }
        let needed = self.needed()?;
        let unneeded = |name: &str| {
            let digest = name.strip_suffix(".img").filter(|digest| is_hex(digest));
            let orphan = digest.is_some_and(|digest| needed.as_ref().is_some_and(|needed| !needed.contains(digest)));
            orphan || name.starts_with(IMPORTING)
        };
        freed += self.tidy_directory(&bases(self.state_directory()), &unneeded)?;
        let needed = self.needed_engines()?;
        let unneeded = |name: &str| {
            let orphan = is_hex(name) && needed.as_ref().is_some_and(|needed| !needed.contains(name));
            orphan || name.starts_with(IMPORTING)
        };
        freed += self.tidy_directory(&capsules::engines(self.state_directory()), &unneeded)?;
        Ok(freed)
    }

    /// The engines that recordings have; `None` if one does not say.
    fn needed_engines(&self) -> Result<Option<BTreeSet<String>>, Error> {
        let entries = self.list(None)?;
        let digests = entries.iter().map(|entry| capsules::referred(&entry.directory).ok());
        let digests: Option<Vec<_>> = digests.collect();
        Ok(digests.map(|all| all.into_iter().flatten().map(|digest| digest.hex()).collect()))
    }

    /// The contents that recordings need; `None` if one does not say.
    fn needed(&self) -> Result<Option<BTreeSet<String>>, Error> {
        let mut needed = BTreeSet::new();
        for entry in self.list(None)? {
            match (entry.manifest, entry.state) {
                (Some(manifest), _) => needed.extend(manifest.disks.iter().map(|disk| disk.digest.hex())),
                (None, State::Damaged(_)) => return Ok(None),
                (None, _) => {}
            }
        }
        Ok(Some(needed))
    }

    fn tidy_directory(&self, path: &Path, unneeded: &dyn Fn(&str) -> bool) -> Result<u64, Error> {
        let entries = match fs::read_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            entries => entries.map_err(Error::file("read", path))?,
        };
        let mut freed = 0;
        for entry in entries {
            let entry = entry.map_err(Error::file("read", path))?;
            if entry.file_name().to_str().is_some_and(unneeded) {
                freed += allocated(&entry.path()).unwrap_or(0);
                remove_tree(&entry.path())?;
            }
        }
        Ok(freed)
    }
}

fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Takes `lock` alone, unless somebody has it for more than a moment.
pub(in crate::recording) fn try_lock(lock: &File) -> io::Result<bool> {
    for _ in 0..TRIES {
        match lock.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => thread::sleep(BETWEEN),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(false)
}

/// Removes a file, or a directory with all that is in it; fine if it is not there. Links are not followed.
pub(super) fn remove_tree(path: &Path) -> Result<(), Error> {
    let removed = match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
        _ => Ok(()),
    }
}
