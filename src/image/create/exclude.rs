// SPDX-License-Identifier: MIT OR Apache-2.0
//! What does not go into an image, and why.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::pattern::Pattern;

/// Why a file is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// `--exclude`.
    Asked,
    /// It can be had again.
    Cache,
    /// It is of this moment.
    Temporary,
    /// The journal of this host.
    Journal,
    /// Subvolumes as they were.
    Snapshots,
    /// What ttvm keeps.
    Ttvm,
    /// Disks of guests.
    Guests,
    /// Memory on the disk.
    Swap,
    /// It tells this host from others.
    Identity,
    /// It serves guests of this host.
    Services,
    /// How this host reaches the world.
    Network,
    /// A disk or a server of its own, also if it is the same one bound to there.
    Filesystem,
    /// What else is mounted: what the kernel makes, removable disks, images.
    Mounted,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "as asked",
            Self::Cache => "caches",
            Self::Temporary => "temporary files",
            Self::Journal => "the journal",
            Self::Snapshots => "snapshots",
            Self::Ttvm => "what ttvm keeps",
            Self::Guests => "disks of guests",
            Self::Swap => "swap files",
            Self::Identity => "identity of this host",
            Self::Services => "services for guests",
            Self::Network => "network configuration of this host",
            Self::Filesystem => "file systems of their own",
            Self::Mounted => "what is mounted there",
        })
    }
}

/// What does not go into an image.
#[derive(Debug, Default)]
pub(super) struct Exclusions {
    patterns: Vec<(Pattern, Reason)>,
    /// By device and inode.
    files: HashMap<(u64, u64), Reason>,
    caches: bool,
    swap: bool,
    /// Of those, what must be gone if the guest is to be another one.
    own: Vec<String>,
}

/// Debian keeps the answers of its administrator here.
const NO_CACHE: &[u8] = b"var/cache/debconf/";
const SWAP_SIGNATURE: &[u8] = b"SWAPSPACE2";
/// A swap file is at least of ten pages (mkswap(8)).
const SMALLEST_SWAP: u64 = 10 * 4096;

impl Exclusions {
    pub(super) fn pattern(&mut self, pattern: Pattern, reason: Reason) {
        self.patterns.push((pattern, reason));
    }

    /// A pattern that is known to be one.
    pub(super) fn fixed(&mut self, patterns: &[&str], reason: Reason) {
        if let Reason::Identity | Reason::Services | Reason::Network = reason {
            self.own.extend(patterns.iter().map(|pattern| pattern.to_string()));
        }
        self.patterns.extend(
            patterns
                .iter()
                .filter_map(|pattern| Some((pattern.parse().ok()?, reason))),
        );
    }

    /// The directories in which something of the host must be gone, and the patterns of that.
    pub(super) fn cleared(&self) -> impl Iterator<Item = (&str, &str)> {
        self.own.iter().filter_map(|pattern| {
            let path = pattern.trim_start_matches('/');
            let plain = path.find(['*', '?', '[']).unwrap_or(path.len());
            Some((path[..plain].rsplit_once('/')?.0, pattern.as_str()))
        })
    }

    /// One file, whatever its name, if it is there.
    pub(super) fn file(&mut self, path: &Path, reason: Reason) {
        if let Ok(data) = fs::metadata(path) {
            self.files.insert((data.dev(), data.ino()), reason);
        }
    }

    /// What can be had again, and what is of this moment.
    pub(super) fn caches(&mut self) {
        self.caches = true;
        self.fixed(&["/tmp/*", "/var/tmp/*", "/run/*"], Reason::Temporary);
        self.fixed(&["/var/log/journal/*"], Reason::Journal);
        // Snapper's, on btrfs: each would come as another whole copy.
        self.fixed(&["/.snapshots/*"], Reason::Snapshots);
    }

    /// Files that are memory.
    pub(super) fn swap(&mut self) {
        self.swap = true;
        let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
        for line in swaps.lines().skip(1) {
            let mut words = line.split_whitespace();
            if let (Some(path), Some("file")) = (words.next(), words.next()) {
                self.file(Path::new(path), Reason::Swap);
            }
        }
    }

    /// Why the file is left out, by its name and number.
    pub(super) fn judge(&self, path: &[u8], is_directory: bool, key: (u64, u64)) -> Option<Reason> {
        if self.caches && !is_directory && path.starts_with(b"var/cache/") && !path.starts_with(NO_CACHE) {
            return Some(Reason::Cache);
        }
        if let Some(reason) = self.files.get(&key) {
            return Some(*reason);
        }
        let found = self
            .patterns
            .iter()
            .find(|(pattern, _)| pattern.matches(path, is_directory));
        found.map(|(_, reason)| *reason)
    }

    /// Whether a regular file of this size may be a swap file, by its size alone.
    pub(super) fn may_be_swap(&self, size: u64) -> bool {
        self.swap && size >= SMALLEST_SWAP && size.is_multiple_of(4096)
    }
}

/// Whether a file has the signature of a swap file, at the end of its first page.
pub(super) fn is_swap(file: &fs::File) -> bool {
    let mut signature = [0; SWAP_SIGNATURE.len()];
    let at = 4096 - SWAP_SIGNATURE.len() as u64;
    file.read_exact_at(&mut signature, at).is_ok() && signature == SWAP_SIGNATURE
}

/// Whether a file that begins with this page has it.
pub(super) fn is_swap_page(page: &[u8; 4096]) -> bool {
    page.ends_with(SWAP_SIGNATURE)
}
