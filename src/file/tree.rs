// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading the files of a system whose tree begins at a root (`--root`). Such a tree may be anybody's: what is called a file of
//! settings there may be a pipe, which keeps a reader waiting, a device that does something when it is opened, or a file without
//! an end, and a link that is absolute means a place in that tree.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc;

use super::reopen;

/// What a person writes: settings, a guest's file. Larger ones are none.
pub const SETTINGS: u64 = 1 << 20;
/// What programs write: a boot menu, a kernel's configuration, the kernel's tables.
pub const WRITTEN: u64 = 16 << 20;

/// Opens the regular file `path` of the system below `root`.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidInput`] if it is something else; nothing of it was opened then.
pub fn open(root: &Path, path: &Path) -> io::Result<File> {
    open_as(root, path, false)
}

/// The same of one that is written in its place.
pub fn open_to_write(root: &Path, path: &Path) -> io::Result<File> {
    open_as(root, path, true)
}

fn open_as(root: &Path, path: &Path, writable: bool) -> io::Result<File> {
    let place = place(root, path)?;
    match place.metadata()?.is_file() {
        true => reopen(&place, writable),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
    }
}

/// The content of a file of the system below `root`, which has `most` bytes at the most: the kernel's own files do not say
/// their size before.
///
/// # Errors
///
/// As [`open`]; [`io::ErrorKind::FileTooLarge`] if it is larger.
pub fn read(root: &Path, path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(root, path)?.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {} KiB, which no such file is", most >> 10),
        )),
        false => Ok(bytes),
    }
}

/// The same of a text.
///
/// # Errors
///
/// As [`read`]; [`io::ErrorKind::InvalidData`] if it is not UTF-8.
pub fn text(root: &Path, path: &Path, most: u64) -> io::Result<String> {
    let wrong = |_| io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8");
    String::from_utf8(read(root, path, most)?).map_err(wrong)
}

/// Where `path` leads in the tree. Nothing of it is opened yet.
fn place(root: &Path, path: &Path) -> io::Result<File> {
    let mut place = OpenOptions::new();
    place.read(true).custom_flags(libc::O_PATH);
    if root == Path::new("/") {
        return place.open(root.join(path));
    }
    let top = place.open(root)?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    Ok(openat2(&top, path, how)?.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn nothing_but_files_of_the_tree() {
        let top = std::env::temp_dir().join(format!("ttvm-tree-{}", std::process::id()));
        let root = top.join("root");
        fs::create_dir_all(root.join("etc")).expect("a directory");
        fs::write(top.join("secret"), "outside").expect("a file");
        fs::write(root.join("etc/a"), "in it").expect("a file");
        fs::write(root.join("etc/latin"), b"\xe4").expect("a file");
        mkfifo(&root.join("etc/pipe"), Mode::S_IRWXU).expect("a pipe");
        let secret = top.join("secret");
        for (name, target) in [
            ("zero", Path::new("/dev/zero")),
            ("absolute", Path::new("/etc/a")),
            ("relative", Path::new("a")),
            ("up", Path::new("../../../../etc/a")),
            ("out", &secret),
            ("out-up", Path::new("../../secret")),
            ("loop", Path::new("loop")),
        ] {
            symlink(target, root.join("etc").join(name)).expect("a link");
        }
        symlink("/dev/zero", root.join("zero")).expect("a link");
        let read = |path: &str| text(&root, Path::new(path), 5).map_err(|error| error.kind());
        for path in ["/etc/a", "etc/a", "/etc/absolute", "/etc/relative", "/etc/up"] {
            assert_eq!(read(path).as_deref(), Ok("in it"), "{path}");
        }
        for (path, kind) in [
            ("/etc/zero", io::ErrorKind::NotFound),
            ("/etc/out", io::ErrorKind::NotFound),
            ("/etc/out-up", io::ErrorKind::NotFound),
            ("/etc/b", io::ErrorKind::NotFound),
            ("/etc", io::ErrorKind::InvalidInput),
            ("/etc/pipe", io::ErrorKind::InvalidInput),
            ("/etc/latin", io::ErrorKind::InvalidData),
        ] {
            assert_eq!(read(path), Err(kind), "{path}");
        }
        assert!(read("/etc/loop").is_err());
        fs::write(root.join("etc/a"), "larger").expect("a file");
        assert_eq!(read("/etc/a"), Err(io::ErrorKind::FileTooLarge));
        // Of this system as well.
        let here = |path: &str| text(Path::new("/"), Path::new(path), 1 << 20).map_err(|error| error.kind());
        assert_eq!(here("/dev/zero"), Err(io::ErrorKind::InvalidInput));
        assert!(here("/proc/self/mountinfo").is_ok_and(|text| !text.is_empty()));
        assert_eq!(here(&secret.to_string_lossy()).as_deref(), Ok("outside"));
        fs::remove_dir_all(top).expect("it goes");
    }
}
