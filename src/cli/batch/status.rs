// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm batch status`: where the tasks of a batch are.

use serde::Serialize;

use super::Error;
use crate::base::error::{Exit, one_line};
use crate::base::text;
use crate::batch::outcome::{Done, Outcome};
use crate::batch::slurm::{self, Queued};
use crate::batch::task::Task;
use crate::batch::{self, Batch};
use crate::cli::print_json;
use crate::cli::terminal::table::{self, Cell, Tone};
use crate::config::places::Places;
use crate::recording::Id;
use crate::recording::pieces::Piece;
use crate::recording::replay::verdict::Verdict;

/// Of a task that Slurm no longer has, and that came to nothing.
const GONE: &str = "ended without a result: cancelled, or out of time? See its output; submit it again";

/// A task.
#[derive(Serialize)]
struct Row<'a> {
    number: usize,
    #[serde(flatten)]
    task: &'a Task,
    /// What it came to.
    done: Option<Done>,
    /// Where Slurm has it.
    queued: Option<Queued>,
}

/// A batch.
#[derive(Serialize)]
struct Whole {
    id: Id,
    tasks: usize,
    done: usize,
    failed: usize,
}

pub(super) fn run(places: &Places, batch: Option<&str>, json: bool) -> Result<Exit, Error> {
    match batch {
        Some(batch) => one(&Batch::open(places.state_dir(), Some(batch))?, json),
        None => all(places, json),
    }
}

fn all(places: &Places, json: bool) -> Result<Exit, Error> {
    let mut batches = Vec::new();
    for id in batch::ids(places.state_dir())? {
        match whole(places, &id) {
            Ok(whole) => batches.push(whole),
            Err(error) => eprintln!("ttvm: note: {}", text::line(&one_line(&error))),
        }
    }
    if json {
        print_json(&batches)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = batches
        .iter()
        .map(|it| {
            vec![
                it.id.to_string(),
                it.tasks.to_string(),
                it.done.to_string(),
                it.failed.to_string(),
            ]
        })
        .collect();
    table::print(&["BATCH", "TASKS", "DONE", "FAILED"], &rows)?;
    Ok(Exit::Done)
}

fn whole(places: &Places, id: &Id) -> Result<Whole, batch::Error> {
    let batch = Batch::open(places.state_dir(), Some(&id.to_string()))?;
    let mut whole = Whole {
        id: id.clone(),
        tasks: batch.tasks().len(),
        done: 0,
        failed: 0,
    };
    for number in 0..whole.tasks {
        match batch.result(number)?.map(|done| done.outcome) {
            Some(Outcome::Failed { .. }) => whole.failed += 1,
            Some(_) => whole.done += 1,
            None => {}
        }
    }
    Ok(whole)
}

fn one(batch: &Batch, json: bool) -> Result<Exit, Error> {
    let jobs = slurm::jobs(batch)?;
    // Before the results: what is in neither was in none then.
    let queue = slurm::queue(batch, &jobs);
    let mut rows = Vec::new();
    for (number, task) in batch.tasks().iter().enumerate() {
        rows.push(Row {
            number,
            task,
            done: batch.result(number)?,
            queued: queue.as_ref().ok().and_then(|queue| queue.get(&number).cloned()),
        });
    }
    if json {
        print_json(&rows)?;
        return Ok(Exit::Done);
    }
    let lines: Vec<Vec<Cell>> = rows.iter().map(|row| line(row, queue.is_ok())).collect();
    table::print(&["TASK", "RECORDING", "WHAT", "HOST", "SECONDS", "STATE"], &lines)?;
    if let Err(error) = &queue {
        eprintln!(
            "ttvm: note: shown without what Slurm knows: {}",
            text::line(&one_line(error))
        );
    }
    Ok(Exit::Done)
}

fn line(row: &Row<'_>, asked: bool) -> Vec<Cell> {
    let (host, seconds, state) = match (&row.done, &row.queued) {
        (Some(done), _) => (done.host.clone(), done.seconds().to_string(), came(&done.outcome)),
        (None, Some(queued)) => (
            queued.host.clone().unwrap_or_default(),
            String::new(),
            Cell::toned(queued.state.clone(), Tone::Passing),
        ),
        (None, None) if asked => (String::new(), String::new(), Cell::toned(GONE, Tone::Bad)),
        (None, None) => (String::new(), String::new(), "no result yet".to_owned().into()),
    };
    let task = row.task;
    vec![
        row.number.to_string().into(),
        format!("{} {}", task.guest, task.id).into(),
        task.work.to_string().into(),
        host.into(),
        seconds.into(),
        state,
    ]
}

/// What a task came to, in a few words.
fn came(outcome: &Outcome) -> Cell {
    match outcome {
        Outcome::Verdict(Verdict::Identical { .. }) => Cell::toned("identical", Tone::Good),
        Outcome::Part(part) => match &part.piece {
            Piece::Same { .. } => Cell::toned("identical", Tone::Good),
            Piece::Differs(at) => Cell::toned(format!("diverged: {at}"), Tone::Bad),
            Piece::Unknown(why) => Cell::toned(format!("not known: {why}"), Tone::Passing),
        },
        Outcome::Verdict(verdict) => Cell::toned(verdict.to_string(), Tone::Bad),
        Outcome::Recorded { guest, id } => Cell::toned(format!("recorded {guest} {id}"), Tone::Good),
        Outcome::Failed { why, .. } => Cell::toned(format!("failed: {why}"), Tone::Bad),
    }
}
