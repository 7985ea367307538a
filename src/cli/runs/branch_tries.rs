// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm branch --tries`: live on again and again from the same point, and see how that ends.

use std::io::{self, Write};

use super::branch::{Source, named};
use super::foreground::{Follower, Foreground};
use super::record;
use crate::base::error::{Exit, one_line};
use crate::base::text;
use crate::cli::Error;
use crate::cli::terminal::table;
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::recording::Recording;
use crate::recording::branch::tries::{End, Tried, certain_from};
use crate::recording::branch::{self, Branching, steps};
use crate::recording::log::point::Point;
use crate::recording::record::Recorded;
use crate::recording::replay::verdict::grouped;
use crate::recording::session::Error as SessionError;
use crate::recording::session::limit::Limit;

/// What is tried.
pub(super) struct Tries<'a> {
    /// How often at each point.
    pub(in crate::cli) times: u32,
    /// How far the points are from each other; without, there is one.
    pub(in crate::cli) every: Option<&'a Point>,
    /// What tells runs apart that end alike.
    pub(in crate::cli) text: Option<&'a str>,
    /// When each ends.
    pub(in crate::cli) limit: Limit,
}

/// Leaves `source`, and as often as is wanted records what comes then as a run of `name`.
pub(super) fn run(places: &Places, source: &Source, name: &GuestName, tries: &Tries<'_>) -> Result<Exit, Error> {
    let of = Foreground::new(places, &source.guest)?;
    let run = Foreground::new(places, name)?;
    let parent = of.library().find(&source.guest, source.recording.as_deref())?;
    let guest = of.guest_if_any()?;
    let named = named(&run, source, name)?;
    let _claim = run.claim()?;
    let environment = run.environment();
    let mut follower = Follower::new(name, false, "Ctrl-C ends the series");
    let end = end_of(&parent, tries.text)?;
    let seals = &environment.seals;
    let checked = branch::check(&parent, guest.as_ref(), named.as_ref(), seals, &mut follower);
    follower.end();
    let checked = checked?;
    let points = match tries.every {
        Some(every) => {
            let all = steps(&parent, &source.at, every)?;
            all.into_iter().map(Point::Instructions).collect()
        }
        None => vec![source.at.clone()],
    };
    let mut series = Series {
        run: &run,
        tries,
        follower,
        all: Vec::new(),
        left_out: Vec::new(),
    };
    let whole = points.iter().try_fold(true, |_, at| {
        let of = (guest.as_ref(), &checked);
        let branching = Branching::go(&parent, of, name, &environment, at, true, &mut series.follower);
        series.at(at, branching)
    });
    // What there is of it is told in any case.
    let came = Ends {
        all: series.all,
        left_out: series.left_out,
        whole: matches!(whole, Ok(true)),
    };
    came.print(&parent, end, tries.text)?;
    whole.map(|_| Exit::Done)
}

/// A series of runs, as far as it has come.
struct Series<'a> {
    run: &'a Foreground<'a>,
    tries: &'a Tries<'a>,
    follower: Follower,
    all: Vec<Tried>,
    /// Points at which the recording cannot be left, and why.
    left_out: Vec<(String, String)>,
}

impl Series<'_> {
    /// Lives on from the point `at`, as often as is wanted. Returns whether it is to go on with the next one; what ends it for good
    /// is an error.
    fn at(&mut self, at: &Point, branching: Result<Branching<'_>, SessionError>) -> Result<bool, Error> {
        self.follower.end();
        let mut branching = match branching {
            // Elsewhere it may be.
            Err(error @ SessionError::Left { .. }) if self.tries.every.is_some() => {
                self.left_out.push((at.to_string(), one_line(&error)));
                return Ok(true);
            }
            branching => branching?,
        };
        let here = branching.instructions();
        // A guest that was busy at both has been left where it was quiet again.
        if self.all.last().is_some_and(|last| last.at == here) {
            return Ok(true);
        }
        for number in 0..self.tries.times {
            let recorded = branching.live_on(self.run.library(), Some(self.tries.limit), &mut self.follower, None);
            self.follower.end();
            let Recorded {
                recording,
                cut,
                called_off,
            } = recorded?;
            eprintln!("ttvm: {}", record::summary(&recording, cut.is_none()));
            record::say_cut(cut.as_ref());
            if called_off || cut.is_some_and(|cut| cut.is_of_the_host()) {
                return Err(SessionError::Interrupted.into());
            }
            let end = end_of(&recording, self.tries.text)?;
            match self.all.last_mut() {
                Some(tried) if number > 0 => tried.ends.push(end),
                _ => self.all.push(Tried {
                    at: here,
                    ends: vec![end],
                }),
            }
        }
        Ok(true)
    }
}

/// How a run ended, beside whether it had printed `text`.
pub(in crate::cli) fn end_of(recording: &Recording, text: Option<&str>) -> Result<End, Error> {
    End::of(recording, text).map_err(Error::Output)
}

/// How runs ended that left a recording.
pub(in crate::cli) struct Ends {
    /// In the order of the points.
    pub(in crate::cli) all: Vec<Tried>,
    /// Points at which the recording cannot be left, and why.
    pub(in crate::cli) left_out: Vec<(String, String)>,
    /// Whether there are no more to come.
    pub(in crate::cli) whole: bool,
}

impl Ends {
    /// Prints them beside the `end` of `parent`; `text` was looked for.
    pub(in crate::cli) fn print(&self, parent: &Recording, end: End, text: Option<&str>) -> Result<(), Error> {
        let all = &self.all;
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
        if !rows.is_empty() {
            table::print(&["LEFT AFTER", "SAME END", "", "ENDS"], &rows)?;
        }
        let mut out = io::stdout().lock();
        for (at, why) in &self.left_out {
            writeln!(out, "{at}: {}", text::line(why))?;
        }
        let name = format!("{} {}", parent.guest(), parent.id());
        let looked = text.map_or_else(String::new, |text| format!(" (looked for: {text:?})"));
        let what = match certain_from(all, end) {
            // Points and runs that were to come may have ended otherwise.
            _ if !self.whole => "the series was not finished, so nothing is said of when that was certain".to_owned(),
            _ if end.is_somebodys() => "somebody ended it, so nothing is said of when that was certain".to_owned(),
            Some(at) if all.first().is_some_and(|first| first.at == at) => {
                "all of them ended so, from wherever it was left".to_owned()
            }
            Some(at) => format!("from {} on all of them ended so", grouped(at)),
            None => "not all of them ended so".to_owned(),
        };
        writeln!(out, "{name} {end}{}; {what}", text::line(&looked))?;
        Ok(())
    }
}
