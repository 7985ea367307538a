// SPDX-License-Identifier: MIT OR Apache-2.0
//! What QEMU may touch: it reads what a guest, or whoever made a recording, has prepared for it, so it is taken for theirs.
//!
//! It gets every file as a descriptor and opens none of its own but its firmware. Where ttvm is root, QEMU is not: it runs as
//! [`USER`], without any capability, and cannot gain one. Its own filter of system calls forbids it to start programs,
//! whoever runs it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::{Gid, User, geteuid, getgroups, setgroups};

use super::machine::{Backing, Machine, Mode, Names};
use super::memory::Memory;
use crate::file;

/// The system user that QEMU runs as (sysusers.d). Nothing belongs to it.
pub const USER: &str = "ttvm-qemu";

/// Files that QEMU opens by their numbers have this one, and those that follow.
const FIRST: i32 = 200;

/// What root's QEMU runs as where that user was not made: the kernel's own number for nobody.
const NOBODY: u32 = 65534;

/// QEMU's own filter: it starts no program, gains no right, and does not change what the kernel gives it.
pub(super) const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// Why a file cannot be handed to QEMU.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be opened, or written for QEMU.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The guest's memory cannot be shared with it.
    #[error("the guest's memory cannot be shared with QEMU")]
    Memory {
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Files cannot be lent to it.
    #[error("QEMU's group cannot be joined, which is how it is lent files")]
    Group {
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

impl Error {
    fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// Who QEMU is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Its user.
    pub uid: u32,
    /// Its only group.
    pub gid: u32,
}

/// Another user than ours; none if we have no right to become one, and nothing to lose either.
pub fn identity() -> Option<Identity> {
    if !geteuid().is_root() {
        return None;
    }
    match User::from_name(USER) {
        Ok(Some(user)) if !user.uid.is_root() => Some(Identity {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        }),
        _ => {
            tracing::warn!(
                "there is no user {USER}, so QEMU runs as nobody ({NOBODY}): `systemd-sysusers` makes it from the package's file"
            );
            Some(Identity {
                uid: NOBODY,
                gid: NOBODY,
            })
        }
    }
}

/// What QEMU is given, and what it calls it.
#[derive(Debug, Default)]
pub(super) struct Handed {
    pub(super) names: Names,
    /// `-add-fd` for each disk.
    pub(super) arguments: Vec<String>,
    /// To be closed here once QEMU has them: its locks on disks are those of the descriptors.
    descriptors: Vec<OwnedFd>,
    /// The same of those that it opens once more, by their numbers.
    files: Vec<OwnedFd>,
    /// What QEMU writes; it is ours alone again when QEMU has ended.
    pub(super) lent: Vec<Lent>,
}

impl Handed {
    /// Opens everything that QEMU needs of `machine` in `mode`; what its user may not read is copied into `scratch`.
    pub(super) fn open(
        machine: &Machine,
        mode: &Mode,
        memory: Option<&Memory>,
        identity: Option<Identity>,
        scratch: &Path,
    ) -> Result<Self, Error> {
        let mut handed = Self::default();
        if let Some(identity) = identity {
            join(identity.gid).map_err(|source| Error::Group { source })?;
        }
        if let Some(kernel) = &machine.kernel {
            for path in [Some(&kernel.kernel), kernel.initrd.as_ref()].into_iter().flatten() {
                handed.file(path, identity, scratch)?;
            }
        }
        for drive in &machine.drives {
            match &drive.backing {
                Backing::Raw { path, writable } => handed.disk(path, *writable)?,
                Backing::Overlay { path, base } => {
                    handed.disk(path, true)?;
                    handed.disk(base, false)?;
                }
            }
        }
        match mode {
            Mode::Plain => {}
            Mode::Record(to) => {
                handed.new_file(&to.log, identity)?;
                if let Some(state) = &to.state {
                    handed.disk(state, true)?;
                }
            }
            Mode::Replay(from) => {
                handed.file(&from.log, identity, scratch)?;
                if let Some(state) = &from.state {
                    handed.disk(state, true)?;
                }
                for packets in &from.packets {
                    handed.new_file(packets, identity)?;
                }
                if let Some(watching) = &from.watching {
                    handed.file(&watching.plugin, identity, scratch)?;
                }
            }
        }
        if let Some(memory) = memory {
            let theirs = memory.share().map_err(|source| Error::Memory { source })?;
            handed.names.memory = Some(format!("/proc/self/fd/{}", theirs.as_raw_fd()));
            handed.descriptors.push(theirs);
        }
        Ok(handed)
    }

    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.descriptors.iter().chain(&self.files).map(AsFd::as_fd)
    }

    /// Those that QEMU opens once more.
    pub(super) fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.files.iter().map(AsFd::as_fd)
    }

    /// A disk: QEMU takes one by the name of a set of descriptors.
    fn disk(&mut self, path: &Path, writable: bool) -> Result<(), Error> {
        if self.names.disks.contains_key(path) {
            return Ok(());
        }
        let set = self.names.disks.len() + 1;
        // QEMU takes the one that is open for what it wants to do: it reads some disks before it writes them.
        for writes in [writable, false] {
            let file = file::open_disk(path, writes).map_err(Error::file("open", path))?;
            let fd = file.as_raw_fd();
            self.arguments.push("-add-fd".to_owned());
            self.arguments.push(format!("fd={fd},set={set}"));
            self.descriptors.push(file.into());
            if !writes {
                break;
            }
        }
        self.names.disks.insert(path.to_owned(), format!("/dev/fdset/{set}"));
        Ok(())
    }

    /// A file that is read: QEMU opens it once more through the descriptor, for which its user has to have the right to.
    fn file(&mut self, path: &Path, identity: Option<Identity>, scratch: &Path) -> Result<(), Error> {
        let mut file = file::open_content(path).map_err(Error::file("open", path))?;
        let data = file.metadata().map_err(Error::file("look at", path))?;
        if let Some(identity) = identity
            && data.mode() & 0o004 == 0
        {
            file = copy(&mut file, path, identity, scratch)?;
        }
        // A kernel is told what file it is of: that has to be the same each time.
        let file =
            fcntl(&file, FcntlArg::F_DUPFD_CLOEXEC(FIRST)).map_err(|errno| Error::file("open", path)(errno.into()))?;
        // SAFETY: the kernel has just made it, for us alone.
        let file = unsafe { File::from_raw_fd(file) };
        self.name(path, &file);
        self.files.push(file.into());
        Ok(())
    }

    /// A new file, the log of a recording or packets, which is QEMU's while it writes.
    fn new_file(&mut self, path: &Path, identity: Option<Identity>) -> Result<(), Error> {
        let file = new(path).map_err(Error::file("make", path))?;
        if let Some(identity) = identity {
            lend(&file, identity, 0o660).map_err(Error::file("lend QEMU", path))?;
        }
        // QEMU has it as well, and as long as it lives: nobody else writes to it then.
        file.lock().map_err(Error::file("lock", path))?;
        let theirs = file.try_clone().map_err(Error::file("open", path))?;
        self.name(path, &theirs);
        self.files.push(theirs.into());
        self.lent.push(Lent(file));
        Ok(())
    }

    fn name(&mut self, path: &Path, file: &File) {
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        self.names.files.insert(path.to_owned(), name);
    }
}

/// Makes us a member of QEMU's group: then we can lend it our files without the right to give away files of others.
fn join(gid: u32) -> io::Result<()> {
    let mut groups = getgroups()?;
    if !groups.contains(&Gid::from_raw(gid)) {
        groups.push(Gid::from_raw(gid));
        setgroups(&groups)?;
    }
    Ok(())
}

/// Lets QEMU's group open a file of ours through its descriptor. The directory that it is in stays closed to it.
fn lend(file: &File, identity: Identity, mode: u32) -> io::Result<()> {
    fchown(file, None, Some(identity.gid))?;
    file.set_permissions(Permissions::from_mode(mode))
}

/// A file that is lent to QEMU; dropped, it is ours alone again.
#[derive(Debug)]
pub(super) struct Lent(File);

impl Drop for Lent {
    fn drop(&mut self) {
        if let Err(error) = take_back(&self.0) {
            tracing::warn!("a file stays lent to QEMU's group: {error}");
        }
    }
}

/// Makes a file that was lent to QEMU ours alone again. Only root lends any.
///
/// # Errors
///
/// If it is not ours.
pub fn take_back(file: &File) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    fchown(file, None, Some(0))?;
    file.set_permissions(Permissions::from_mode(0o600))
}

fn new(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// A copy that has no name and goes away with QEMU.
fn copy(from: &mut File, path: &Path, identity: Identity, scratch: &Path) -> Result<File, Error> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let place = scratch.join(format!(".for-qemu.{}-{number}", std::process::id()));
    file::private_directory(scratch).map_err(Error::file("make", scratch))?;
    // Left by a process of the same number.
    drop(fs::remove_file(&place));
    let mut file = new(&place).map_err(Error::file("make", &place))?;
    fs::remove_file(&place).map_err(Error::file("remove", &place))?;
    io::copy(from, &mut file).map_err(Error::file("make QEMU's copy of", path))?;
    lend(&file, identity, 0o440).map_err(Error::file("lend QEMU", path))?;
    Ok(file)
}
