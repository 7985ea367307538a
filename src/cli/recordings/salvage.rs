// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm recordings salvage`.

use std::io::{self, Write};
use std::ops::ControlFlow;

use super::{Error, guest_name};
use crate::base::error::{Classify, Exit, report};
use crate::base::signals;
use crate::cli::terminal::progress::Progress;
use crate::config::types::GuestName;
use crate::recording::{Library, State};

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The guest
    #[arg(value_parser = guest_name)]
    guest: GuestName,
    /// The recording, or the beginning of its id; without, all that are incomplete
    id: Option<String>,
}

pub(super) fn run(library: &Library, arguments: &Arguments) -> Result<Exit, Error> {
    let guest = &arguments.guest;
    let entries = match &arguments.id {
        Some(id) => vec![library.entry(guest, id)?],
        None => {
            let mut entries = library.list(Some(guest))?;
            entries.retain(|entry| matches!(entry.state, State::Incomplete(_)));
            entries
        }
    };
    if entries.is_empty() {
        writeln!(io::stdout(), "guest \"{guest}\" has no incomplete recording")?;
    }
    let _deferred = signals::defer();
    let mut exit = Exit::Done;
    for entry in &entries {
        let mut progress = Progress::of(format!("reading {guest} {}", entry.id));
        // One that is begun is finished.
        let salvaged = library.salvage(entry, &mut |done, total| {
            let _ = progress.update(done, total);
            ControlFlow::Continue(())
        });
        drop(progress);
        match salvaged {
            Ok(Some(salvaged)) => writeln!(io::stdout(), "{salvaged}")?,
            Ok(None) => writeln!(
                io::stdout(),
                "{guest} {} is whole: there is nothing to salvage",
                entry.id
            )?,
            Err(error) => {
                exit = error.exit();
                report("ttvm", &error);
            }
        }
        if signals::waiting() {
            break;
        }
    }
    Ok(exit)
}
