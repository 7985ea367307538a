// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm batch results`: what a batch came to.

use std::io::{self, Write};

use super::Error;
use crate::base::error::Exit;
use crate::base::text;
use crate::batch::Batch;
use crate::batch::summary::{Answer, Came, answers};
use crate::batch::task::Work;
use crate::cli::print_json;
use crate::cli::runs::branch_tries::{Ends, end_of};
use crate::cli::runs::{record, replay};
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::recording::branch::tries::Tried;
use crate::recording::replay::verdict::grouped;
use crate::recording::{Id, Library, Recording};

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The batch, or as much of its name as is needed; the newest if none is named
    batch: Option<String>,
    /// Tell branches apart by whether they had printed this, such as "Kernel panic"
    #[arg(long, value_name = "TEXT")]
    printing: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(places: &Places, arguments: &Arguments) -> Result<Exit, Error> {
    let batch = Batch::open(places.state_dir(), arguments.batch.as_deref())?;
    let answers = answers(&batch)?;
    if arguments.json {
        print_json(&answers)?;
    } else {
        let library = Library::open(places.state_dir());
        for answer in &answers {
            tell(&library, answer)?;
        }
        ends(&library, &batch, &answers, arguments.printing.as_deref())?;
    }
    let exits: Vec<Exit> = answers.iter().map(Answer::exit).collect();
    let is = |exit: &Exit| exits.contains(exit);
    Ok([Exit::Diverged, Exit::Failed]
        .into_iter()
        .find(is)
        .unwrap_or(Exit::Done))
}

fn tell(library: &Library, answer: &Answer) -> Result<(), Error> {
    let Answer { guest, id, came } = answer;
    let mut out = io::stdout().lock();
    match came {
        Came::Verdict(verdict) => replay::tell(guest, id, verdict).map(drop)?,
        Came::Recorded { guest, id } => match recording(library, guest, id) {
            Ok(recording) => writeln!(out, "{}", record::summary(&recording, true))?,
            Err(error) => writeln!(out, "recorded {guest} {id}: {}", text::line(&error.to_string()))?,
        },
        Came::Failed { task, host, why, .. } => {
            writeln!(
                out,
                "FAILED: {guest} {id}: task {task} on {}: {}",
                text::line(host),
                text::line(why)
            )?;
        }
        Came::Open { why } => writeln!(
            out,
            "OPEN: {guest} {id}: its pieces cannot tell ({}): `ttvm verify {guest} {id} --jobs 1`",
            text::line(why)
        )?,
        Came::Waiting { done, of } => writeln!(out, "OPEN: {guest} {id}: {done} of {of} done")?,
    }
    Ok(())
}

fn recording(library: &Library, guest: &GuestName, id: &Id) -> Result<Recording, crate::recording::Error> {
    library.exactly(guest, id)
}

/// How the branches ended, beside the recording that they left, as `ttvm branch --tries` has it. Nothing where there are none.
fn ends(library: &Library, batch: &Batch, answers: &[Answer], text: Option<&str>) -> Result<(), Error> {
    let Some(first) = batch.tasks().iter().find(|it| matches!(it.work, Work::Branch { .. })) else {
        return Ok(());
    };
    let parent = recording(library, &first.guest, &first.id)?;
    let mut ends = Ends {
        all: Vec::new(),
        left_out: Vec::new(),
        whole: answers.iter().all(|answer| answer.exit() == Exit::Done),
    };
    for (answer, task) in answers.iter().zip(batch.tasks()) {
        match &answer.came {
            Came::Recorded { guest, id } => {
                // It may have been removed since.
                let Ok(branch) = recording(library, guest, id) else {
                    ends.whole = false;
                    continue;
                };
                // A guest that was busy there has been left a little later.
                let Some(parent) = &branch.manifest().parent else {
                    continue;
                };
                let (at, end) = (parent.instructions, end_of(&branch, text)?);
                match ends.all.iter_mut().find(|tried| tried.at == at) {
                    Some(tried) => tried.ends.push(end),
                    None => ends.all.push(Tried { at, ends: vec![end] }),
                }
            }
            Came::Failed { why, .. } => {
                if let Work::Branch { at, .. } = task.work {
                    ends.left_out.push((grouped(at), why.clone()));
                }
            }
            _ => {}
        }
    }
    ends.print(&parent, end_of(&parent, text)?, text)
}
