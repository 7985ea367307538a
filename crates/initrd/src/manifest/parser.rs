// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading the list, which somebody may have edited.

use std::io::{BufRead, Read};
use std::path::PathBuf;

use super::{Archive, Entry, Line, Manifest, NAME, Owners, Padding, Segment, VERSION};
use crate::compression::Compression;
use crate::error::Error;
use crate::names;
use crate::reader::boot_config;
use crate::reader::limits::Limits;

pub(super) struct Parser {
    path: PathBuf,
    line: usize,
    owners: Option<Owners>,
    segments: Vec<Segment>,
    segment: Option<Segment>,
    archive: Option<Archive>,
    boot_config: Vec<u8>,
    limits: Limits,
}

/// A line: more than the longest name can take, and a boot configuration.
const LONGEST: u64 = 1 << 20;
const MANY: &str = "there is more in it than an image can have";

impl Parser {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            line: 0,
            owners: None,
            segments: Vec::new(),
            segment: None,
            archive: None,
            boot_config: Vec::new(),
            limits: Limits::new(0),
        }
    }

    fn wrong(&self, why: impl Into<String>) -> Error {
        Error::Manifest {
            path: self.path.clone(),
            line: self.line,
            why: why.into(),
        }
    }

    pub(super) fn parse(mut self, from: &mut dyn BufRead) -> Result<Manifest, Error> {
        let mut text = String::new();
        loop {
            text.clear();
            self.line += 1;
            let length = Read::take(&mut *from, LONGEST).read_line(&mut text);
            let length = length.map_err(Error::io("read", &self.path))?;
            if length == 0 {
                break;
            }
            if length as u64 == LONGEST {
                return Err(self.wrong("this line has no end"));
            }
            if text.trim().is_empty() {
                continue;
            }
            let line =
                serde_json::from_str(&text).map_err(|error| self.wrong(names::escape(error.to_string().as_bytes())))?;
            self.take(line).map_err(|why| self.wrong(why))?;
        }
        if self.segment.is_some() || self.archive.is_some() {
            return Err(self.wrong("it ends in the middle of a segment"));
        }
        match self.owners {
            Some(owners) => Ok(Manifest {
                owners,
                segments: self.segments,
                boot_config: self.boot_config,
            }),
            None => Err(self.wrong("it is empty")),
        }
    }

    /// Whether the list has ended with that its archive is here.
    fn is_here(&self) -> bool {
        let mut archives = self.segments.iter().flat_map(|segment| &segment.archives);
        archives.any(|archive| archive.directory.is_empty())
    }

    fn take(&mut self, line: Line) -> Result<(), &'static str> {
        let is_here = self.is_here();
        match (line, self.owners, &mut self.segment, &mut self.archive) {
            (
                Line::Initrd {
                    version: VERSION,
                    owners,
                },
                None,
                ..,
            ) => self.owners = Some(owners),
            _ if !self.boot_config.is_empty() => return Err("nothing can follow a boot configuration"),
            (Line::BootConfig { bytes }, _, None, None) if !self.segments.is_empty() => {
                let bytes = names::unescape(&bytes).filter(|bytes| boot_config::is_one(bytes));
                self.boot_config =
                    bytes.ok_or("that is no boot configuration: take it out, and add it by bootconfig(8)")?;
            }
            (Line::Initrd { .. }, None, ..) => return Err("it was written by another version of ttvm"),
            (_, None, ..) => return Err("it does not begin as a list of ttvm"),
            (Line::Here {}, _, None, None) => {
                let [Segment { archives, .. }] = &mut self.segments[..] else {
                    return Err("there is more than one segment, each with a directory of its own");
                };
                let [archive] = &mut archives[..] else {
                    return Err("there is more than one archive, each with a directory of its own");
                };
                archive.directory.clear();
            }
            (Line::Segment { compression, level }, _, None, None) if !is_here => {
                let sound = |level: &i32| compression.levels().is_some_and(|levels| levels.contains(level));
                if level.is_some_and(|level| !sound(&level)) {
                    return Err("that compression has no such level");
                }
                self.limits.segment().map_err(|_| MANY)?;
                self.segment = Some(Segment {
                    compression,
                    level,
                    archives: Vec::new(),
                    padding: Padding::Align(4),
                });
            }
            (Line::Archive { directory }, _, Some(segment), None) => {
                let known = self.segments.iter().chain(std::iter::once(&*segment));
                let mut archives = known.flat_map(|segment| &segment.archives);
                let is_name = !directory.is_empty() && !directory.contains(['/', '\0']) && !directory.starts_with('.');
                if !is_name || directory == NAME || archives.any(|archive| archive.directory == directory) {
                    return Err("that is not the name of a directory for this archive alone");
                }
                if segment.compression == Compression::None && !segment.archives.is_empty() {
                    return Err("what is not compressed is one archive");
                }
                self.archive = Some(Archive {
                    directory,
                    entries: Vec::new(),
                    implied: Vec::new(),
                    padding: Padding::Align(4),
                    uppercase: false,
                });
            }
            (Line::Entry(entry), _, _, Some(archive)) => {
                let name = names::unescape(&entry.name).ok_or("that name is not written as it has to be")?;
                names::parts(&name)?;
                self.limits.entry(name.len()).map_err(|_| MANY)?;
                let text = String::new();
                archive.entries.push((name, Entry { name: text, ..entry }));
            }
            (Line::Implied { name }, _, _, Some(archive)) => {
                let name = names::unescape(&name).ok_or("that name is not written as it has to be")?;
                names::parts(&name)?;
                self.limits.entry(name.len()).map_err(|_| MANY)?;
                archive.implied.push(name);
            }
            (Line::ArchiveEnd { padding, uppercase }, _, Some(segment), archive) if padding.is_sound() => {
                let mut archive = archive.take().ok_or("there is no archive that could end here")?;
                (archive.padding, archive.uppercase) = (padding, uppercase);
                segment.archives.push(archive);
            }
            (Line::SegmentEnd { padding }, _, segment, None) if padding.is_sound() => {
                let mut segment = segment.take().ok_or("there is no segment that could end here")?;
                segment.padding = padding;
                self.segments.push(segment);
            }
            _ => return Err("that cannot be here"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Manifest, String> {
        let parsed = Parser::new("list".into()).parse(&mut text.as_bytes());
        parsed.map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_no_list() {
        let head = "{\"ttvm-initrd\":{\"version\":1,\"owners\":\"files\"}}\n";
        let segment = "{\"segment\":{\"compression\":\"zstd\"}}\n";
        let archive = |name: &str| format!("{{\"archive\":{{\"directory\":\"{name}\"}}}}\n");
        let end = "{\"archive-end\":{\"padding\":{\"align\":4}}}\n{\"segment-end\":{\"padding\":{\"bytes\":0}}}\n";
        let whole = format!("{head}{segment}{}{end}", archive("1"));
        assert_eq!(parse(&whole).unwrap().segments.len(), 1);
        for (text, why) in [
            (String::new(), "it is empty"),
            (segment.to_owned(), "does not begin"),
            (head.replace(":1", ":2"), "another version"),
            (format!("{head}{segment}"), "in the middle"),
            (format!("{head}{}", archive("1")), "cannot be here"),
            (
                format!("{head}{segment}{}", archive("../1")),
                "not the name of a directory",
            ),
            (
                format!("{head}{segment}{}", archive("..")),
                "not the name of a directory",
            ),
            (
                format!("{whole}{segment}{}", archive("1")),
                "not the name of a directory",
            ),
            (whole.replace("\"align\":4", "\"align\":3"), "cannot be here"),
            (whole.replace("zstd", "zip"), "unknown variant"),
        ] {
            let answer = parse(&text).unwrap_err();
            assert!(answer.contains(why), "{text}: {answer}");
        }
    }
}
