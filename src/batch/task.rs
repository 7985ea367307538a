// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kinds of tasks, and doing one.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
use super::{Batch, Error};
use crate::config::guest::Guest;
use crate::config::types::GuestName;
use crate::file::digest::Digest;
use crate::recording::branch::{self, Branching};
use crate::recording::log::point::Point;
use crate::recording::pieces::{self, Part, Range};
use crate::recording::record::Cut;
use crate::recording::replay::verdict::grouped;
use crate::recording::replay::{self, Options};
use crate::recording::session::limit::Limit;
use crate::recording::session::{Environment, Error as SessionError, Listener};
use crate::recording::{Id, Library, Recording, Verdict};

/// What one host does at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Whose recording it is about.
    pub guest: GuestName,
    /// Which.
    pub id: Id,
    /// The digest of its log: another recording may get the name of one that was removed.
    pub log: Digest,
    /// What is done with it.
    pub work: Work,
}

impl Task {
    /// Whether it is about the recording that `other` is about.
    pub(super) fn is_about_the_same(&self, other: &Self) -> bool {
        (&self.guest, &self.id, &self.log) == (&other.guest, &other.id, &other.log)
    }
}

/// What is done with a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// All of it is replayed.
    Verify,
    /// A piece of it is.
    Piece(Range),
    /// It is left, and lives on.
    Branch {
        /// After so many instructions.
        at: u64,
        /// Whose run the branch is.
        name: GuestName,
        /// When it ends.
        limit: Limit,
    },
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verify => f.write_str("all of it"),
            Self::Piece(range) => write!(f, "{} to {}", grouped(range.from), grouped(range.to)),
            Self::Branch { at, .. } => write!(f, "left after {}", grouped(*at)),
        }
    }
}

/// What is to be done so that `recordings` are proved: each is a task, or is cut in so many `pieces`, where it can be.
///
/// # Errors
///
/// If the checkpoints or the log of one cannot be read.
pub fn verify(recordings: &[Recording], pieces: usize) -> Result<Vec<Task>, Error> {
    let mut tasks = Vec::new();
    for recording in recordings.iter().filter(|it| is_emulated(it)) {
        let cuts = match pieces {
            1 => Vec::new(),
            _ => pieces::cuts(recording, pieces)?,
        };
        let log = log(recording)?;
        match &cuts[..] {
            [] | [_] => tasks.push(of(recording, log, Work::Verify)),
            cuts => tasks.extend(cuts.iter().map(|range| of(recording, log, Work::Piece(*range)))),
        }
    }
    Ok(tasks)
}

/// What is to be done so that `parent` is left so many `times` at each of these `points`, for runs of `name`.
///
/// # Errors
///
/// If the recording is not complete.
pub fn branch(
    parent: &Recording,
    points: &[u64],
    times: u32,
    name: &GuestName,
    limit: Limit,
) -> Result<Vec<Task>, Error> {
    let log = log(parent)?;
    let at_point = |at: &u64| {
        let work = Work::Branch {
            at: *at,
            name: name.clone(),
            limit,
        };
        (0..times).map(move |_| of(parent, log, work.clone()))
    };
    Ok(points.iter().flat_map(at_point).collect())
}

/// TT Xen's replays take the host for themselves.
fn is_emulated(recording: &Recording) -> bool {
    recording.manifest().engine.toolstack.is_emulated()
}

fn of(recording: &Recording, log: Digest, work: Work) -> Task {
    Task {
        guest: recording.guest().clone(),
        id: recording.id().clone(),
        log,
        work,
    }
}

/// The digest of its log. One that has none is not complete.
fn log(recording: &Recording) -> Result<Digest, Error> {
    let result = recording.manifest().result.as_ref();
    Ok(result.ok_or(SessionError::Interrupted)?.log.digest)
}

/// What a host has for a task.
pub struct Bench<'a> {
    /// Where recordings are.
    pub library: &'a Library,
    /// The guest of the recording, if it has a file.
    pub guest: Option<Guest>,
    /// That of a branch, if it is another and has one.
    pub named: Option<Guest>,
    /// Where the machine finds and leaves things; it is the task's own.
    pub environment: Environment<'a>,
}

impl Bench<'_> {
    /// Does the task.
    ///
    /// # Errors
    ///
    /// If it could not be done, or somebody ended it.
    pub fn work(&self, task: &Task, listener: &mut dyn Listener) -> Result<Outcome, Error> {
        let recording = self.recording(task)?;
        Ok(match &task.work {
            Work::Verify => Outcome::Verdict(self.whole(&recording, listener)?),
            Work::Piece(range) => {
                let (guest, environment) = (self.guest.as_ref(), &self.environment);
                Outcome::Part(pieces::replay_part(&recording, guest, environment, *range, listener)?)
            }
            Work::Branch { at, name, limit } => self.branch(&recording, *at, name, *limit, listener)?,
        })
    }

    /// If the task was a piece, and all others of its recording are done, too: what they come to together is kept, and the recording
    /// remembers it. Where they cannot tell, one replay is made.
    ///
    /// # Errors
    ///
    /// If that could not be done.
    pub fn conclude(&self, batch: &Batch, task: &Task, listener: &mut dyn Listener) -> Result<(), Error> {
        let Some((first, parts)) = all_parts(batch, task)? else {
            return Ok(());
        };
        if batch.verdict(first)?.is_some() {
            return Ok(());
        }
        let recording = self.recording(task)?;
        let ran_on = parts.last().map(|part| part.ran_on.clone()).unwrap_or_default();
        match pieces::together(parts) {
            Ok(verdict) => {
                if batch.keep_verdict(first, &verdict)? {
                    recording.note_verdict(&verdict, &ran_on);
                }
            }
            Err(why) => {
                tracing::warn!(ttvm_guest = %task.guest, "it is replayed as one: {why}");
                let verdict = self.whole(&recording, listener)?;
                batch.keep_verdict(first, &verdict)?;
            }
        }
        Ok(())
    }

    fn recording(&self, task: &Task) -> Result<Recording, Error> {
        let recording = self.library.exactly(&task.guest, &task.id)?;
        match log(&recording)? == task.log {
            true => Ok(recording),
            false => Err(Error::Another {
                guest: task.guest.clone(),
                id: task.id.clone(),
            }),
        }
    }

    fn whole(&self, recording: &Recording, listener: &mut dyn Listener) -> Result<Verdict, Error> {
        let options = Options {
            checkpoints: true,
            ..Options::default()
        };
        let verdict = replay::replay(recording, self.guest.as_ref(), &self.environment, &options, listener)?;
        Ok(verdict.ok_or(SessionError::Interrupted)?)
    }

    fn branch(
        &self,
        parent: &Recording,
        at: u64,
        name: &GuestName,
        limit: Limit,
        listener: &mut dyn Listener,
    ) -> Result<Outcome, Error> {
        let (guest, environment) = (self.guest.as_ref(), &self.environment);
        let checked = branch::check(parent, guest, self.named.as_ref(), &environment.seals, listener)?;
        let at = Point::Instructions(at);
        let mut branching = Branching::go(parent, (guest, &checked), name, environment, &at, false, listener)?;
        let recorded = branching.live_on(self.library, Some(limit), listener, None)?;
        let cut = recorded.cut.as_ref().filter(|cut| cut.is_of_the_host());
        match recorded.called_off {
            true => Err(SessionError::Interrupted.into()),
            // How it would have ended, nobody knows.
            false if cut.is_some() => Err(Error::Cut {
                guest: recorded.recording.guest().clone(),
                id: recorded.recording.id().clone(),
                why: cut.map(Cut::to_string).unwrap_or_default(),
            }),
            false => Ok(Outcome::Recorded {
                guest: recorded.recording.guest().clone(),
                id: recorded.recording.id().clone(),
            }),
        }
    }
}

/// The number of the first piece of the recording that `task` is a piece of, and what all of them came to; nothing if it is none, or
/// one is missing.
pub(super) fn all_parts(batch: &Batch, task: &Task) -> Result<Option<(usize, Vec<Part>)>, Error> {
    let of = |other: &Task| is_piece(other) && other.is_about_the_same(task);
    let numbers = (batch.tasks().iter().enumerate()).filter(|(_, other)| of(other));
    let mut first = None;
    let mut parts = Vec::new();
    for (number, _) in numbers {
        first.get_or_insert(number);
        match batch.result(number)?.map(|done| done.outcome) {
            Some(Outcome::Part(part)) => parts.push(part),
            _ => return Ok(None),
        }
    }
    Ok(first.map(|first| (first, parts)))
}

pub(super) fn is_piece(task: &Task) -> bool {
    matches!(task.work, Work::Piece(_))
}
