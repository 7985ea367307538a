// SPDX-License-Identifier: MIT OR Apache-2.0
//! The distribution's busybox: in a guest that has nothing else it must need nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::Error;
use crate::run::{self, Command};

/// Applets that the guest's own scripts, and those who use it, cannot do without.
const NEEDED: [&str; 27] = [
    "cat", "dd", "getty", "halt", "hostname", "ifconfig", "init", "insmod", "ip", "login", "ls", "mkdir", "modprobe",
    "mount", "poweroff", "ps", "reboot", "route", "sh", "sleep", "sync", "test", "udhcpc", "umount", "uname", "vi",
    "wget",
];

/// Of the ELF format (elf(5)).
const CLASS_64: u8 = 2;
const X86_64: u16 = 62;
const INTERPRETER: u32 = 3;

/// A busybox.
#[derive(Debug)]
pub(super) struct Busybox {
    pub(super) path: PathBuf,
    pub(super) content: Vec<u8>,
    pub(super) applets: BTreeSet<String>,
}

impl Busybox {
    /// The one of the system in the tree at `root`.
    pub(super) fn find(root: &Path) -> Result<Self, Error> {
        let path = run::find(root, "busybox").ok_or_else(|| Error::NoBusybox(root.to_owned()))?;
        let content = fs::read(&path).map_err(Error::unreadable(&path))?;
        match is_static(&content) {
            None => return Err(Error::ForeignBusybox(path)),
            Some(false) => return Err(Error::DynamicBusybox(path)),
            Some(true) => {}
        }
        // Nothing of another tree is run: it may be anybody's.
        let applets = match root == Path::new("/") {
            true => {
                let said = Command::file(path.clone()).arg("--list").run()?;
                said.stdout
                    .lines()
                    .filter(|name| is_name(name))
                    .map(str::to_owned)
                    .collect()
            }
            false => applets(&content),
        };
        let lacks: Vec<&str> = NEEDED.into_iter().filter(|name| !applets.contains(*name)).collect();
        match lacks.is_empty() {
            true => Ok(Self { path, content, applets }),
            false => Err(Error::SmallBusybox { path, lacks }),
        }
    }
}

/// The applets that a busybox has, by the table of their names in it: they are sorted, and the first is `[`.
fn applets(elf: &[u8]) -> BTreeSet<String> {
    const FIRST: &[u8] = b"\0[\0[[\0";
    let Some(at) = elf.windows(FIRST.len()).position(|window| window == FIRST) else {
        return BTreeSet::new();
    };
    let mut applets = BTreeSet::new();
    for name in elf[at + 1..].split(|byte| *byte == 0) {
        let Ok(name) = std::str::from_utf8(name) else { break };
        let follows = applets.last().is_none_or(|last: &String| last.as_str() < name);
        if name.is_empty() || !name.bytes().all(is_of_name) || !follows {
            break;
        }
        applets.insert(name.to_owned());
    }
    applets.retain(|name| is_name(name));
    applets
}

/// Whether an applet can have a link of that name.
fn is_name(name: &str) -> bool {
    !["", ".", "..", "busybox"].contains(&name) && name.bytes().all(is_of_name)
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"[_-.+".contains(&byte)
}

/// Whether a program for 64-bit PCs needs no interpreter, and so no library; `None` if it is no such program.
fn is_static(elf: &[u8]) -> Option<bool> {
    let bytes = |at: usize, length: usize| elf.get(at..at.checked_add(length)?);
    let half = |at| Some(u16::from_le_bytes(bytes(at, 2)?.try_into().ok()?));
    if bytes(0, 5)? != [0x7f, b'E', b'L', b'F', CLASS_64] || half(18)? != X86_64 {
        return None;
    }
    let table = usize::try_from(u64::from_le_bytes(bytes(32, 8)?.try_into().ok()?)).ok()?;
    let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
    for index in 0..count {
        let kind = bytes(table.checked_add(index * size)?, 4)?;
        if u32::from_le_bytes(kind.try_into().ok()?) == INTERPRETER {
            return Some(false);
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_other_files() {
        let mut elf = vec![0; 64 + 56];
        elf[..5].copy_from_slice(b"\x7fELF\x02");
        (elf[18], elf[32], elf[54], elf[56]) = (62, 64, 56, 1);
        elf[64] = 1;
        assert_eq!(is_static(&elf), Some(true));
        elf[64] = 3;
        assert_eq!(is_static(&elf), Some(false));
        assert_eq!(is_static(&elf[..66]), None, "cut off");
        elf[18] = 183;
        assert_eq!(is_static(&elf), None, "of another machine");
        elf[18] = 62;
        elf[32..40].fill(0xff);
        assert_eq!(is_static(&elf), None, "leads nowhere");
        assert_eq!(is_static(b"#!/bin/sh"), None);
    }

    #[test]
    fn applets_by_their_table() {
        let table = b"ELF\0text\0[\0[[\0acpid\0busybox\0zcat\0\0after\0";
        let found: Vec<String> = applets(table).into_iter().collect();
        assert_eq!(found, ["[", "[[", "acpid", "zcat"]);
        assert!(applets(b"[\0acpid\0").is_empty());
    }

    #[test]
    fn names_of_applets() {
        for name in ["[", "[[", "sh", "i2cget", "ubirename"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", "busybox", "a/b", "a b", "../x"] {
            assert!(!is_name(name), "{name}");
        }
    }
}
