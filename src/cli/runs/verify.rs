// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm verify`: the proof that a recorded run is the same once more, on all processors.

use std::num::NonZero;

use super::foreground::{Follower, Foreground};
use super::replay;
use crate::base::error::Exit;
use crate::cli::{Error, guest_name};
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::recording::pieces;

#[derive(clap::Args)]
#[command(
    after_help = "The verdict is that of ttvm replay --verify in the same words. ttvm recordings verify reads the files of a recording and replays nothing."
)]
pub(in crate::cli) struct Arguments {
    /// The guest
    #[arg(value_parser = guest_name)]
    guest: GuestName,
    /// The recording, or as much of its name as is needed; the newest if none is named
    recording: Option<String>,
    /// Run so many machines at once, each a piece of the run [default: as many as there are processors, and memory for]
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
}

pub(in crate::cli) fn run(places: &Places, arguments: &Arguments) -> Result<Exit, Error> {
    let run = Foreground::new(places, &arguments.guest)?;
    let recording = run.library().find(&arguments.guest, arguments.recording.as_deref())?;
    if !recording.manifest().engine.toolstack.is_emulated() {
        return Err(Error::Usage(
            "verify is for guests with toolstack = \"qemu\": `ttvm replay --verify` this one".to_owned(),
        ));
    }
    // A recording that came from another host may be of a guest that has no file here.
    let guest = run.guest_if_any()?;
    let _claim = run.claim()?;
    let mut follower = Follower::new(&arguments.guest, false, "Ctrl-C ends it");
    let verdict = pieces::verify(
        &recording,
        guest.as_ref(),
        &run.environment(),
        arguments.jobs,
        &mut follower,
    );
    follower.end();
    replay::tell(&arguments.guest, recording.id(), &verdict?)
}
