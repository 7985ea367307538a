// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a replay came to: the same run, or where it left it.

use std::fmt;
use std::fs::{self, File};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::types::Target;
use crate::file;
use crate::file::digest::Digest;
use crate::file::lock::Lock;
use crate::recording::library::manifest::RunExit;

/// The file, beside the manifest.
const NAME: &str = "replay.json";

/// What a replay came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// It was the run that was recorded.
    Identical {
        /// Instructions the guest executed; none where nobody counts them.
        instructions: Option<u64>,
        /// After how many instructions the replay began, if that was not the first: what was before it was not compared.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<u64>,
        /// At how many moments its registers were compared.
        #[serde(default)]
        moments: u32,
        /// Whether its memory was, too.
        #[serde(default)]
        memory: bool,
        /// How many of its disks were compared.
        #[serde(default)]
        disks: usize,
    },
    /// It was another.
    Diverged {
        /// Where.
        at: Divergence,
    },
}

/// Where a replay left the recorded run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Divergence {
    /// The guest printed something else.
    Console {
        /// The line, from 1.
        line: u64,
        /// The column in that line, in bytes from 1.
        column: u64,
        /// The position in the console log, in bytes from 0.
        byte: u64,
        /// That line as recorded.
        expected: String,
        /// That line as replayed; empty if nothing more came.
        found: String,
        /// Instructions the guest had executed, where that is known.
        instructions: Option<u64>,
    },
    /// Its memory or its processor was another.
    Memory {
        /// After how many instructions.
        instructions: u64,
        /// The last moment before, at which both were the same.
        same: Option<u64>,
        /// Whether the memory differs.
        memory: bool,
        /// Whether the registers differ.
        registers: bool,
        /// What differs, in words, where that is known.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        differences: Vec<String>,
    },
    /// A disk ended with another content.
    Disk {
        /// The disk.
        target: Target,
        /// As recorded.
        expected: Digest,
        /// As replayed.
        found: Digest,
    },
    /// The guest ended otherwise.
    Exit {
        /// As recorded.
        expected: RunExit,
        /// As replayed, in words.
        found: String,
    },
    /// It ended after another number of instructions.
    Instructions {
        /// As recorded.
        expected: u64,
        /// As replayed.
        found: u64,
    },
    /// The log says something else than what the guest did: it did not go on.
    Stalled {
        /// Instructions the guest had executed; none where QEMU had ended before it could be asked.
        instructions: Option<u64>,
    },
}

impl Divergence {
    /// After how many instructions of a run of `end` it was seen, and up to where both runs are known to have been the same.
    /// `None` where nobody knows.
    pub fn place(&self, end: u64) -> Option<(Option<u64>, u64)> {
        match self {
            Self::Console { instructions, .. } | Self::Stalled { instructions } => {
                instructions.map(|seen| (None, seen))
            }
            Self::Memory { instructions, same, .. } => Some((*same, *instructions)),
            Self::Instructions { expected, found } => Some((None, *expected.min(found))),
            Self::Disk { .. } | Self::Exit { .. } => Some((None, end)),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identical {
                instructions,
                from,
                moments,
                memory,
                disks,
            } => {
                write!(
                    f,
                    "identical{}",
                    proved(*instructions, *from, *moments, *memory, *disks)
                )
            }
            Self::Diverged { at } => write!(f, "diverged: {at}"),
        }
    }
}

/// A number as a person reads it: `16,478,736,952`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let (first, rest) = digits.split_at((digits.len() - 1) % 3 + 1);
    let rest = rest
        .as_bytes()
        .chunks(3)
        .map(|three| format!(",{}", String::from_utf8_lossy(three)));
    std::iter::once(first.to_owned()).chain(rest).collect()
}

/// What a verdict is of: `: 1,966,196,653 instructions; memory and registers at 20 points, console, disk`. Nothing where nobody
/// counts instructions.
pub fn proved(instructions: Option<u64>, from: Option<u64>, moments: u32, memory: bool, disks: usize) -> String {
    let compared = compared(moments, memory, disks);
    match (from, instructions) {
        (_, None) => String::new(),
        (None, Some(end)) => format!(": {} instructions; {compared}", grouped(end)),
        (Some(from), Some(end)) => format!(" from {} to {} instructions; {compared}", grouped(from), grouped(end)),
    }
}

/// What was compared.
fn compared(moments: u32, memory: bool, disks: usize) -> String {
    let what = if memory { "memory and registers" } else { "registers" };
    let moments = match moments {
        0 => String::new(),
        1 => format!("{what} at 1 point, "),
        moments => format!("{what} at {moments} points, "),
    };
    let disks = match disks {
        0 => "",
        1 => ", disk",
        _ => ", disks",
    };
    format!("{moments}console{disks}")
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Console {
                line,
                column,
                byte,
                expected,
                found,
                instructions,
            } => {
                write!(
                    f,
                    "the console is another from line {line}, column {column} on (byte {byte}"
                )?;
                if let Some(instructions) = instructions {
                    write!(f, ", after {} instructions", grouped(*instructions))?;
                }
                write!(f, "): it was {expected:?}, ")?;
                match found.is_empty() {
                    true => f.write_str("nothing more came"),
                    false => write!(f, "it became {found:?}"),
                }
            }
            Self::Memory {
                instructions,
                same,
                memory,
                registers,
                differences,
            } => {
                let (what, are, were) = match (memory, registers) {
                    (true, true) => ("memory and registers", "are", "were"),
                    (true, false) => ("memory", "is", "was"),
                    (false, _) => ("registers", "are", "were"),
                };
                write!(
                    f,
                    "the {what} {are} not the same after {} instructions",
                    grouped(*instructions)
                )?;
                if let Some(same) = same {
                    write!(f, ", and {were} after {}", grouped(*same))?;
                }
                differences
                    .iter()
                    .try_for_each(|difference| write!(f, "; {difference}"))
            }
            Self::Disk {
                target,
                expected,
                found,
            } => write!(
                f,
                "disk {target} ended with another content: it was {expected}, it became {found}"
            ),
            Self::Exit { expected, found } => write!(
                f,
                "the guest ended otherwise: it was \"{expected}\", it became \"{found}\""
            ),
            Self::Instructions { expected, found } => {
                write!(
                    f,
                    "the guest executed {} instructions, it had been {}",
                    grouped(*found),
                    grouped(*expected)
                )
            }
            Self::Stalled { instructions } => {
                f.write_str("the guest went another way than the log")?;
                match instructions {
                    Some(instructions) => write!(f, " and stood still after {} instructions", grouped(*instructions)),
                    None => Ok(()),
                }
            }
        }
    }
}

/// What is remembered of a recording's replays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replays {
    /// When the newest ended, in seconds since 1970.
    pub when: u64,
    /// What it came to.
    #[serde(flatten)]
    pub newest: Verdict,
    /// How many in a row up to now were identical.
    pub identical: u32,
    /// The engines on which one was, as they say it.
    #[serde(default)]
    pub engines: Vec<String>,
    /// If the newest diverged: what was found of the first different instruction, a line each; nothing if nobody looked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub explanation: Vec<String>,
    /// Whether that explains nothing: it was looked for, and no such instruction was found.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unexplained: bool,
}

impl Replays {
    /// Of the recording in `directory`. Damaged ones count as none: they are only a memory.
    pub(in crate::recording) fn load(directory: &Path) -> Option<Self> {
        let text = fs::read(directory.join(NAME)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Adds `verdict`, reached at `when` on `engine`.
    pub(in crate::recording) fn note(
        directory: &Path,
        verdict: &Verdict,
        engine: &str,
        when: u64,
    ) -> std::io::Result<()> {
        let _lock = lock(directory);
        let (before, mut engines) = Self::load(directory).map_or((0, Vec::new()), |it| (it.identical, it.engines));
        let identical = match verdict {
            Verdict::Identical { .. } => {
                if !engines.iter().any(|known| known == engine) {
                    engines.push(engine.to_owned());
                }
                before.saturating_add(1)
            }
            Verdict::Diverged { .. } => 0,
        };
        let replays = Self {
            when,
            newest: verdict.clone(),
            identical,
            engines,
            explanation: Vec::new(),
            unexplained: false,
        };
        replays.save(directory)
    }

    /// Adds why the newest replay was another run, if that is still the one that came to `at`; or what was found in place of a
    /// reason, if it is `unexplained`.
    pub(in crate::recording) fn explain(
        directory: &Path,
        at: &Divergence,
        explanation: &[String],
        unexplained: bool,
    ) -> std::io::Result<()> {
        let _lock = lock(directory);
        match Self::load(directory) {
            Some(replays) if matches!(&replays.newest, Verdict::Diverged { at: newest } if newest == at) => Self {
                explanation: explanation.to_vec(),
                unexplained,
                ..replays
            }
            .save(directory),
            _ => Ok(()),
        }
    }

    fn save(&self, directory: &Path) -> std::io::Result<()> {
        file::replace(&directory.join(NAME), &serde_json::to_vec(self)?, 0o600)
    }
}

/// Held while what is remembered of a recording is read and written anew. NFS locks no directories: nothing is held there, and of
/// two who write at the same moment one is lost.
fn lock(directory: &Path) -> Option<Lock> {
    let file = File::open(directory).ok()?;
    file.lock().ok().map(|()| Lock::taken(file))
}

/// As a column of a table.
impl fmt::Display for Replays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.newest, self.identical) {
            (Verdict::Diverged { .. }, _) => f.write_str("diverged"),
            (Verdict::Identical { .. }, 0 | 1) => f.write_str("identical"),
            (Verdict::Identical { .. }, count) => write!(f, "identical ×{count}"),
        }
    }
}
