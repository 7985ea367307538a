// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log of a recorded run: checked before QEMU sees it, and given to QEMU so that it ends where the run did.

pub mod activity;
pub mod point;
pub mod salvage;
#[cfg(test)]
pub(super) mod written;
use std::fs;
use std::path::{Path, PathBuf};

use replay_log::Summary;

use super::Recording;
use super::library::draft::new_file;
use super::session::{Error, Listener, Removed, devices, different};
use crate::file;

/// Where a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// Instructions that the guest had executed.
    pub(super) instructions: u64,
    /// Bytes of the log up to there; the last of them is the event of the end.
    length: u64,
}

impl End {
    fn of(log: &Summary) -> Option<Self> {
        log.end.map(|end| Self {
            instructions: end.instructions,
            length: end.behind,
        })
    }

    /// The last instruction at which a replay can be stopped, and goes on. If it ends there, QEMU ends by itself.
    pub(super) fn last_stop(self) -> u64 {
        self.instructions.saturating_sub(1)
    }
}

/// Whether QEMU can be shown the log, which may be anybody's: it believes what is in one.
pub(super) fn check(recording: &Recording, listener: &mut dyn Listener) -> Result<End, Error> {
    let manifest = recording.manifest();
    let failed = failed(recording);
    let log = file::open_content(&recording.log()).map_err(|error| failed(error.into()))?;
    let size = log.metadata().map_err(|error| failed(error.into()))?.len();
    let summary = replay_log::check(log, devices(manifest), &mut |done| {
        listener.progress("reading the log", done, size);
        !crate::base::signals::waiting()
    });
    let summary = summary.map_err(|error| match error {
        replay_log::Error::Interrupted => Error::Interrupted,
        error => failed(error),
    })?;
    let differs = |what| different(recording, vec![what]);
    let result = manifest.result.as_ref().ok_or(Error::Interrupted)?;
    let end = End::of(&summary).ok_or_else(|| differs("replay.log: it does not say where the run ended".to_owned()))?;
    let said = result.instructions.unwrap_or_default();
    // Until format 2, QEMU was asked a little later.
    let is_the_end = match manifest.format {
        1 => (end.instructions..=summary.instructions).contains(&said),
        _ => said == end.instructions,
    };
    if let Some(moment) = result
        .moments
        .iter()
        .find(|moment| moment.instructions > end.last_stop())
    {
        let at = moment.instructions;
        return Err(differs(format!(
            "moment: {at} instructions are behind the end of the run"
        )));
    }
    match is_the_end {
        true => Ok(end),
        false => Err(differs(format!(
            "instructions: the manifest has {said}, and the run in replay.log ends after {}",
            end.instructions
        ))),
    }
}

/// Where the run of `recording` ends, as its log says.
pub(super) fn end(recording: &Recording) -> Result<End, Error> {
    let failed = failed(recording);
    let log = file::open_content(&recording.log()).map_err(|error| failed(error.into()))?;
    let summary = replay_log::check(log, devices(recording.manifest()), &mut |_| true).map_err(&failed)?;
    End::of(&summary).ok_or_else(|| failed(replay_log::Error::Nothing))
}

fn failed(recording: &Recording) -> impl Fn(replay_log::Error) -> Error {
    |source| Error::Log {
        guest: recording.guest().clone(),
        id: recording.id().to_string(),
        source,
    }
}

/// The log as QEMU is to read it: it ends with the run, as it does since format 2. A copy is removed with this.
pub(super) struct Log {
    path: PathBuf,
    _copy: Option<Removed>,
}

impl Log {
    /// That of `recording`; a copy that is needed is made in `overlays`.
    pub(super) fn of(recording: &Recording, end: End, overlays: &Path) -> Result<Self, Error> {
        Self::up_to(recording, end.length, overlays)
    }

    /// The same for a debugger: the guest comes to its last instruction and waits there. Behind its end there is no way back:
    /// QEMU 7.2 aborts ("invalid runstate transition: 'shutdown' -> 'running'").
    pub(super) fn without_end(recording: &Recording, end: End, overlays: &Path) -> Result<Self, Error> {
        Self::up_to(recording, end.length - 1, overlays)
    }

    fn up_to(recording: &Recording, length: u64, overlays: &Path) -> Result<Self, Error> {
        let own = recording.log();
        let failed = failed(recording);
        let mut log = file::open_content(&own).map_err(|error| failed(error.into()))?;
        if log.metadata().map_err(|error| failed(error.into()))?.len() == length + 1 {
            return Ok(Self { path: own, _copy: None });
        }
        let path = overlays.join(format!("{}-replay.log", recording.guest()));
        let unwritten = |source| Error::Write {
            path: path.clone(),
            source,
        };
        file::private_directory(overlays).map_err(unwritten)?;
        // What a replay that was killed has left. The guest's lock is ours.
        drop(fs::remove_file(&path));
        let mut file = new_file(&path).map_err(unwritten)?;
        let copy = Self {
            path: path.clone(),
            _copy: Some(Removed(vec![path.clone()])),
        };
        std::io::copy(&mut log, &mut file).map_err(unwritten)?;
        replay_log::cut(&mut file, length).map_err(unwritten)?;
        Ok(copy)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
