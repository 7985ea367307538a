// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making checkpoints, on the way of a replay.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::store::Writer;
use super::{Checkpoint, INDEX, Index, NAME, STATE};
use crate::file;
use crate::qemu::engine;
use crate::qemu::memory::Memory;
use crate::qemu::qmp::{self, Qmp};
use crate::recording::library::draft;
use crate::recording::replay::moment::Moment;
use crate::recording::session::Error;

/// Less than this apart, a second one is of no use.
const APART: u64 = 1 << 25;

/// The store may take so many times the guest's memory.
const TIMES: u64 = 2;

/// Checkpoints in the making. Dropped, they are gone.
pub(in crate::recording) struct Maker {
    recording: PathBuf,
    directory: PathBuf,
    /// Until it is finished.
    writer: Option<Writer>,
    made: Vec<Checkpoint>,
    most: u64,
    kept: bool,
}

impl Maker {
    /// Begins those of the recording in `recording`, whose guest is ours alone and has so much `memory`.
    pub(in crate::recording) fn begin(recording: &Path, memory: u64) -> Result<Self, Error> {
        let directory = recording.join(format!("{NAME}.new"));
        let failed = |source| Error::Write {
            path: directory.clone(),
            source,
        };
        // What a replay that was killed has left.
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        file::private_directory(&directory).map_err(failed)?;
        let writer = Writer::create(&directory).map_err(failed)?;
        let maker = Self {
            recording: recording.to_owned(),
            directory: directory.clone(),
            writer: Some(writer),
            made: Vec::new(),
            most: memory.saturating_mul(TIMES),
            kept: false,
        };
        engine::create_overlay(&maker.state().to_string_lossy(), None, 1 << 20).map_err(Error::Overlay)?;
        Ok(maker)
    }

    /// The file for the machine's state.
    pub(in crate::recording) fn state(&self) -> PathBuf {
        self.directory.join(STATE)
    }

    /// Keeps the machine as it stands there; its disks are quiet. Returns whether more are wanted.
    pub(in crate::recording) fn add(&mut self, qmp: &mut Qmp, memory: &Memory, moment: Moment) -> Result<bool, Error> {
        let last = self.made.last().map_or(0, |checkpoint| checkpoint.moment.instructions);
        if moment.instructions < last + APART {
            return Ok(true);
        }
        let Some(writer) = self.writer.as_mut().filter(|writer| writer.size() < self.most) else {
            return Ok(false);
        };
        let name = format!("c{}", moment.instructions);
        match qmp.monitor(&format!("savevm {name}")) {
            // QEMU knows of something that is not over: another moment will do.
            Err(qmp::Error::Refused { .. }) => return Ok(true),
            saved => saved?,
        }
        let pages = memory.pages().map_err(Error::Memory)?;
        let map = writer.add(memory, &pages).map_err(|source| Error::Write {
            path: self.directory.clone(),
            source,
        })?;
        let text = qmp.registers()?;
        self.made.push(Checkpoint { moment, text, map });
        Ok(true)
    }

    /// Makes no more.
    pub(in crate::recording) fn enough(&mut self) {
        self.most = 0;
    }

    /// Keeps all of them, with the replay's `overlays`: it was the same run, and QEMU has ended.
    pub(in crate::recording) fn keep(mut self, overlays: &[PathBuf]) -> Result<(), Error> {
        let directory = self.directory.clone();
        let failed = |source| Error::Write {
            path: directory.clone(),
            source,
        };
        let Some(writer) = self.writer.take().filter(|_| !self.made.is_empty()) else {
            return Ok(());
        };
        let index = Index {
            blocks: writer.finish().map_err(failed)?,
            checkpoints: std::mem::take(&mut self.made),
        };
        let text = serde_json::to_vec(&index).map_err(|error| failed(error.into()))?;
        file::replace(&directory.join(INDEX), &text, 0o600).map_err(failed)?;
        for overlay in overlays {
            let name = overlay.file_name().unwrap_or_default();
            take(overlay, &directory.join(name)).map_err(failed)?;
        }
        for entry in fs::read_dir(&directory).map_err(failed)? {
            draft::sync(&entry.map_err(failed)?.path())?;
        }
        fs::rename(&directory, self.recording.join(NAME)).map_err(failed)?;
        self.kept = true;
        draft::sync(&self.recording)?;
        Ok(())
    }
}

/// Moves a file.
fn take(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        // Overlays may be on another file system.
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => fs::copy(from, to).map(drop),
        moved => moved,
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        if !self.kept {
            drop(fs::remove_dir_all(&self.directory));
        }
    }
}
