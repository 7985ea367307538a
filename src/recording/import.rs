// SPDX-License-Identifier: MIT OR Apache-2.0
//! A recording from another host. The file may have been made by anybody: it can only have the members that its manifest
//! names, each a regular file of exactly the size and content that the manifest says, and nothing has its name before all of
//! it is there.

use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use flate2::read::GzDecoder;

use super::archive::{PIECE, Part, Passing, parts};
use super::draft::{Draft, make_directories, make_directory, new_file, sync};
use super::error::Error;
use super::library::{Library, State, free_space};
use super::manifest::Manifest;
use super::removal::{IMPORTING, remove_tree};
use super::sealed;
use super::stored::{IMPORTED, LOCK, Recording, base, bases};
use crate::clock::now;
use crate::config::types::GuestName;
use crate::digest;
use crate::fail_point;
use crate::file;
use crate::progress::Progress;

/// Bytes that an import leaves free.
pub const RESERVE: u64 = 64 << 20;
/// How much is written between two looks at what is free.
const LOOK: u64 = 16 << 20;
/// A disk's zeros of this length are not written.
const BLOCK: usize = 4096;

/// Clocks of hosts differ, and so do time zones of those that are set by hand: seconds.
const CLOCKS: u64 = 24 * 3600;

/// What came of an import.
#[derive(Debug)]
pub enum Imported {
    /// The recording is there now.
    New(Recording),
    /// It was there.
    Already(Recording),
}

/// A directory or file on its way in; it goes away unless it gets its name.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        drop(remove_tree(&self.0));
    }
}

/// A temporary name that no other import has.
fn temporary() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{IMPORTING}{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

impl Library {
    /// Takes in the recording in `input`, which is called `name` in messages, as one of `guest`; without, of the guest it was
    /// made of. It gets the id of the time it was made at.
    pub fn import(
        &self,
        input: &mut dyn Read,
        name: &str,
        guest: Option<&GuestName>,
        progress: &mut Progress<'_>,
    ) -> Result<Imported, Error> {
        let lock = self.lock()?;
        if lock.try_lock().is_ok() {
            self.tidy_locked()?;
        }
        // What is done from here on is nobody's yet, and not to be tidied.
        lock.lock_shared().map_err(Error::file("lock", &self.recordings()))?;
        let result = Import {
            library: self,
            name,
            progress,
        }
        .run(input, guest);
        drop(lock);
        if result.is_err() {
            // Copies of disks that were whole but are nobody's now.
            drop(self.tidy());
        }
        result
    }

    /// Takes in what a disk of `recording` was made from, as a copy of `path`: the user says where it is, the manifest only
    /// what it is.
    pub fn import_disk(&self, recording: &Recording, path: &Path, progress: &mut Progress<'_>) -> Result<(), Error> {
        let lock = self.lock()?;
        lock.lock_shared().map_err(Error::file("lock", &self.recordings()))?;
        let found = digest::of_path(path, progress).map_err(Error::read(path))?;
        let mut disks = parts(recording.manifest()).into_iter().filter(|part| part.base);
        let Some(part) = disks.find(|part| part.digest == found) else {
            return Err(Error::NotItsDisk {
                path: path.to_owned(),
                found,
            });
        };
        let mut file = file::open_content(path).map_err(Error::file("open", path))?;
        let mut import = Import {
            library: self,
            name: &path.display().to_string(),
            progress,
        };
        import.base(&part, &mut file, 0, 0)
    }
}

struct Import<'a, 'b> {
    library: &'a Library,
    name: &'a str,
    progress: &'a mut Progress<'b>,
}

impl Import<'_, '_> {
    fn wrong(&self, why: impl Into<String>) -> Error {
        Error::Archive {
            archive: self.name.to_owned(),
            why: why.into(),
        }
    }

    /// That the file cannot be read on.
    fn cut(&self, error: &io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.wrong("it is cut off"),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
                self.wrong(format!("it is damaged, or no recording: {error}"))
            }
            _ => self.wrong(format!("it cannot be read: {error}")),
        }
    }

    fn run(&mut self, input: &mut dyn Read, guest: Option<&GuestName>) -> Result<Imported, Error> {
        let mut archive = tar::Archive::new(GzDecoder::new(BufReader::with_capacity(PIECE, input)));
        // As they stand: no names and sizes from other members.
        let mut entries = archive.entries().map_err(|error| self.cut(&error))?.raw(true);
        let first = match entries.next() {
            Some(first) => first.map_err(|error| self.cut(&error))?,
            None => return Err(self.wrong("there is nothing in it")),
        };
        let (text, manifest) = self.manifest(first)?;
        self.check_times(&manifest)?;
        let guest = guest.unwrap_or(&manifest.guest);
        if let Some(there) = self.already(guest, &manifest)? {
            return Ok(Imported::Already(there));
        }
        let mut missing = parts(&manifest);
        let needed = missing.iter().filter(|part| !part.base);
        let total = needed.fold(0u64, |sum, part| sum.saturating_add(part.size));
        let recordings = self.library.of_guest(guest);
        room(&recordings, total)?;
        make_directories(&recordings)?;
        let directory = recordings.join(temporary());
        make_directory(&directory).map_err(Error::file("make", &directory))?;
        let directory = Unfinished(directory);
        for (name, content) in [(sealed::NAME, text.as_bytes()), (LOCK, b""), (IMPORTED, b"")] {
            let path = directory.0.join(name);
            let written = new_file(&path).and_then(|mut file| {
                file.write_all(content)?;
                file.sync_all()
            });
            written.map_err(Error::file("write", &path))?;
        }
        let mut done = 0u64;
        for entry in entries {
            let mut entry = entry.map_err(|error| self.cut(&error))?;
            let part = self.expected(&entry, &mut missing)?;
            match part.base {
                true => self.base(&part, &mut entry, done, total)?,
                false => drop(self.copy(&part, &mut entry, &directory.0.join(&part.name), (done, total))?),
            }
            done = done.saturating_add(part.size);
        }
        if let Some(part) = missing.iter().find(|part| !part.base) {
            return Err(self.wrong(format!("it has no {}", part.name)));
        }
        sync(&directory.0)?;
        fail_point::reach("recording.importing");
        let (id, place) = Draft::claim(&recordings, manifest.run.started)?;
        // In place of the empty directory, which is ours.
        if let Err(error) = fs::rename(&directory.0, &place) {
            drop(fs::remove_dir(&place));
            return Err(Error::file("make", &place)(error));
        }
        sync(&recordings)?;
        let state = self.library.state_directory();
        Ok(Imported::New(Recording::new(state, place, guest.clone(), id, manifest)))
    }

    /// The manifest, which comes first.
    fn manifest(&self, mut entry: tar::Entry<'_, impl Read>) -> Result<(String, Manifest), Error> {
        let name = entry.path_bytes().into_owned();
        if name != sealed::NAME.as_bytes() || entry.header().entry_type() != tar::EntryType::Regular {
            return Err(self.wrong("it does not begin with a manifest, so it is no recording"));
        }
        let size = entry.header().entry_size().map_err(|error| self.cut(&error))?;
        if size > sealed::LIMIT {
            return Err(self.wrong(sealed::Unsealed::Large.to_string()));
        }
        let mut text = String::new();
        entry.read_to_string(&mut text).map_err(|error| self.cut(&error))?;
        if text.len() as u64 != size {
            return Err(self.wrong("it is cut off"));
        }
        let manifest = Manifest::from_text(&text).map_err(|error| self.wrong(error.to_string()))?;
        match manifest.result {
            Some(_) => Ok((text, manifest)),
            None => Err(self.wrong("it is an incomplete recording")),
        }
    }

    /// Its name is made of the time it began at, and the newest is what is replayed and kept.
    fn check_times(&self, manifest: &Manifest) -> Result<(), Error> {
        let latest = now().saturating_add(CLOCKS);
        let ended = manifest.result.as_ref().map_or(0, |result| result.ended);
        match manifest.run.started.max(ended) > latest {
            true => Err(self.wrong(
                "it is of a time that is still to come: set the clock of this host, or record again where that of the other is right",
            )),
            false => Ok(()),
        }
    }

    /// The same recording, if it is there and whole.
    fn already(&mut self, guest: &GuestName, manifest: &Manifest) -> Result<Option<Recording>, Error> {
        for entry in self.library.list(Some(guest))? {
            if entry.state == State::Complete && entry.manifest.as_ref() == Some(manifest) {
                let recording = self.library.complete(entry)?;
                if recording.check(self.progress)?.is_empty() {
                    return Ok(Some(recording));
                }
            }
        }
        Ok(None)
    }

    /// The part that `entry` is; it is not `missing` any more.
    fn expected(&self, entry: &tar::Entry<'_, impl Read>, missing: &mut Vec<Part>) -> Result<Part, Error> {
        let bytes = entry.path_bytes();
        let name = String::from_utf8_lossy(&bytes);
        let Some(at) = missing.iter().position(|part| part.name.as_bytes() == &*bytes) else {
            return Err(self.wrong(format!("{name:?} does not belong to a recording, or is there twice")));
        };
        if entry.header().entry_type() != tar::EntryType::Regular {
            return Err(self.wrong(format!("{name:?} is not a regular file")));
        }
        let size = entry.header().entry_size().map_err(|error| self.cut(&error))?;
        let part = missing.remove(at);
        match size == part.size {
            true => Ok(part),
            false => Err(self.wrong(format!("{name} has {size} bytes, its manifest says {}", part.size))),
        }
    }

    /// What a disk was made from. All recordings share the copy.
    fn base(&mut self, part: &Part, from: &mut dyn Read, done: u64, total: u64) -> Result<(), Error> {
        let state = self.library.state_directory();
        let place = base(state, part.digest);
        if place.exists() {
            return Ok(());
        }
        make_directories(&bases(state))?;
        let unfinished = Unfinished(bases(state).join(temporary()));
        let file = self.copy(part, from, &unfinished.0, (done, total.saturating_add(part.size)))?;
        let failed = |source| Error::file("write", &place)(source);
        file.set_permissions(Permissions::from_mode(0o400)).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(&unfinished.0, &place).map_err(failed)?;
        sync(&bases(state))
    }

    /// Writes a part to the new file `to`, on the disk, if it is what the manifest says.
    fn copy(&mut self, part: &Part, from: &mut dyn Read, to: &Path, (done, total): (u64, u64)) -> Result<File, Error> {
        let file = new_file(to).map_err(Error::file("make", to))?;
        let failed = |source| Error::file("write", to)(source);
        let mut passing = Passing::new(from, done, total, self.progress);
        let mut buffer = vec![0; PIECE];
        let (mut at, mut looked) = (0u64, 0u64);
        loop {
            let length = match passing.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) if passing.interrupted => return Err(Error::Interrupted),
                Err(error) => return Err(self.cut(&error)),
            };
            if at >= looked {
                looked = at + LOOK;
                let left = part.size.saturating_sub(at).min(LOOK);
                room(to, left)?;
            }
            for block in buffer[..length].chunks(BLOCK) {
                if !part.base || block.iter().any(|byte| *byte != 0) {
                    file.write_all_at(block, at).map_err(failed)?;
                }
                at += block.len() as u64;
            }
        }
        if at != part.size {
            return Err(self.wrong("it is cut off"));
        }
        let found = passing.digest();
        if found != part.digest {
            return Err(self.wrong(format!(
                "{} is not what was recorded: its digest is {found}, its manifest says {}",
                part.name, part.digest
            )));
        }
        file.set_len(at).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        Ok(file)
    }
}

/// Whether `needed` bytes more would leave enough free where `path` is.
fn room(path: &Path, needed: u64) -> Result<(), Error> {
    let free = free_space(path)?;
    match needed.checked_add(RESERVE).is_some_and(|needed| needed <= free) {
        true => Ok(()),
        false => Err(Error::NoRoom {
            path: path.parent().unwrap_or(path).to_owned(),
            needed,
            free,
        }),
    }
}
