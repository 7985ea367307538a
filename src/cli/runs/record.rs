// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm record`: a run that can be replayed.

use std::io::{self, Write};

use super::branch::{self, Source};
use super::foreground::{Follower, Foreground};
use super::unit;
use crate::base::error::Exit;
use crate::base::text;
use crate::cli::{Error, guest_name};
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::recording::library::manifest::RunExit;
use crate::recording::record::{self, Cut, Options};
use crate::recording::replay::verdict::grouped;
use crate::recording::session::limit::Limit;

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The guest
    #[arg(value_parser = guest_name)]
    guest: GuestName,
    /// Show the guest's console; on a terminal, what is typed goes to the guest (Ctrl-] ends the run)
    #[arg(long)]
    console: bool,
    /// End the run after this time of the host, such as 30s or 2min, or at the same end each time: after a time of the guest
    /// (guest:12s) or so many instructions (guest:1_000_000)
    #[arg(long = "for", value_name = "TIME")]
    limit: Option<Limit>,
    /// Begin where a recording was at this point, in place of a first instruction: boot once, record many
    #[arg(long, value_name = "GUEST[/RECORDING]@POINT", conflicts_with = "dry_run")]
    from: Option<Source>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub(in crate::cli) fn run(places: &Places, arguments: &Arguments) -> Result<Exit, Error> {
    if let Some(source) = &arguments.from {
        return branch::leave(places, source, &arguments.guest, arguments.console, arguments.limit);
    }
    // A console needs somebody who sits there: such a run ends with the command.
    if places.has_units() && !arguments.dry_run && !arguments.console {
        return unit::record(&arguments.guest, arguments.limit);
    }
    let run = Foreground::new(places, &arguments.guest)?;
    if arguments.dry_run {
        for line in run.plan_record()? {
            writeln!(io::stdout(), "{}", text::line(&line))?;
        }
        return Ok(Exit::Done);
    }
    let _claim = run.claim()?;
    let mut keys = arguments
        .console
        .then(crate::cli::terminal::keyboard::Keyboard::open)
        .flatten();
    let mut follower = Follower::new(&arguments.guest, arguments.console, "Ctrl-C ends the run");
    let recorded = record::record(
        &run.guest()?,
        &run.file_text()?,
        run.library(),
        &run.environment(),
        &Options { limit: arguments.limit },
        &mut follower,
        keys.as_mut()
            .map(|keys| keys as &mut dyn crate::recording::session::Keys),
    );
    drop(keys);
    follower.end();
    let recorded = recorded?;
    say_cut(recorded.cut.as_ref());
    writeln!(io::stdout(), "{}", summary(&recorded.recording, recorded.cut.is_none()))?;
    Ok(Exit::Done)
}

/// That a run was ended, if it was.
pub(super) fn say_cut(cut: Option<&Cut>) {
    if let Some(cut) = cut {
        eprintln!("ttvm: {cut}");
    }
}

/// A recording in a line. Whether one that was cut off was to end there, it does not say.
pub(in crate::cli) fn summary(recording: &crate::recording::Recording, was_to_end: bool) -> String {
    let manifest = recording.manifest();
    let head = format!("recorded {} {}", manifest.guest, recording.id());
    match &manifest.result {
        Some(result) => format!(
            "{head}: {} after {}{} s; log {} KiB, console {} bytes",
            match result.exit {
                RunExit::Cut if was_to_end => "ended as it was to".to_owned(),
                exit => exit.to_string(),
            },
            result
                .instructions
                .map_or_else(String::new, |count| format!("{} instructions, ", grouped(count))),
            result.ended.saturating_sub(manifest.run.started),
            result.log.size >> 10,
            result.console.size
        ),
        None => head,
    }
}
