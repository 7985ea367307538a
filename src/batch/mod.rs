// SPDX-License-Identifier: MIT OR Apache-2.0
//! Work on recordings that many hosts do, each a task at a time; Slurm says which, where and when.
//!
//! ```text
//! STATE/batches/ID/
//!     batch.json          what is to be done: a task for each recording, piece or branch
//!     jobs.json           what Slurm calls it
//!     script              what Slurm runs
//!     output/JOB_TASK     what a task printed
//!     results/TASK.json   what a task came to (outcome)
//!     verdicts/N.json     what the pieces of a recording come to together, by the task that saw it first
//! ```
//!
//! Nobody needs a lock for any of it, on whatever file system: a file has one writer, appears when it is finished, and is not changed
//! any more. That two hosts do the same task, because Slurm took one of them for dead, does no harm: the first result stays.

mod error;
pub mod outcome;
pub mod slurm;
pub mod summary;
pub mod task;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::base::clock::now;
use crate::file;
use crate::recording::{Id, Verdict};
pub use error::Error;
use outcome::{Done, Outcome};
use task::Task;

/// The directory of all batches.
const BATCHES: &str = "batches";
/// What is to be done.
const LIST: &str = "batch.json";

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct List {
    tasks: Vec<Task>,
}

/// A batch.
#[derive(Debug)]
pub struct Batch {
    id: Id,
    directory: PathBuf,
    tasks: Vec<Task>,
}

impl Batch {
    /// Makes one of these `tasks`, below the state directory `state`.
    ///
    /// # Errors
    ///
    /// If there are none, or it cannot be written.
    pub fn create(state: &Path, tasks: Vec<Task>) -> Result<Self, Error> {
        if tasks.is_empty() {
            return Err(Error::Nothing);
        }
        let all = state.join(BATCHES);
        file::private_directory(&all).map_err(Error::file("make", &all))?;
        let (id, directory) = claim(&all)?;
        for name in ["output", outcome::RESULTS, outcome::VERDICTS] {
            let path = directory.join(name);
            file::private_directory(&path).map_err(Error::file("make", &path))?;
        }
        let list = List { tasks };
        write(&directory.join(LIST), &list)?;
        Ok(Self {
            id,
            directory,
            tasks: list.tasks,
        })
    }

    /// The batch that is called `wanted`, or is the only one whose name begins so; without, the newest.
    ///
    /// # Errors
    ///
    /// If there is none, or it cannot be read.
    pub fn open(state: &Path, wanted: Option<&str>) -> Result<Self, Error> {
        let mut ids = ids(state)?;
        if let Some(wanted) = wanted {
            let is = |id: &Id| id.to_string() == wanted;
            match ids.iter().any(is) {
                true => ids.retain(is),
                false => ids.retain(|id| id.to_string().starts_with(wanted)),
            }
        }
        let one = match (wanted, ids.len()) {
            (Some(wanted), 2..) => {
                return Err(Error::Ambiguous {
                    wanted: wanted.to_owned(),
                    there: ids,
                });
            }
            _ => ids.pop(),
        };
        let id = one.ok_or_else(|| Error::NoSuch {
            wanted: wanted.map(str::to_owned),
            directory: state.join(BATCHES),
        })?;
        Self::exactly(state, id)
    }

    /// The batch that has just this name.
    ///
    /// # Errors
    ///
    /// If there is none, or it cannot be read.
    pub fn exactly(state: &Path, id: Id) -> Result<Self, Error> {
        let directory = state.join(BATCHES).join(id.to_string());
        match read(&directory.join(LIST))? {
            Some(List { tasks }) if !tasks.is_empty() => Ok(Self { id, directory, tasks }),
            _ => Err(Error::Unfinished(id)),
        }
    }

    /// Its name: when it was made.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What is to be done.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The task of that number.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn task(&self, number: usize) -> Result<&Task, Error> {
        self.tasks.get(number).ok_or_else(|| Error::NoTask {
            id: self.id.clone(),
            number,
            count: self.tasks.len(),
        })
    }

    /// What the task of that number came to, if it did.
    ///
    /// # Errors
    ///
    /// If that cannot be read.
    pub fn result(&self, number: usize) -> Result<Option<Done>, Error> {
        read(&self.result_path(number))
    }

    /// Keeps what a task came to. What is there stays, unless it says that the task failed.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn keep(&self, number: usize, done: &Done) -> Result<(), Error> {
        let path = self.result_path(number);
        let failed = |done: &Done| matches!(done.outcome, Outcome::Failed { .. });
        if self.result(number)?.is_none() && create(&path, done)? {
            return Ok(());
        }
        // Another host may just have been first.
        match self.result(number)? {
            Some(before) if failed(&before) && !failed(done) => replace(&path, done),
            _ => Ok(()),
        }
    }

    /// What pieces came to together that begin with the task `first`, if somebody knows.
    ///
    /// # Errors
    ///
    /// If that cannot be read.
    pub fn verdict(&self, first: usize) -> Result<Option<Verdict>, Error> {
        read(&self.verdict_path(first))
    }

    /// Keeps that. Returns whether nobody had known it.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn keep_verdict(&self, first: usize, verdict: &Verdict) -> Result<bool, Error> {
        create(&self.verdict_path(first), verdict)
    }

    fn result_path(&self, number: usize) -> PathBuf {
        self.directory.join(outcome::RESULTS).join(format!("{number}.json"))
    }

    fn verdict_path(&self, first: usize) -> PathBuf {
        self.directory.join(outcome::VERDICTS).join(format!("{first}.json"))
    }
}

/// The names of all batches, the newest last.
///
/// # Errors
///
/// If they cannot be read.
pub fn ids(state: &Path) -> Result<Vec<Id>, Error> {
    let path = state.join(BATCHES);
    let entries = match fs::read_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::file("read", &path))?,
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let mut ids: Vec<Id> = names.filter_map(|name| name.parse().ok()).collect();
    ids.sort();
    Ok(ids)
}

/// A directory that nobody had before, on no host: making one is a single step everywhere.
fn claim(all: &Path) -> Result<(Id, PathBuf), Error> {
    let started = now();
    let mut number = 1;
    loop {
        let id = Id::new(started, number);
        let directory = all.join(id.to_string());
        match fs::create_dir(&directory) {
            Ok(()) => {
                file::private_directory(&directory).map_err(Error::file("make", &directory))?;
                return Ok((id, directory));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(Error::file("make", &directory)(error)),
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| Error::file("understand", path)(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

fn text(path: &Path, content: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec_pretty(content).map_err(|error| Error::file("write", path)(error.into()))
}

/// Makes a file that is not there yet.
fn write(path: &Path, content: &impl Serialize) -> Result<(), Error> {
    let content = text(path, content)?;
    file::create(path, &content, 0o600).map_err(Error::file("write", path))
}

/// Makes a file, unless it is there. Returns whether it was made.
fn create(path: &Path, content: &impl Serialize) -> Result<bool, Error> {
    let content = text(path, content)?;
    match file::create(path, &content, 0o600) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        made => made.map(|()| true).map_err(Error::file("write", path)),
    }
}

fn replace(path: &Path, content: &impl Serialize) -> Result<(), Error> {
    let content = text(path, content)?;
    file::replace(path, &content, 0o600).map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::Exit;

    fn tasks() -> Vec<Task> {
        let range = |from, to| task::Work::Piece(crate::recording::pieces::Range { from, to });
        let works = [range(0, 10), range(10, 20), task::Work::Verify];
        let of = |work| Task {
            guest: "a".parse().expect("a name"),
            id: Id::new(0, 1),
            log: crate::file::digest::of_bytes(b"log"),
            work,
        };
        works.into_iter().map(of).collect()
    }

    fn done(outcome: Outcome) -> Done {
        Done::now(outcome, "n1".to_owned(), 0)
    }

    fn failed(why: &str) -> Done {
        done(Outcome::Failed {
            why: why.to_owned(),
            exit: Exit::Failed,
        })
    }

    fn same() -> Verdict {
        Verdict::Identical {
            instructions: Some(20),
            from: None,
            moments: 1,
            memory: true,
            disks: 0,
        }
    }

    #[test]
    fn the_first_result_stays() {
        let state = std::env::temp_dir().join(format!("ttvm-batch-{}", std::process::id()));
        fs::create_dir(&state).expect("a directory");
        assert!(matches!(Batch::create(&state, Vec::new()), Err(Error::Nothing)));
        assert!(matches!(Batch::open(&state, None), Err(Error::NoSuch { .. })));
        let first = Batch::create(&state, tasks()).expect("a batch");
        // In the same second, on whatever host.
        let second = Batch::create(&state, tasks()).expect("a batch");
        assert!(first.id() < second.id());
        let newest = Batch::open(&state, None).expect("the newest");
        assert_eq!((newest.id(), newest.tasks()), (second.id(), &tasks()[..]));
        let named = Batch::open(&state, Some(&first.id().to_string())).expect("by its name");
        assert_eq!(named.id(), first.id());
        let beginning = Batch::open(&state, Some("2"));
        assert!(matches!(beginning, Err(Error::Ambiguous { .. })), "{beginning:?}");
        assert!(matches!(first.task(3), Err(Error::NoTask { .. })));

        assert_eq!(first.result(2).expect("none"), None);
        let came = |batch: &Batch| summary::answers(batch).expect("answers").pop().expect("the last").came;
        assert_eq!(came(&first), summary::Came::Waiting { done: 0, of: 1 });
        first.keep(2, &failed("no memory")).expect("room");
        assert!(matches!(came(&first), summary::Came::Failed { task: 2, .. }));
        first.keep(2, &done(Outcome::Verdict(same()))).expect("room");
        // By a host that was taken for dead.
        first.keep(2, &failed("too late")).expect("room");
        assert_eq!(came(&first), summary::Came::Verdict(same()));

        assert_eq!(first.verdict(0).expect("none"), None);
        assert!(first.keep_verdict(0, &same()).expect("room"));
        assert!(!first.keep_verdict(0, &same()).expect("it is there"));
        let answers = summary::answers(&first).expect("answers");
        assert_eq!(answers.len(), 2, "the pieces are one: {answers:?}");
        assert!(answers.iter().all(|answer| answer.exit() == Exit::Done));
        fs::remove_dir_all(&state).expect("its end");
    }
}
