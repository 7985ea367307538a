// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a batch cannot be made, submitted or read.

use std::io;
use std::path::{Path, PathBuf};

use crate::base::error::{Classify, Exit};
use crate::config::types::GuestName;
use crate::recording::{self, Id, session};
use crate::run;

/// Why a batch cannot be made, submitted or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to do.
    #[error("there is nothing to do: no recording of an emulated machine has come to its end (`ttvm recordings list`)")]
    Nothing,
    /// A file of it.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no such batch.
    #[error("there is no batch{} in {}: `ttvm batch status` lists those that there are", wanted.as_ref().map_or_else(String::new, |wanted| format!(" {wanted:?}")), directory.display())]
    NoSuch {
        /// What was asked for.
        wanted: Option<String>,
        /// Where batches are.
        directory: PathBuf,
    },
    /// There are several.
    #[error("{wanted:?} may be {}: write more of the name", there.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "))]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// Those that begin so.
        there: Vec<Id>,
    },
    /// Whoever made it did not come to its end.
    #[error("batch {0} was never finished, and nothing of it was submitted: remove its directory, and submit it again")]
    Unfinished(Id),
    /// There is no such task.
    #[error("batch {id} has no task {number}, only 0 to {}", count.saturating_sub(1))]
    NoTask {
        /// The batch.
        id: Id,
        /// What was asked for.
        number: usize,
        /// How many there are.
        count: usize,
    },
    /// Slurm did not take it.
    #[error("Slurm did not take the tasks; nothing of the batch was kept")]
    Submit(#[source] run::Error),
    /// It took some of them.
    #[error(
        "Slurm took {taken} of {count} tasks; the others will never run: submit the batch again (`scancel --name=ttvm-{id}` ends those)"
    )]
    SubmitRest {
        /// The batch.
        id: Id,
        /// How many it took.
        taken: usize,
        /// How many there are.
        count: usize,
        /// Why no more.
        #[source]
        source: run::Error,
    },
    /// It took it, and said something else than the number of a job.
    #[error("sbatch answered {0:?} and no number of a job: is it Slurm's?")]
    NoJob(String),
    /// The recording that has the name now is not the one that a task was made for.
    #[error("recording {id} of {guest} is not the one of which the batch was made: submit a new batch")]
    Another {
        /// Whose it is.
        guest: GuestName,
        /// Its name.
        id: Id,
    },
    /// A branch came to no end of its own.
    #[error(
        "the branch came to no end of its own ({why}): it is recording {id} of {guest}; remove it when you have mended that"
    )]
    Cut {
        /// Whose run it is.
        guest: GuestName,
        /// Its name.
        id: Id,
        /// Why.
        why: String,
    },
    /// An option for sbatch that would change what is run.
    #[error(
        "{0:?} is not for sbatch here: give it options as --NAME=VALUE, and none that waits, tests, or says what is run"
    )]
    Option(String),
    /// What a task works on.
    #[error(transparent)]
    Library(#[from] recording::Error),
    /// What a task does.
    #[error(transparent)]
    Session(#[from] session::Error),
}

impl Error {
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::NoSuch { .. } | Self::Ambiguous { .. } | Self::NoTask { .. } => Exit::Usage,
            Self::Library(error) => error.exit(),
            Self::Session(error) => error.exit(),
            _ => Exit::Failed,
        }
    }
}
