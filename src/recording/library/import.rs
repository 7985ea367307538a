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

use super::archive::{Kind, PIECE, Part, Passing, engine_list, engine_parts, parts};
use super::capsules::{self, other_engine};
use super::draft::{Draft, make_directories, make_directory, new_file, sync};
use super::manifest::Manifest;
use super::removal::{IMPORTING, remove_tree};
use super::stored::{IMPORTED, LOCK, Recording, base, bases};
use super::{Library, State, free_space, sealed};
use crate::base::clock::now;
use crate::base::fail_point;
use crate::base::progress::Progress;
use crate::base::signals;
use crate::config::types::GuestName;
use crate::file;
use crate::file::digest::{self, Digest};
use crate::qemu::capsule::{self, LIST_LIMIT, List};
use crate::recording::error::Error;

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
        let mut disks = parts(recording.manifest())
            .into_iter()
            .filter(|part| part.kind == Kind::Base);
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
            // Who called it off reads no further.
            _ if signals::waiting() => Error::Interrupted,
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
            self.engine_alone(entries, &there)?;
            return Ok(Imported::Already(there));
        }
        let mut missing = parts(&manifest);
        let needed = missing.iter().filter(|part| part.kind != Kind::Base);
        let mut total = needed.fold(0u64, |sum, part| sum.saturating_add(part.size));
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
        let (mut done, mut engine) = (0u64, None);
        for entry in entries {
            let mut entry = entry.map_err(|error| self.cut(&error))?;
            if engine.is_none() && is_engine_list(&entry) {
                let new = self.engine(entry, &manifest)?;
                total = total.saturating_add(new.size());
                missing.extend(new.parts());
                engine = Some(new);
                continue;
            }
            let part = self.expected(&entry, &mut missing)?;
            match (part.kind, &engine) {
                (Kind::Base, _) => self.base(&part, &mut entry, done, total)?,
                (Kind::Engine, Some(engine)) => self.engine_file(engine, &part, &mut entry, (done, total))?,
                _ => drop(self.copy(&part, &mut entry, &directory.0.join(&part.name), (done, total))?),
            }
            done = done.saturating_add(part.size);
        }
        self.complete(&missing)?;
        if let Some(engine) = engine {
            capsules::refer(&directory.0, engine.keep()?)?;
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

    /// That everything is there but what may be left out.
    fn complete(&self, missing: &[Part]) -> Result<(), Error> {
        match missing.iter().find(|part| part.kind != Kind::Base) {
            Some(part) => Err(self.wrong(format!("it has no {}", part.name))),
            None => Ok(()),
        }
    }

    /// A member that is a text, which is not larger than `limit`.
    fn text(&self, mut entry: tar::Entry<'_, impl Read>, limit: u64, too_large: &str) -> Result<String, Error> {
        let size = entry.header().entry_size().map_err(|error| self.cut(&error))?;
        if size > limit {
            return Err(self.wrong(too_large));
        }
        let mut text = String::new();
        entry.read_to_string(&mut text).map_err(|error| self.cut(&error))?;
        match text.len() as u64 == size {
            true => Ok(text),
            false => Err(self.wrong("it is cut off")),
        }
    }

    /// The manifest, which comes first.
    fn manifest(&self, entry: tar::Entry<'_, impl Read>) -> Result<(String, Manifest), Error> {
        let name = entry.path_bytes().into_owned();
        if name != sealed::NAME.as_bytes() || entry.header().entry_type() != tar::EntryType::Regular {
            return Err(self.wrong("it does not begin with a manifest, so it is no recording"));
        }
        let text = self.text(entry, sealed::LIMIT, &sealed::Unsealed::Large.to_string())?;
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

    /// The engine that the list in `entry` is of, which is the one of `manifest`.
    fn engine(&self, entry: tar::Entry<'_, impl Read>, manifest: &Manifest) -> Result<Engine, Error> {
        let text = self.text(entry, LIST_LIMIT, "the list of its engine is larger than any")?;
        let list = List::parse(&text).map_err(|error| self.wrong(format!("its engine is none: {error}")))?;
        if let Some(why) = other_engine(&list, manifest) {
            return Err(self.wrong(format!("its engine is not the one of the recording: {why}")));
        }
        Engine::begin(self.library.state_directory(), &text, list)
    }

    /// A file of the engine, unless that is there.
    fn engine_file(&mut self, engine: &Engine, part: &Part, from: &mut dyn Read, at: (u64, u64)) -> Result<(), Error> {
        let Some(directory) = &engine.unfinished else {
            return Ok(());
        };
        let place = directory.0.join(capsule::FILES).join(part.file_name());
        let file = self.copy(part, from, &place, at)?;
        let mode = if part.file_name() == Path::new(capsule::LOADER) {
            0o555
        } else {
            0o444
        };
        file.set_permissions(Permissions::from_mode(mode))
            .map_err(Error::file("write", &place))
    }

    /// Takes in the engine for a recording that is there and has none, whatever else `entries` has.
    fn engine_alone<'a, R: Read + 'a>(
        &mut self,
        entries: impl Iterator<Item = io::Result<tar::Entry<'a, R>>>,
        there: &Recording,
    ) -> Result<(), Error> {
        let _in_use = there.use_shared()?;
        let (mut engine, mut missing, mut done) = (None, parts(there.manifest()), 0);
        let present = there.capsule()?.map(|capsule| capsule.digest());
        for entry in entries {
            let mut entry = entry.map_err(|error| self.cut(&error))?;
            match &engine {
                None if is_engine_list(&entry) => {
                    let new = self.engine(entry, there.manifest())?;
                    if present == Some(new.digest) {
                        return Ok(());
                    }
                    if present.is_some_and(|it| capsules::is_trusted(self.library.state_directory(), it)) {
                        return Err(self.wrong("another engine came with this recording, and is trusted"));
                    }
                    missing = new.parts();
                    engine = Some(new);
                }
                // What is there already is read, and no more.
                None => {
                    let part = self.expected(&entry, &mut missing)?;
                    let mut passing = Passing::new(&mut entry, done, 0, self.progress);
                    let read = io::copy(&mut passing, &mut io::sink());
                    if passing.interrupted {
                        return Err(Error::Interrupted);
                    }
                    read.map_err(|error| self.cut(&error))?;
                    done = done.saturating_add(part.size);
                }
                Some(engine) => {
                    let part = self.expected(&entry, &mut missing)?;
                    self.engine_file(engine, &part, &mut entry, (done, engine.size()))?;
                    done += part.size;
                }
            }
        }
        let Some(engine) = engine else {
            return Ok(());
        };
        self.complete(&missing)?;
        capsules::refer(there.directory(), engine.keep()?)
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
                if part.kind != Kind::Base || block.iter().any(|byte| *byte != 0) {
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

/// An engine on its way in.
struct Engine {
    list: List,
    digest: Digest,
    place: PathBuf,
    /// Where it is made; none if it is there.
    unfinished: Option<Unfinished>,
}

impl Engine {
    fn begin(state: &Path, text: &str, list: List) -> Result<Self, Error> {
        let digest = digest::of_bytes(text.as_bytes());
        let place = capsules::place(state, digest);
        let new = Self {
            list,
            digest,
            place,
            unfinished: None,
        };
        // Not one that is damaged, nor what a removal that was killed has left of it.
        if capsules::is_whole(&new.place) {
            return Ok(new);
        }
        remove_tree(&new.place)?;
        let engines = capsules::engines(state);
        make_directories(&engines)?;
        room(&engines, new.size())?;
        let directory = engines.join(temporary());
        make_directory(&directory).map_err(Error::file("make", &directory))?;
        let unfinished = Some(Unfinished(directory.clone()));
        // QEMU's own user gets it as a descriptor, and looks into it.
        let files = directory.join(capsule::FILES);
        let made = make_directory(&files).and_then(|()| fs::set_permissions(&files, Permissions::from_mode(0o755)));
        made.map_err(Error::file("make", &files))?;
        let path = directory.join(capsule::LIST);
        file::replace(&path, text.as_bytes(), 0o600).map_err(Error::file("write", &path))?;
        Ok(Self { unfinished, ..new })
    }

    fn size(&self) -> u64 {
        self.list.size()
    }

    /// What has to come of it.
    fn parts(&self) -> Vec<Part> {
        engine_parts(&self.list)
    }

    /// Gives it its name, when all of it has come.
    fn keep(self) -> Result<Digest, Error> {
        let Some(directory) = self.unfinished else {
            return Ok(self.digest);
        };
        sync(&directory.0.join(capsule::FILES))?;
        sync(&directory.0)?;
        match fs::rename(&directory.0, &self.place) {
            // Somebody else has brought the same meanwhile.
            Err(_) if self.place.is_dir() => {}
            renamed => renamed.map_err(Error::file("make", &self.place))?,
        }
        sync(directory.0.parent().unwrap_or(&directory.0))?;
        Ok(self.digest)
    }
}

fn is_engine_list(entry: &tar::Entry<'_, impl Read>) -> bool {
    let is_file = entry.header().entry_type() == tar::EntryType::Regular;
    is_file && *entry.path_bytes() == *engine_list().as_bytes()
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
