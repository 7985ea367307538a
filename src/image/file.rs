// SPDX-License-Identifier: MIT OR Apache-2.0
//! The seal of an image file: its mode, and a file beside it. Its owner can seal it; root is not needed.
//!
//! Root can write to a file whatever its mode. So the file beside it also says how the file was when it was read: a write,
//! and a change of its time stamps that would hide one, leave another `ctime`.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::geteuid;
use serde::Deserialize;

use super::error::Error;
use super::seal::{Outcome, State};
use super::{Origin, interruptible, layers};
use crate::base::progress::Progress;
use crate::base::{fail_point, signals};
use crate::config::types::Size;
use crate::file::digest::{self, Digest};
use crate::file::open_content;
use crate::snapshot::holders;

/// What a file's seal is called: this after the file's own name.
const SUFFIX: &str = ".ttvm-seal";
/// The bits of a mode that let somebody write.
const WRITE: u32 = 0o222;

/// What is in the file beside the image.
#[derive(Deserialize)]
struct Record {
    digest: Digest,
    size: u64,
    mtime: String,
    ctime: String,
    inode: String,
    mode: String,
}

fn seal_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}

fn mtime(data: &Metadata) -> String {
    format!("{}.{:09}", data.mtime(), data.mtime_nsec())
}

fn ctime(data: &Metadata) -> String {
    format!("{}.{:09}", data.ctime(), data.ctime_nsec())
}

/// What a file is known by; as long as it is the same, so is the content.
fn identity(data: &Metadata) -> (u64, u64, String, String) {
    (data.ino(), data.size(), mtime(data), ctime(data))
}

/// What is beside an image: others may write to its directory.
enum Beside {
    Nothing,
    /// The text of a seal.
    Seal(String),
    /// Something that is no seal of ours, and why.
    Foreign(&'static str),
}

/// A seal has some hundred bytes.
const SEAL_LIMIT: u64 = 1 << 16;

fn beside(path: &Path, image: &Metadata) -> Result<Beside, Error> {
    let seal = seal_of(path);
    // A pipe would be waited for, and a link leads to whatever somebody likes.
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOCTTY;
    let file = match File::options().read(true).custom_flags(flags).open(&seal) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Beside::Nothing),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(Beside::Foreign("its seal is a link")),
        file => file.map_err(Error::io("read", &seal))?,
    };
    let data = file.metadata().map_err(Error::io("look at", &seal))?;
    if !data.is_file() || data.len() > SEAL_LIMIT {
        return Ok(Beside::Foreign("what is beside it is no seal"));
    }
    if ![0, image.uid(), geteuid().as_raw()].contains(&data.uid()) {
        return Ok(Beside::Foreign("its seal belongs to somebody else"));
    }
    let mut text = String::new();
    let read = file.take(SEAL_LIMIT).read_to_string(&mut text);
    read.map_err(Error::io("read", &seal))?;
    Ok(Beside::Seal(text))
}

pub(super) fn state(path: &Path) -> Result<State, Error> {
    let data = fs::metadata(path).map_err(Error::io("look at", path))?;
    Ok(match beside(path, &data)? {
        Beside::Nothing => State::Unsealed,
        Beside::Seal(text) => judge(&text, &data),
        Beside::Foreign(why) => State::Broken { why: why.to_owned() },
    })
}

fn judge(text: &str, data: &Metadata) -> State {
    let Ok(record) = toml::from_str::<Record>(text) else {
        return State::Broken {
            why: "its seal cannot be read".to_owned(),
        };
    };
    // What a person would want to know comes first.
    let broken = if record.size != data.size() {
        "its size has changed"
    } else if record.mtime != mtime(data) {
        "it was written"
    } else if data.mode() & WRITE != 0 {
        "somebody made it writable"
    } else if record.inode != data.ino().to_string() {
        "it is another file than the one that was sealed"
    } else if record.ctime != ctime(data) {
        "it was renamed, linked, or changed in a way that could hide a write"
    } else {
        return State::Sealed { digest: record.digest };
    };
    State::Broken { why: broken.to_owned() }
}

pub(super) fn read(path: &Path, progress: &mut Progress<'_>) -> Result<Digest, Error> {
    let (file, before) = open(path)?;
    let digest = digest::of_file(&file, progress).map_err(unread(path))?;
    unchanged(path, &file, &before)?;
    Ok(digest)
}

pub(super) fn plan_seal(path: &Path) -> Result<Vec<String>, Error> {
    let (file, data) = open(path)?;
    let state = state(path)?;
    if let State::Sealed { .. } = state {
        return Ok(Vec::new());
    }
    can_be_sealed(path, &file, &data)?;
    let mut plan = Vec::new();
    let seal = seal_of(path);
    if state != State::Unsealed {
        plan.push(format!("remove the old {}", seal.display()));
    }
    let path = path.display();
    if data.mode() & WRITE != 0 {
        plan.push(format!("make {path} read-only"));
    }
    let size = Size::from_bytes(data.size());
    plan.push(format!(
        "read {path} ({size}) and keep the digest in {}",
        seal.display()
    ));
    Ok(plan)
}

pub(super) fn seal(path: &Path, progress: &mut Progress<'_>) -> Result<Outcome, Error> {
    let _deferred = signals::defer();
    let (file, before) = open(path)?;
    if let State::Sealed { digest } = state(path)? {
        return Ok(Outcome::Already(digest));
    }
    can_be_sealed(path, &file, &before)?;
    remove_seal(path)?;
    let made_read_only = before.mode() & WRITE != 0;
    if made_read_only {
        set_mode(&file, before.mode() & !WRITE).map_err(Error::io("make read-only", path))?;
    }
    fail_point::reach("image.read-only");
    let result = read_and_record(path, &file, &before, progress);
    if result.is_err() && made_read_only {
        match set_mode(&file, before.mode()) {
            Ok(()) => tracing::info!("{} is writable again", path.display()),
            Err(error) => tracing::warn!("{} is still read-only: {error}", path.display()),
        }
    }
    result.map(Outcome::Sealed)
}

/// The second half of sealing: the file is read-only.
fn read_and_record(path: &Path, file: &File, before: &Metadata, progress: &mut Progress<'_>) -> Result<Digest, Error> {
    let data = file.metadata().map_err(Error::io("look at", path))?;
    // Who came between the first look and the change of the mode can still write.
    nobody_writes(path, file, &data)?;
    // What was written is on the disk: a power cut must not take it back.
    file.sync_all().map_err(Error::io("write out", path))?;
    let digest = digest::of_file(file, &mut interruptible(progress)).map_err(unread(path))?;
    fail_point::reach("image.digested");
    unchanged(path, file, &data)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let text = format!(
        "# Written by `ttvm image seal`: what {name:?} was when it was read. Without this file it is not sealed.\n\
         digest = \"{digest}\"\nsize = {}\nmtime = \"{}\"\nctime = \"{}\"\ninode = \"{}\"\nmode = \"{:o}\"\n",
        data.size(),
        mtime(&data),
        ctime(&data),
        data.ino(),
        before.mode() & 0o7777,
    );
    let seal = seal_of(path);
    crate::file::replace(&seal, text.as_bytes(), data.mode() & 0o444).map_err(Error::io("write", &seal))?;
    fail_point::reach("image.sealed");
    Ok(digest)
}

pub(super) fn plan_unseal(path: &Path) -> Result<Vec<String>, Error> {
    let (_, data) = open(path)?;
    let mut plan = Vec::new();
    if state(path)? != State::Unsealed {
        plan.push(format!("remove {}", seal_of(path).display()));
    }
    if data.mode() & WRITE == 0 {
        plan.push(format!("make {} writable", path.display()));
    }
    Ok(plan)
}

pub(super) fn unseal(path: &Path) -> Result<bool, Error> {
    let _deferred = signals::defer();
    let (file, data) = open(path)?;
    // Of a seal that is not ours nothing is believed.
    let text = match beside(path, &data) {
        Ok(Beside::Seal(text)) => text,
        _ => String::new(),
    };
    let removed = remove_seal(path)?;
    fail_point::reach("image.untagged");
    let is_writable = data.mode() & WRITE != 0;
    if !is_writable {
        let before = toml::from_str::<Record>(&text).ok();
        let before = before.and_then(|record| u32::from_str_radix(&record.mode, 8).ok());
        // Only who could write before can again; at the least its owner.
        let write = before.unwrap_or_default() & WRITE | 0o200;
        set_mode(&file, data.mode() | write).map_err(Error::io("make writable", path))?;
    }
    Ok(removed || !is_writable)
}

/// `false` if there was none.
fn remove_seal(path: &Path) -> Result<bool, Error> {
    let seal = seal_of(path);
    match fs::remove_file(&seal) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("remove", seal)(error)),
    }
}

fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode & 0o7777))
}

/// Opens an ordinary file.
fn open(path: &Path) -> Result<(File, Metadata), Error> {
    let file = match open_content(path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(Error::NotAFile(path.to_owned())),
        file => file.map_err(Error::io("open", path))?,
    };
    let data = file.metadata().map_err(Error::io("look at", path))?;
    match data.is_file() {
        true => Ok((file, data)),
        false => Err(Error::NotAFile(path.to_owned())),
    }
}

fn can_be_sealed(path: &Path, file: &File, data: &Metadata) -> Result<(), Error> {
    if let Some(what) = layers::needs(file).map_err(Error::io("read", path))? {
        return Err(Error::Layered {
            path: path.to_owned(),
            what,
        });
    }
    nobody_writes(path, file, data)
}

/// Makes sure that nobody has the file open for writing.
fn nobody_writes(path: &Path, file: &File, data: &Metadata) -> Result<(), Error> {
    let busy = match lease(file) {
        Ok(()) => return Ok(()),
        Err(Errno::EAGAIN) => true,
        // Somebody else's file, or a file system without leases: only what can be seen counts.
        Err(_) => false,
    };
    let holders = holders::writers(data);
    match busy || !holders.is_empty() {
        true => Err(Error::InUse {
            origin: Origin::File(path.to_owned()),
            holders,
        }),
        false => Ok(()),
    }
}

/// A read lease is given only on a file that nobody has open for writing (fcntl(2)): the one question about that which the
/// kernel answers, whoever it is and whatever one may see of him. Given back at once.
fn lease(file: &File) -> Result<(), Errno> {
    let fcntl = |command: libc::c_int, value: libc::c_int| {
        // SAFETY: these commands take an integer; no memory is touched.
        Errno::result(unsafe { libc::fcntl(file.as_raw_fd(), command, value) }).map(drop)
    };
    // Who opens it in this moment would make the kernel send SIGIO, which ends a process; this one is ignored.
    fcntl(F_SETSIG, libc::SIGURG)?;
    fcntl(libc::F_SETLEASE, libc::F_RDLCK)?;
    fcntl(libc::F_SETLEASE, libc::F_UNLCK)
}

/// Not among the constants of the libc crate (linux/fcntl.h).
const F_SETSIG: libc::c_int = 10;

fn unchanged(path: &Path, file: &File, before: &Metadata) -> Result<(), Error> {
    let now = file.metadata().map_err(Error::io("look at", path))?;
    // And the name still leads to it.
    let named = fs::metadata(path).map_err(Error::io("look at", path))?;
    match identity(&now) == identity(before) && named.ino() == now.ino() {
        true => Ok(()),
        false => Err(Error::Changed(Origin::File(path.to_owned()))),
    }
}

fn unread(path: &Path) -> impl FnOnce(digest::Error) -> Error {
    let origin = Origin::File(path.to_owned());
    move |source| Error::Digest { origin, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    /// Nothing else is opened at all: some devices do something then.
    #[test]
    fn ordinary_files_only() {
        let directory = std::env::temp_dir().join(format!("ttvm-image-file-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        mkfifo(&directory.join("pipe"), Mode::S_IRWXU).expect("a pipe");
        symlink("/dev/null", directory.join("device")).expect("a link");
        fs::write(directory.join("image"), "content").expect("a file");
        symlink("image", directory.join("link")).expect("a link");
        for name in ["pipe", "device", "."] {
            let error = open(&directory.join(name)).map(drop).expect_err(name);
            assert!(matches!(error, Error::NotAFile(_)), "{name}: {error}");
        }
        for name in ["image", "link"] {
            assert!(open(&directory.join(name)).is_ok(), "{name}");
        }
        fs::remove_dir_all(directory).expect("it goes");
    }
}
