// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writing files so that nobody ever sees half of one.

pub mod digest;
pub mod lock;
pub mod tree;
pub(crate) mod xattr;

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc;
use nix::unistd::{gethostname, linkat};

use crate::base::fail_point;

/// Puts `content` in place of the file at `path` in one step: a temporary file beside it, fsync, rename.
/// A file that already has that content is not touched. `mode` is for a new file; an existing one keeps its own.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let is_as_large = |old: &Metadata| old.is_file() && old.len() == content.len() as u64;
    if fs::metadata(path).is_ok_and(|old| is_as_large(&old)) && fs::read(path)? == content {
        return Ok(());
    }
    put(path, content, mode, || Ok(()))
}

/// A file as it was read, for [`replace_seen`]; there may have been none.
#[derive(Debug)]
pub struct Seen(Option<There>);

/// What there is.
#[derive(Debug)]
struct There {
    data: Metadata,
    digest: blake3::Hash,
    /// Of one that was read to be kept.
    content: Option<Vec<u8>>,
}

impl Seen {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> io::Result<Self> {
        Self::of(path, |file| {
            let mut content = Vec::new();
            file.read_to_end(&mut content)?;
            Ok((blake3::hash(&content), Some(content)))
        })
    }

    /// The same of a file that may be larger than what memory there is: its content is not kept.
    pub fn look(path: &Path) -> io::Result<Self> {
        Self::of(path, |file| {
            let mut hasher = blake3::Hasher::new();
            io::copy(file, &mut hasher)?;
            Ok((hasher.finalize(), None))
        })
    }

    fn of(
        path: &Path,
        read: impl FnOnce(&mut File) -> io::Result<(blake3::Hash, Option<Vec<u8>>)>,
    ) -> io::Result<Self> {
        let mut file = match open_content(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self(None)),
            file => file?,
        };
        let data = file.metadata()?;
        let (digest, content) = read(&mut file)?;
        Ok(Self(Some(There { data, digest, content })))
    }

    /// What was in it, if that was kept.
    pub fn content(&self) -> Option<&[u8]> {
        self.0.as_ref()?.content.as_deref()
    }

    /// Whether it had this content.
    pub fn is(&self, content: &[u8]) -> bool {
        self.0
            .as_ref()
            .is_some_and(|there| there.data.len() == content.len() as u64 && there.digest == blake3::hash(content))
    }

    /// `Ok` if it still is the same file with the same content.
    pub fn check(&self, path: &Path) -> io::Result<()> {
        let key = |seen: &Self| {
            let There { data, digest, .. } = seen.0.as_ref()?;
            Some((data.dev(), data.ino(), data.mtime(), data.mtime_nsec(), *digest))
        };
        match key(self) == key(&Self::look(path)?) {
            true => Ok(()),
            false => Err(io::Error::other("somebody else has changed it meanwhile")),
        }
    }
}

/// [`replace`] for a file that people write, too: not if it has changed since it was `seen`.
pub fn replace_seen(path: &Path, content: &[u8], mode: u32, seen: &Seen) -> io::Result<()> {
    match seen.is(content) {
        true => seen.check(path),
        false => put(path, content, mode, || seen.check(path)),
    }
}

/// Makes the file at `path`, whole from the first moment on; one that is there stays as it is, and that is an error
/// ([`io::ErrorKind::AlreadyExists`]).
pub fn create(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut draft = Draft::new(path, mode)?;
    draft.file.write_all(content)?;
    draft.file.sync_all()?;
    draft.link(path)?;
    sync_directory(path)
}

/// Does it. `check` has the last word before the new file takes the place of the old one.
fn put(path: &Path, content: &[u8], mode: u32, check: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let old = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        file => Some(file?),
    };
    let mut draft = Draft::new(path, mode)?;
    if let Some(old) = old {
        let data = old.metadata()?;
        draft.file.set_permissions(data.permissions())?;
        fchown(&draft.file, Some(data.uid()), Some(data.gid()))?;
        xattr::copy(&old, &draft.file)?;
    }
    draft.file.write_all(content)?;
    draft.file.sync_all()?;
    fail_point::reach("file.written");
    check()?;
    draft.rename(path)?;
    sync_directory(path)
}

/// A file that is being written. It has no name, so that nothing is left of it whatever ends this process; where the file
/// system cannot do that (FAT, as the EFI system partition is), one beside the name to be.
struct Draft {
    file: File,
    /// A temporary name beside the one to be.
    beside: PathBuf,
    is_named: bool,
}

impl Draft {
    fn new(path: &Path, mode: u32) -> io::Result<Self> {
        let beside = beside(path)?;
        let mut options = OpenOptions::new();
        options.write(true).mode(mode);
        let unnamed = options.clone().custom_flags(libc::O_TMPFILE).open(parent(path));
        let (file, is_named) = match unnamed {
            Ok(file) if own_descriptor(&file).exists() => (file, false),
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => return Err(error),
            // Without /proc it could not be given a name later.
            Ok(_) | Err(_) => (options.create_new(true).open(&beside)?, true),
        };
        let draft = Self { file, beside, is_named };
        // Whatever the umask is.
        draft.file.set_permissions(Permissions::from_mode(mode))?;
        Ok(draft)
    }

    /// Gives it a name that nothing has.
    fn link(&self, path: &Path) -> io::Result<()> {
        // Unlike a rename, a further name never takes the place of another file.
        match self.is_named {
            true => fs::hard_link(&self.beside, path),
            false => {
                let own = own_descriptor(&self.file);
                linkat(AT_FDCWD, &own, AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW).map_err(io::Error::from)
            }
        }
    }

    /// Gives it the name of the file that it replaces.
    fn rename(&mut self, path: &Path) -> io::Result<()> {
        if !self.is_named {
            self.link(&self.beside)?;
            self.is_named = true;
        }
        fs::rename(&self.beside, path)?;
        self.is_named = false;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.is_named {
            drop(fs::remove_file(&self.beside));
        }
    }
}

fn own_descriptor(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// The name of a temporary file beside `path`, where there is none.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut temporary = name.to_os_string();
    // Other hosts may have the same directory, and a process of the same number.
    temporary.push(".new.");
    temporary.push(gethostname()?);
    temporary.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(temporary);
    // Left by a process of the same number, before a power cut.
    drop(fs::remove_file(&temporary));
    Ok(temporary)
}

/// Opens what is to be read as the content of a file or of a disk, and nothing else. The name may be somebody
/// else's: a pipe would keep us waiting, and a watchdog would be armed by being opened.
pub fn open_content(path: &Path) -> io::Result<File> {
    open_disk(path, false)
}

/// The same of what may be written as well.
pub fn open_disk(path: &Path, writable: bool) -> io::Result<File> {
    // Only a place: nothing of it is opened yet, so what is looked at is what is opened then.
    let place = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?;
    let kind = place.metadata()?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        let why = "it is neither a regular file nor a disk";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    reopen(&place, writable)
}

/// Opens the content of what is at a place that was looked at.
fn reopen(place: &File, writable: bool) -> io::Result<File> {
    let opened = OpenOptions::new()
        .read(true)
        .write(writable)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(own_descriptor(place));
    // It is not the file that is not there.
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::other("/proc is not mounted"),
        _ => error,
    })
}

/// Whether a path leads to a logical volume.
pub fn is_volume(path: &Path) -> bool {
    let Ok(data) = fs::metadata(path) else {
        return false;
    };
    let (major, minor) = (libc::major(data.rdev()), libc::minor(data.rdev()));
    let uuid = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/dm/uuid"));
    data.file_type().is_block_device() && uuid.is_ok_and(|uuid| uuid.starts_with("LVM-"))
}

/// Makes a directory, and those above it, that everybody may look into and only we may write to, whatever the umask.
pub fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

/// Makes one that only we may look into, whatever the umask and whoever made it before.
pub fn private_directory(path: &Path) -> io::Result<()> {
    directory(path.parent().unwrap_or(path))?;
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    match fs::metadata(path)?.mode() & 0o077 {
        0 => Ok(()),
        _ => fs::set_permissions(path, Permissions::from_mode(0o700)),
    }
}

/// The directory that a path is in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The name itself is only safe once its directory is.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}
