// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm batch verify` and `branch`: what is to be done is written down, and submitted.

use std::env;
use std::io::{self, Write};
use std::num::NonZero;

use super::{Error, guest_name};
use crate::base::error::Exit;
use crate::base::text;
use crate::batch::Batch;
use crate::batch::slurm::Submission;
use crate::batch::task::{self, Task};
use crate::cli::runs::branch::{Left, Series};
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::recording::session::limit::Limit;
use crate::recording::{Library, Recording, State, branch as branching};

/// Where it is submitted, and how.
#[derive(clap::Args)]
pub(in crate::cli) struct To {
    /// Have Slurm's sbatch take it, as job arrays
    #[arg(long, required = true)]
    slurm: bool,
    /// Print the tasks, and submit nothing
    #[arg(long)]
    dry_run: bool,
    /// What else sbatch is told, such as --partition=night --time=10 --mem=1G
    #[arg(last = true, value_name = "SBATCH OPTIONS")]
    options: Vec<String>,
}

#[derive(clap::Args)]
#[command(
    after_help = "The library has to be at the same place on all hosts, and so has ttvm. The words of the verdicts are those of ttvm verify: `ttvm batch results` prints them."
)]
pub(in crate::cli) struct Verify {
    /// The guest; the recordings of all if none is named
    #[arg(value_parser = guest_name)]
    guest: Option<GuestName>,
    /// The recording, or as much of its name as is needed; all of the guest's if none is named
    recording: Option<String>,
    /// Cut each recording that has checkpoints in so many pieces, a task each
    #[arg(long, value_name = "N", default_value = "1")]
    pieces: NonZero<usize>,
    #[command(flatten)]
    to: To,
}

#[derive(clap::Args)]
#[command(after_help = "`ttvm batch results` tells how these runs ended, as ttvm branch --tries does.")]
pub(in crate::cli) struct Branch {
    #[command(flatten)]
    left: Left,
    /// End each run after this time of the host, such as 30s or 2min, or after a time of the guest (guest:12s) or so many
    /// instructions (guest:1_000_000) from there on
    #[arg(long = "for", value_name = "TIME")]
    limit: Limit,
    #[command(flatten)]
    series: Series,
    #[command(flatten)]
    to: To,
}

pub(super) fn verify(places: &Places, arguments: &Verify) -> Result<Exit, Error> {
    let library = Library::open(places.state_dir());
    let recordings = match (&arguments.guest, &arguments.recording) {
        (Some(guest), Some(recording)) => vec![library.find(guest, Some(recording))?],
        (guest, _) => whole(&library, guest.as_ref())?,
    };
    let tasks = task::verify(&recordings, arguments.pieces.get())?;
    submit(places, tasks, &arguments.to)
}

/// The recordings of a guest, or of all, that have come to their end. Of those that are damaged, it is said.
fn whole(library: &Library, guest: Option<&GuestName>) -> Result<Vec<Recording>, Error> {
    let mut recordings = Vec::new();
    for entry in library.list(guest)? {
        match &entry.state {
            State::Complete => recordings.push(library.complete(entry)?),
            State::Damaged(why) => eprintln!(
                "ttvm: note: {} {} is left out: {}",
                entry.guest,
                entry.id,
                text::line(why)
            ),
            State::Recording | State::Incomplete(_) => {}
        }
    }
    Ok(recordings)
}

pub(super) fn branch(places: &Places, arguments: &Branch) -> Result<Exit, Error> {
    let library = Library::open(places.state_dir());
    let source = arguments.left.source();
    let parent = library.find(&source.guest, source.recording.as_deref())?;
    if !parent.manifest().engine.toolstack.is_emulated() {
        return Err(Error::Usage(
            "a branch is one of a guest with toolstack = \"qemu\"".to_owned(),
        ));
    }
    let points = match &arguments.series.every {
        Some(every) => branching::steps(&parent, &source.at, every)?,
        None => vec![branching::instructions(&parent, &source.at)?],
    };
    let times = arguments.series.tries.unwrap_or(1);
    let tasks = task::branch(&parent, &points, times, arguments.left.name(), arguments.limit)?;
    submit(places, tasks, &arguments.to)
}

fn submit(places: &Places, tasks: Vec<Task>, to: &To) -> Result<Exit, Error> {
    let mut out = io::stdout().lock();
    if to.dry_run && !tasks.is_empty() {
        for (number, task) in tasks.iter().enumerate() {
            writeln!(out, "{number}: {} {}: {}", task.guest, task.id, task.work)?;
        }
        return Ok(Exit::Done);
    }
    let submission = Submission {
        program: env::current_exe()?,
        arguments: arguments(places),
        options: &to.options,
    };
    let batch = Batch::create(places.state_dir(), tasks)?;
    let jobs = submission.submit(&batch)?;
    let jobs: Vec<String> = jobs.iter().map(|it| it.job.to_string()).collect();
    writeln!(
        out,
        "submitted {}: {}, job {} of Slurm; `ttvm batch status {}` shows them",
        batch.id(),
        match batch.tasks().len() {
            1 => "1 task".to_owned(),
            count => format!("{count} tasks"),
        },
        jobs.join(", "),
        batch.id()
    )?;
    Ok(Exit::Done)
}

/// What another host has to be told so that it finds the same places.
fn arguments(places: &Places) -> Vec<String> {
    let place = |option: &str, path: &std::path::Path| [option.to_owned(), path.display().to_string()];
    [
        place("--root", places.root()),
        place("--config-dir", places.config_dir()),
        place("--state-dir", places.state_dir()),
    ]
    .into_iter()
    .flatten()
    .chain(["batch".to_owned(), "task".to_owned()])
    .collect()
}
