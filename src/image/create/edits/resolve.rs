// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether what is to be otherwise in the guest can be reached by its path. A link on the way would lead the guest to another
//! place, where everything is as it is in the source: its name, its ids, its keys.

use crate::image::create::error::Error;
use crate::image::create::report::shown;

/// As many links as Linux follows in a path (`MAXSYMLINKS`; path_resolution(7)).
const MOST_LINKS: usize = 40;

/// What a source has at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::image::create) enum Target {
    Directory,
    /// A symbolic link, and what it leads to.
    Symlink(Vec<u8>),
    Other,
}

/// A source that can be asked what is at a path that goes through directories only: nothing if it is not in the image.
pub(in crate::image::create) type Look<'a> = &'a dyn Fn(&[u8]) -> Option<Target>;

/// Where a guest comes to by `path`, all links followed as they are below its own root: the path without links, and what is
/// there. Nothing if it comes nowhere.
pub(in crate::image::create) fn follow(look: Look<'_>, path: &[u8]) -> Option<(Vec<u8>, Target)> {
    let parts = |path: &[u8]| -> Vec<Vec<u8>> { path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect() };
    let (mut done, mut here, mut links) = (Vec::new(), Target::Directory, 0);
    let mut left = parts(path);
    while let Some(part) = left.pop() {
        if here != Target::Directory {
            return None;
        }
        let length = done.len();
        match part.as_slice() {
            b"" | b"." => continue,
            b".." => {
                done.truncate(done.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                continue;
            }
            part if length == 0 => done.extend_from_slice(part),
            part => {
                done.push(b'/');
                done.extend_from_slice(part);
            }
        }
        here = look(&done)?;
        if let Target::Symlink(target) = &here {
            links += 1;
            if links > MOST_LINKS {
                return None;
            }
            done.truncate(if target.starts_with(b"/") { 0 } else { length });
            left.extend(parts(target));
            here = Target::Directory;
        }
    }
    Some((done, here))
}

/// Refuses a source in which something else than directories is on the way to `path`.
pub(in crate::image::create) fn is_straight(look: Look<'_>, path: &[u8]) -> Result<(), Error> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    for way in ends.map(|(at, _)| &path[..at]) {
        match look(way) {
            Some(Target::Directory) => {}
            Some(here) => return Err(wrong(way, here, path)),
            None => return Ok(()),
        }
    }
    Ok(())
}

/// Refuses a source in which a directory has the name of a file that is to be at `path`, or to be gone.
pub(in crate::image::create) fn is_no_directory(look: Look<'_>, path: &[u8]) -> Result<(), Error> {
    match look(path) {
        Some(Target::Directory) => Err(wrong(path, Target::Directory, path)),
        _ => Ok(()),
    }
}

/// Refuses a source in which the guest does not come to a directory by `path`. Here a link is as good as one.
pub(in crate::image::create) fn is_directory(look: Look<'_>, path: &[u8]) -> Result<(), Error> {
    match look(path) {
        None | Some(Target::Directory) => Ok(()),
        Some(here) => match follow(look, path) {
            Some((_, Target::Directory)) => Ok(()),
            _ => Err(Error::NotADirectory {
                path: shown(path),
                kind: in_words(&here),
            }),
        },
    }
}

/// Refuses a source in which a link leads the guest to files that are to be gone from the directory at `path`, and are at the
/// other place. One that leads out of the source leads to nothing.
pub(in crate::image::create) fn is_cleared(look: Look<'_>, path: &[u8], pattern: &str) -> Result<(), Error> {
    match follow(look, path) {
        Some((there, Target::Directory)) if there != path => {
            is_straight(look, pattern.trim_start_matches('/').as_bytes())
        }
        _ => Ok(()),
    }
}

fn in_words(here: &Target) -> String {
    match here {
        Target::Directory => "a directory".to_owned(),
        Target::Symlink(target) => format!("a link to {}", String::from_utf8_lossy(target).escape_debug()),
        Target::Other => "no directory".to_owned(),
    }
}

fn wrong(way: &[u8], here: Target, path: &[u8]) -> Error {
    Error::Diverted {
        way: shown(way),
        kind: in_words(&here),
        path: shown(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(path: &[u8]) -> Option<Target> {
        Some(match path {
            b"usr" | b"usr/lib" | b"usr/etc" | b"var" | b"proc" => Target::Directory,
            b"lib" => Target::Symlink(b"usr/lib".to_vec()),
            b"etc" => Target::Symlink(b"/usr/../usr/./etc/".to_vec()),
            b"usr/out" => Target::Symlink(b"../../../var".to_vec()),
            b"usr/lib/again" => Target::Symlink(b"/lib".to_vec()),
            b"round" => Target::Symlink(b"round".to_vec()),
            b"mnt" => Target::Symlink(b"/elsewhere".to_vec()),
            b"usr/etc/hosts" | b"tmp" => Target::Other,
            _ => return None,
        })
    }

    #[test]
    fn links_lead_below_the_root() {
        let to = |path: &str| follow(&look, path.as_bytes()).map(|(path, _)| String::from_utf8(path).expect("a path"));
        assert_eq!(to("lib/again").as_deref(), Some("usr/lib"));
        assert_eq!(to("etc/hosts").as_deref(), Some("usr/etc/hosts"));
        assert_eq!(to("usr/out").as_deref(), Some("var"));
        for nowhere in ["round", "mnt", "none", "tmp/x", "usr/etc/hosts/x"] {
            assert_eq!(to(nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn what_is_in_the_way() {
        assert!(is_straight(&look, b"usr/etc/hosts").is_ok() && is_straight(&look, b"none/x").is_ok());
        let said = is_straight(&look, b"etc/x/y").map_err(|error| error.to_string());
        assert_eq!(
            said.expect_err("a link"),
            "/etc is a link to /usr/../usr/./etc/, so that /etc/x/y would not become the guest's own: copy a source in which that is \
             otherwise, leave it out with --exclude /etc, or have that part as it is with --keep (MAKING IMAGES in ttvm(1))"
        );
        assert!(is_straight(&look, b"tmp/x").is_err());
        assert!(is_no_directory(&look, b"usr").is_err() && is_no_directory(&look, b"etc").is_ok());
        assert!(is_directory(&look, b"lib").is_ok() && is_directory(&look, b"none").is_ok());
        assert!(is_directory(&look, b"mnt").is_err() && is_directory(&look, b"tmp").is_err());
        assert!(is_cleared(&look, b"etc", "/etc/x*").is_err() && is_cleared(&look, b"mnt", "/mnt/x*").is_ok());
    }
}
