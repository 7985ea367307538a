// SPDX-License-Identifier: MIT OR Apache-2.0
//! What others write during a run: the guest's console, by xenconsoled, and what became of its domain, by xend.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::base::root::under;
use crate::config::types::GuestName;
use crate::guest::record::Ending;
use crate::guest::toolstack::Shutdown;

/// xend's log, of Xen 3.0.4 and later and of those before.
const XEND: [&str; 2] = ["/var/log/xen/xend.log", "/var/log/xend.log"];

/// No more of a log than this is taken into memory: a guest may print for days.
const LONGEST: u64 = 16 << 20;

/// xend says how a domain ended at the end of its log.
const NEWEST: u64 = 1 << 20;

/// A log of somebody else, from a moment on.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    from: u64,
}

impl Tail {
    /// Of the file at `path`, which need not be there yet, from now on.
    pub fn of(path: PathBuf) -> Self {
        let from = fs::metadata(&path).map_or(0, |data| data.len());
        Self { path, from }
    }

    /// Of the guest's console, on the system in the tree that begins at `root`. xenconsoled keeps it if it was started with
    /// `--log=guest` or `--log=all`.
    pub fn of_console(root: &Path, guest: &GuestName) -> Self {
        let path = format!("/var/log/xen/console/guest-{guest}.log");
        Self::of(under(root, Path::new(&path)))
    }

    /// Of xend's log.
    pub fn of_xend(root: &Path) -> Self {
        let places = XEND.map(|path| under(root, Path::new(path)));
        let there = places.iter().find(|path| path.exists()).unwrap_or(&places[0]);
        Self::of(there.clone())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was added since, or the beginning of it if that is more than anybody reads; `None` if there is no such file.
    pub fn read(&self) -> io::Result<Option<Vec<u8>>> {
        self.read_from(|from, _| from)
    }

    /// What was added since, from the byte that `begin` makes of the first of it and the end.
    fn read_from(&self, begin: impl FnOnce(u64, u64) -> u64) -> io::Result<Option<Vec<u8>>> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        // A shorter one was begun anew: all of it was added.
        let length = file.metadata()?.len();
        let from = if length < self.from { 0 } else { self.from };
        file.seek(SeekFrom::Start(begin(from, length)))?;
        let mut added = Vec::new();
        file.take(LONGEST).read_to_end(&mut added)?;
        Ok(Some(added))
    }

    /// Why the domain has shut down, if this is xend's log and says so. xend destroys the domain at once, so nobody else can
    /// be asked.
    pub(super) fn reason(&self, guest: &GuestName, domid: u32) -> Option<Shutdown> {
        let newest = |from: u64, length: u64| from.max(length.saturating_sub(NEWEST));
        let text = self.read_from(newest).ok().flatten()?;
        parse_reason(&String::from_utf8_lossy(&text), guest, domid)
    }

    /// How a domain that is gone ended; `None` if xend's log does not say.
    pub fn ending(&self, guest: &GuestName, domid: u32) -> Option<Ending> {
        self.reason(guest, domid).map(Into::into)
    }
}

/// The lines of xend's XendDomainInfo.py, the same in all of its versions.
fn parse_reason(log: &str, guest: &GuestName, domid: u32) -> Option<Shutdown> {
    let crashed = format!("Domain has crashed: name={guest} id={domid}.");
    let shutdown = format!("Domain has shutdown: name={guest} id={domid} reason=");
    log.lines().rev().find_map(|line| {
        if line.ends_with(&crashed) {
            return Some(Shutdown::Crash);
        }
        match line.split_once(&shutdown)?.1.trim_end_matches('.') {
            "poweroff" => Some(Shutdown::Poweroff),
            "reboot" => Some(Shutdown::Reboot),
            "suspend" => Some(Shutdown::Suspend),
            "crash" => Some(Shutdown::Crash),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons() {
        let log = "\
[2026-11-25 12:00:01 2301] INFO (XendDomainInfo:940) Domain has shutdown: name=clientA id=6 reason=reboot.
[2026-11-25 12:00:02 2301] WARNING (XendDomainInfo:917) Domain has crashed: name=clientB id=7.
[2026-11-25 12:00:03 xend.XendDomainInfo 2301] INFO (XendDomainInfo:940) Domain has shutdown: name=clientA id=12 reason=poweroff.
[2026-11-25 12:00:04 2301] INFO (XendDomainInfo:940) Domain has shutdown: name=clientA id=13 reason=halt.
";
        let reason = |name: &str, domid| parse_reason(log, &name.parse().expect("a name"), domid);
        assert_eq!(reason("clientA", 12), Some(Shutdown::Poweroff));
        assert_eq!(reason("clientA", 6), Some(Shutdown::Reboot));
        assert_eq!(reason("clientB", 7), Some(Shutdown::Crash));
        assert_eq!(reason("clientA", 13), None);
        assert_eq!(reason("clientA", 1), None);
        assert_eq!(reason("client", 12), None);
    }
}
