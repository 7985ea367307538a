// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm recordings checkpoints`.

use std::io::{self, Write};

use super::{Error, print_json};
use crate::base::text::bytes;
use crate::cli::terminal::table;
use crate::recording::checkpoints::{Checkpoint, Checkpoints};
use crate::recording::replay::moment::Moment;
use crate::recording::replay::verdict::grouped;
use crate::recording::{Entry, Library};

pub(super) fn list(entry: &Entry, json: bool) -> Result<(), Error> {
    let checkpoints = Checkpoints::load(&entry.directory)?;
    let all = checkpoints.as_ref().map_or(&[][..], Checkpoints::all);
    if json {
        return print_json(&all.iter().map(|it| &it.moment).collect::<Vec<&Moment>>());
    }
    if all.is_empty() {
        let (guest, id) = (&entry.guest, &entry.id);
        writeln!(
            io::stdout(),
            "{guest} {id} has no checkpoints; `ttvm replay {guest} {id}` makes them"
        )?;
        return Ok(());
    }
    let end = (entry.manifest.as_ref())
        .and_then(|manifest| manifest.result.as_ref()?.instructions)
        .unwrap_or(1)
        .max(1);
    let row = |checkpoint: &Checkpoint| {
        let moment = &checkpoint.moment;
        vec![
            grouped(moment.instructions),
            format!("{}%", u128::from(moment.instructions) * 100 / u128::from(end)),
            moment.memory.to_string(),
        ]
    };
    table::print(
        &["INSTRUCTIONS", "OF ALL", "MEMORY"],
        &all.iter().map(row).collect::<Vec<_>>(),
    )?;
    Ok(())
}

pub(super) fn remove(library: &Library, entry: &Entry) -> Result<(), Error> {
    let freed = library.remove_checkpoints(entry)?;
    let (guest, id) = (&entry.guest, &entry.id);
    match freed {
        0 => writeln!(io::stdout(), "{guest} {id} has no checkpoints")?,
        freed => writeln!(
            io::stdout(),
            "{guest} {id}: the checkpoints are removed, {} are free",
            bytes(freed)
        )?,
    }
    Ok(())
}
