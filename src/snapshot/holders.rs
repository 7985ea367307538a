// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who has a device open: asked only when somebody has.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::dm::Device;
use crate::xenstore::XenStore;

/// Somebody who has a device open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A mounted file system.
    Mount(PathBuf),
    /// Swap space.
    Swap,
    /// Another device-mapper device on top of it.
    Device(String),
    /// A loop device on top of it.
    Loop(String),
    /// A guest's virtual disk.
    Domain {
        /// Its domain id.
        domid: String,
        /// Its name.
        name: String,
    },
    /// A program.
    Process {
        /// Its process id.
        pid: String,
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount(path) => write!(f, "the mount {}", path.display()),
            Self::Swap => write!(f, "swap"),
            Self::Device(name) => write!(f, "the device-mapper device {name}"),
            Self::Loop(name) => write!(f, "the loop device {name}"),
            Self::Domain { domid, name } => write!(f, "the domain {name} (id {domid})"),
            Self::Process { pid, name } => write!(f, "the process {name} (pid {pid})"),
        }
    }
}

/// Holders as a phrase.
pub fn list(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return "something that cannot be seen from here".to_owned();
    }
    let names: Vec<String> = holders.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// Everybody who can be found to have `device` open.
pub fn find(device: &Device) -> Vec<Holder> {
    let number = device.number;
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let mut holders = mounts(&format!("{major}:{minor}"));
    holders.extend(devices(&format!("/sys/dev/block/{major}:{minor}/holders")));
    holders.extend(swaps(number));
    let same = |path: &Path| is_device(path, number);
    holders.extend(loops(same));
    holders.extend(domains(&format!("{major:x}:{minor:x}")));
    holders.extend(processes(same));
    holders
}

/// Everybody who can be found to have this file open for writing; without root, one's own processes.
pub fn writers(file: &Metadata) -> Vec<Holder> {
    let same = |path: &Path| fs::metadata(path).is_ok_and(|data| (data.dev(), data.ino()) == (file.dev(), file.ino()));
    // The link of a descriptor can be "written" if the descriptor can (proc(5)).
    let writes = |path: &Path| fs::symlink_metadata(path).is_ok_and(|link| link.mode() & 0o200 != 0);
    let mut holders = loops(same);
    holders.extend(processes(|path: &Path| writes(path) && same(path)));
    holders
}

/// Mounts as the machine sees them: our own mount namespace may be a sandbox.
fn mounts(number: &str) -> Vec<Holder> {
    let table = fs::read_to_string("/proc/1/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(2);
            let device = fields.next()?;
            (device == number).then(|| Holder::Mount(fields.nth(1).unwrap_or_default().into()))
        })
        .collect()
}

fn names(directory: impl AsRef<Path>) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

fn devices(directory: &str) -> Vec<Holder> {
    names(directory)
        .map(|name| {
            let path = format!("{directory}/{name}/dm/name");
            Holder::Device(fs::read_to_string(path).map_or(name, |name| name.trim().to_owned()))
        })
        .collect()
}

/// Whether `path` is the block device `number`.
fn is_device(path: &Path, number: u64) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::metadata(path).is_ok_and(|data| data.file_type().is_block_device() && data.rdev() == number)
}

fn swaps(number: u64) -> Option<Holder> {
    let table = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let mut paths = table.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    paths
        .any(|path| is_device(Path::new(path), number))
        .then_some(Holder::Swap)
}

fn loops(same: impl Fn(&Path) -> bool) -> Vec<Holder> {
    names("/sys/block")
        .filter(|name| {
            let file = fs::read_to_string(format!("/sys/block/{name}/loop/backing_file"));
            file.is_ok_and(|file| same(Path::new(file.trim())))
        })
        .map(Holder::Loop)
        .collect()
}

/// Domains whose disks xen-blkback serves from the device (`physical-device` is `major:minor` in hexadecimal).
fn domains(number: &str) -> Vec<Holder> {
    let find = || -> Result<Vec<Holder>, crate::xenstore::Error> {
        let mut store = XenStore::connect()?;
        let mut holders = Vec::new();
        let backends = "/local/domain/0/backend/vbd";
        for domid in store.list(backends)? {
            for disk in store.list(&format!("{backends}/{domid}"))? {
                let path = format!("{backends}/{domid}/{disk}/physical-device");
                if store.read(&path)?.as_deref() == Some(number) {
                    let name = store.read(&format!("/local/domain/{domid}/name"))?.unwrap_or_default();
                    holders.push(Holder::Domain {
                        domid: domid.clone(),
                        name,
                    });
                }
            }
        }
        Ok(holders)
    };
    find().unwrap_or_default()
}

fn processes(same: impl Fn(&Path) -> bool) -> Vec<Holder> {
    let pids = names("/proc").filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    pids.filter(|pid| {
        let descriptors = format!("/proc/{pid}/fd");
        names(&descriptors).any(|fd| same(&Path::new(&descriptors).join(fd)))
    })
    .map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Holder::Process {
            name: name.trim().to_owned(),
            pid,
        }
    })
    .collect()
}
