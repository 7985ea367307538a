// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checkpoints of a recording: the whole machine at some moments, from which a replay can begin. The first replay makes them on
//! its way; if it was the same run, they are kept.
//!
//! ```text
//! RECORDING/checkpoints/
//!     index.json           the moments, and where their memories are
//!     pages, maps          the memories (store)
//!     state.qcow2          the rest of the machine, in QEMU's own format, by the names of the moments
//!     GUEST-TARGET.qcow2   what each disk had then, over what it was made from
//! ```

mod making;
mod store;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::replay::difference;
use super::replay::moment::Moment;
use super::session::Error;
use crate::config::types::Size;
use crate::qemu::memory::Memory;
use crate::qemu::registers;
pub(super) use making::Maker;
use store::Piece;

/// The directory.
pub(super) const NAME: &str = "checkpoints";

/// What there is.
const INDEX: &str = "index.json";

/// The machine's state, without its memory and disks.
const STATE: &str = "state.qcow2";

/// A moment that a replay can begin at.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Checkpoint {
    /// What the machine was like.
    #[serde(flatten)]
    pub moment: Moment,
    /// The processor's registers, as QEMU writes them.
    text: String,
    map: Piece,
}

impl Checkpoint {
    /// What QEMU calls it.
    pub(super) fn name(&self) -> String {
        format!("c{}", self.moment.instructions)
    }
}

/// All of a recording.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    directory: PathBuf,
    index: Index,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Index {
    blocks: Vec<Piece>,
    checkpoints: Vec<Checkpoint>,
}

impl Checkpoints {
    /// Those of the recording in `recording`; `None` if it has none.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    pub fn load(recording: &Path) -> Result<Option<Self>, Error> {
        let directory = recording.join(NAME);
        let path = directory.join(INDEX);
        match fs::read(&path) {
            Ok(text) => {
                let index = serde_json::from_slice(&text).map_err(|error| Error::Checkpoints {
                    directory: directory.clone(),
                    source: error.into(),
                })?;
                Ok(Some(Self { directory, index }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Checkpoints { directory, source }),
        }
    }

    /// In the order of the run.
    pub fn all(&self) -> &[Checkpoint] {
        &self.index.checkpoints
    }

    /// The last one from which a replay comes to `instructions`.
    pub(super) fn before(&self, instructions: u64) -> Option<&Checkpoint> {
        let mut all = self.index.checkpoints.iter();
        all.rfind(|checkpoint| checkpoint.moment.instructions <= instructions)
    }

    /// How the machine, which should be as after so many instructions and has this `memory` and these `registers`, differs from what it
    /// was, in words; nothing where there is no checkpoint to compare it with.
    pub(super) fn differences(
        &self,
        instructions: u64,
        memory: &Memory,
        registers: &str,
    ) -> Result<Vec<String>, Error> {
        let mut all = self.index.checkpoints.iter();
        let Some(checkpoint) = all.find(|checkpoint| checkpoint.moment.instructions == instructions) else {
            return Ok(Vec::new());
        };
        let was = Memory::new(Size::from_bytes(memory.size())).map_err(Error::Memory)?;
        self.fill(checkpoint, &was)?;
        let registers = registers::differences(&checkpoint.text, registers);
        Ok(difference::lines(
            &registers,
            was.difference(memory).map_err(Error::Memory)?.as_ref(),
        ))
    }

    /// Fills `memory`, which is all zeros.
    ///
    /// # Errors
    ///
    /// If what was saved cannot be read, or is not what was written.
    pub fn fill(&self, checkpoint: &Checkpoint, memory: &Memory) -> Result<(), Error> {
        store::fill(&self.directory, &self.index.blocks, checkpoint.map, memory).map_err(|source| self.damaged(source))
    }

    /// Copies the machine's state to `path`.
    pub(super) fn copy_state(&self, path: &Path) -> Result<(), Error> {
        self.copy(STATE, path)
    }

    /// Copies what a disk had to its overlay at `path`, which has the same name.
    pub(super) fn copy_disk(&self, path: &Path) -> Result<(), Error> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.copy(&name, path)
    }

    fn copy(&self, name: &str, path: &Path) -> Result<(), Error> {
        // With the kernel's own copying, where the file system can share what is the same.
        fs::copy(self.directory.join(name), path)
            .map(drop)
            .map_err(|source| self.damaged(source))
    }

    fn damaged(&self, source: io::Error) -> Error {
        Error::Checkpoints {
            directory: self.directory.clone(),
            source,
        }
    }

    /// That a checkpoint is not what it was.
    pub(super) fn differs(&self) -> Error {
        let why = "the machine that it gives is not the one that was saved";
        self.damaged(io::Error::new(io::ErrorKind::InvalidData, why))
    }
}
