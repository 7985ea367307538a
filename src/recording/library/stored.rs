// SPDX-License-Identifier: MIT OR Apache-2.0
//! A complete recording.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::id::Id;
use super::manifest::{DiskDigest, Manifest};
use super::{Entry, Library, draft};
use crate::base::clock::now;
use crate::config::guest::Guest;
use crate::config::types::GuestName;
use crate::file::digest::Digest;
use crate::file::lock::Lock;
use crate::recording::error::Error;
use crate::recording::replay::verdict::{Replays, Verdict};
use crate::recording::session::disks::origin_of;

/// Held exclusively by whoever makes or removes a recording, shared by whoever uses it.
pub(in crate::recording) const LOCK: &str = "lock";
/// Held by the replay that leaves checkpoints and a trail.
const KEEPING: &str = "keeping";
/// The kernel of an imported recording.
pub(in crate::recording) const KERNEL: &str = "kernel";
/// Its initial RAM disk.
pub(in crate::recording) const INITRD: &str = "initrd";
/// The mark of an imported recording.
pub(in crate::recording) const IMPORTED: &str = "imported";

/// A complete recording.
#[derive(Debug, Clone)]
pub struct Recording {
    state: PathBuf,
    directory: PathBuf,
    guest: GuestName,
    id: Id,
    manifest: Manifest,
}

/// As long as it lives, the recording is not removed.
#[derive(Debug)]
#[must_use]
pub struct InUse {
    _lock: Lock,
}

impl Recording {
    pub(in crate::recording) fn new(
        state: &Path,
        directory: PathBuf,
        guest: GuestName,
        id: Id,
        manifest: Manifest,
    ) -> Self {
        Self {
            state: state.to_owned(),
            directory,
            guest,
            id,
            manifest,
        }
    }

    /// Whose it is. An imported one may have been made under another name: that is in the manifest.
    pub fn guest(&self) -> &GuestName {
        &self.guest
    }

    /// Its name.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// What it says of itself; there is a result.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The state directory that it is in.
    pub(in crate::recording) fn state(&self) -> &Path {
        &self.state
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether nothing was printed in it: then there is little that a replay can be compared with.
    pub fn prints_nothing(&self) -> bool {
        self.manifest
            .result
            .as_ref()
            .is_some_and(|result| result.console.size == 0)
    }

    /// The toolstack's log.
    pub fn log(&self) -> PathBuf {
        self.directory.join(draft::LOG)
    }

    /// What the guest printed.
    pub fn console(&self) -> PathBuf {
        self.directory.join(draft::CONSOLE)
    }

    /// The guest's file, as used.
    pub fn guest_file(&self) -> PathBuf {
        self.directory.join(draft::GUEST_FILE)
    }

    /// Whether it came from another host. The paths in its manifest are then those of whoever made it.
    pub fn is_imported(&self) -> bool {
        // An older ttvm left no mark, but a kernel.
        [IMPORTED, KERNEL].iter().any(|name| self.directory.join(name).exists())
    }

    /// The guest's kernel: the one it was recorded with; of an imported recording, the one that came with it.
    pub fn kernel_path(&self) -> Option<PathBuf> {
        let kernel = self.manifest.kernel.as_ref()?;
        Some(self.brought(KERNEL).unwrap_or_else(|| kernel.path.clone()))
    }

    /// The same of its initial RAM disk.
    pub fn initrd_path(&self) -> Option<PathBuf> {
        let initrd = self.manifest.initrd.as_ref()?;
        Some(self.brought(INITRD).unwrap_or_else(|| initrd.path.clone()))
    }

    /// The file that came with the recording, if it came from another host.
    pub(in crate::recording) fn brought(&self, name: &str) -> Option<PathBuf> {
        self.is_imported().then(|| self.directory.join(name))
    }

    /// What `disk` was made from: the copy that came from another host, else the origin. `None` if neither is there. The
    /// copy is block for block. Xen's disks are made from the origin alone. The origin of an imported recording is its
    /// maker's word: only if the file of `guest`, the guest here, says the same is it looked at.
    pub fn base_path(&self, disk: &DiskDigest, guest: Option<&Guest>) -> Option<PathBuf> {
        let emulated = self.manifest.engine.toolstack.is_emulated();
        let copy = emulated.then(|| self.base_copy(disk)).flatten();
        let is_said_here = |guest: &Guest| {
            let mut disks = guest.disks.iter();
            disks.any(|it| it.target == disk.target && origin_of(&it.source) == disk.origin)
        };
        let origin = (!self.is_imported() || guest.is_some_and(is_said_here)).then(|| disk.origin.path());
        copy.or_else(|| origin.filter(|path| path.exists()))
    }

    /// The copy, if there is one.
    pub(super) fn base_copy(&self, disk: &DiskDigest) -> Option<PathBuf> {
        Some(base(&self.state, disk.digest)).filter(|path| path.is_file())
    }

    /// Keeps it from being removed. Any number of replays may use it at once.
    pub fn use_shared(&self) -> Result<InUse, Error> {
        let in_use = || Error::InUse {
            guest: self.guest.clone(),
            id: self.id.clone(),
        };
        let path = self.directory.join(LOCK);
        let lock = File::open(&path).map_err(Error::file("lock", &path))?;
        match lock.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use()),
            Err(TryLockError::Error(error)) => return Err(Error::file("lock", &path)(error)),
        }
        // It may have been removed before the lock was ours.
        match path.exists() {
            true => Ok(InUse {
                _lock: Lock::taken(lock),
            }),
            false => Err(Error::NoSuch {
                guest: self.guest.clone(),
                wanted: self.id.to_string(),
                there: Vec::new(),
            }),
        }
    }

    /// The lock of the replay that leaves checkpoints and a trail, which belong together; nothing if another has it, on this host or on
    /// another one that has the same library.
    pub(in crate::recording) fn keep_alone(&self) -> Option<Lock> {
        let open = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.directory.join(KEEPING));
        let taken = open.and_then(|file| match file.try_lock() {
            Ok(()) => Ok(Lock::taken(file)),
            Err(TryLockError::WouldBlock) => Err(std::io::Error::other("another replay of it does that now")),
            Err(TryLockError::Error(error)) => Err(error),
        });
        taken
            .inspect_err(|error| {
                tracing::warn!(ttvm_guest = %self.guest, "this replay of {} keeps no checkpoints: {error}", self.id);
            })
            .ok()
    }

    /// The branches that have left it, in the order in which they do.
    ///
    /// # Errors
    ///
    /// If the library cannot be read.
    pub fn branches(&self) -> Result<Vec<Entry>, Error> {
        let mut all = Library::open(&self.state).list(None)?;
        all.retain(|entry| entry.is_branch_of(&self.guest, &self.id));
        all.sort_by_key(|entry| entry.parent().map(|parent| parent.instructions));
        Ok(all)
    }

    /// What its replays came to.
    pub fn replays(&self) -> Option<Replays> {
        Replays::load(&self.directory)
    }

    /// Remembers what a replay on `engine` came to. It is only a memory: if there is no room for it, the replay does not suffer.
    pub fn note_verdict(&self, verdict: &Verdict, engine: &str) {
        if let Err(error) = Replays::note(&self.directory, verdict, engine, now()) {
            tracing::warn!(ttvm_guest = %self.guest, "cannot remember what the replay of {} came to: {error}", self.id);
        }
    }

    /// Remembers what was found of the first different instruction of a replay that came to `at`, a line each; as long as no other
    /// replay has come to something since. It may be that nothing was, which leaves the replay `unexplained`.
    pub fn note_explanation(&self, at: &crate::recording::Divergence, explanation: &[String], unexplained: bool) {
        if let Err(error) = Replays::explain(&self.directory, at, explanation, unexplained) {
            tracing::warn!(ttvm_guest = %self.guest, "cannot remember why the replay of {} was another run: {error}", self.id);
        }
    }
}

/// A file that is there, to be locked alone or shared. On NFS that is a lock of its bytes, for which Linux wants the file to be open
/// for writing, and for reading (flock(2)).
pub(in crate::recording) fn open_lock(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Where copies of what disks were made from are.
pub(in crate::recording) fn bases(state: &Path) -> PathBuf {
    state.join("bases")
}

/// The copy of the content `digest`.
pub(in crate::recording) fn base(state: &Path, digest: Digest) -> PathBuf {
    bases(state).join(format!("{}.img", digest.hex()))
}
