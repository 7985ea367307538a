// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making the files of an archive, part by part of each name and never through a symbolic link. A name that is there already
//! is treated as Linux does: the later one wins.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::libc;
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, futimens, makedev, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, linkat, symlinkat};

use super::archive::{Archive, Given, joined};
use crate::error::Error;
use crate::kind::{Kind, Node, TARGET_LIMIT};
use crate::manifest::{Owners, permissions};
use crate::names::{escape, parts};
use crate::newc::Header;
use crate::reader::Reader;
use crate::watch::Watch;

/// What there is to say of a file that was made.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Made {
    /// It stands for a device.
    pub placeholder: bool,
    /// It is a symbolic link with a NUL after its target.
    pub terminated: bool,
}

/// Makes files.
pub(super) struct Maker<'a> {
    /// The directory, as it will be called.
    pub to: &'a Path,
    pub owners: Owners,
    /// The owner that new files have by themselves.
    pub us: (Uid, Gid),
    /// The permissions that new files do not get.
    pub umask: u32,
    pub watch: &'a mut dyn Watch,
}

impl Maker<'_> {
    /// Makes a file.
    pub fn make(&mut self, archive: &mut Archive, header: &Header, reader: &mut Reader) -> Result<Made, Error> {
        let kind = Kind::of(header).map_err(|why| reader.wrong(why))?;
        let way = parts(&header.name).map_err(|why| reader.wrong(why))?;
        let path = self.to.join(&archive.name).join(escape(&joined(&way)));
        let Some((name, parents)) = way.split_last() else {
            return match kind {
                Kind::Directory => {
                    archive.directory(&[], Some(header));
                    Ok(Made::default())
                }
                _ => Err(reader.wrong("the archive's own directory is something else")),
            };
        };
        self.enter(archive, parents, reader, &path)?;
        match kind {
            Kind::Directory => {
                let made = mkdirat(archive.tree.last(), *name, Mode::S_IRWXU);
                if made == Err(Errno::EEXIST) && !archive.has_directory(&way) {
                    replace(archive, &way, reader, &path)?;
                    mkdirat(archive.tree.last(), *name, Mode::S_IRWXU).map_err(Error::io("make", &path))?;
                } else if made != Err(Errno::EEXIST) {
                    made.map_err(Error::io("make", &path))?;
                }
                archive.directory(&way, Some(header));
                Ok(Made::default())
            }
            Kind::Link => self.link(archive, &way, header, reader, &path),
            Kind::File => {
                let linked = self.hard_link(archive, &way, header, reader, &path)?;
                self.file(archive, &way, header, linked, reader, &path)?;
                Ok(Made::default())
            }
            Kind::Node(node) => {
                let linked = self.hard_link(archive, &way, header, reader, &path)?;
                if !linked {
                    replace(archive, &way, reader, &path)?;
                }
                let placeholder = self.node(archive, &way, header, node, linked, &path)?;
                Ok(Made {
                    placeholder,
                    ..Made::default()
                })
            }
        }
    }

    /// Goes to the directory that `parents` lead to, and makes what is missing on the way.
    fn enter(&self, archive: &mut Archive, parents: &[&[u8]], reader: &mut Reader, path: &Path) -> Result<(), Error> {
        loop {
            let Err(blocked) = archive.tree.directory(parents).map(drop) else {
                return Ok(());
            };
            match blocked.error {
                Errno::ENOENT => {
                    let way = &parents[..=blocked.depth];
                    // Few names can need many directories, and their names are longer together than they are.
                    reader.implied(way.iter().map(|part| part.len() + 1).sum())?;
                    mkdirat(archive.tree.last(), parents[blocked.depth], Mode::S_IRWXU)
                        .map_err(Error::io("make", path))?;
                    archive.directory(way, None);
                }
                Errno::ELOOP | Errno::ENOTDIR => {
                    let way = escape(&joined(&parents[..=blocked.depth]));
                    return Err(reader.wrong(format!(
                        "its way leads through \"{way}\", which is no directory: nothing is followed out of the archive"
                    )));
                }
                error => return Err(Error::io("enter the directory of", path)(error)),
            }
        }
    }

    /// Makes another name of a file that is there, if `header` says so.
    fn hard_link(
        &self,
        archive: &mut Archive,
        way: &[&[u8]],
        header: &Header,
        reader: &Reader,
        path: &Path,
    ) -> Result<bool, Error> {
        if header.nlink < 2 {
            return Ok(false);
        }
        let identity = (header.ino, header.dev, header.mode & libc::S_IFMT);
        let Some(first) = archive.linked.get(&identity).cloned() else {
            archive.linked.insert(identity, joined(way));
            return Ok(false);
        };
        let Some((name, parents)) = way.split_last() else {
            return Ok(false);
        };
        if first == joined(way) {
            return Ok(false);
        }
        let failed = |error: Errno| Error::io("link", path)(error);
        replace(archive, way, reader, path)?;
        let first_way: Vec<&[u8]> = first.split(|byte| *byte == b'/').collect();
        let Some((first_name, first_parents)) = first_way.split_last() else {
            return Ok(false);
        };
        let there = archive
            .tree
            .last()
            .try_clone_to_owned()
            .map_err(Error::io("link", path))?;
        let first_parent = archive.tree.directory(first_parents);
        let first_parent = first_parent.map_err(|blocked| failed(blocked.error))?;
        // Something else may have that name meanwhile: a device, to which nothing must be written.
        let kind =
            fstatat(first_parent, *first_name, AtFlags::AT_SYMLINK_NOFOLLOW).map(|data| data.st_mode & libc::S_IFMT);
        let is_placeholder = kind == Ok(libc::S_IFREG) && Kind::of_mode(header.mode).is_some_and(Kind::is_device);
        if kind != Ok(header.mode & libc::S_IFMT) && !is_placeholder {
            let first = escape(&first);
            return Err(reader.wrong(format!(
                "it is a hard link of \"{first}\", which is something else by now"
            )));
        }
        linkat(first_parent, *first_name, &there, *name, AtFlags::empty()).map_err(failed)?;
        archive
            .tree
            .directory(parents)
            .map_err(|blocked| failed(blocked.error))?;
        Ok(true)
    }

    fn file(
        &mut self,
        archive: &mut Archive,
        way: &[&[u8]],
        header: &Header,
        linked: bool,
        reader: &mut Reader,
        path: &Path,
    ) -> Result<(), Error> {
        let Some(name) = way.last() else { return Ok(()) };
        let failed = |error: Errno| Error::io("write", path)(error);
        let mode = permissions(header.mode, self.owners);
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let create = || {
            let flags = flags | OFlag::O_CREAT | OFlag::O_EXCL;
            openat(
                archive.tree.last(),
                *name,
                flags,
                Mode::from_bits_truncate(mode & 0o777),
            )
        };
        let (file, is_new) = match linked {
            false => match create() {
                Err(Errno::EEXIST) => (self.again(archive, way, flags, header, reader, path)?, false),
                file => (file.map_err(failed)?, true),
            },
            true => (self.reopen(archive, name, flags).map_err(failed)?, false),
        };
        let mut file = File::from(file);
        // A hard link without data has that of the others.
        if !is_new && (header.size > 0 || !linked) {
            file.set_len(0).map_err(Error::io("write", path))?;
        }
        while let Some(piece) = reader.data()? {
            file.write_all(piece).map_err(Error::io("write", path))?;
            if self.watch.interrupted() {
                return Err(Error::Interrupted);
            }
        }
        self.own(file.as_fd(), (header.uid, header.gid), path)?;
        let given = mode & 0o777 & !self.umask;
        if !is_new || mode != given {
            fchmod(&file, Mode::from_bits_truncate(mode)).map_err(failed)?;
        }
        let time = time(header.mtime);
        futimens(&file, &time, &time).map_err(failed)
    }

    /// Opens a file that is there, whatever its mode.
    fn reopen(&self, archive: &Archive, name: &[u8], flags: OFlag) -> Result<OwnedFd, Errno> {
        let parent = archive.tree.last();
        match openat(parent, name, flags, Mode::empty()) {
            Err(Errno::EACCES) => {
                fchmodat(
                    parent,
                    name,
                    Mode::S_IRUSR | Mode::S_IWUSR,
                    FchmodatFlags::FollowSymlink,
                )?;
                openat(parent, name, flags, Mode::empty())
            }
            file => file,
        }
    }

    /// A file that has been there before: Linux writes to it, and makes it anew if it was something else.
    fn again(
        &self,
        archive: &mut Archive,
        way: &[&[u8]],
        flags: OFlag,
        header: &Header,
        reader: &Reader,
        path: &Path,
    ) -> Result<OwnedFd, Error> {
        let name = way.last().copied().unwrap_or_default();
        let failed = |error: Errno| Error::io("write", path)(error);
        let there = fstatat(archive.tree.last(), name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed)?;
        if there.st_mode & libc::S_IFMT == libc::S_IFREG {
            return self.reopen(archive, name, flags).map_err(failed);
        }
        replace(archive, way, reader, path)?;
        let mode = Mode::from_bits_truncate(permissions(header.mode, self.owners) & 0o777);
        openat(archive.tree.last(), name, flags | OFlag::O_CREAT | OFlag::O_EXCL, mode).map_err(failed)
    }

    fn link(
        &self,
        archive: &mut Archive,
        way: &[&[u8]],
        header: &Header,
        reader: &mut Reader,
        path: &Path,
    ) -> Result<Made, Error> {
        let Some(name) = way.last() else {
            return Ok(Made::default());
        };
        let failed = |error: Errno| Error::io("make", path)(error);
        let target = reader.target()?;
        let wrong = match target.path.len() {
            _ if target.path.contains(&0) => Some("it is a symbolic link with a NUL in it"),
            0 => Some("it is a symbolic link that leads nowhere"),
            length if length > TARGET_LIMIT => Some("it is a symbolic link with more than 4095 bytes"),
            _ => None,
        };
        if let Some(why) = wrong {
            return Err(reader.wrong(why));
        }
        let made = symlinkat(&target.path[..], archive.tree.last(), *name);
        if made == Err(Errno::EEXIST) {
            replace(archive, way, reader, path)?;
            symlinkat(&target.path[..], archive.tree.last(), *name).map_err(failed)?;
        } else {
            made.map_err(failed)?;
        }
        let parent = archive.tree.last();
        if let Some((uid, gid)) = self.owner((header.uid, header.gid)) {
            fchownat(parent, *name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed)?;
        }
        let time = time(header.mtime);
        utimensat(parent, *name, &time, &time, UtimensatFlags::NoFollowSymlink).map_err(failed)?;
        Ok(Made {
            terminated: target.terminated,
            ..Made::default()
        })
    }

    /// Returns whether it stands for a device.
    fn node(
        &self,
        archive: &mut Archive,
        way: &[&[u8]],
        header: &Header,
        node: Node,
        linked: bool,
        path: &Path,
    ) -> Result<bool, Error> {
        let Some(name) = way.last() else { return Ok(false) };
        let failed = |error: Errno| Error::io("make", path)(error);
        let parent = archive.tree.last();
        let device = makedev(u64::from(header.rdev.0), u64::from(header.rdev.1));
        let mut placeholder = false;
        let made = match linked {
            true => Ok(()),
            false => mknodat(parent, *name, node.flag(), Mode::S_IRUSR | Mode::S_IWUSR, device),
        };
        match made {
            // Also root may not, in a container.
            Err(Errno::EPERM) if Kind::Node(node).is_device() => {
                mknodat(parent, *name, SFlag::S_IFREG, Mode::S_IRUSR, 0).map_err(failed)?;
                placeholder = true;
            }
            made => made.map_err(failed)?,
        }
        if linked {
            let there = fstatat(parent, *name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed)?;
            placeholder = there.st_mode & libc::S_IFMT == libc::S_IFREG;
        }
        if let Some((uid, gid)) = self.owner((header.uid, header.gid)) {
            fchownat(parent, *name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed)?;
        }
        // It was made here and is no link, so nothing is followed.
        let mode = Mode::from_bits_truncate(permissions(header.mode, self.owners));
        fchmodat(parent, *name, mode, FchmodatFlags::FollowSymlink).map_err(failed)?;
        let time = time(header.mtime);
        utimensat(parent, *name, &time, &time, UtimensatFlags::NoFollowSymlink).map_err(failed)?;
        Ok(placeholder)
    }

    /// The owner that a file must be given, if it does not have it already.
    fn owner(&self, (uid, gid): (u32, u32)) -> Option<(Uid, Gid)> {
        let owner = (Uid::from_raw(uid), Gid::from_raw(gid));
        (self.owners == Owners::Files && owner != self.us).then_some(owner)
    }

    fn own(&self, file: BorrowedFd<'_>, owner: (u32, u32), path: &Path) -> Result<(), Error> {
        match self.owner(owner) {
            Some((uid, gid)) => fchown(file, Some(uid), Some(gid)).map_err(Error::io("give its owner to", path)),
            None => Ok(()),
        }
    }

    /// The archive has ended: its directories get their owners, modes and times.
    pub fn finish(&self, archive: &mut Archive) -> Result<(), Error> {
        let base = self.to.join(&archive.name);
        for directory in archive.directories.iter().rev().flatten() {
            let path = base.join(escape(&directory.path));
            let way: Vec<&[u8]> = directory
                .path
                .split(|byte| *byte == b'/')
                .filter(|part| !part.is_empty())
                .collect();
            let opened = archive.tree.directory(&way);
            let opened = opened.map_err(|blocked| Error::io("enter", &path)(blocked.error))?;
            let given = directory.given.unwrap_or(Given {
                mode: libc::S_IFDIR | 0o755,
                owner: (self.us.0.as_raw(), self.us.1.as_raw()),
                mtime: 0,
            });
            self.own(opened, given.owner, &path)?;
            let mode = Mode::from_bits_truncate(permissions(given.mode, self.owners));
            fchmod(opened, mode).map_err(Error::io("set the mode of", &path))?;
            let time = time(given.mtime);
            futimens(opened, &time, &time).map_err(Error::io("set the time of", &path))?;
        }
        Ok(())
    }
}

/// What comes now has the name that `way` leads to for itself.
fn replace(archive: &mut Archive, way: &[&[u8]], reader: &Reader, path: &Path) -> Result<(), Error> {
    archive.remove(way).map_err(|error| match error {
        // Linux passes over the entry then, without a word.
        Errno::ENOTEMPTY => {
            reader.wrong("a directory that has something in it has this name already: it does not give way to a file")
        }
        error => Error::io("replace", path)(error),
    })
}

fn time(mtime: u32) -> TimeSpec {
    TimeSpec::new(i64::from(mtime), 0)
}
