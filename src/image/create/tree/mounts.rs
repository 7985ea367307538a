// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is mounted in a directory, by the table of mounts (proc_pid_mountinfo(5)).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::image::create::exclude::Reason;

/// What is mounted in the directory at `path`, which is open, relative to it.
pub(super) fn below(root: BorrowedFd<'_>, path: &Path) -> BTreeMap<Vec<u8>, Reason> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    of_table(&table, path, number(root))
}

/// The number of the mount that an open file is on, as the table has it (proc_pid_fdinfo(5)).
fn number(file: BorrowedFd<'_>) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
    let number = text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    number.trim().parse().ok()
}

/// The table has hidden mounts, too: what was mounted in a mount that now is under another one has the path of a directory that
/// anybody sees. Those that can be come to are mounted on a directory of the root's own mount, whose number is `parent`.
fn of_table(table: &[u8], root: &Path, parent: Option<u64>) -> BTreeMap<Vec<u8>, Reason> {
    let places = table.split(|byte| *byte == b'\n').filter_map(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let [_, outer, _, _, place, ..] = fields[..] else {
            return None;
        };
        let outer: u64 = str::from_utf8(outer).ok()?.parse().ok()?;
        let place = PathBuf::from(OsString::from_vec(unescape(place)));
        let below = place.strip_prefix(root).ok()?.as_os_str().as_bytes().to_vec();
        let reason = match is_own(&fields) {
            true => Reason::Filesystem,
            false => Reason::Mounted,
        };
        (!below.is_empty() && parent.is_none_or(|parent| parent == outer)).then_some((below, reason))
    });
    places.collect()
}

/// Whether a line of the table is of a file system with a disk, or a server, of its own; not of an image, as snap's are.
fn is_own(fields: &[&[u8]]) -> bool {
    let mut behind = fields.iter().skip_while(|field| **field != b"-").skip(1);
    match (behind.next(), behind.next()) {
        (Some(&b"squashfs" | &b"iso9660" | &b"udf"), _) => false,
        (Some(&b"zfs" | &b"nfs" | &b"nfs4" | &b"cifs" | &b"ceph"), _) => true,
        (_, Some(source)) => source.starts_with(b"/dev/"),
        _ => false,
    }
}

/// Takes back `\040` and the like.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = text;
    while let [first, more @ ..] = rest {
        rest = more;
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', more @ ..]) = (first, more) {
            plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = more;
        } else {
            plain.push(*first);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_directory() {
        let table = b"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 8:2 / /srv rw - x x rw\n3 2 0:5 /a /srv/a\\040b/c rw - x x rw\n4 1 0:6 / /srvx rw - x x rw\n";
        let found = of_table(table, Path::new("/srv"), Some(2));
        assert_eq!(found, BTreeMap::from([(b"a b/c".to_vec(), Reason::Mounted)]));
        assert_eq!(of_table(table, Path::new("/"), None).len(), 3);
        assert_eq!(of_table(table, Path::new("/"), Some(1)).len(), 2);
        // Another mount over /srv hides the one in it.
        assert!(of_table(table, Path::new("/srv"), Some(7)).is_empty());
    }

    #[test]
    fn file_systems_of_their_own() {
        let table = b"2 1 8:2 / /var rw shared:1 - ext4 /dev/sda2 rw\n3 1 0:5 / /proc rw - proc proc rw\n\
            4 1 7:0 / /snap/a ro - squashfs /dev/loop0 ro\n5 1 0:9 / /home rw - nfs4 host:/home rw\n6 1 0:7 / /run rw - tmpfs tmpfs rw\n";
        let found = of_table(table, Path::new("/"), Some(1));
        let own = found.iter().filter(|(_, reason)| **reason == Reason::Filesystem);
        assert_eq!(
            own.map(|(path, _)| path.as_slice()).collect::<Vec<_>>(),
            [&b"home"[..], b"var"]
        );
        assert_eq!(found.len(), 5);
    }

    #[test]
    fn an_open_file_is_on_a_mount() {
        use std::os::fd::AsFd;
        let number = |path| number(fs::File::open(path).expect("a file").as_fd());
        assert!(number("/proc").is_some() && number("/proc") != number("/"));
    }
}
