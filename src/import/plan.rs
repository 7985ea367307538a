// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file of xm or xl, the guest's file that is made of it, and where that goes.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::Error;
use super::guess::{Doubt, guess};
use super::output::{self, Section};
use super::translate::{Source, translate};
use super::value::{Document, Note, Value};
use super::{Dialect, content, is_stdin, parse};
use crate::config::guest::Toolstack;
use crate::config::host::HostConfig;
use crate::config::places::Places;
use crate::config::types::{GuestName, Size, Target, Volume};
use crate::config::{self, guests};
use crate::file;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The file of xm or xl; `-` is the standard input.
    pub file: &'a Path,
    /// The guest's name; without one, the file says it.
    pub name: Option<GuestName>,
    /// What is to start the guest; without it, what the host's guests have by default, and `xm` for a file of TT Xen's.
    pub toolstack: Option<Toolstack>,
    /// Whose language the file is written in; without it, that is found out.
    pub dialect: Option<Dialect>,
    /// Disks that are to be fresh snapshots of these volumes.
    pub origins: &'a [(Target, Volume)],
}

/// What LVM knows of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The volume it is a snapshot of.
    pub origin: Option<Volume>,
    /// Its room for changes, if it is a thick snapshot.
    pub room: Option<Size>,
}

/// What LVM says when it is asked of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Nobody asked, or it could not say.
    Nothing,
    /// There is no such volume.
    Unknown,
    /// There is.
    Known(Known),
}

/// A guest's file before it is written.
#[derive(Debug)]
pub struct Plan {
    /// The guest.
    pub name: GuestName,
    /// Whose language the file is written in.
    pub dialect: Dialect,
    /// What starts the guest.
    pub toolstack: Toolstack,
    /// The guest's file, as messages call it.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
    /// Every line that was not carried over, or not as it stands, in the order of the file.
    pub notes: Vec<Note>,
    /// What is to be done before the guest can be started: files it names that are not there.
    pub missing: Vec<String>,
    /// Why the guest cannot be taken as it is, if so.
    refusal: Option<config::Error>,
    /// Whether there is a guest of that name.
    exists: bool,
    source: PathBuf,
}

/// Reads the file and makes the guest's file of it. `lvm` says what is known of a volume. Nothing is changed.
pub fn plan(
    places: &Places,
    host: &HostConfig,
    request: &Request<'_>,
    lvm: &dyn Fn(&Volume) -> Asked,
) -> Result<Plan, Error> {
    let bytes = content(request.file)?;
    let (dialect, document) = read(&bytes, request)?;
    let toolstack = request.toolstack.unwrap_or_else(|| toolstack(&document, host));
    let (name, called) = name(request, dialect, &document)?;
    let source = Source {
        path: request.file,
        dialect,
        toolstack,
        host,
        origins: request.origins,
        lvm,
    };
    let mut translated = translate(document, &source)?;
    translated.notes.splice(0..0, called);
    let file = match is_stdin(request.file) {
        true => "the standard input".to_owned(),
        false => request.file.display().to_string(),
    };
    let head = Section {
        remarks: vec![
            format!(
                "Made by ttvm from {file}, a file of {}. From now on this file counts; change it as you like, and then:",
                dialect.as_str()
            ),
            format!("ttvm guest check {name}"),
        ],
        ..Section::default()
    };
    let mut sections = vec![head];
    sections.extend(translated.sections);
    if !translated.notes.is_empty() {
        let lines = translated.notes.iter().map(|note| format!("  {note}"));
        let first = format!("Lines of {file} that were not carried over, or not as they stand:");
        sections.push(Section {
            remarks: std::iter::once(first).chain(lines).collect(),
            ..Section::default()
        });
    }
    let text = output::render(&sections);
    let path = guests::path(places, &name);
    let (missing, refusal) = check(places, host, &name, &text);
    Ok(Plan {
        name,
        dialect,
        toolstack,
        exists: fs::symlink_metadata(places.real(&path)).is_ok(),
        path,
        text,
        notes: translated.notes,
        missing,
        refusal,
        source: request.file.to_owned(),
    })
}

/// What people take for a file of xl or xm, by its beginning, and what makes one of it.
fn instead(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    Some(match bytes.trim_ascii_start() {
        [b'<', ..] => (
            "XML, as libvirt has it",
            "`virsh domxml-to-native xen-xl FILE` makes a file of xl of it",
        ),
        [b'(', b'v', b'm', ..] | [b'(', b'd', b'o', b'm', b'a', b'i', b'n', ..] => (
            "xend's own description of a domain",
            "take the file that the guest was made from, or write one",
        ),
        [b'{', ..] => (
            "JSON, as xl prints it",
            "take the file that the guest was made from, or write one",
        ),
        [0x1f, 0x8b, ..] => ("packed by gzip", "gzip -d first"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => ("packed by xz", "xz -d first"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("packed by zstd", "zstd -d first"),
        _ => return None,
    })
}

/// The file, in the language that is asked for or that it is written in.
fn read(bytes: &[u8], request: &Request<'_>) -> Result<(Dialect, Document), Error> {
    let path = request.file.to_owned();
    if let Some((what, remedy)) = instead(bytes) {
        return Err(Error::Other { path, what, remedy });
    }
    let syntax = |path, dialect: Dialect, mistake| Error::Syntax {
        path,
        mistake,
        program: match dialect {
            Dialect::Xm => "xm would not",
            Dialect::Xl => "xl would not",
        },
    };
    match request.dialect {
        Some(dialect) => match parse(bytes, dialect) {
            Ok(document) => Ok((dialect, document)),
            Err(mistake) => Err(syntax(path, dialect, mistake)),
        },
        None => guess(bytes).map_err(|doubt| match doubt {
            Doubt::Neither(mistake) => Error::Syntax {
                path,
                mistake,
                program: "neither xl nor xm would",
            },
            Doubt::ForXl { mistake, key, line } => Error::ForXl {
                path,
                mistake,
                key,
                line,
            },
        }),
    }
}

/// What the file is for, if nobody says.
fn toolstack(document: &Document, host: &HostConfig) -> Toolstack {
    match host.guest.toolstack {
        Toolstack::Xl if document.is_for_tt_xen() => Toolstack::Xm,
        other => other,
    }
}

/// What files of guests end with. Whatever else is behind a dot is part of the name.
const EXTENSIONS: [&str; 11] = [
    "cfg", "conf", "config", "domu", "hvm", "pv", "py", "sxp", "xen", "xl", "xm",
];

/// The guest's name, and what there is to say about it.
fn name(request: &Request<'_>, dialect: Dialect, document: &Document) -> Result<(GuestName, Option<Note>), Error> {
    if let Some(name) = &request.name {
        return Ok((name.clone(), None));
    }
    let path = || request.file.to_owned();
    if let Some(line) = document.unknown.get("name") {
        return Err(Error::UnknownName {
            path: path(),
            line: *line,
        });
    }
    let setting = document.settings.iter().find(|setting| setting.key == "name");
    let (text, line) = match setting.map(|setting| (&setting.value, setting.line)) {
        Some((Value::Text(text), line)) => (text.clone(), line),
        Some((Value::Number(number), line)) => (number.to_string(), line),
        Some(_) => return Err(Error::Nameless { path: path() }),
        // xm takes the file's name then.
        None => match request.file.file_name().and_then(|name| name.to_str()) {
            Some(file) if dialect == Dialect::Xm && !is_stdin(request.file) => return named_after(request.file, file),
            _ => return Err(Error::Nameless { path: path() }),
        },
    };
    let name = text.parse().map_err(|source| Error::Name {
        path: path(),
        line,
        source,
    })?;
    Ok((name, None))
}

/// The guest that has the name of its file, as xm does it, but for what says that it is a guest's file.
fn named_after(path: &Path, file: &str) -> Result<(GuestName, Option<Note>), Error> {
    let known = |extension: &str| EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str());
    let stem = file
        .rsplit_once('.')
        .filter(|(stem, extension)| !stem.is_empty() && known(extension));
    let name = stem.map_or(file, |(stem, _)| stem);
    let name = name.parse().map_err(|_| Error::Nameless { path: path.to_owned() })?;
    let note = stem.map(|(stem, _)| {
        let why = format!("the file has none: the guest is called \"{stem}\" after it, and xm would call it {file:?}");
        Note::of(1, "name", why)
    });
    Ok((name, note))
}

/// What our own reader says of it: files that are missing yet, and whether anything else is wrong.
fn check(places: &Places, host: &HostConfig, name: &GuestName, text: &str) -> (Vec<String>, Option<config::Error>) {
    let Err(all) = guests::check(places, host, name, text, true) else {
        return (Vec::new(), None);
    };
    match (all, guests::check(places, host, name, text, false)) {
        (_, Err(error)) => (Vec::new(), Some(error)),
        (config::Error::Invalid(missing), Ok(_)) => (missing.into_iter().map(|it| it.message).collect(), None),
        (error, Ok(_)) => (Vec::new(), Some(error)),
    }
}

impl Plan {
    /// Why the guest cannot be taken as it is, if so.
    pub fn refusal(&self) -> Option<&config::Error> {
        self.refusal.as_ref()
    }

    /// Whether there is a guest of that name, whose file is never replaced.
    pub fn exists(&self) -> bool {
        self.exists
    }

    /// Writes the guest's file. One that is there is never replaced.
    pub fn write(self, places: &Places) -> Result<Self, Error> {
        let path = places.real(&self.path);
        let exists = || Error::Exists {
            path: self.path.clone(),
        };
        if fs::symlink_metadata(&path).is_ok() {
            return Err(exists());
        }
        if let Some(source) = self.refusal {
            return Err(Error::Refused {
                path: self.source,
                source,
            });
        }
        let directory = path.parent().unwrap_or(&path);
        let written = fs::create_dir_all(directory).and_then(|()| file::create(&path, self.text.as_bytes(), 0o644));
        match written {
            Ok(()) => Ok(self),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(exists()),
            Err(source) => Err(Error::File {
                action: "write",
                path: self.path,
                source,
            }),
        }
    }
}
