// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm recordings rm`.

use std::io::{self, Write};

use super::{Error, guest_name};
use crate::base::clock::now;
use crate::base::error::{Classify, Exit, chain, report};
use crate::base::signals;
use crate::base::text::{self, bytes};
use crate::config::types::GuestName;
use crate::recording::{Entry, Library, State};

const DAY: u64 = 86_400;

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The guest
    #[arg(value_parser = guest_name)]
    guest: GuestName,
    /// The recordings, or the beginnings of their ids
    #[arg(value_name = "ID", conflicts_with_all = ["incomplete", "keep", "older_than"])]
    ids: Vec<String>,
    /// All that did not come to their end
    #[arg(long)]
    incomplete: bool,
    /// All complete ones but the newest N
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Only those that began more than DAYS days ago; with --keep and --incomplete, of those they say
    #[arg(long, value_name = "DAYS")]
    older_than: Option<u64>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(library: &Library, arguments: &Arguments) -> Result<Exit, Error> {
    let bulk = arguments.incomplete || arguments.keep.is_some() || arguments.older_than.is_some();
    if arguments.ids.is_empty() && !bulk {
        let message = "which? Name recordings, or say --incomplete, --keep N or --older-than DAYS";
        return Err(Error::Usage(message.to_owned()));
    }
    // All of them are looked up before one is removed.
    let entries = match bulk {
        true => select(library.list(Some(&arguments.guest))?, arguments, now()),
        false => named(library, arguments)?,
    };
    let _deferred = signals::defer();
    let (mut freed, mut removed, mut exit) = (0u64, 0, Exit::Done);
    for entry in &entries {
        let done = match arguments.dry_run {
            true => library.check_removal(entry).map(|()| entry.size),
            false => library.remove(entry),
        };
        match done {
            Ok(size) => {
                let what = if arguments.dry_run { "would remove" } else { "removed" };
                writeln!(
                    io::stdout(),
                    "{what} {} {} ({})",
                    entry.guest,
                    entry.id,
                    bytes(entry.size)
                )?;
                freed += size;
                removed += 1;
            }
            // Nobody asked for this one by its name.
            Err(error) if bulk && error.exit() == Exit::Refused => {
                writeln!(io::stdout(), "left alone: {}", text::lines(&chain(&error)))?;
            }
            Err(error) => {
                exit = error.exit();
                report("ttvm", &error);
            }
        }
        if signals::waiting() {
            break;
        }
    }
    match (removed, arguments.dry_run) {
        (0, _) if exit != Exit::Done => {}
        (0, _) => writeln!(io::stdout(), "nothing to remove")?,
        (_, true) => writeln!(io::stdout(), "would free {}", bytes(freed))?,
        (_, false) => writeln!(io::stdout(), "freed {}", bytes(freed))?,
    }
    Ok(exit)
}

fn named(library: &Library, arguments: &Arguments) -> Result<Vec<Entry>, Error> {
    let mut entries: Vec<Entry> = Vec::new();
    for id in &arguments.ids {
        let entry = library.entry(&arguments.guest, id)?;
        if !entries.iter().any(|other| other.id == entry.id) {
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// Those of `entries`, the newest last, that the options say.
fn select(entries: Vec<Entry>, arguments: &Arguments, now: u64) -> Vec<Entry> {
    let complete = entries.iter().filter(|entry| entry.state == State::Complete).count();
    let limit = now.saturating_sub(arguments.older_than.unwrap_or(0).saturating_mul(DAY));
    // Without one of these two, age alone decides.
    let by_age = !arguments.incomplete && arguments.keep.is_none();
    let mut newer = complete;
    let mut wanted = |entry: &Entry| {
        let started = entry.manifest.as_ref().map(|manifest| manifest.run.started);
        let old = arguments.older_than.is_none() || started.is_some_and(|started| started < limit);
        let chosen = match &entry.state {
            State::Complete => {
                newer -= 1;
                by_age || arguments.keep.is_some_and(|keep| newer >= keep)
            }
            State::Incomplete(_) => by_age || arguments.incomplete,
            State::Recording | State::Damaged(_) => false,
        };
        old && chosen
    };
    entries.into_iter().filter(|entry| wanted(entry)).collect()
}
