// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm recordings list`.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::{Error, print_json, state};
use crate::base::clock::duration;
use crate::base::text::bytes;
use crate::cli::terminal::clock::date_and_time;
use crate::cli::terminal::table;
use crate::config::types::GuestName;
use crate::recording::replay::verdict::Replays;
use crate::recording::{Entry, Id, Library, State};

/// A recording as JSON.
#[derive(Serialize)]
struct Row<'a> {
    guest: &'a GuestName,
    id: &'a Id,
    #[serde(flatten)]
    state: &'a State,
    started: Option<u64>,
    ended: Option<u64>,
    size: u64,
    pinned: bool,
    replays: Option<&'a Replays>,
    directory: &'a Path,
}

fn started(entry: &Entry) -> Option<u64> {
    Some(entry.manifest.as_ref()?.run.started)
}

fn ended(entry: &Entry) -> Option<u64> {
    Some(entry.manifest.as_ref()?.result.as_ref()?.ended)
}

impl<'a> Row<'a> {
    fn of(entry: &'a Entry) -> Self {
        Self {
            guest: &entry.guest,
            id: &entry.id,
            state: &entry.state,
            started: started(entry),
            ended: ended(entry),
            size: entry.size,
            pinned: entry.pinned,
            replays: entry.replays.as_ref(),
            directory: &entry.directory,
        }
    }
}

pub(super) fn run(library: &Library, guest: Option<&GuestName>, json: bool) -> Result<(), Error> {
    let entries = library.list(guest)?;
    if json {
        return print_json(&entries.iter().map(Row::of).collect::<Vec<_>>());
    }
    if entries.is_empty() {
        let whose = guest.map_or_else(String::new, |guest| format!(" of guest \"{guest}\""));
        writeln!(
            io::stdout(),
            "there are no recordings{whose} in {}",
            library.state_directory().display()
        )?;
        return Ok(());
    }
    let rows: Vec<Vec<String>> = entries.iter().map(line).collect();
    table::print(
        &["GUEST", "ID", "STARTED", "LENGTH", "STATE", "SIZE", "REPLAYED"],
        &rows,
    )?;
    let size = entries.iter().map(|entry| entry.size).sum();
    let plural = if entries.len() == 1 { "" } else { "s" };
    let besides = [
        ("copies of what disks were made from", library.size_of_bases()),
        ("engines", library.size_of_capsules()),
    ];
    let besides = besides.iter().filter(|(_, size)| *size > 0);
    let besides: String = besides
        .map(|(what, size)| format!("; {what}: {}", bytes(*size)))
        .collect();
    writeln!(
        io::stdout(),
        "{} recording{plural}, {}{besides}",
        entries.len(),
        bytes(size)
    )?;
    Ok(())
}

fn line(entry: &Entry) -> Vec<String> {
    let dash = || "-".to_owned();
    let length = started(entry)
        .zip(ended(entry))
        .map(|(started, ended)| duration(ended.saturating_sub(started)));
    let pinned = if entry.pinned { ", pinned" } else { "" };
    vec![
        entry.guest.to_string(),
        entry.id.to_string(),
        started(entry).map_or_else(dash, date_and_time),
        length.unwrap_or_else(dash),
        format!("{}{pinned}", state(&entry.state)),
        bytes(entry.size),
        entry.replays.as_ref().map_or_else(dash, ToString::to_string),
    ]
}
