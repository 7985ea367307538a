// SPDX-License-Identifier: MIT OR Apache-2.0
//! One ttvm program at a time works on a volume group: LVM's own lock lasts for one command, and a reset is two.

use std::env;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::error::Error;
use crate::config::types::LvmName;
use crate::file::lock::{Attempt, Lock, take};

const DIRECTORY: &str = "/run/lock/ttvm";
/// LVM's own locks, unless its configuration says otherwise (`locking_dir`).
const LVMS: &str = "/run/lock/lvm";

/// Takes the lock of `vg`; waits for at most `limit`.
pub fn lock(vg: &LvmName, limit: Duration) -> Result<Lock, Error> {
    let path = Path::new(DIRECTORY).join(format!("{vg}.lock"));
    let failed = |source| Error::Lock {
        vg: vg.clone(),
        lock: path.clone(),
        source,
    };
    let waiting = match take(&path).map_err(failed)? {
        Attempt::Taken(lock) => return Ok(lock),
        Attempt::Busy(waiting) => waiting,
    };
    tracing::info!(ttvm_vg = %vg, "waiting for another ttvm program to finish with volume group {vg}");
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    let ready = poll(&mut [PollFd::new(waiting.as_fd(), PollFlags::POLLIN)], timeout);
    if ready.map_err(|errno| failed(errno.into()))? == 0 {
        return Err(Error::Locked {
            vg: vg.clone(),
            lock: path,
            waited: limit,
        });
    }
    waiting.take().map_err(failed)
}

/// LVM's own lock of `vg`, as its commands take it to change the group (lib/misc/lvm-flock.c in LVM2): none of them is at work as long
/// as it is held, and none may be run. `None` if one is at work, or if LVM's locks are elsewhere.
pub(super) fn lvms(vg: &LvmName) -> io::Result<Option<Lock>> {
    if env::var_os("LVM_SYSTEM_DIR").is_some() {
        // Its configuration is elsewhere.
        return Ok(None);
    }
    if !Path::new(LVMS).is_dir() || !uses_own_directory(Path::new("/etc/lvm")).unwrap_or(false) {
        return Ok(None);
    }
    let path = Path::new(LVMS).join(format!("V_{vg}"));
    match take(&path)? {
        Attempt::Taken(lock) if lock.is_of(&path) => Ok(Some(lock)),
        // Who had it has removed its file meanwhile, as LVM does in the end.
        Attempt::Taken(_) | Attempt::Busy(_) => Ok(None),
    }
}

/// Whether no file of LVM's configuration names another directory: lvm.conf, lvmlocal.conf, and a lvm_TAG.conf for each of the
/// host's tags (lvm.conf(5)). Which tags those are does not matter here.
fn uses_own_directory(configuration: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(configuration) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            let bytes = fs::read(path)?;
            let text = String::from_utf8_lossy(&bytes);
            if text.lines().any(sets_other_directory) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Whether a line may name another directory than LVM's own: all that is not exactly that one does.
fn sets_other_directory(line: &str) -> bool {
    let Some((before, after)) = line.split_once("locking_dir") else {
        return false;
    };
    if before.contains('#') {
        // A comment; but not in a string.
        return before.contains(['"', '\'']);
    }
    let value = after.trim_start().strip_prefix('=').map(str::trim_start);
    let rest = value.and_then(|value| value.strip_prefix(&format!("\"{LVMS}\"")));
    let rest = rest.map(|rest| rest.trim_matches([' ', '\t', '\r', '}']));
    !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_configuration() {
        let directory = std::env::temp_dir().join(format!("ttvm-lvm-conf-{}", std::process::id()));
        let is_own = || uses_own_directory(&directory).ok();
        assert_eq!(is_own(), Some(true));
        fs::create_dir(&directory).expect("a directory");
        let write = |name: &str, text: &[u8]| fs::write(directory.join(name), text).expect("written");
        write("lvm.conf", b"# M\xfcller\nlocking_dir = \"/run/lock/lvm\"\n");
        write("lvm.conf.dpkg-old", b"locking_dir = \"/x\"\n");
        assert_eq!(is_own(), Some(true));
        write("lvm_here.conf", b"# M\xfcller\nglobal { locking_dir = \"/x\" }\n");
        assert_eq!(is_own(), Some(false));
        fs::remove_file(directory.join("lvm_here.conf")).expect("removed");
        fs::create_dir(directory.join("lvmlocal.conf")).expect("what cannot be read");
        assert_eq!(is_own(), None);
        fs::remove_dir_all(&directory).expect("removed");
    }

    #[test]
    fn another_directory_for_locks() {
        let others = [
            "locking_dir = \"/var/lock/lvm\"",
            "global { locking_dir=\"/x\" }",
            "global/locking_dir=\"/x\"",
            "locking_dir = \"/x\" # not \"/run/lock/lvm\"",
            "locking_dir = \"/run/lock/lvm/x\"",
            "locking_dir = \"/run/lock/lvm\" locking_dir = \"/x\"",
            "library_dir = \"/a#b\" locking_dir = \"/x\"",
            "locking_dir =",
            "\"locking_dir\" = \"/run/lock/lvm\"",
        ];
        assert!(others.into_iter().all(sets_other_directory));
        let same = [
            "# locking_dir = \"/x\"",
            "\t# locking_dir = \"/x\"",
            "wait_for_locks = 1 # locking_dir = \"/x\"",
            "locking_dir = \"/run/lock/lvm\"",
            "\tlocking_dir=\"/run/lock/lvm\"\t# as in \"/x\"",
            "global { locking_dir = \"/run/lock/lvm\" }",
            "wait_for_locks = 1",
        ];
        assert!(!same.into_iter().any(sets_other_directory));
    }
}
