// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm recordings`: what record runs have left.

mod checkpoints;
mod compare;
mod list;
mod remove;
mod salvage;
mod show;
mod transfer;
mod tree;
mod verify;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Subcommand;

use super::{Error, guest_name, print_json};
use crate::base::error::Exit;
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::file::digest::Digest;
use crate::recording::library::export::With;
use crate::recording::{Entry, Library, State};

#[derive(Subcommand)]
pub(super) enum Command {
    /// List recordings, the newest last
    List {
        /// The guest; all if none is named
        #[arg(value_parser = guest_name)]
        guest: Option<GuestName>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show everything that is known of a recording
    Show {
        #[command(flatten)]
        which: Which,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Read a recording and say what is not as it was recorded
    Verify {
        /// The guest
        #[arg(value_parser = guest_name, required_unless_present = "all")]
        guest: Option<GuestName>,
        /// The recording, or the beginning of its id; without, the newest that came to its end
        id: Option<String>,
        /// All recordings of all guests, a line each, with the engines on which their replays were identical
        #[arg(long, conflicts_with = "guest")]
        all: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show which recording is a branch of which, and where it leaves it
    Tree {
        /// The guest
        #[arg(value_parser = guest_name)]
        guest: GuestName,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Find the first instruction that two recordings do not have in common: exit status 0 if there is none, 5 if there is
    Compare(compare::Arguments),
    /// List the moments from which a replay to a point (--at) begins; the first replay of a recording makes them
    Checkpoints {
        #[command(flatten)]
        which: Which,
        /// Remove them; the next replay makes others
        #[arg(long, conflicts_with = "json")]
        rm: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove recordings
    Rm(remove::Arguments),
    /// Make a whole recording of one that was cut off, up to the last moment that is known
    Salvage(salvage::Arguments),
    /// Protect a recording from being removed
    Pin(Which),
    /// Let a recording be removed again
    Unpin(Which),
    /// Write a recording to one file, which another host can import and replay
    Export {
        #[command(flatten)]
        which: Which,
        /// The file; "-" is the standard output. Without, GUEST-ID.ttvm in this directory
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Also what its disks were made from
        #[arg(long)]
        with_disks: bool,
        /// Also the QEMU that recorded it, with all that it needs to run elsewhere (`replay --engine capsule`): some 20 MB
        #[arg(long)]
        with_engine: bool,
        /// Replace the file if it is there
        #[arg(long)]
        force: bool,
    },
    /// Let an engine that came with a recording be run (`replay --engine capsule`): it is a program of whoever exported it
    TrustEngine {
        /// Its digest, as `recordings show` says it where you know who made it
        digest: Digest,
    },
    /// Take in a recording that was exported
    Import {
        /// The file; "-" is the standard input
        file: PathBuf,
        /// As a recording of this guest
        #[arg(long = "as", value_name = "GUEST", value_parser = guest_name)]
        guest: Option<GuestName>,
        /// What a disk of it was made from, if that is not in the file; it is copied
        #[arg(long = "disk", value_name = "FILE")]
        disks: Vec<PathBuf>,
    },
}

/// A recording on the command line.
#[derive(clap::Args)]
pub(super) struct Which {
    /// The guest
    #[arg(value_parser = guest_name)]
    guest: GuestName,
    /// The recording, or the beginning of its id; without, the newest complete one
    id: Option<String>,
}

impl Which {
    fn entry(&self, library: &Library) -> Result<Entry, Error> {
        Ok(match &self.id {
            Some(id) => library.entry(&self.guest, id)?,
            None => library.newest(&self.guest)?,
        })
    }
}

pub(super) fn run(places: &Places, command: &Command) -> Result<Exit, Error> {
    let library = Library::open(places.state_dir());
    match command {
        Command::List { guest, json } => list::run(&library, guest.as_ref(), *json)?,
        Command::Show { which, json } => show::run(&library, which.entry(&library)?, *json)?,
        Command::Verify { guest, id, json, .. } => {
            return match guest {
                Some(guest) => verify::one(&library, guest, id.as_deref(), *json),
                None => verify::all(&library, *json),
            };
        }
        Command::Checkpoints { which, rm: true, .. } => checkpoints::remove(&library, &which.entry(&library)?)?,
        Command::Checkpoints { which, json, .. } => checkpoints::list(&which.entry(&library)?, *json)?,
        Command::Tree { guest, json } => tree::run(&library, guest, *json)?,
        Command::Compare(arguments) => return compare::run(places, arguments),
        Command::Rm(arguments) => return remove::run(&library, arguments),
        Command::Salvage(arguments) => return salvage::run(&library, arguments),
        Command::Pin(which) => pin(&library, which, true)?,
        Command::Unpin(which) => pin(&library, which, false)?,
        Command::Export {
            which,
            output,
            with_disks,
            with_engine,
            force,
        } => {
            let recording = library.find(&which.guest, which.id.as_deref())?;
            let with = With {
                disks: *with_disks,
                engine: *with_engine,
            };
            transfer::export(&recording, output.as_deref(), with, *force)?;
        }
        Command::TrustEngine { digest } => {
            library.trust(*digest)?;
            writeln!(
                io::stdout(),
                "the engine {digest} may be run, as long as a recording here has it"
            )?;
        }
        Command::Import { file, guest, disks } => transfer::import(places, file, guest.as_ref(), disks)?,
    }
    Ok(Exit::Done)
}

fn pin(library: &Library, which: &Which, pinned: bool) -> Result<(), Error> {
    let entry = which.entry(library)?;
    library.pin(&entry, pinned)?;
    let what = if pinned {
        "pinned: it is not removed"
    } else {
        "not pinned: it may be removed"
    };
    writeln!(io::stdout(), "{} {} is {what}", entry.guest, entry.id)?;
    Ok(())
}

/// A state in a table.
fn state(state: &State) -> &'static str {
    match state {
        State::Complete => "complete",
        State::Recording => "being recorded",
        State::Incomplete(_) => "incomplete",
        State::Damaged(_) => "damaged",
    }
}
