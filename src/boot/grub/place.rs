// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a path is called within its file system, which is how GRUB calls it: `/boot/x` is `/x` where /boot is a
//! file system of its own. grub-mkrelpath knows; for the plain file systems the kernel's mount table says it too.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use super::probe::Probe;
use crate::base::root::under;
use crate::boot::Error;
use crate::file::tree;

/// File systems whose paths GRUB sees as the kernel does: no subvolumes, no datasets.
const PLAIN: [&str; 5] = ["ext2", "ext3", "ext4", "xfs", "vfat"];

/// `directory`, which has no links in it, as GRUB calls it: empty or `/…`, without a slash at the end.
pub fn relative(root: &Path, directory: &Path, probe: &dyn Probe) -> Result<String, Error> {
    let path = match by_mount_table(root, directory) {
        Some(path) => path,
        None => probe.relative(directory).map_err(|source| Error::Probe {
            what: format!("where {} is in its file system", directory.display()),
            source,
        })?,
    };
    Ok(path.trim_end_matches('/').to_owned())
}

fn by_mount_table(root: &Path, directory: &Path) -> Option<String> {
    let table = tree::text(root, Path::new("/proc/self/mountinfo"), tree::WRITTEN).ok()?;
    let (device, path) = lookup(&table, directory)?;
    // A mount that another one hides is still in the table: the device tells.
    let real = fs::metadata(under(root, directory)).ok()?.dev();
    (device == format!("{}:{}", major(real), minor(real))).then(|| path.to_str().map(str::to_owned))?
}

/// The device (`MAJOR:MINOR`) that `path` is on by the mount table, and its path there.
fn lookup(table: &str, path: &Path) -> Option<(String, PathBuf)> {
    let mut found = None;
    let mut depth = 0;
    // proc_pid_mountinfo(5): id, parent, device, root, mount point, options, fields up to "-", type, …
    for line in table.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, _, device, top, point, ..] = fields[..] else {
            continue;
        };
        let kind = fields
            .iter()
            .position(|field| *field == "-")
            .and_then(|dash| fields.get(dash + 1));
        let point = PathBuf::from(unescaped(point));
        let length = point.components().count();
        // Of two at one place, the later lies on top.
        if let Ok(rest) = path.strip_prefix(&point)
            && length >= depth
        {
            depth = length;
            found = kind.filter(|kind| PLAIN.contains(kind)).map(|_| {
                let inside = Path::new(&unescaped(top)).join(rest);
                (device.to_owned(), inside)
            });
        }
    }
    found
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescaped(field: &str) -> String {
    let mut text = field.to_owned();
    for (code, char) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        text = text.replace(code, char);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(table: &str, path: &str) -> Option<String> {
        lookup(table, Path::new(path)).map(|(device, path)| format!("{device} {}", path.display()))
    }

    #[test]
    fn mount_tables() {
        let one = "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n22 21 0:5 / /dev rw - devtmpfs udev rw\n";
        assert_eq!(at(one, "/boot"), Some("8:1 /boot".into()));
        assert_eq!(at(one, "/dev/shm"), None);
        let separate = format!("{one}30 21 8:2 / /boot rw - xfs /dev/sda2 rw\n31 21 8:9 / /bootx rw - ext4 x rw\n");
        assert_eq!(at(&separate, "/boot"), Some("8:2 /".into()));
        assert_eq!(at(&separate, "/boot/ttvm"), Some("8:2 /ttvm".into()));
        assert_eq!(at(&separate, "/bootx/ttvm"), Some("8:9 /ttvm".into()));
        // A directory of another file system, mounted here; then a later mount over it.
        let bind = format!("{one}30 21 8:3 /hosts/a\\040b /boot rw - ext4 /dev/sda3 rw\n");
        assert_eq!(at(&bind, "/boot/ttvm"), Some("8:3 /hosts/a b/ttvm".into()));
        let over = format!("{bind}31 30 0:40 /@boot /boot rw - btrfs /dev/sdb rw\n");
        assert_eq!(at(&over, "/boot/ttvm"), None);
        assert_eq!(at("nonsense\n\n", "/boot"), None);
    }
}
