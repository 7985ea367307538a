// SPDX-License-Identifier: MIT OR Apache-2.0
//! All recordings of a host or user: what there is, whole or not.

pub(super) mod archive;
pub(super) mod capsules;
pub mod check;
pub mod draft;
pub mod export;
pub mod id;
pub mod import;
pub mod manifest;
pub mod removal;
pub mod sealed;
pub mod stored;
use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use serde::Serialize;

use self::draft::Draft;
use self::id::{Id, is_prefix};
use self::manifest::{Manifest, Parent};
use self::sealed::Unsealed;
use self::stored::Recording;
use super::error::Error;
use super::replay::verdict::Replays;
use crate::config::types::GuestName;
use crate::file;

/// A file of that name in a recording's directory protects it.
const PINNED: &str = "pinned";

/// The recordings below a state directory.
#[derive(Debug, Clone)]
pub struct Library {
    state: PathBuf,
}

/// How whole a recording is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "why", rename_all = "kebab-case")]
pub enum State {
    /// All of it is there.
    Complete,
    /// It is being made.
    Recording,
    /// It did not come to its end.
    Incomplete(String),
    /// What it was cannot be told.
    Damaged(String),
}

/// A recording, whatever state it is in.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Whose it is.
    pub guest: GuestName,
    /// Its name.
    pub id: Id,
    /// Its directory.
    pub directory: PathBuf,
    /// How whole it is.
    pub state: State,
    /// What it says of itself.
    pub manifest: Option<Manifest>,
    /// Whether it is protected.
    pub pinned: bool,
    /// What it takes on the disk, in bytes.
    pub size: u64,
    /// What its replays came to.
    pub replays: Option<Replays>,
}

impl Entry {
    /// The recording that it is a branch of, if it says that it is one.
    pub fn parent(&self) -> Option<&Parent> {
        self.manifest.as_ref()?.parent.as_ref()
    }

    /// Whether it is a branch of that recording. Each begins later than its parent; one that says otherwise was made by hand.
    pub fn is_branch_of(&self, guest: &GuestName, id: &Id) -> bool {
        let is_it = |parent: &Parent| parent.guest == *guest && parent.id == *id;
        self.id > *id && self.parent().is_some_and(is_it)
    }
}

impl Library {
    /// The library in the state directory `state`, which need not be there.
    pub fn open(state: &Path) -> Self {
        Self {
            state: state.to_owned(),
        }
    }

    /// The state directory.
    pub fn state_directory(&self) -> &Path {
        &self.state
    }

    pub(super) fn recordings(&self) -> PathBuf {
        self.state.join("recordings")
    }

    pub(super) fn of_guest(&self, guest: &GuestName) -> PathBuf {
        self.recordings().join(guest.as_str())
    }

    /// Begins a recording of `guest`: `manifest` is what is known of the run before it ends, `guest_file` the text of the
    /// guest's file.
    pub fn create(&self, guest: &GuestName, manifest: &Manifest, guest_file: &str) -> Result<Draft, Error> {
        Draft::begin(&self.state, &self.of_guest(guest), guest, manifest, guest_file)
    }

    /// Bytes that are free where recordings are, for whoever calls.
    pub fn free_space(&self) -> Result<u64, Error> {
        free_space(&self.state)
    }

    /// What copies of disks' bases take on the disk, in bytes.
    pub fn size_of_bases(&self) -> u64 {
        allocated_files(&stored::bases(&self.state))
    }

    /// All recordings, or those of `guest`, the newest last. One that is damaged says so and does not hide the others.
    pub fn list(&self, guest: Option<&GuestName>) -> Result<Vec<Entry>, Error> {
        let guests = match guest {
            Some(guest) => vec![guest.clone()],
            None => names(&self.recordings())?,
        };
        let mut entries = Vec::new();
        for guest in guests {
            for id in self.ids(&guest)? {
                // It may have been removed meanwhile.
                entries.extend(self.look(&guest, &id));
            }
        }
        entries.sort_by(|a, b| (&a.id, &a.guest).cmp(&(&b.id, &b.guest)));
        Ok(entries)
    }

    /// The names of a guest's recordings, sorted.
    pub(super) fn ids(&self, guest: &GuestName) -> Result<Vec<Id>, Error> {
        let mut ids: Vec<Id> = names(&self.of_guest(guest))?;
        ids.sort();
        Ok(ids)
    }

    /// The id of the newest recording, whole or not; `None` if there is none.
    pub fn newest_id(&self) -> Result<Option<Id>, Error> {
        let mut newest = None;
        for guest in names::<GuestName>(&self.recordings())? {
            newest = self.ids(&guest)?.pop().max(newest);
        }
        Ok(newest)
    }

    /// The recording `id` of `guest`; `None` if there is none.
    fn look(&self, guest: &GuestName, id: &Id) -> Option<Entry> {
        let directory = self.of_guest(guest).join(id.to_string());
        let size = allocated(&directory).ok()?;
        let (state, manifest) = match Manifest::load(&directory) {
            Ok(manifest) if manifest.result.is_some() => (State::Complete, Some(manifest)),
            Ok(manifest) => (unfinished(&directory), Some(manifest)),
            // Nothing else is written before it.
            Err(Unsealed::Missing) if !directory.join(draft::GUEST_FILE).exists() => (unfinished(&directory), None),
            Err(why) => (State::Damaged(why.to_string()), None),
        };
        Some(Entry {
            pinned: directory.join(PINNED).exists(),
            replays: Replays::load(&directory),
            guest: guest.clone(),
            id: id.clone(),
            directory,
            state,
            manifest,
            size,
        })
    }

    /// The recording of `guest` that is called `wanted`, or is the only one whose name begins so, whatever state it is in.
    pub fn entry(&self, guest: &GuestName, wanted: &str) -> Result<Entry, Error> {
        let there = self.ids(guest)?;
        if there.is_empty() {
            return Err(Error::None { guest: guest.clone() });
        }
        let is = |id: &&Id| id.to_string() == wanted;
        let begins = |id: &&Id| is_prefix(wanted) && id.to_string().starts_with(wanted);
        let found: Vec<&Id> = match there.iter().find(is) {
            Some(id) => vec![id],
            None => there.iter().filter(begins).collect(),
        };
        let none = || Error::NoSuch {
            guest: guest.clone(),
            wanted: wanted.to_owned(),
            there: there.clone(),
        };
        match found[..] {
            [id] => self.look(guest, id).ok_or_else(none),
            [] => Err(none()),
            _ => Err(Error::Ambiguous {
                wanted: wanted.to_owned(),
                there: found.into_iter().cloned().collect(),
            }),
        }
    }

    /// The newest complete recording of `guest`, in whatever state it is if none is.
    pub fn newest(&self, guest: &GuestName) -> Result<Entry, Error> {
        let ids = self.ids(guest)?;
        if ids.is_empty() {
            return Err(Error::None { guest: guest.clone() });
        }
        let entries = ids.iter().rev().filter_map(|id| self.look(guest, id));
        let complete = entries.into_iter().find(|entry| entry.state == State::Complete);
        complete.ok_or_else(|| Error::NoneComplete { guest: guest.clone() })
    }

    /// The complete recording of `guest` that `wanted` names, by its id or the beginning of it; without, the newest.
    pub fn find(&self, guest: &GuestName, wanted: Option<&str>) -> Result<Recording, Error> {
        let entry = match wanted {
            Some(wanted) => self.entry(guest, wanted)?,
            None => self.newest(guest)?,
        };
        self.complete(entry)
    }

    /// The complete recording that has just this name: not another one whose name begins so.
    ///
    /// # Errors
    ///
    /// If there is none, or it is not complete.
    pub fn exactly(&self, guest: &GuestName, id: &Id) -> Result<Recording, Error> {
        let entry = self.look(guest, id).ok_or_else(|| Error::NoSuch {
            guest: guest.clone(),
            wanted: id.to_string(),
            there: self.ids(guest).unwrap_or_default(),
        })?;
        self.complete(entry)
    }

    /// The recording `entry`, if it is complete.
    pub fn complete(&self, entry: Entry) -> Result<Recording, Error> {
        let Entry {
            guest,
            id,
            state,
            manifest,
            directory,
            ..
        } = entry;
        match (state, manifest) {
            (State::Complete, Some(manifest)) => Ok(Recording::new(&self.state, directory, guest, id, manifest)),
            (State::Recording, _) => Err(Error::BeingMade { guest, id }),
            (State::Incomplete(why), _) => Err(Error::Incomplete { guest, id, why }),
            (State::Damaged(why), _) => Err(Error::Damaged { guest, id, why }),
            (State::Complete, None) => Err(Error::None { guest }),
        }
    }

    /// Protects `entry` from being removed, or does not any more.
    pub fn pin(&self, entry: &Entry, pinned: bool) -> Result<(), Error> {
        let path = entry.directory.join(PINNED);
        if pinned {
            return file::replace(&path, b"", 0o600).map_err(Error::file("write", &path));
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", &path)(error)),
            _ => draft::sync(&entry.directory),
        }
    }
}

/// Of a recording without a result: is it still being made?
fn unfinished(directory: &Path) -> State {
    let lock = File::open(directory.join(stored::LOCK));
    match lock.map(|lock| lock.try_lock_shared()) {
        Ok(Err(TryLockError::WouldBlock)) => State::Recording,
        _ => State::Incomplete(draft::why(directory)),
    }
}

/// The directories in `path` whose names are of that kind; none if it is not there.
pub(super) fn names<T: std::str::FromStr>(path: &Path) -> Result<Vec<T>, Error> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::file("read", path))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::file("read", path))?;
        // Not a link: what is below is removed one day.
        let directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if let Some(Ok(name)) = entry.file_name().to_str().map(str::parse)
            && directory
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// What `path` and everything below takes on the disk, in bytes.
pub(super) fn allocated(path: &Path) -> io::Result<u64> {
    let data = fs::symlink_metadata(path)?;
    let mut size = data.blocks() * 512;
    if data.is_dir() {
        let mut linked = BTreeSet::new();
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            // replay.log and ttd.log are one file.
            let data = fs::symlink_metadata(&path);
            if data.is_ok_and(|data| data.is_dir() || data.nlink() == 1 || linked.insert((data.dev(), data.ino()))) {
                // What goes away meanwhile takes nothing.
                size += allocated(&path).unwrap_or(0);
            }
        }
    }
    Ok(size)
}

/// The same of the files in `path`, without the directory itself.
pub(super) fn allocated_files(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| allocated(&entry.path()).unwrap_or(0)).sum()
}

/// Bytes that are free at `path`, or where it will be.
pub(super) fn free_space(path: &Path) -> Result<u64, Error> {
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(path);
    let answer = statvfs(there).map_err(|errno| Error::file("look at", there)(errno.into()))?;
    Ok(answer.blocks_available().saturating_mul(answer.fragment_size()))
}
