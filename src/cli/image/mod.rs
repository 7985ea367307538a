// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm image`: what guests' disks are made from.

pub(super) mod create;

use std::collections::BTreeSet;
use std::io::{self, Write};

use clap::Subcommand;
use serde::Serialize;

use super::guests::snapshot::print_plan;
use super::terminal::progress::Progress;
use super::terminal::table;
use super::{Error, print_json};
use crate::base::error::{Classify, Exit, report};
use crate::base::text;
use crate::config::guest::Guest;
use crate::config::guests;
use crate::config::host::{self, HostConfig};
use crate::config::places::Places;
use crate::file::digest::Digest;
use crate::image::seal::{self, Outcome, Seal, State};
use crate::image::{self, Origin};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a guest's disk from the host's own files, a directory or a tar archive
    Create(create::Arguments),
    /// Make an origin read-only and keep a digest of its content with it
    Seal {
        /// The origin: VG/LV, or the whole path of a file
        origin: Origin,
        /// If it is sealed, read it again and compare
        #[arg(long)]
        deep: bool,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Take the digest away and make the origin writable
    Unseal {
        /// The origin: VG/LV, or the whole path of a file
        origin: Origin,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Show whether origins are sealed; those of all guests if none is named
    Status {
        /// The origins: VG/LV, or the whole path of a file
        #[arg(value_name = "ORIGIN")]
        origins: Vec<Origin>,
        /// Read those that are sealed and compare
        #[arg(long)]
        deep: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(places: &Places, command: &Command) -> Result<Exit, Error> {
    let host = host::load(places)?;
    match command {
        Command::Create(arguments) => create::run(places, &host, arguments)?,
        Command::Seal { origin, deep, dry_run } => {
            let seal = Seal::open(origin, &host.snapshot)?;
            match dry_run {
                true => print_plan(&seal.plan_seal()?)?,
                false => make(&seal, *deep)?,
            }
        }
        Command::Unseal { origin, dry_run } => {
            let seal = Seal::open(origin, &host.snapshot)?;
            match dry_run {
                true => print_plan(&seal.plan_unseal()?)?,
                false => {
                    let what = if seal.unseal()? {
                        "is writable again"
                    } else {
                        "is not sealed"
                    };
                    writeln!(io::stdout(), "{} {what}", text::line(&seal.origin().to_string()))?;
                }
            }
        }
        Command::Status { origins, deep, json } => return status(places, &host, origins, *deep, *json),
    }
    Ok(Exit::Done)
}

fn make(seal: &Seal<'_>, deep: bool) -> Result<(), Error> {
    let origin = seal.origin();
    let line = match read_and_seal(seal)? {
        Outcome::Sealed(digest) => format!("is sealed: {digest}"),
        Outcome::Already(digest) if deep => {
            compare(seal, digest)?.map_err(|found| Error::Differs(vec![(origin.clone(), digest, found)]))?;
            format!("was sealed already, and its content matches: {digest}")
        }
        Outcome::Already(digest) => format!("was sealed already: {digest}"),
    };
    writeln!(io::stdout(), "{} {line}", text::line(&origin.to_string()))?;
    Ok(())
}

fn read_and_seal(seal: &Seal<'_>) -> Result<Outcome, image::Error> {
    let mut progress = Progress::of(format!("reading {}", seal.origin()));
    seal.seal(&mut |done, total| progress.update(done, total))
}

/// Reads the content. The inner `Err` is what it is if it is not what `sealed` says.
fn compare(seal: &Seal<'_>, sealed: Digest) -> Result<Result<(), Digest>, image::Error> {
    let mut progress = Progress::of(format!("reading {}", seal.origin()));
    let found = seal.read(&mut |done, total| progress.update(done, total))?;
    Ok(if found == sealed { Ok(()) } else { Err(found) })
}

/// An origin as JSON.
#[derive(Serialize)]
struct Row {
    origin: Origin,
    #[serde(flatten)]
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'static str>,
}

fn status(places: &Places, host: &HostConfig, wanted: &[Origin], deep: bool, json: bool) -> Result<Exit, Error> {
    let origins = match wanted.is_empty() {
        true => of_guests(places, host)?,
        false => wanted.to_vec(),
    };
    let (mut rows, mut different, mut exit) = (Vec::new(), Vec::new(), Exit::Done);
    for (origin, state) in origins.iter().zip(seal::states(&origins)) {
        let row = state.and_then(|state| look(host, origin, state, deep, &mut different));
        match row {
            Ok(row) => rows.push(row),
            // One that cannot be looked at does not hide the others.
            Err(error) => {
                report("ttvm", &error);
                exit = error.exit();
            }
        }
    }
    if json {
        print_json(&rows)?;
    } else if !rows.is_empty() {
        print(&rows, deep)?;
    } else if origins.is_empty() {
        writeln!(io::stdout(), "no guest has an origin")?;
    }
    match different.is_empty() {
        true => Ok(exit),
        false => Err(Error::Differs(different)),
    }
}

/// The origins of all guests whose files are right.
fn of_guests(places: &Places, host: &HostConfig) -> Result<Vec<Origin>, Error> {
    let guests = guests::all(places, host)?;
    let origins: BTreeSet<Origin> = guests.iter().flat_map(Guest::origins).collect();
    Ok(origins.into_iter().collect())
}

fn look(
    host: &HostConfig,
    origin: &Origin,
    state: State,
    deep: bool,
    different: &mut Vec<(Origin, Digest, Digest)>,
) -> Result<Row, image::Error> {
    let content = match &state {
        State::Sealed { digest } if deep => {
            let seal = Seal::open(origin, &host.snapshot)?;
            Some(match compare(&seal, *digest)? {
                Ok(()) => "matches",
                Err(found) => {
                    different.push((origin.clone(), *digest, found));
                    "differs"
                }
            })
        }
        _ => None,
    };
    Ok(Row {
        origin: origin.clone(),
        state,
        content,
    })
}

fn print(rows: &[Row], deep: bool) -> io::Result<()> {
    let line = |row: &Row| {
        let (state, digest) = match &row.state {
            State::Sealed { digest } => ("sealed".to_owned(), digest.to_string()),
            State::Unsealed => ("not sealed".to_owned(), "-".to_owned()),
            State::Broken { why } => (format!("not sealed ({why})"), "-".to_owned()),
        };
        let mut line = vec![row.origin.to_string(), state];
        if deep {
            line.push(match row.content {
                // The one word in the table that must not be read over.
                Some("differs") => "DIFFERS".to_owned(),
                content => content.unwrap_or("-").to_owned(),
            });
        }
        line.push(digest);
        line
    };
    let head: &[&str] = match deep {
        true => &["ORIGIN", "STATE", "CONTENT", "DIGEST"],
        false => &["ORIGIN", "STATE", "DIGEST"],
    };
    table::print(head, &rows.iter().map(line).collect::<Vec<_>>())
}
