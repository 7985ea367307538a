// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tar archive as a source. It may have been made by anybody: each name is one below the root, and goes through directories
//! only. It is read twice, so that all of that is known before anything is made.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tar::EntryType;

use super::error::Error;
use super::exclude::{Exclusions, Reason};
use super::filler::{Filler, Stop};
use super::item::{Content, Item, Key};
use super::report::shown;
use super::survey::{Found, LARGEST, Survey};
use super::tree::Problem;
use crate::child::{Child, Streams};
use crate::ext4::{Attribute, FileType, Meta, Time};
use crate::image::digest::Progress;
use crate::run::Program;

static ZSTD: Program = Program::new(&["zstd"]);
static XZ: Program = Program::new(&["xz"]);
static BZIP2: Program = Program::new(&["bzip2"]);

const PIECE: usize = 256 << 10;

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packed {
    Not,
    Gzip,
    By(&'static str),
}

/// A tar archive as a source.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    file: File,
    packed: Packed,
    size: u64,
}

/// What an archive has been seen to have, by paths.
#[derive(Default)]
struct Seen {
    /// Whether it is a directory.
    paths: HashMap<Vec<u8>, bool>,
    /// Files with several names: how many more, by the first one.
    links: HashMap<Vec<u8>, u64>,
    /// The first name, by the others.
    first: HashMap<Vec<u8>, Vec<u8>>,
}

/// One of an archive's members.
struct Member {
    path: Vec<u8>,
    kind: EntryType,
    meta: Meta,
    attributes: Vec<Attribute>,
    /// Of a link.
    target: Vec<u8>,
    size: u64,
}

impl Archive {
    /// The archive at `path`.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let unreadable = |source| Error::Source {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        let mut head = [0; 512];
        let length = read_full(&file, &mut head).map_err(unreadable)?;
        let head = &head[..length];
        let packed = match head {
            [0x1f, 0x8b, ..] => Packed::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Packed::By("zstd"),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packed::By("xz"),
            [b'B', b'Z', b'h', ..] => Packed::By("bzip2"),
            _ if head.len() == 512 && &head[257..262] == b"ustar" => Packed::Not,
            _ => return Err(Error::NoSource(path.to_owned())),
        };
        let path = path.to_owned();
        Ok(Self { path, file, packed, size })
    }

    fn wrong(&self, why: impl Into<String>) -> Error {
        Error::Archive {
            path: self.path.clone(),
            why: why.into(),
        }
    }

    fn cut(&self, error: &io::Error) -> Error {
        self.wrong(format!("it is damaged, cut off, or no tar archive ({error})"))
    }

    /// Its members, from the first on, unpacked.
    fn reader(&self) -> Result<Box<dyn Read + '_>, Error> {
        let failed = |source| Error::Source {
            path: self.path.clone(),
            source,
        };
        (&self.file).rewind().map_err(failed)?;
        Ok(match self.packed {
            Packed::Not => Box::new(BufReader::with_capacity(PIECE, &self.file)),
            Packed::Gzip => Box::new(MultiGzDecoder::new(BufReader::with_capacity(PIECE, &self.file))),
            Packed::By(name) => Box::new(BufReader::with_capacity(PIECE, self.unpacker(name)?)),
        })
    }

    fn unpacker(&self, name: &str) -> Result<Unpacker, Error> {
        let failed = |source| Error::Source {
            path: self.path.clone(),
            source,
        };
        let program = match name {
            "zstd" => &ZSTD,
            "xz" => &XZ,
            _ => &BZIP2,
        };
        let (output, stdout) = io::pipe().map_err(failed)?;
        let null = File::options().write(true).open("/dev/null").map_err(failed)?;
        let streams = Streams {
            stdin: self.file.try_clone().map_err(failed)?.into(),
            stdout: stdout.into(),
            stderr: null.into(),
        };
        let child = Child::spawn(program, &["-dc".to_owned()], streams, &[]);
        let child = child.map_err(|error| self.wrong(format!("it is packed with {name}, which can not be run: {error}")))?;
        Ok(Unpacker { child, output })
    }

    /// Looks through all of it. `progress` hears of bytes of the archive.
    pub(super) fn survey(
        &self,
        exclusions: &Exclusions,
        looked_at: &[&'static str],
        progress: &mut Progress<'_>,
    ) -> Result<(Found, Survey), Error> {
        let (mut found, mut survey, mut seen) = (Found::default(), Survey::default(), Seen::default());
        survey.directory();
        self.members(&mut |member, content| {
            let at = (&self.file).stream_position().unwrap_or(0);
            if progress(at.min(self.size), self.size) == ControlFlow::Break(()) {
                return Err(Error::Interrupted);
            }
            let is_new = seen.check(&member).map_err(|why| self.wrong(why))?;
            if excluded(exclusions, &member).is_some() || member.path.is_empty() {
                return Ok(());
            }
            survey.name(&member.path);
            if let Some(path) = looked_at.iter().find(|path| path.as_bytes() == member.path) {
                let mut text = Vec::new();
                content.take(LARGEST).read_to_end(&mut text).map_err(|error| self.cut(&error))?;
                found.add(path, (member.meta.kind == FileType::Regular).then_some(text));
            }
            match member.kind {
                EntryType::Directory if is_new => survey.directory(),
                EntryType::Directory | EntryType::Link => {}
                EntryType::Symlink => survey.content(0, if member.target.len() < 60 { 0 } else { 4096 }),
                _ => survey.content(member.size, member.size),
            }
            Ok(())
        })?;
        Ok((found, survey))
    }

    /// Puts all of it into an image.
    pub(super) fn copy(&self, exclusions: &Exclusions, filler: &mut Filler<'_>) -> Result<(), Error> {
        let mut seen = Seen::default();
        self.members(&mut |member, _| seen.check(&member).map(drop).map_err(|why| self.wrong(why)))?;
        let mut keys: HashMap<Vec<u8>, Key> = HashMap::new();
        let fresh = |permissions| Meta {
            kind: FileType::Directory,
            permissions,
            uid: 0,
            gid: 0,
            accessed: Time::default(),
            modified: Time::default(),
            device: (0, 0),
        };
        let directory = |path: &[u8], meta, attributes| Item {
            path: path.to_vec(),
            meta,
            attributes,
            names: None,
            content: Content::Nothing,
        };
        let stopped = |stop| match stop {
            Stop::CalledOff => Error::Interrupted,
            Stop::Failed(path, source) => Error::File {
                path: shown(&path),
                source,
            },
        };
        filler.enter(directory(b"", fresh(0o755), Vec::new())).map_err(stopped)?;
        self.members(&mut |member, content| {
            if let Some(reason) = excluded(exclusions, &member) {
                filler.report.left_out(&member.path, reason);
                return Ok(());
            }
            for parent in parents(&member.path) {
                if !filler.has_directory(parent) {
                    filler.enter(directory(parent, fresh(0o755), Vec::new())).map_err(stopped)?;
                }
            }
            let Member { path, meta, attributes, .. } = member;
            let mut item = directory(&path, meta, attributes);
            match member.kind {
                EntryType::Directory => filler.enter(item),
                EntryType::Link => match keys.get(&member.target).copied() {
                    Some(key) => {
                        keys.insert(path.clone(), key);
                        filler.again(&path, key)
                    }
                    None => {
                        filler.report.problem(&path, Problem::Vanished);
                        Ok(())
                    }
                },
                kind => {
                    if let Some(more) = seen.links.get(&path) {
                        // No device has this number.
                        let key = (u64::MAX, keys.len() as u64);
                        item.names = Some((key, more + 1));
                        keys.insert(path, key);
                    }
                    match kind {
                        EntryType::Symlink => item.content = Content::Target(member.target),
                        _ if meta.kind == FileType::Regular => {
                            let sparse = kind == EntryType::GNUSparse;
                            return filler.stream(item, member.size, sparse, content).map_err(stopped);
                        }
                        _ => {}
                    }
                    filler.file(item)
                }
            }
            .map_err(stopped)
        })
    }

    /// Hands each member to `take`.
    fn members(&self, take: &mut dyn FnMut(Member, &mut dyn Read) -> Result<(), Error>) -> Result<(), Error> {
        let mut archive = tar::Archive::new(self.reader()?);
        for entry in archive.entries().map_err(|error| self.cut(&error))? {
            let mut entry = entry.map_err(|error| self.cut(&error))?;
            let member = member(&mut entry).map_err(|why| self.wrong(why))?;
            take(member, &mut entry)?;
        }
        Ok(())
    }
}

impl Seen {
    /// Refuses a member that leads out of the root, or is there already; else says whether it is new.
    fn check(&mut self, member: &Member) -> Result<bool, String> {
        let path = shown(&member.path);
        for parent in parents(&member.path) {
            match self.paths.get(parent) {
                Some(false) => return Err(format!("{path} goes through {}, which is no directory", shown(parent))),
                Some(true) => {}
                None => drop(self.paths.insert(parent.to_vec(), true)),
            }
        }
        let is_directory = member.kind == EntryType::Directory;
        if member.path.is_empty() && !is_directory {
            return Err("its root is no directory".to_owned());
        }
        if member.kind == EntryType::Link {
            if self.paths.get(&member.target) != Some(&false) {
                return Err(format!("{path} is a link to {}, which is no file before it", shown(&member.target)));
            }
            let first = self.first.get(&member.target).unwrap_or(&member.target).clone();
            *self.links.entry(first.clone()).or_default() += 1;
            self.first.insert(member.path.clone(), first);
        }
        match self.paths.insert(member.path.clone(), is_directory) {
            None => Ok(true),
            Some(true) if is_directory => Ok(false),
            Some(_) => Err(format!("it has {path} twice: unpack it and pack it anew")),
        }
    }
}

fn excluded(exclusions: &Exclusions, member: &Member) -> Option<Reason> {
    let nobody = (u64::MAX, u64::MAX);
    let above = parents(&member.path).find_map(|parent| exclusions.judge(parent, true, nobody));
    above.or_else(|| exclusions.judge(&member.path, member.kind == EntryType::Directory, nobody))
}

/// The directories that a path goes through, from the root on, without that.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    ends.map(|(at, _)| &path[..at])
}

/// A path without `./` and `/` at its end; `Err` if it leads out.
fn below(path: &[u8]) -> Result<Vec<u8>, String> {
    let wrong = |why| Err(format!("{} {why}: such archives are not unpacked", shown_raw(path)));
    if path.starts_with(b"/") {
        return wrong("begins at the root of the host");
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
    Ok(parts.join(&b'/'))
}

fn shown_raw(path: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(path))
}

fn member<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Member, String> {
    let path = below(&entry.path_bytes())?;
    let named = |what: &str| format!("{}: {what}", shown(&path));
    let number = |number: io::Result<u64>| number.map_err(|error| format!("{}: {error}", shown(&path)));
    let header = entry.header();
    let kind = header.entry_type();
    let mut size = entry.size();
    let mut target = entry.link_name_bytes().map(|target| target.into_owned()).unwrap_or_default();
    let file_type = match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse | EntryType::Link => FileType::Regular,
        EntryType::Directory => FileType::Directory,
        EntryType::Symlink => FileType::Symlink,
        EntryType::Char => FileType::Character,
        EntryType::Block => FileType::Block,
        EntryType::Fifo => FileType::Fifo,
        other => return Err(named(&format!("it is of an unknown kind ({:?})", other.as_byte() as char))),
    };
    match kind {
        EntryType::Link => target = below(&target)?,
        EntryType::Symlink if target.is_empty() || target.len() > 4095 => return Err(named("it leads nowhere")),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {}
        _ => size = 0,
    }
    let device = |number: io::Result<Option<u32>>| number.ok().flatten().unwrap_or(0);
    let seconds = header.mtime().map_err(|error| named(&error.to_string()))? as i64;
    let time = Time {
        seconds,
        nanoseconds: 0,
    };
    let mut meta = Meta {
        kind: file_type,
        permissions: header.mode().map_err(|error| named(&error.to_string()))? & 0o7777,
        uid: number(header.uid())? as u32,
        gid: number(header.gid())? as u32,
        accessed: time,
        modified: time,
        device: (device(header.device_major()), device(header.device_minor())),
    };
    let mut attributes = Vec::new();
    if let Some(extensions) = entry.pax_extensions().map_err(|error| named(&error.to_string()))? {
        for extension in extensions {
            let extension = extension.map_err(|error| named(&error.to_string()))?;
            let (key, value) = (extension.key_bytes(), extension.value_bytes());
            let text = String::from_utf8_lossy(value);
            match key {
                b"mtime" => meta.modified = pax_time(&text).unwrap_or(meta.modified),
                b"atime" => meta.accessed = pax_time(&text).unwrap_or(meta.accessed),
                b"uid" => meta.uid = text.parse().unwrap_or(meta.uid),
                b"gid" => meta.gid = text.parse().unwrap_or(meta.gid),
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(named("it has holes as only GNU tar knows them: pack it anew with `tar --format=gnu`"));
                }
                key => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        let (name, value) = (name.to_vec(), value.to_vec());
                        attributes.push(Attribute { name, value });
                    }
                }
            }
        }
    }
    Ok(Member {
        path,
        kind,
        meta,
        attributes,
        target,
        size,
    })
}

/// Seconds, with a fraction.
fn pax_time(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let mut nanoseconds: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        (seconds, nanoseconds) = (seconds - 1, 1_000_000_000 - nanoseconds);
    }
    Some(Time { seconds, nanoseconds })
}

fn read_full(mut file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read(&mut buffer[done..])? {
            0 => break,
            length => done += length,
        }
    }
    Ok(done)
}

/// A program that unpacks.
struct Unpacker {
    child: Child,
    output: io::PipeReader,
}

impl Read for Unpacker {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.output.read(buffer)? {
            0 if !buffer.is_empty() && !self.child.wait()?.success() => {
                Err(io::Error::other("what unpacks it says that it is damaged"))
            }
            length => Ok(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below() {
        assert_eq!(below(b"./a//b/"), Ok(b"a/b".to_vec()));
        assert_eq!(below(b"./"), Ok(Vec::new()));
        for bad in [&b"/a"[..], b"a/../b", b"..", b"a\0b"] {
            assert!(below(bad).is_err());
        }
    }

    #[test]
    fn times_of_pax() {
        let time = |text| pax_time(text).map(|time| (time.seconds, time.nanoseconds));
        assert_eq!(time("12.000000034"), Some((12, 34)));
        assert_eq!(time("12"), Some((12, 0)));
        assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time("x"), None);
    }
}
