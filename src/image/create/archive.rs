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
use super::member::{Member, member, parents};
use super::pax::Listener;
use super::report::shown;
use super::survey::{Found, LARGEST, Survey};
use super::tree::Problem;
use crate::child::{Child, Streams};
use crate::ext4::{BLOCK, FileType, Meta, Time};
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
        Ok(Self {
            path,
            file,
            packed,
            size,
        })
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
        let child =
            child.map_err(|error| self.wrong(format!("it is packed with {name}, which can not be run: {error}")))?;
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
                content
                    .take(LARGEST + 1)
                    .read_to_end(&mut text)
                    .map_err(|error| self.cut(&error))?;
                found.add(path, (member.meta.kind == FileType::Regular).then_some(text));
            }
            match member.kind {
                EntryType::Directory if is_new => survey.directory(),
                EntryType::Directory | EntryType::Link => {}
                EntryType::GNUSparse => {
                    let data = without_holes(content).map_err(|error| self.cut(&error))?;
                    survey.content(data, data);
                }
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
        filler
            .enter(directory(b"", fresh(0o755), Vec::new()))
            .map_err(stopped)?;
        self.members(&mut |member, content| {
            if let Some(reason) = excluded(exclusions, &member) {
                filler.report.left_out(&member.path, reason);
                return Ok(());
            }
            for parent in parents(&member.path) {
                if !filler.has_directory(parent) {
                    filler
                        .enter(directory(parent, fresh(0o755), Vec::new()))
                        .map_err(stopped)?;
                }
            }
            let Member {
                path, meta, attributes, ..
            } = member;
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
        let listener = Listener::default();
        let mut archive = tar::Archive::new(listener.hear(self.reader()?));
        let entries = archive.entries().map_err(|error| self.cut(&error))?;
        listener.begin();
        for entry in entries {
            let mut entry = entry.map_err(|error| self.cut(&error))?;
            let extended = listener.end().map_err(|why| self.wrong(why))?;
            let member = member(&entry, extended).map_err(|why| self.wrong(why))?;
            take(member, &mut entry)?;
            io::copy(&mut entry, &mut io::sink()).map_err(|error| self.cut(&error))?;
            listener.begin();
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
                return Err(format!(
                    "{path} is a link to {}, which is no file before it",
                    shown(&member.target)
                ));
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

/// How much of a sparse file is not holes, read to its end.
fn without_holes(content: &mut dyn Read) -> io::Result<u64> {
    let (mut data, mut block) = (0, Vec::with_capacity(BLOCK));
    loop {
        block.clear();
        match content.take(BLOCK as u64).read_to_end(&mut block)? {
            0 => return Ok(data),
            length if block.iter().any(|byte| *byte != 0) => data += length as u64,
            _ => {}
        }
    }
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
