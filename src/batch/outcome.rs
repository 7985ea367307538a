// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tasks came to.

use serde::{Deserialize, Serialize};

use super::Error;
use crate::base::clock::now;
use crate::base::error::{Classify, Exit, one_line};
use crate::config::types::GuestName;
use crate::recording::pieces::{Part, Piece};
use crate::recording::{Id, Verdict};

/// The directory of what each task came to.
pub(super) const RESULTS: &str = "results";
/// The directory of what pieces came to together.
pub(super) const VERDICTS: &str = "verdicts";

/// What a task came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// A whole run was replayed.
    Verdict(Verdict),
    /// A piece of one was.
    Part(Part),
    /// A branch was recorded.
    Recorded {
        /// Whose run it is.
        guest: GuestName,
        /// The recording.
        id: Id,
    },
    /// It could not be done.
    Failed {
        /// Why, as one line.
        why: String,
        /// What the task ended with.
        exit: Exit,
    },
}

impl Outcome {
    /// That it could not be done because of `error`.
    pub fn failed(error: &Error) -> Self {
        Self::Failed {
            why: one_line(error),
            exit: error.exit(),
        }
    }

    /// What the task ends with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Verdict(Verdict::Diverged { .. })
            | Self::Part(Part {
                piece: Piece::Differs(_),
                ..
            }) => Exit::Diverged,
            Self::Failed { exit, .. } => *exit,
            _ => Exit::Done,
        }
    }
}

/// What a task came to, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What it came to.
    pub outcome: Outcome,
    /// The host that did it.
    pub host: String,
    /// When it was begun, in seconds since 1970.
    pub began: u64,
    /// When it was over.
    pub ended: u64,
}

impl Done {
    /// That `outcome` was come to on `host`, now.
    pub fn now(outcome: Outcome, host: String, began: u64) -> Self {
        Self {
            outcome,
            host,
            began,
            ended: now(),
        }
    }

    /// How long it took, in seconds.
    pub fn seconds(&self) -> u64 {
        self.ended.saturating_sub(self.began)
    }
}
