// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm report`: a recording as a page for a browser.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::base::error::Exit;
use crate::base::signals;
use crate::base::text::bytes;
use crate::cli::terminal::progress::Progress;
use crate::cli::{Error, guest_name};
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::file::{self, Seen};
use crate::recording::{self, Library};
use crate::report;

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The guest
    #[arg(value_parser = guest_name)]
    guest: GuestName,
    /// The recording, or the beginning of its id; without, the newest complete one
    id: Option<String>,
    /// The file; "-" is the standard output. An older report there is replaced, nothing else [default: GUEST-ID.html]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(in crate::cli) fn run(places: &Places, arguments: &Arguments) -> Result<Exit, Error> {
    let library = Library::open(places.state_dir());
    let recording = library.find(&arguments.guest, arguments.id.as_deref())?;
    let (guest, id) = (recording.guest(), recording.id());
    let path = arguments
        .output
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{guest}-{id}.html")));
    let is_stdout = path == Path::new("-");
    // Before anything is read.
    let seen = if is_stdout { None } else { look(&path)? };
    let _deferred = signals::defer();
    let mut progress = Progress::of(format!("reading {guest} {id}"));
    let page = report::page(&recording, &mut |done, total| progress.update(done, total))?;
    drop(progress);
    if is_stdout {
        io::stdout().lock().write_all(page.as_bytes())?;
        return Ok(Exit::Done);
    }
    let written = match seen {
        // What a guest prints may be secret: it is for whoever it is given to.
        None => file::create(&path, page.as_bytes(), 0o600),
        Some(seen) => file::replace_seen(&path, page.as_bytes(), 0o600, &seen),
    };
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(Error::NoReport(path)),
        written => written.map_err(failed("write", &path))?,
    }
    writeln!(
        io::stdout(),
        "the report of {guest} {id} is in {} ({})",
        path.display(),
        bytes(page.len() as u64)
    )?;
    Ok(Exit::Done)
}

/// An older report at `path`; `None` if nothing is there.
fn look(path: &Path) -> Result<Option<Seen>, Error> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("look at", path)(error).into()),
        // Reading a pipe would wait for somebody.
        Ok(data) if !data.is_file() => return Err(Error::NoReport(path.to_owned())),
        Ok(_) => {}
    }
    // Of a file that is something else, which may be a disk's image, no more than its beginning.
    let mut beginning = Vec::new();
    let read = File::open(path).and_then(|file| file.take(report::MARK.len() as u64).read_to_end(&mut beginning));
    read.map_err(failed("read", path))?;
    if beginning != report::MARK.as_bytes() {
        return Err(Error::NoReport(path.to_owned()));
    }
    let seen = Seen::read(path).map_err(failed("read", path))?;
    match seen.content() {
        Some(content) if content.starts_with(report::MARK.as_bytes()) => Ok(Some(seen)),
        Some(_) => Err(Error::NoReport(path.to_owned())),
        None => Ok(None),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> recording::Error {
    move |source| recording::Error::File {
        action,
        path: path.to_owned(),
        source,
    }
}
