// SPDX-License-Identifier: MIT OR Apache-2.0
//! What came of a copy.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::exclude::Reason;
use super::tree::Problem;
use crate::base::text::{is_plain, line};

/// How many files are remembered of a kind. The journal has all.
const NAMED: usize = 10_000;

/// How many files, and which; of very many, the first ones.
pub type Files = (u64, Vec<String>);

/// What came of a copy.
#[derive(Debug, Default)]
pub struct Report {
    /// Files of all kinds in the image, each counted once.
    pub files: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// What the guest calls its root.
    pub root: String,
    /// What was left out on purpose.
    pub left_out: BTreeMap<Reason, Files>,
    /// What is not as it is in the source: how many, and the first ones.
    pub problems: BTreeMap<Problem, Files>,
}

impl Report {
    pub(super) fn problem(&mut self, path: &[u8], problem: Problem) {
        let path = shown(path);
        tracing::debug!(ttvm_path = %path, "{path}: {problem}");
        remember(self.problems.entry(problem).or_default(), path);
    }

    pub(super) fn left_out(&mut self, path: &[u8], reason: Reason) {
        let path = shown(path);
        tracing::debug!(ttvm_path = %path, "{path}: left out ({reason})");
        remember(self.left_out.entry(reason).or_default(), path);
    }
}

fn remember((count, named): &mut Files, path: String) {
    *count += 1;
    if named.len() < NAMED {
        named.push(path);
    }
}

/// A path as messages have it: in quotes if it is not plain.
pub(super) fn shown(path: &[u8]) -> String {
    let path = Path::new("/").join(OsStr::from_bytes(path));
    match path.to_str() {
        Some(text) if text.chars().all(is_plain) => text.to_owned(),
        // What Rust takes for printable there need not be plain.
        _ => line(&format!("{path:?}")).into_owned(),
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vanished => f.write_str("vanished while it was copied"),
            Self::Changed => f.write_str("changed while it was copied"),
            Self::Unreadable(errno) => {
                let error = std::io::Error::from_raw_os_error(*errno);
                write!(f, "could not be read ({})", crate::base::error::reason(&error))
            }
            Self::Attributes => f.write_str("lost extended attributes"),
            Self::Unmade => f.write_str("could not be made the guest's own, since it changed while it was copied"),
            Self::AccessLists => {
                f.write_str("lost access lists, which the archive has as text, of names that the guest has not (tar --xattrs keeps them)")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_messages() {
        for (path, expected) in [
            (&b"tmp/gr\xc3\xb6\xc3\x9fe"[..], "/tmp/größe"),
            ("tmp/\u{202e}gpj.exe".as_bytes(), "\"/tmp/\\u{202e}gpj.exe\""),
            (
                "a\u{2028}\u{2066}\u{200b}\u{3164}".as_bytes(),
                "\"/a\\u{2028}\\u{2066}\\u{200b}\\u{3164}\"",
            ),
            (b"a\nb\x1b\xff", "\"/a\\nb\\u{1b}\\xFF\""),
        ] {
            assert_eq!(shown(path), expected);
        }
    }
}
