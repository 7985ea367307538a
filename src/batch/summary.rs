// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a batch came to: one answer for each recording that it proves, and for each branch that it makes.

use serde::Serialize;

use super::outcome::{Done, Outcome};
use super::task::{Task, all_parts, is_piece};
use super::{Batch, Error};
use crate::base::error::Exit;
use crate::config::types::GuestName;
use crate::recording::{Id, Verdict, pieces};

/// What came of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Whose it is.
    pub guest: GuestName,
    /// Which.
    pub id: Id,
    /// What came of it.
    #[serde(flatten)]
    pub came: Came,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Came {
    /// It was proved, or it was not the same.
    Verdict(Verdict),
    /// A branch of it was recorded.
    Recorded {
        /// Whose run that is.
        guest: GuestName,
        /// The recording.
        id: Id,
    },
    /// A task could not be done.
    Failed {
        /// Its number.
        task: usize,
        /// Where.
        host: String,
        /// Why.
        why: String,
        /// What it ended with.
        exit: Exit,
    },
    /// All of its pieces are done, and what they come to is not known yet, for this reason.
    Open {
        /// The reason.
        why: String,
    },
    /// Tasks are still to be done.
    Waiting {
        /// How many are done.
        done: usize,
        /// Of so many.
        of: usize,
    },
}

impl Answer {
    /// What a program that tells this ends with.
    pub fn exit(&self) -> Exit {
        match &self.came {
            Came::Verdict(Verdict::Identical { .. }) | Came::Recorded { .. } => Exit::Done,
            Came::Verdict(Verdict::Diverged { .. }) => Exit::Diverged,
            Came::Failed { .. } | Came::Open { .. } | Came::Waiting { .. } => Exit::Failed,
        }
    }
}

/// What `batch` came to, so far: in the order of its tasks.
///
/// # Errors
///
/// If a result cannot be read.
pub fn answers(batch: &Batch) -> Result<Vec<Answer>, Error> {
    let tasks = batch.tasks();
    let mut answers = Vec::new();
    let mut number = 0;
    while let Some(task) = tasks.get(number) {
        // The pieces of a recording stand together.
        let same = |other: &&Task| is_piece(other) && other.is_about_the_same(task);
        let count = tasks[number..].iter().take_while(same).count().max(1);
        answers.push(Answer {
            guest: task.guest.clone(),
            id: task.id.clone(),
            came: came(batch, number, count)?,
        });
        number += count;
    }
    Ok(answers)
}

/// What the tasks from `first` on, so many, came to, all of which are about one thing.
fn came(batch: &Batch, first: usize, count: usize) -> Result<Came, Error> {
    if let Some(verdict) = batch.verdict(first)? {
        return Ok(Came::Verdict(verdict));
    }
    let mut done = 0;
    for number in first..first + count {
        let Some(Done { outcome, host, .. }) = batch.result(number)? else {
            continue;
        };
        match outcome {
            Outcome::Failed { why, exit } => {
                return Ok(Came::Failed {
                    task: number,
                    host,
                    why,
                    exit,
                });
            }
            Outcome::Verdict(verdict) => return Ok(Came::Verdict(verdict)),
            Outcome::Recorded { guest, id } => return Ok(Came::Recorded { guest, id }),
            Outcome::Part(_) => done += 1,
        }
    }
    Ok(match all_parts(batch, batch.task(first)?)? {
        Some((_, parts)) => match pieces::together(parts) {
            Ok(verdict) => Came::Verdict(verdict),
            Err(why) => Came::Open { why },
        },
        None => Came::Waiting { done, of: count },
    })
}
