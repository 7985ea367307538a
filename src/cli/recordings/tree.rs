// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm recordings tree`: which recording is a branch of which.

use std::io::{self, Write};

use serde::Serialize;

use super::{Error, print_json, state};
use crate::config::types::GuestName;
use crate::recording::library::manifest::{Outcome, Parent};
use crate::recording::replay::verdict::grouped;
use crate::recording::{Entry, Error as LibraryError, Id, Library, State};

/// A recording and its branches.
#[derive(Serialize)]
struct Node<'a> {
    guest: &'a GuestName,
    id: &'a Id,
    #[serde(flatten)]
    state: &'a State,
    parent: Option<&'a Parent>,
    instructions: Option<u64>,
    #[serde(skip)]
    entry: &'a Entry,
    branches: Vec<Node<'a>>,
}

pub(super) fn run(library: &Library, guest: &GuestName, json: bool) -> Result<(), Error> {
    // A branch may be one of another guest.
    let entries = library.list(None)?;
    let roots: Vec<Node<'_>> = entries
        .iter()
        .filter(|entry| entry.guest == *guest && parent_of(entry, &entries).is_none_or(|parent| parent.guest != *guest))
        .map(|entry| node(entry, &entries))
        .collect();
    if roots.is_empty() {
        return Err(LibraryError::None { guest: guest.clone() }.into());
    }
    if json {
        return print_json(&roots);
    }
    let mut out = io::stdout().lock();
    for root in &roots {
        let from = root.parent.map_or_else(String::new, |parent| {
            let Parent {
                guest,
                id,
                instructions,
            } = parent;
            let is_there = parent_of(root.entry, &entries).is_some();
            let gone = if is_there { "" } else { ", which is not here" };
            format!(" (of {guest} {id} at {}{gone})", grouped(*instructions))
        });
        writeln!(out, "{} {}{from}: {}", root.guest, root.id, what(root.entry))?;
        below(&mut out, root, "")?;
    }
    Ok(())
}

fn result(entry: &Entry) -> Option<&Outcome> {
    entry.manifest.as_ref()?.result.as_ref()
}

/// The recording that `entry` is a branch of, if it is there. One that is not older is none: each recording is shown once.
fn parent_of<'a>(entry: &Entry, entries: &'a [Entry]) -> Option<&'a Entry> {
    entries.iter().find(|it| entry.is_branch_of(&it.guest, &it.id))
}

fn node<'a>(entry: &'a Entry, entries: &'a [Entry]) -> Node<'a> {
    let mut branches: Vec<Node<'_>> = entries
        .iter()
        .filter(|it| it.is_branch_of(&entry.guest, &entry.id))
        .map(|branch| node(branch, entries))
        .collect();
    branches.sort_by_key(|branch| branch.parent.map(|parent| parent.instructions));
    Node {
        guest: &entry.guest,
        id: &entry.id,
        state: &entry.state,
        parent: entry.parent(),
        instructions: result(entry).and_then(|result| result.instructions),
        entry,
        branches,
    }
}

/// Prints the branches of `node`, each behind `before`.
fn below(out: &mut impl Write, node: &Node<'_>, before: &str) -> io::Result<()> {
    for (number, branch) in node.branches.iter().enumerate() {
        let (corner, side) = match number + 1 == node.branches.len() {
            true => ("└─", "   "),
            false => ("├─", "│  "),
        };
        let at = branch.parent.map_or(0, |parent| parent.instructions);
        let (guest, id) = (branch.guest, branch.id);
        writeln!(
            out,
            "{before}{corner} at {}: {guest} {id}: {}",
            grouped(at),
            what(branch.entry)
        )?;
        below(out, branch, &format!("{before}{side}"))?;
    }
    Ok(())
}

/// What became of a run, in a few words.
fn what(entry: &Entry) -> String {
    let mut words = match result(entry) {
        Some(result) => {
            let count = result
                .instructions
                .map_or_else(String::new, |count| format!(" after {} instructions", grouped(count)));
            format!("{}{count}", result.exit)
        }
        None => state(&entry.state).to_owned(),
    };
    if let Some(replays) = &entry.replays {
        words += &format!("; replayed: {replays}");
    }
    words
}
