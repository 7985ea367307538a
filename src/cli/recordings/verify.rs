// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm recordings verify`.

use std::io::{self, Write};

use serde::Serialize;

use super::{Error, print_json};
use crate::base::error::Exit;
use crate::base::{signals, text};
use crate::cli::terminal::progress::Progress;
use crate::config::types::GuestName;
use crate::recording::library::check::Fault;
use crate::recording::{Entry, Id, Library, State};

/// A check as JSON.
#[derive(Serialize)]
struct Verified {
    guest: GuestName,
    id: Id,
    whole: bool,
    faults: Vec<Fault>,
    /// The engines on which a replay was identical.
    identical_on: Vec<String>,
}

impl Verified {
    fn of(library: &Library, entry: Entry) -> Result<Self, Error> {
        let (guest, id) = (entry.guest.clone(), entry.id.clone());
        let engines = entry.replays.as_ref().map(|it| it.engines.clone());
        let faults = faults(library, entry)?;
        Ok(Self {
            guest,
            id,
            whole: faults.is_empty(),
            faults,
            identical_on: engines.unwrap_or_default(),
        })
    }

    fn line(&self) -> String {
        match (&self.faults[..], &self.identical_on[..]) {
            ([], []) => "is as it was recorded; no replay of it was identical so far".to_owned(),
            ([], engines) => format!("is as it was recorded; identical on {}", engines.join(", ")),
            ([fault], _) => fault.to_string(),
            ([fault, more @ ..], _) => format!("{fault}; and {} more", more.len()),
        }
    }

    fn exit(&self) -> Exit {
        if self.whole { Exit::Done } else { Exit::Failed }
    }
}

/// Reads the recording `id` of `guest`; without, the newest that came to its end.
pub(super) fn one(library: &Library, guest: &GuestName, id: Option<&str>, json: bool) -> Result<Exit, Error> {
    let entry = match id {
        Some(id) => library.entry(guest, id)?,
        // Not an older one only because this is damaged.
        None => {
            let newest = library.list(Some(guest))?.into_iter().rfind(has_ended);
            match newest {
                Some(entry) => entry,
                None => library.newest(guest)?,
            }
        }
    };
    let verified = Verified::of(library, entry)?;
    let (guest, id) = (&verified.guest, &verified.id);
    if json {
        print_json(&verified)?;
    } else if verified.whole {
        writeln!(io::stdout(), "{guest} {id} is as it was recorded")?;
    } else {
        for fault in &verified.faults {
            writeln!(io::stdout(), "{guest} {id}: {}", text::line(&fault.to_string()))?;
        }
    }
    Ok(verified.exit())
}

/// Reads all that came to their end, each with a line: its first fault, or on which engines its replays were identical.
pub(super) fn all(library: &Library, json: bool) -> Result<Exit, Error> {
    let mut all = Vec::new();
    for entry in library.list(None)?.into_iter().filter(has_ended) {
        let verified = Verified::of(library, entry)?;
        if !json {
            let (guest, id) = (&verified.guest, &verified.id);
            writeln!(io::stdout(), "{guest} {id}: {}", text::line(&verified.line()))?;
        }
        all.push(verified);
    }
    if json {
        print_json(&all)?;
    }
    let faulty = all.iter().find(|verified| !verified.whole);
    Ok(faulty.map_or(Exit::Done, Verified::exit))
}

fn has_ended(entry: &Entry) -> bool {
    matches!(entry.state, State::Complete | State::Damaged(_))
}

/// What is not as it was recorded.
fn faults(library: &Library, entry: Entry) -> Result<Vec<Fault>, Error> {
    if let State::Damaged(why) = &entry.state {
        return Ok(vec![Fault::Manifest(why.clone())]);
    }
    let mut progress = Progress::of(format!("reading {} {}", entry.guest, entry.id));
    let recording = library.complete(entry)?;
    let _in_use = recording.use_shared()?;
    let _deferred = signals::defer();
    let mut follow = |done, total| progress.update(done, total);
    let mut faults = recording.check(&mut follow)?;
    faults.extend(recording.check_capsule(&mut follow)?);
    Ok(faults)
}
