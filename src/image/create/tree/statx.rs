// SPDX-License-Identifier: MIT OR Apache-2.0
//! What stat(2) does not tell of a file: which mount it is on, and when it was made.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

use crate::image::create::filler::item::Key;

/// What tells a file from another one that has got its number: numbers are given again as soon as they are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    kind: u32,
    size: u64,
    modified: (i64, u32),
    /// When it was made, where the file system keeps that.
    born: Option<(i64, u32)>,
}

impl Mark {
    /// That of a file in this directory, or of the open file itself if the name is empty; and its number.
    pub(super) fn of(parent: BorrowedFd<'_>, name: &CStr) -> Option<(Key, Self)> {
        let found = statx(parent, name, libc::STATX_BASIC_STATS | libc::STATX_BTIME)?;
        let time = |time: libc::statx_timestamp| (time.tv_sec, time.tv_nsec);
        let has_birth = found.stx_mask & libc::STATX_BTIME != 0;
        let mark = Self {
            kind: u32::from(found.stx_mode) & libc::S_IFMT,
            size: found.stx_size,
            modified: time(found.stx_mtime),
            born: has_birth.then(|| time(found.stx_btime)),
        };
        let device = libc::makedev(found.stx_dev_major, found.stx_dev_minor);
        Some(((device, found.stx_ino), mark))
    }

    /// Whether two marks of the same number are of one file. It may have been written in between, which nobody can tell from
    /// another file where there is no time of birth.
    pub(super) fn is_of_the_same(&self, other: &Self) -> bool {
        match (self.born, other.born) {
            (Some(born), Some(other_born)) => self.kind == other.kind && born == other_born,
            _ => self == other,
        }
    }
}

/// The number of the mount that a file is on; Linux says it since 5.8.
pub(super) fn mount(parent: BorrowedFd<'_>, name: &CStr) -> Option<u64> {
    let found = statx(parent, name, libc::STATX_MNT_ID)?;
    (found.stx_mask & libc::STATX_MNT_ID != 0).then_some(found.stx_mnt_id)
}

fn statx(parent: BorrowedFd<'_>, name: &CStr, mask: libc::c_uint) -> Option<libc::statx> {
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_EMPTY_PATH;
    // SAFETY: the name ends with a NUL, and the structure is written by the kernel only; all zeros is a value of it.
    unsafe {
        let done = libc::statx(parent.as_raw_fd(), name.as_ptr(), flags, mask, found.as_mut_ptr());
        Errno::result(done).ok()?;
        Some(found.assume_init())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn mounts_have_numbers() {
        let root = File::open("/").expect("a directory");
        let number = |name| mount(root.as_fd(), name);
        assert_eq!(number(c"nothing of that name"), None);
        if number(c".").is_some() {
            assert_ne!(number(c"."), number(c"proc"));
        }
    }

    #[test]
    fn one_file_and_another() {
        let place = std::env::temp_dir().join(format!("ttvm-mark-{}", std::process::id()));
        fs::create_dir(&place).expect("a directory");
        let directory = File::open(&place).expect("the directory");
        let of = |name| Mark::of(directory.as_fd(), name).expect("a file");
        fs::write(place.join("a"), "a").expect("a file");
        fs::hard_link(place.join("a"), place.join("b")).expect("a link");
        std::os::unix::fs::symlink("a", place.join("c")).expect("a link");
        let (a, b, c) = (of(c"a"), of(c"b"), of(c"c"));
        let open = File::open(place.join("a")).expect("the file");
        let itself = Mark::of(open.as_fd(), c"");
        fs::write(place.join("b"), "longer").expect("the file");
        let written = of(c"a");
        fs::remove_dir_all(&place).expect("it goes");
        assert_eq!((a, Some(a)), (b, itself));
        assert!(a.0 != c.0 && !a.1.is_of_the_same(&c.1));
        assert_eq!(a.1.is_of_the_same(&written.1), a.1.born.is_some());
        let without = |mark| Mark { born: None, ..mark };
        assert!(without(a.1).is_of_the_same(&without(b.1)) && !without(a.1).is_of_the_same(&without(written.1)));
    }
}
