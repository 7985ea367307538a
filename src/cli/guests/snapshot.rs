// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm snapshot`: the snapshots of guests, by hand.

use std::io::{self, Write};

use clap::Subcommand;
use serde::Serialize;

use crate::base::error::Exit;
use crate::base::text;
use crate::cli::terminal::table;
use crate::cli::{Error, guest_name, print_json};
use crate::config::places::Places;
use crate::config::types::{GuestName, Size, Volume};
use crate::config::{guests, host};
use crate::file::lock::Attempt;
use crate::guest::{self, claim, soon};
use crate::snapshot::{Fill, Store};

#[derive(Subcommand)]
pub(in crate::cli) enum Command {
    /// Show a guest's snapshots and how full they are
    Status {
        /// The guest
        #[arg(value_parser = guest_name)]
        guest: GuestName,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a guest's snapshots and make them new, as its start does
    Reset(Change),
    /// Remove a guest's snapshots
    Discard(Change),
}

#[derive(clap::Args)]
pub(in crate::cli) struct Change {
    /// The guest
    #[arg(value_parser = guest_name)]
    guest: GuestName,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

pub(in crate::cli) fn run(places: &Places, command: &Command) -> Result<Exit, Error> {
    let name = match command {
        Command::Status { guest, .. } => guest,
        Command::Reset(change) | Command::Discard(change) => &change.guest,
    };
    let host = host::load(places)?;
    let guest = guests::load(places, &host, name)?;
    if guest.snapshots().next().is_none() {
        if let Command::Status { json: true, .. } = command {
            print_json(&[(); 0])?;
        } else {
            writeln!(io::stdout(), "guest \"{name}\" has no snapshots")?;
        }
        return Ok(Exit::Done);
    }
    let snapshots = guest.snapshots().cloned().collect();
    let store = Store::open(name, snapshots, &host.snapshot)?;
    let _claim = match command {
        Command::Reset(Change { dry_run: false, .. }) | Command::Discard(Change { dry_run: false, .. }) => {
            let lock = match claim(name)? {
                Attempt::Taken(lock) => Some(lock),
                Attempt::Busy(waiting) => soon(waiting)?,
            };
            Some(lock.ok_or_else(|| guest::Error::Claimed { guest: name.clone() })?)
        }
        _ => None,
    };
    match command {
        Command::Status { json, .. } => status(&store, *json)?,
        Command::Reset(change) if change.dry_run => print_plan(&store.plan_reset()?)?,
        Command::Discard(change) if change.dry_run => print_plan(&store.plan_discard()?)?,
        Command::Reset(_) => store.reset()?,
        Command::Discard(_) => store.discard()?,
    }
    Ok(Exit::Done)
}

/// What would be done, a line for each step.
pub(in crate::cli) fn print_plan(plan: &[String]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    for step in plan {
        writeln!(out, "would {}", text::line(step))?;
    }
    if plan.is_empty() {
        writeln!(out, "nothing to do")?;
    }
    Ok(())
}

/// A snapshot as JSON.
#[derive(Serialize)]
struct Row<'a> {
    snapshot: &'a Volume,
    origin: &'a Volume,
    #[serde(flatten)]
    fill: Fill,
}

fn status(store: &Store<'_>, json: bool) -> Result<(), Error> {
    let rows: Vec<Row<'_>> = store
        .status()?
        .into_iter()
        .map(|(snapshot, fill)| Row {
            snapshot: &snapshot.volume,
            origin: &snapshot.origin,
            fill,
        })
        .collect();
    if json {
        return print_json(&rows);
    }
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| vec![row.snapshot.to_string(), row.origin.to_string(), describe(&row.fill)])
        .collect();
    table::print(&["SNAPSHOT", "ORIGIN", "FILL"], &rows)?;
    Ok(())
}

/// How full a snapshot is, in a few words.
pub(in crate::cli) fn describe(fill: &Fill) -> String {
    match fill {
        Fill::Absent => "-".into(),
        Fill::Thick { used, total } => {
            let percent = 100.0 * *used as f64 / (*total).max(1) as f64;
            format!("{percent:.1}% of {}", Size::from_bytes(*total))
        }
        Fill::Overflowed => "OVERFLOWED".into(),
        Fill::Thin {
            pool_percent,
            writable: true,
        } => format!("thin, pool {pool_percent}%"),
        Fill::Thin { writable: false, .. } => "thin, POOL FULL".into(),
        Fill::NoSnapshot => "not a snapshot".into(),
    }
}
