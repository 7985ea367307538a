// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm batch task`: what Slurm runs on some host.

use std::env;
use std::path::PathBuf;

use nix::unistd::{gethostname, mkdtemp};

use super::Error;
use crate::base::clock::now;
use crate::base::error::Exit;
use crate::base::fail_point;
use crate::batch::outcome::{Done, Outcome};
use crate::batch::task::{Bench, Task, Work};
use crate::batch::{Batch, Error as BatchError};
use crate::cli::runs::foreground::{Follower, Foreground};
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::recording::Id;
use crate::recording::session::{Environment, Error as SessionError};

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    batch: Id,
    /// The task of the batch that is the first of the array
    first: usize,
}

/// Which task of the array this is.
const NUMBER: &str = "SLURM_ARRAY_TASK_ID";

/// Where the machine of a task has its files, on the host's own disk. Dropped, it is removed.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> Result<Self, Error> {
        // Slurm always says one; its administrator, or whoever submitted, says where there is room.
        let below = env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        let template = below.join("ttvm-task-XXXXXX");
        mkdtemp(&template).map(Self).map_err(|errno| Error::Write {
            path: template,
            source: errno.into(),
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

pub(super) fn run(places: &Places, arguments: &Arguments) -> Result<Exit, Error> {
    let batch = Batch::exactly(places.state_dir(), arguments.batch.clone())?;
    let number = env::var(NUMBER).ok().and_then(|number| number.parse().ok());
    let number: usize = number.ok_or_else(|| {
        Error::Usage(format!(
            "{NUMBER} says no task: Slurm runs this, by `ttvm batch verify`"
        ))
    })?;
    let number = arguments.first.saturating_add(number);
    let task = batch.task(number)?;
    let scratch = Scratch::make()?;
    let run = Foreground::new(places, &task.guest)?;
    let bench = Bench {
        library: run.library(),
        guest: run.guest_if_any()?,
        named: named(places, task)?,
        environment: Environment {
            overlays: scratch.0.clone(),
            shared: true,
            ..run.environment()
        },
    };
    let mut follower = Follower::new(&task.guest, false, "SIGTERM ends it");
    let exit = done(&batch, (number, task), &bench, &mut follower)?;
    fail_point::reach("batch.kept");
    bench.conclude(&batch, task, &mut follower)?;
    Ok(exit)
}

/// Does the task, unless it was done before this host was taken for dead; keeps what it came to.
fn done(
    batch: &Batch,
    (number, task): (usize, &Task),
    bench: &Bench<'_>,
    follower: &mut Follower,
) -> Result<Exit, Error> {
    let before = batch.result(number)?.map(|done| done.outcome);
    if let Some(outcome) = before.filter(|outcome| !matches!(outcome, Outcome::Failed { .. })) {
        return Ok(outcome.exit());
    }
    let began = now();
    let outcome = match bench.work(task, follower) {
        // Somebody will do it again, or nobody wants it.
        Err(error @ BatchError::Session(SessionError::Interrupted)) => return Err(error.into()),
        Err(error) => {
            tracing::error!(ttvm_guest = %task.guest, "{}", crate::base::error::chain(&error));
            Outcome::failed(&error)
        }
        Ok(outcome) => outcome,
    };
    follower.end();
    let exit = outcome.exit();
    let host = gethostname().map_err(std::io::Error::from)?;
    let host = env::var("SLURMD_NODENAME").unwrap_or_else(|_| host.display().to_string());
    batch.keep(number, &Done::now(outcome, host, began))?;
    Ok(exit)
}

/// The guest whose run a branch is, if it is another and has a file: that has to say the same.
fn named(places: &Places, task: &Task) -> Result<Option<crate::config::guest::Guest>, Error> {
    let other: Option<&GuestName> = match &task.work {
        Work::Branch { name, .. } => Some(name).filter(|name| **name != task.guest),
        Work::Verify | Work::Piece(_) => None,
    };
    other.map_or(Ok(None), |name| Foreground::new(places, name)?.guest_if_any())
}
