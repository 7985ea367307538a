// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm branch --tries`: live on again and again from the same point, and see how that ends.

use std::io::{self, Write};

use super::branch::Source;
use super::foreground::{Follower, Foreground};
use super::{Error, record, table};
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::error::Exit;
use crate::recording::Recording;
use crate::recording::branch::{Branching, steps};
use crate::recording::limit::Limit;
use crate::recording::point::Point;
use crate::recording::record::Recorded;
use crate::recording::tries::{End, Tried, certain_from};
use crate::recording::verdict::grouped;

/// What is tried.
pub(super) struct Tries<'a> {
    /// How often at each point.
    pub(super) times: u32,
    /// How far the points are from each other; without, there is one.
    pub(super) every: Option<&'a Point>,
    /// What tells runs apart that end alike.
    pub(super) text: Option<&'a str>,
    /// When each ends.
    pub(super) limit: Limit,
}

/// Leaves `source`, and as often as is wanted records what comes then as a run of `name`.
pub(super) fn run(places: &Places, source: &Source, name: &GuestName, tries: &Tries<'_>) -> Result<Exit, Error> {
    let of = Foreground::new(places, &source.guest)?;
    let run = Foreground::new(places, name)?;
    let parent = of.library().find(&source.guest, source.recording.as_deref())?;
    let guest = of.guest_if_any()?;
    let _claim = run.claim()?;
    let environment = run.environment();
    let mut follower = Follower::new(name, false, "Ctrl-C ends the series");
    let end = end_of(&parent, tries)?;
    let points = match tries.every {
        Some(every) => steps(&parent, &source.at, every)?,
        None => vec![source.at.clone()],
    };
    let mut all: Vec<Tried> = Vec::new();
    'points: for at in &points {
        let branching = Branching::go(&parent, guest.as_ref(), name, &environment, at, true, &mut follower);
        follower.end();
        let mut branching = branching?;
        let mut tried = Tried {
            at: branching.instructions(),
            ends: Vec::new(),
        };
        // A guest that was busy at both has been left where it was quiet again.
        if all.last().is_some_and(|last| last.at == tried.at) {
            continue;
        }
        for _ in 0..tries.times {
            let recorded = branching.live_on(run.library(), Some(tries.limit), &mut follower, None);
            follower.end();
            let Recorded {
                recording,
                full,
                called_off,
            } = recorded?;
            eprintln!("ttvm: {}", record::summary(&recording));
            if full {
                record::say_full();
            }
            if called_off || full {
                all.extend((!tried.ends.is_empty()).then_some(tried));
                break 'points;
            }
            tried.ends.push(end_of(&recording, tries)?);
        }
        all.push(tried);
    }
    print(&parent, end, &all, tries)?;
    Ok(Exit::Done)
}

fn end_of(recording: &Recording, tries: &Tries<'_>) -> Result<End, Error> {
    End::of(recording, tries.text).map_err(Error::Output)
}

fn print(parent: &Recording, end: End, all: &[Tried], tries: &Tries<'_>) -> Result<(), Error> {
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|tried| {
            let (like, of) = (tried.like(end), tried.ends.len());
            let counts = tried.counts();
            let ends: Vec<String> = counts.iter().map(|(end, count)| format!("{count} {end}")).collect();
            let bar = format!("{}{}", "#".repeat(like), ".".repeat(of - like));
            vec![grouped(tried.at), format!("{like} of {of}"), bar, ends.join(", ")]
        })
        .collect();
    table::print(&["LEFT AFTER", "SAME END", "", "ENDS"], &rows)?;
    let name = format!("{} {}", parent.guest(), parent.id());
    let text = tries
        .text
        .map_or_else(String::new, |text| format!(" (looked for: {text:?})"));
    let what = match certain_from(all, end) {
        Some(at) if all.first().is_some_and(|first| first.at == at) => {
            "all of them ended so, from wherever it was left".to_owned()
        }
        Some(at) => format!("from {} on all of them ended so", grouped(at)),
        None => "not all of them ended so".to_owned(),
    };
    writeln!(io::stdout(), "{name} {end}{text}; {what}")?;
    Ok(())
}
