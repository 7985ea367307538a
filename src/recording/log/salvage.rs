// SPDX-License-Identifier: MIT OR Apache-2.0
//! A whole recording of one that nobody finished, up to the last moment that its log has.
//!
//! QEMU's log says how far the run is known: it is cut there, and so is the console. What was on the disks then, nobody knows.
//! The manifest gets its result when everything else is on the disk: whoever is killed at it leaves what can be salvaged again.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::libc::O_NOFOLLOW;

use crate::base::error::one_line;
use crate::base::fail_point;
use crate::base::progress::Progress;
use crate::config::types::GuestName;
use crate::file::lock::Lock;
use crate::qemu::cage;
use crate::recording::branch::branch_log;
use crate::recording::error::Error;
use crate::recording::library::draft::{self, CONSOLE, LOG};
use crate::recording::library::manifest::{Manifest, Outcome, RunExit};
use crate::recording::library::removal::try_lock;
use crate::recording::library::sealed::Unsealed;
use crate::recording::library::stored::{LOCK, Recording, open_lock};
use crate::recording::library::{Entry, Library, State};
use crate::recording::replay::verdict::grouped;
use crate::recording::session::devices;

/// What is read of a file's end at once.
const PIECE: u64 = 1 << 16;

/// What was salvaged.
#[derive(Debug)]
pub struct Salvaged {
    /// The recording, which is whole now.
    pub recording: Recording,
    /// Instructions of its run up to the end.
    pub instructions: u64,
    /// Bytes that are known of what was printed up to there.
    pub console: u64,
    /// Bytes of the log behind the end.
    pub lost: u64,
}

impl fmt::Display for Salvaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}: salvaged: {} instructions, console {} bytes",
            self.recording.guest(),
            self.recording.id(),
            grouped(self.instructions),
            self.console
        )?;
        match self.lost {
            0 => Ok(()),
            1 => f.write_str("; 1 byte of the log was lost"),
            lost => write!(f, "; {lost} bytes of the log were lost"),
        }
    }
}

impl Library {
    /// Makes `entry`, which is incomplete, a whole recording of what its log has; `None` if it is whole.
    ///
    /// # Errors
    ///
    /// If it is being recorded or used, if it is damaged, if QEMU did not record it, or if not one instruction was logged.
    pub fn salvage(&self, entry: &Entry, progress: &mut Progress<'_>) -> Result<Option<Salvaged>, Error> {
        let (guest, id) = (entry.guest.clone(), entry.id.clone());
        match &entry.state {
            State::Complete => return Ok(None),
            State::Recording => return Err(Error::BeingMade { guest, id }),
            State::Damaged(why) => return Err(damaged(entry, why)),
            State::Incomplete(_) => {}
        }
        let path = entry.directory.join(LOCK);
        let lock = there(open_lock(&path)).map_err(Error::file("lock", &path))?;
        let lock = lock.ok_or_else(|| nothing(entry, replay_log::Error::Nothing))?;
        let _lock = alone(entry, &path, lock)?;
        // It may have been finished before the lock was ours.
        let mut manifest = match Manifest::load(&entry.directory) {
            Ok(manifest) => manifest,
            Err(Unsealed::Missing) => return Err(nothing(entry, replay_log::Error::Nothing)),
            Err(why) => return Err(damaged(entry, &why.to_string())),
        };
        if manifest.result.is_some() {
            draft::forget_why(&entry.directory);
            return Ok(None);
        }
        if !manifest.engine.toolstack.is_emulated() {
            return Err(Error::NotEmulated { guest, id });
        }
        let (found, written) = salvage_log(entry, &manifest)?;
        fail_point::reach("salvage.log");
        let path = entry.directory.join(CONSOLE);
        let printed = cut_console(&path, found.printed).map_err(Error::file("salvage", &path))?;
        let (log, console) = draft::digests(&entry.directory, progress)?;
        manifest.result = Some(Outcome {
            ended: written.max(manifest.run.started),
            exit: RunExit::Cut,
            instructions: Some(found.instructions),
            console_complete: printed == found.printed,
            log,
            console,
            moments: Vec::new(),
        });
        draft::complete(&entry.directory, &manifest)?;
        let directory = entry.directory.clone();
        Ok(Some(Salvaged {
            recording: Recording::new(self.state_directory(), directory, guest, id, manifest),
            instructions: found.instructions,
            console: printed,
            lost: found.lost,
        }))
    }

    /// Salvages what is incomplete of `guest`, before there is more. Nobody has asked for it: what cannot be is only told.
    pub(in crate::recording) fn salvage_all(&self, guest: &GuestName, progress: &mut Progress<'_>) {
        let entries = self.list(Some(guest)).unwrap_or_else(|error| {
            tracing::warn!(ttvm_guest = %guest, "nothing is salvaged: {}", one_line(&error));
            Vec::new()
        });
        let is_ours = |entry: &&Entry| {
            let emulated = |manifest: &Manifest| manifest.engine.toolstack.is_emulated();
            matches!(entry.state, State::Incomplete(_)) && entry.manifest.as_ref().is_some_and(emulated)
        };
        for entry in entries.iter().filter(is_ours) {
            match self.salvage(entry, progress) {
                Ok(Some(salvaged)) => tracing::info!(ttvm_guest = %guest, "{salvaged}"),
                Ok(None) => {}
                Err(error) => tracing::warn!(ttvm_guest = %guest, "{}", one_line(&error)),
            }
        }
    }
}

fn nothing(entry: &Entry, source: replay_log::Error) -> Error {
    Error::NothingToSalvage {
        guest: entry.guest.clone(),
        id: entry.id.clone(),
        source,
    }
}

fn damaged(entry: &Entry, why: &str) -> Error {
    Error::Damaged {
        guest: entry.guest.clone(),
        id: entry.id.clone(),
        why: why.to_owned(),
    }
}

/// `None` if it is not there.
fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// The lock of `file`, which is at `path`, alone.
fn alone(entry: &Entry, path: &Path, file: File) -> Result<Lock, Error> {
    match try_lock(&file).map_err(Error::file("lock", path))? {
        true => Ok(Lock::taken(file)),
        false => Err(Error::InUse {
            guest: entry.guest.clone(),
            id: entry.id.clone(),
        }),
    }
}

/// A file of a recording, to be read and written.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(O_NOFOLLOW);
    options
}

/// Makes the log a whole one, and ours alone if it was lent to QEMU. Tells when QEMU wrote to it last, in seconds since 1970, and
/// leaves it as if nobody had since: salvaging is no part of the run.
fn salvage_log(entry: &Entry, manifest: &Manifest) -> Result<(replay_log::Salvaged, u64), Error> {
    let path = entry.directory.join(LOG);
    let failed = || Error::file("salvage", &path);
    let log = there(options().open(&path)).map_err(failed())?;
    let mut log = log.ok_or_else(|| nothing(entry, replay_log::Error::Nothing))?;
    // Whoever recorded is dead, but QEMU, which has this lock, may be just dying.
    let _lock = alone(entry, &path, log.try_clone().map_err(failed())?)?;
    let own = branch_log::path(&entry.directory);
    let branch = there(options().open(&own)).map_err(Error::file("salvage", &own))?;
    let data = branch.as_ref().unwrap_or(&log).metadata();
    let written = data.and_then(|data| data.modified()).map_err(failed())?;
    if let Some(branch) = branch {
        let _lock = alone(entry, &own, branch)?;
        if !branch_log::finish(&entry.directory, devices(manifest))? {
            return Err(nothing(entry, replay_log::Error::Nothing));
        }
    }
    let found = replay_log::salvage(&mut log, devices(manifest)).map_err(|error| match error {
        replay_log::Error::Read(error) => failed()(error),
        error => nothing(entry, error),
    })?;
    cage::take_back(&log).map_err(failed())?;
    log.set_modified(written).map_err(failed())?;
    Ok((found, seconds(written)))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Cuts the console at `path` to the bytes that were `printed` up to the end; returns how many of them it has. After a power cut
/// zeros may stand for its end.
fn cut_console(path: &Path, printed: u64) -> io::Result<u64> {
    let mut console = options().create(true).truncate(false).open(path)?;
    let length = without_zeros(&mut console)?.min(printed);
    console.set_len(length)?;
    Ok(length)
}

/// The length of a file without the zeros at its end.
fn without_zeros(file: &mut File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    while end > 0 {
        let start = end.saturating_sub(PIECE);
        file.seek(SeekFrom::Start(start))?;
        let mut piece = Vec::new();
        file.by_ref().take(end - start).read_to_end(&mut piece)?;
        if let Some(last) = piece.iter().rposition(|byte| *byte != 0) {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
