// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm batch`: work on recordings that many hosts do.

mod results;
mod status;
mod submit;
mod task;

use clap::Subcommand;

use super::{Error, guest_name};
use crate::base::error::Exit;
use crate::config::places::Places;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Prove recordings: each is replayed by some host, or is cut in pieces
    Verify(submit::Verify),
    /// Leave a recording and live on from there, each time on some host
    Branch(submit::Branch),
    /// Show where the tasks of a batch are; without a batch, all batches
    Status {
        /// The batch, or as much of its name as is needed
        batch: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what a batch came to: a line for each recording that it proves, or for each branch
    Results(results::Arguments),
    /// Do a task: what Slurm runs
    #[command(hide = true)]
    Task(task::Arguments),
}

pub(super) fn run(places: &Places, command: &Command) -> Result<Exit, Error> {
    match command {
        Command::Verify(arguments) => submit::verify(places, arguments),
        Command::Branch(arguments) => submit::branch(places, arguments),
        Command::Status { batch, json } => status::run(places, batch.as_deref(), *json),
        Command::Results(arguments) => results::run(places, arguments),
        Command::Task(arguments) => task::run(places, arguments),
    }
}
