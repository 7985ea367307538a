// SPDX-License-Identifier: MIT OR Apache-2.0
//! One member of a tar archive: what its heads say, checked.

use std::collections::BTreeMap;
use std::io::{self, Read};

use ext4_fill::{Attribute, BLOCK, FileType, Meta, Time};
use tar::EntryType;

use super::incremental::{self, DUMP};
use super::lists::{self, TextList};
use super::pax::{Extended, Map};
use crate::image::create::exclude::{Exclusions, Reason};
use crate::image::create::filler::LABEL;
use crate::image::create::report::shown;

/// One of an archive's members.
pub(in crate::image::create) struct Member {
    pub(in crate::image::create) path: Vec<u8>,
    pub(in crate::image::create) kind: EntryType,
    pub(in crate::image::create) meta: Meta,
    pub(in crate::image::create) attributes: Vec<Attribute>,
    /// Access lists that are no attributes.
    pub(super) lists: Vec<TextList>,
    /// Of a link.
    pub(in crate::image::create) target: Vec<u8>,
    /// With its holes.
    pub(in crate::image::create) size: u64,
    /// Of a sparse file.
    pub(in crate::image::create) map: Map,
}

impl Member {
    /// Bytes in the blocks of a sparse file that are not holes.
    pub(in crate::image::create) fn without_holes(&self) -> u64 {
        let block = BLOCK as u64;
        let (mut count, mut next) = (0, 0);
        for (start, end) in &self.map {
            let end = end.div_ceil(block);
            count = end.saturating_sub(next.max(start / block)).saturating_add(count);
            next = end;
        }
        count.saturating_mul(block)
    }
}

/// `PATH_MAX` (path_resolution(7)).
const LONGEST: usize = 4096;
/// So many directories in one another nobody has, and each is looked at for each that is in it.
const DEEPEST: usize = 256;

/// A path without `./`, and `/` at its beginning and end: the root of the archive is that of the image, as it is the directory
/// that tar unpacks to. `Err` if it leads out.
fn below(path: &[u8]) -> Result<Vec<u8>, String> {
    let wrong = |why| Err(format!("{} {why}: such archives are not unpacked", shown_raw(path)));
    if path.len() > LONGEST {
        return Err("it has a path that is longer than one can be".to_owned());
    }
    if path.contains(&0) {
        return wrong("has a zero in it");
    }
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return wrong("leads upwards"),
            part if part.len() > 255 => return wrong("is longer than a name can be"),
            part => parts.push(part),
        }
    }
    if parts.len() > DEEPEST {
        return Err(format!("it has a path through more than {DEEPEST} directories"));
    }
    Ok(parts.join(&b'/'))
}

/// The label of an archive that is not the first thing in it.
pub(in crate::image::create) fn is_label_inside(kind: EntryType) -> bool {
    kind.as_byte() == b'V'
}

fn shown_raw(path: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(path))
}

/// What the heads of a member say, with those of its extended one.
pub(in crate::image::create) fn member<R: Read>(
    entry: &tar::Entry<'_, R>,
    extended: Extended,
) -> Result<Member, String> {
    let Extended {
        records: extended,
        map,
        sparse,
    } = extended;
    let other = |key: &[u8]| {
        extended
            .iter()
            .rev()
            .find(|(found, _)| found == key)
            .map(|(_, value)| value.clone())
    };
    let (own, whole) = sparse.map_or((None, None), |sparse| (sparse.name, Some(sparse.size)));
    let path = own.or_else(|| other(b"path"));
    let path = path.unwrap_or_else(|| entry.path_bytes().into_owned());
    let has_slash = path.ends_with(b"/");
    let path = below(&path)?;
    let named_path = shown(&path);
    let named = |what: &str| format!("{named_path}: {what}");
    let owner = |key: &[u8], header: io::Result<u64>| {
        let text = other(key).and_then(|value| String::from_utf8(value).ok());
        let number: u64 = match text.and_then(|text| text.parse().ok()) {
            Some(number) => number,
            None => header.map_err(|_| named("its owner is no number"))?,
        };
        // The last number means that an owner stays as it is (chown(2)).
        match u32::try_from(number) {
            Ok(owner) if owner < u32::MAX => Ok(owner),
            _ => Err(named(&format!(
                "it belongs to {number}, which is more than an owner can be"
            ))),
        }
    };
    let header = entry.header();
    let (mut kind, mut size) = (header.entry_type(), entry.size());
    // Before there was a type for directories, the slash said it; GNU tar takes it so to this day.
    if kind.as_byte() == DUMP || has_slash && matches!(kind, EntryType::Regular | EntryType::Continuous) {
        kind = EntryType::Directory;
    }
    if let (Some(whole), EntryType::Regular | EntryType::Continuous) = (whole, kind) {
        (kind, size) = (EntryType::GNUSparse, whole);
    }
    let target = || {
        entry
            .link_name_bytes()
            .map(|target| target.into_owned())
            .unwrap_or_default()
    };
    let mut target = other(b"linkpath").unwrap_or_else(target);
    let file_type = match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse | EntryType::Link => FileType::Regular,
        EntryType::Directory => FileType::Directory,
        EntryType::Symlink => FileType::Symlink,
        EntryType::Char => FileType::Character,
        EntryType::Block => FileType::Block,
        EntryType::Fifo => FileType::Fifo,
        other if other.as_byte() == b'M' => {
            return Err(named("it begins on another volume: put those together first (tar -M)"));
        }
        other => {
            return Err(named(&format!(
                "it is of an unknown kind ({:?})",
                other.as_byte() as char
            )));
        }
    };
    match kind {
        EntryType::Link => target = below(&target)?,
        EntryType::Symlink if target.is_empty() || target.len() > 4095 => return Err(named("it leads nowhere")),
        EntryType::Symlink if target.contains(&0) => return Err(named("it leads to a name with a zero in it")),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {}
        _ => size = 0,
    }
    let device = |number: io::Result<Option<u32>>| number.ok().flatten().unwrap_or(0);
    let seconds = header.mtime().map_err(|_| named("its time is no number"))? as i64;
    let time = Time {
        seconds,
        nanoseconds: 0,
    };
    let mut meta = Meta {
        kind: file_type,
        permissions: header.mode().map_err(|_| named("its mode is no number"))? & 0o7777,
        uid: owner(b"uid", header.uid())?,
        gid: owner(b"gid", header.gid())?,
        accessed: time,
        modified: time,
        device: (device(header.device_major()), device(header.device_minor())),
    };
    let lists = lists::texts(&extended);
    // The last one of a name holds, as for all keys.
    let mut label = None;
    let mut attributes = BTreeMap::new();
    for (key, value) in extended {
        let text = String::from_utf8_lossy(&value);
        match key.as_slice() {
            // It binds a file to its number on the disk it was on.
            b"SCHILY.xattr.security.evm" => {}
            // As GNU tar has it by itself (--selinux): with no NUL at its end.
            b"RHT.security.selinux" => label = Some([value.strip_suffix(b"\0").unwrap_or(&value), b"\0"].concat()),
            // So GNU tar has it in pax's format.
            b"GNU.dumpdir" => incremental::is_full(&value).map_err(|why| format!("{}: {why}", shown(&path)))?,
            b"mtime" => meta.modified = pax_time(&text).unwrap_or(meta.modified),
            b"atime" => meta.accessed = pax_time(&text).unwrap_or(meta.accessed),
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if name.starts_with(b"system.posix_acl_") && !lists::is_valid(&value) {
                        return Err(format!("{}: its access list is damaged", shown(&path)));
                    }
                    attributes.insert(name.to_vec(), value);
                }
            }
        }
    }
    if let Some(label) = label {
        attributes.entry(LABEL.to_vec()).or_insert(label);
    }
    let attributes = attributes.into_iter().map(|(name, value)| Attribute { name, value });
    Ok(Member {
        path,
        kind,
        meta,
        attributes: attributes.collect(),
        lists,
        target,
        size,
        map,
    })
}

/// Seconds, with a fraction.
fn pax_time(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let mut nanoseconds: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        (seconds, nanoseconds) = (seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds);
    }
    Some(Time { seconds, nanoseconds })
}

/// The directories that a path goes through, from the root on, without that.
pub(in crate::image::create) fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    ends.map(|(at, _)| &path[..at])
}

/// Why a member is left out: for its own name, or for a directory it is in.
pub(in crate::image::create) fn excluded(exclusions: &Exclusions, path: &[u8], is_directory: bool) -> Option<Reason> {
    let nobody = (u64::MAX, u64::MAX);
    let above = parents(path).find_map(|parent| exclusions.judge(parent, true, nobody));
    above.or_else(|| exclusions.judge(path, is_directory, nobody))
}

/// The same for members that come one behind the other, most of them in the directory of the one before.
pub(in crate::image::create) struct Judge<'a> {
    exclusions: &'a Exclusions,
    directory: Vec<u8>,
    above: Option<Reason>,
}

impl<'a> Judge<'a> {
    pub(in crate::image::create) fn new(exclusions: &'a Exclusions) -> Self {
        Self {
            exclusions,
            directory: Vec::new(),
            above: None,
        }
    }

    /// As [`excluded`].
    pub(in crate::image::create) fn excluded(&mut self, path: &[u8], is_directory: bool) -> Option<Reason> {
        let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let directory = &path[..end];
        if self.directory != directory {
            // From the root on, they come one in the other.
            let is_next = directory.rsplitn(2, |byte| *byte == b'/').nth(1).unwrap_or_default() == self.directory;
            self.above = match self.above {
                above if is_next => above.or_else(|| self.judge(directory, true)),
                _ => excluded(self.exclusions, directory, true).filter(|_| end > 0),
            };
            self.directory.clear();
            self.directory.extend_from_slice(directory);
        }
        self.above.or_else(|| self.judge(path, is_directory))
    }

    fn judge(&self, path: &[u8], is_directory: bool) -> Option<Reason> {
        self.exclusions.judge(path, is_directory, (u64::MAX, u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is remembered of the last directory changes nothing.
    #[test]
    fn judged_one_by_one_or_in_a_row() {
        let mut exclusions = Exclusions::default();
        for pattern in ["/a/b", "*.iso", "c/"] {
            exclusions.pattern(pattern.parse().expect("a pattern"), Reason::Asked);
        }
        let mut judge = Judge::new(&exclusions);
        for path in [
            "a",
            "a/x",
            "a/b",
            "a/b/c",
            "a/b/c/d",
            "a/bc",
            "a/bc/d.iso",
            "x.iso/y",
            "x.iso/z/y",
            "z",
            "d/c",
            "d/c/e",
            "",
            "c",
            "a/b/y",
        ] {
            for is_directory in [true, false] {
                let alone = excluded(&exclusions, path.as_bytes(), is_directory);
                assert_eq!(judge.excluded(path.as_bytes(), is_directory), alone, "{path}");
            }
        }
    }

    #[test]
    fn names_stay_below() {
        assert_eq!(below(b"./a//b/"), Ok(b"a/b".to_vec()));
        assert_eq!(below(b"./"), Ok(Vec::new()));
        assert_eq!(below(b"//a/b"), Ok(b"a/b".to_vec()));
        for bad in [&b"/.."[..], b"a/../b", b"..", b"a\0b"] {
            assert!(below(bad).is_err());
        }
        assert!(below(&b"d/".repeat(DEEPEST)).is_ok() && below(&b"d/".repeat(DEEPEST + 1)).is_err());
    }

    #[test]
    fn times_of_pax() {
        let time = |text| pax_time(text).map(|time| (time.seconds, time.nanoseconds));
        assert_eq!(time("12.000000034"), Some((12, 34)));
        assert_eq!(time("12"), Some((12, 0)));
        assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time("x"), None);
        assert_eq!(time("-9223372036854775808"), Some((i64::MIN, 0)));
        assert_eq!(time("-9223372036854775808.5"), None);
    }
}
