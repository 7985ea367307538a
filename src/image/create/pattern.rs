// SPDX-License-Identifier: MIT OR Apache-2.0
//! Patterns of files' names, as rsync and tar have them.

use std::fmt;
use std::str::FromStr;

/// A pattern of names (`ttvm(1)`, `--exclude`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    /// Compared with the path from the root; else with the last parts of it.
    anchored: bool,
    /// How many parts it has, if the number is fixed.
    parts: Option<usize>,
    directories_only: bool,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no pattern of names: write \"*.iso\", \"/srv/data\" or \"/srv/data/*\"")]
pub struct NotAPattern(String);

impl FromStr for Pattern {
    type Err = NotAPattern;
    fn from_str(text: &str) -> Result<Self, NotAPattern> {
        let inner = text.trim_start_matches('/');
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        let wrong = |part: &str| part.is_empty() || part == "." || part == "..";
        if inner.split('/').any(wrong) {
            return Err(NotAPattern(text.to_owned()));
        }
        Ok(Self {
            text: inner.to_owned(),
            anchored: text.starts_with('/'),
            parts: (!inner.contains("**")).then(|| inner.split('/').count()),
            directories_only: text.ends_with('/'),
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, end) = (
            if self.anchored { "/" } else { "" },
            if self.directories_only { "/" } else { "" },
        );
        write!(f, "{start}{}{end}", self.text)
    }
}

impl Pattern {
    /// Whether it is that of the file at `path`, which begins without `/`.
    pub fn matches(&self, path: &[u8], is_directory: bool) -> bool {
        if self.directories_only && !is_directory {
            return false;
        }
        let glob = self.text.as_bytes();
        if self.anchored {
            return fits(glob, path);
        }
        let starts = path.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/');
        let mut starts = starts.map(|(at, _)| at + 1).chain([0]);
        match self.parts {
            Some(parts) => starts.nth(parts - 1).is_some_and(|at| fits(glob, &path[at..])),
            None => starts.any(|at| fits(glob, &path[at..])),
        }
    }
}

/// Whether all of `text` fits `glob`.
///
/// Only the last star is tried anew where something does not fit: what an earlier one could take besides, the later one can
/// take as well. A `*` ends with a part of the path, so there the last `**` is tried. All ways of all stars would be more than
/// can ever be tried.
fn fits(mut glob: &[u8], mut text: &[u8]) -> bool {
    // What follows the last of each kind of star, and the text from which that was tried.
    let (mut within, mut across) = (None::<(&[u8], &[u8])>, None::<(&[u8], &[u8])>);
    loop {
        if let [b'*', b'*', rest @ ..] = glob {
            (within, across) = (None, Some((rest, text)));
            glob = rest;
        } else if let [b'*', rest @ ..] = glob {
            within = Some((rest, text));
            glob = rest;
        } else if glob.is_empty() && text.is_empty() {
            return true;
        } else if let [byte, left @ ..] = text
            && let Some(rest) = fits_one(glob, *byte)
        {
            (glob, text) = (rest, left);
        } else {
            (glob, text) = match (within, across) {
                (Some((rest, [byte, left @ ..])), _) if *byte != b'/' => {
                    within = Some((rest, left));
                    (rest, left)
                }
                (_, Some((rest, [_, left @ ..]))) => {
                    (within, across) = (None, Some((rest, left)));
                    (rest, left)
                }
                _ => return false,
            };
        }
    }
}

/// What follows in `glob` if its beginning, which is no star, fits a byte.
fn fits_one(glob: &[u8], byte: u8) -> Option<&[u8]> {
    match glob {
        [] => None,
        [b'?', rest @ ..] => (byte != b'/').then_some(rest),
        [b'[', rest @ ..] => match one_of(rest) {
            Some((one_of, rest)) => (byte != b'/' && one_of(byte)).then_some(rest),
            None => (byte == b'[').then_some(rest),
        },
        [b'\\', escaped, rest @ ..] => (byte == *escaped).then_some(rest),
        [first, rest @ ..] => (byte == *first).then_some(rest),
    }
}

/// What is in brackets, which begin before `glob`, and what follows them; `None` if they have no end.
fn one_of(glob: &[u8]) -> Option<(impl Fn(u8) -> bool, &[u8])> {
    let (negated, set) = match glob {
        [b'!' | b'^', rest @ ..] => (true, rest),
        _ => (false, glob),
    };
    // A bracket that comes first is one of them.
    let end = set.iter().skip(1).position(|byte| *byte == b']')? + 1;
    let (set, rest) = (&set[..end], &set[end + 1..]);
    let holds = move |byte: u8| {
        let mut set = set;
        while let [first, more @ ..] = set {
            let (last, more) = match more {
                [b'-', last, more @ ..] => (last, more),
                more => (first, more),
            };
            if (*first..=*last).contains(&byte) {
                return !negated;
            }
            set = more;
        }
        negated
    };
    Some((holds, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_names() {
        let cases: [(&str, &[&str], &[&str]); 13] = [
            ("a*b/c*d", &["ab/cd", "abxb/cdd"], &["ab/xb/cd", "abx/cd", "ab/c/d"]),
            (
                "/a/**/b*/c",
                &["a/b/x/b1/c", "a/x/b/c"],
                &["a/b/x/c", "a/b1/c", "b/x/b/c"],
            ),
            ("**x*y", &["a/b/xy", "x/xay"], &["x/y", "xy/"]),
            ("*.iso", &["a.iso", "srv/b.iso", ".iso"], &["a.iso/b", "aiso"]),
            ("/srv", &["srv"], &["a/srv", "srv/a"]),
            ("/srv/*", &["srv/a", "srv/.b"], &["srv", "srv/a/b"]),
            ("/srv/**/x", &["srv/a/x", "srv/a/b/x"], &["srv/x/y", "srv/x"]),
            (
                "cache/tmp?",
                &["cache/tmp1", "a/b/cache/tmpx"],
                &["cache/tmp", "acache/tmp1"],
            ),
            ("[a-c]x", &["ax", "d/cx"], &["dx", "x"]),
            ("[!a-c]x", &["dx"], &["ax"]),
            ("[]x]y", &["]y", "xy"], &["y"]),
            ("a\\*b", &["a*b"], &["axb"]),
            ("[a", &["[a"], &["a"]),
        ];
        for (pattern, fit, differ) in cases {
            let parsed: Pattern = pattern.parse().expect("a pattern");
            assert_eq!(parsed.to_string(), pattern);
            for path in fit {
                assert!(parsed.matches(path.as_bytes(), false), "{pattern} {path}");
            }
            for path in differ {
                assert!(!parsed.matches(path.as_bytes(), false), "{pattern} {path}");
            }
        }
        // Not all ways of all stars are tried.
        let name = "a".repeat(4000);
        for many in [
            "*a".repeat(100) + "b",
            "**a".repeat(100) + "b",
            "**a*a".repeat(50) + "b",
        ] {
            assert!(
                !many
                    .parse::<Pattern>()
                    .expect("a pattern")
                    .matches(name.as_bytes(), false)
            );
        }
        let directories: Pattern = "target/".parse().expect("a pattern");
        assert!(directories.matches(b"a/target", true) && !directories.matches(b"a/target", false));
        for bad in ["", "/", "a//b", "../x", "/a/./b"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }
}
