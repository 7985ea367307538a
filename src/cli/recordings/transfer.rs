// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm recordings export` and `import`.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::Error;
use crate::base::signals;
use crate::base::text::{self, bytes};
use crate::cli::runs::foreground::Foreground;
use crate::cli::terminal::progress::Progress;
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::recording::library::export::With;
use crate::recording::library::import::Imported;
use crate::recording::{self, Library, Recording};

pub(super) fn export(recording: &Recording, output: Option<&Path>, with: With, replace: bool) -> Result<(), Error> {
    let (guest, id) = (recording.guest(), recording.id());
    let path = output.map_or_else(|| PathBuf::from(format!("{guest}-{id}.ttvm")), Path::to_path_buf);
    let _deferred = signals::defer();
    let mut progress = Progress::of(format!("exporting {guest} {id}"));
    let mut update = |done, total| progress.update(done, total);
    if path == Path::new("-") {
        let stdout = io::stdout();
        if stdout.is_terminal() {
            let message =
                "a recording is nothing to look at: send the output to a file or program, or name a file with -o";
            return Err(Error::Usage(message.to_owned()));
        }
        let failed = |source| recording::Error::File {
            action: "write",
            path: PathBuf::from("the standard output"),
            source,
        };
        let output = stdout.as_fd().try_clone_to_owned().map_err(failed)?;
        let arrival = signals::arrival().map_err(failed)?;
        let mut output = BufWriter::new(signals::Waiting::new(File::from(output), arrival, ended));
        recording.export(&mut output, Path::new("the standard output"), with, &mut update)?;
        return Ok(());
    }
    let size = recording.export_to(&path, with, replace, &mut update)?;
    drop(progress);
    writeln!(
        io::stdout(),
        "exported {guest} {id} to {} ({})",
        path.display(),
        bytes(size)
    )?;
    Ok(())
}

fn ended() -> io::Error {
    io::Error::other("a signal has ended it")
}

pub(super) fn import(places: &Places, file: &Path, guest: Option<&GuestName>, disks: &[PathBuf]) -> Result<(), Error> {
    let library = Library::open(places.state_dir());
    let is_stdin = file == Path::new("-");
    let failed = |action, source| recording::Error::File {
        action,
        path: file.to_owned(),
        source,
    };
    // Before signals are deferred: a named pipe may let one wait here, too.
    let input = match is_stdin {
        true => io::stdin().as_fd().try_clone_to_owned().map(File::from),
        false => File::open(file),
    };
    let input = input.map_err(|error| failed("open", error))?;
    let _deferred = signals::defer();
    let arrival = signals::arrival().map_err(|error| failed("wait for", error))?;
    let mut input = signals::Waiting::new(input, arrival, ended);
    let name = match is_stdin {
        true => "the standard input".to_owned(),
        false => file.display().to_string(),
    };
    let mut progress = Progress::of(format!("importing {name}"));
    let imported = library.import(&mut input, &name, guest, &mut |done, total| {
        progress.update(done, total)
    })?;
    drop(progress);
    let mut out = io::stdout().lock();
    let recording = match imported {
        Imported::New(recording) => {
            writeln!(out, "imported {} {}", recording.guest(), recording.id())?;
            recording
        }
        Imported::Already(recording) => {
            writeln!(out, "{} {} is already there", recording.guest(), recording.id())?;
            recording
        }
    };
    for disk in disks {
        let mut progress = Progress::of(format!("importing {}", disk.display()));
        library.import_disk(&recording, disk, &mut |done, total| progress.update(done, total))?;
    }
    // A guest's file that is wrong is told of when it is needed.
    let run = Foreground::new(places, recording.guest());
    let here = run.and_then(|run| run.guest_if_any()).ok().flatten();
    for disk in &recording.manifest().disks {
        if recording.base_path(disk, here.as_ref()).is_none() {
            writeln!(
                out,
                "note: a replay needs what disk {} was made from, {} with {}: import it with --disk FILE, or export with --with-disks",
                disk.target,
                text::line(&disk.origin.to_string()),
                disk.digest
            )?;
        }
    }
    Ok(())
}
