// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pieces that are replayed each by itself, by whoever has many hosts: where to cut, one piece, and what all of them come to.

use serde::{Deserialize, Serialize};

use super::{Ground, Piece, Plan, Proof, Whole, conclude};
use crate::config::guest::Guest;
use crate::recording::replay::{self, Choice};
use crate::recording::session::{Environment, Error, Listener, live};
use crate::recording::{Recording, Verdict, log};

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
    /// Where it begins and ends.
    #[serde(flatten)]
    pub range: Range,
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
        range,
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
pub fn together(mut parts: Vec<Part>) -> Result<Verdict, String> {
    parts.sort_by_key(|part| part.range.from);
    let end = parts.last().map_or(0, |part| part.range.to);
    let mut from = 0;
    for part in &parts {
        if part.range.from != from || part.end != end {
            return Err(format!("no piece of that run has what is behind {from} instructions"));
        }
        from = part.range.to;
    }
    if end == 0 {
        return Err("there are no pieces".to_owned());
    }
    conclude(
        end,
        parts.into_iter().map(|part| (part.range.from, part.piece)).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(from: u64, to: u64, end: u64) -> Part {
        Part {
            range: Range { from, to },
            piece: Piece::Same {
                moments: 1,
                doubted: false,
                disks: 0,
            },
            end,
            ran_on: "7.2.22".to_owned(),
        }
    }

    #[test]
    fn only_all_of_one_run_are_a_verdict() {
        let good = vec![part(10, 20, 20), part(0, 10, 20)];
        assert!(matches!(
            together(good),
            Ok(Verdict::Identical {
                instructions: Some(20),
                moments: 2,
                ..
            })
        ));
        for bad in [
            vec![],
            vec![part(0, 10, 20)],
            vec![part(10, 20, 20)],
            vec![part(0, 9, 20), part(10, 20, 20)],
            vec![part(0, 10, 20), part(0, 10, 20)],
            vec![part(0, 10, 999), part(10, 20, 20)],
        ] {
            assert!(together(bad.clone()).is_err(), "{bad:?}");
        }
    }
}
