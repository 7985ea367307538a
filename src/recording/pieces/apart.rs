// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pieces that are replayed each by itself, by whoever has many hosts: where to cut, one piece, and what all of them come to.

use serde::{Deserialize, Serialize};

use super::{Ground, Piece, Plan, Proof, Whole, conclude};
use crate::config::guest::Guest;
use crate::recording::replay::{self, Choice};
use crate::recording::session::{Environment, Error, Listener};
use crate::recording::{Recording, Verdict, live, log};

/// A piece of a run: after how many instructions it begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
}

/// What one piece came to, by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// After how many instructions it began.
    pub from: u64,
    /// What it came to.
    pub piece: Piece,
    /// Instructions of the whole run.
    pub end: u64,
    /// What ran it, as the recording remembers it.
    pub ran_on: String,
}

/// Cuts `recording` in so many pieces, or in fewer; in one if it cannot be cut.
///
/// # Errors
///
/// If its checkpoints or its log cannot be read.
pub fn cuts(recording: &Recording, pieces: usize) -> Result<Vec<Range>, Error> {
    let end = log::end(recording)?.instructions;
    let bounds = match Ground::of(recording)? {
        Ok(ground) => ground.bounds(end),
        Err(_) => vec![0, end],
    };
    let cuts = Plan::new(bounds, pieces).cuts();
    Ok(cuts.into_iter().map(|(from, to)| Range { from, to }).collect())
}

/// Replays one piece of `recording`. `guest` is the guest's file as it is now, if there still is one.
///
/// # Errors
///
/// If a replay would not be one, or if the machine fails: then nothing is known of the piece.
pub fn replay_part(
    recording: &Recording,
    guest: Option<&Guest>,
    environment: &Environment<'_>,
    range: Range,
    listener: &mut dyn Listener,
) -> Result<Part, Error> {
    let _use = recording.use_shared()?;
    let signals = live::signals()?;
    let checked = replay::check(recording, guest, &environment.seals, Choice::Installed, listener)?;
    let end = checked.end().instructions;
    let part = |piece| Part {
        from: range.from,
        piece,
        end,
        ran_on: checked.ran_on(),
    };
    let ground = match Ground::of(recording)? {
        Ok(ground) => ground,
        Err(Whole::Alone) => return Ok(part(Piece::Unknown("it is not cut".to_owned()))),
        Err(Whole::Because(why)) => return Ok(part(Piece::Unknown(why))),
    };
    let Some(plan) = Plan::part(ground.bounds(end), range.from, range.to) else {
        let why = "its checkpoints are not those at which it was cut";
        return Ok(part(Piece::Unknown(why.to_owned())));
    };
    let of = (recording, guest, environment);
    let over = Proof::new(of, &checked, &ground, plan, &signals)?.run(1, listener)?;
    let piece = over.into_iter().next().map(|(_, piece)| piece);
    Ok(part(piece.ok_or(Error::Interrupted)?))
}

/// What all parts of a run come to together; or why they cannot tell what one replay would.
///
/// # Errors
///
/// That reason, as a part of a sentence.
pub fn together(parts: Vec<Part>) -> Result<Verdict, String> {
    let end = parts.first().map_or(0, |part| part.end);
    conclude(end, parts.into_iter().map(|part| (part.from, part.piece)).collect())
}
