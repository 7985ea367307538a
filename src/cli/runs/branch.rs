// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm branch`: leave a recording on the way, and live on.

use std::io::{self, Write};

use super::branch_tries::{self, Tries};
use super::foreground::{Follower, Foreground};
use super::{record, replay};
use crate::base::error::Exit;
use crate::cli::terminal::keyboard;
use crate::cli::{Error, guest_name};
use crate::config::guest::Guest;
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::recording::branch::{self, Branching};
use crate::recording::log::point::Point;
use crate::recording::session::Keys;
use crate::recording::session::limit::Limit;

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    left: Left,
    /// Show the guest's console; on a terminal, what is typed goes to the guest (Ctrl-] ends the run)
    #[arg(long, conflicts_with = "tries")]
    console: bool,
    /// End the run after this time of the host, such as 30s or 2min, or after a time of the guest (guest:12s) or so many
    /// instructions (guest:1_000_000) from there on
    #[arg(long = "for", value_name = "TIME")]
    limit: Option<Limit>,
    #[command(flatten)]
    series: Series,
    /// Tell runs apart by whether they had printed this, such as "Kernel panic"
    #[arg(long, value_name = "TEXT", requires = "tries")]
    printing: Option<String>,
}

/// What is left.
#[derive(clap::Args)]
pub(in crate::cli) struct Left {
    /// The guest whose recording is left
    #[arg(value_parser = guest_name)]
    guest: GuestName,
    /// The recording, or as much of its name as is needed; the newest if none is named
    recording: Option<String>,
    /// Where to leave it: after so many instructions (123456), a time since its beginning (12.3s), what it had printed
    /// ('login:'), 40%, or end-1000
    #[arg(long, value_name = "POINT", value_parser = replay::point)]
    at: Point,
    /// Keep what is recorded as a run of this guest, which need not have a file; without, it is one of the same guest
    #[arg(long = "as", value_name = "GUEST", value_parser = guest_name)]
    name: Option<GuestName>,
}

impl Left {
    pub(in crate::cli) fn source(&self) -> Source {
        Source {
            guest: self.guest.clone(),
            recording: self.recording.clone(),
            at: self.at.clone(),
        }
    }

    /// Whose run the branch is.
    pub(in crate::cli) fn name(&self) -> &GuestName {
        self.name.as_ref().unwrap_or(&self.guest)
    }
}

/// How often it is left, and at how many points.
#[derive(clap::Args)]
pub(in crate::cli) struct Series {
    /// Live on so often from there, each time as it comes, and tell how these runs end beside the recording
    #[arg(long, value_name = "N", requires = "limit", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(in crate::cli) tries: Option<u32>,
    /// The same at every point that is so far from the last (1_000_000, 0.5s, 10%), up to the end of the recording: from which on its
    /// end was certain
    #[arg(long, value_name = "STEP", requires = "tries", value_parser = replay::point)]
    pub(in crate::cli) every: Option<Point>,
}

pub(in crate::cli) fn run(places: &Places, arguments: &Arguments) -> Result<Exit, Error> {
    let source = arguments.left.source();
    let name = arguments.left.name();
    match (arguments.series.tries, arguments.limit) {
        (Some(times), Some(limit)) => {
            let tries = Tries {
                times,
                every: arguments.series.every.as_ref(),
                text: arguments.printing.as_deref(),
                limit,
            };
            branch_tries::run(places, &source, name, &tries)
        }
        _ => leave(places, &source, name, arguments.console, arguments.limit),
    }
}

/// What is left, and where: `GUEST[/ID]@POINT`.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Source {
    pub(in crate::cli) guest: GuestName,
    pub(in crate::cli) recording: Option<String>,
    pub(in crate::cli) at: Point,
}

impl std::str::FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (recording, at) = text
            .split_once('@')
            .ok_or("write GUEST@POINT or GUEST/RECORDING@POINT, such as hello@'login:'")?;
        let (guest, recording) = match recording.split_once('/') {
            Some((guest, recording)) => (guest, Some(recording.to_owned())),
            None => (recording, None),
        };
        Ok(Self {
            guest: guest_name(guest)?,
            recording,
            at: replay::point(at)?,
        })
    }
}

/// The guest `name`, which is to have a run of `source`, if it is another and has a file: that has to say the same.
pub(in crate::cli) fn named(run: &Foreground<'_>, source: &Source, name: &GuestName) -> Result<Option<Guest>, Error> {
    match *name == source.guest {
        true => Ok(None),
        false => run.guest_if_any(),
    }
}

/// Leaves `source`, and records what comes then as a run of `name`.
pub(in crate::cli) fn leave(
    places: &Places,
    source: &Source,
    name: &GuestName,
    console: bool,
    limit: Option<Limit>,
) -> Result<Exit, Error> {
    let of = Foreground::new(places, &source.guest)?;
    let run = Foreground::new(places, name)?;
    let parent = of.library().find(&source.guest, source.recording.as_deref())?;
    let guest = of.guest_if_any()?;
    let named = named(&run, source, name)?;
    let _claim = run.claim()?;
    let mut follower = Follower::new(name, console, "Ctrl-C ends the run");
    let environment = run.environment();
    let seals = &environment.seals;
    let checked = branch::check(&parent, guest.as_ref(), named.as_ref(), seals, &mut follower)?;
    let mut branching = Branching::go(
        &parent,
        (guest.as_ref(), &checked),
        name,
        &environment,
        &source.at,
        false,
        &mut follower,
    )?;
    // Up to here Ctrl-C is the terminal's own.
    let mut keys = console.then(keyboard::Keyboard::open).flatten();
    let recorded = branching.live_on(
        run.library(),
        limit,
        &mut follower,
        keys.as_mut().map(|keys| keys as &mut dyn Keys),
    );
    drop(keys);
    follower.end();
    let recorded = recorded?;
    record::say_cut(recorded.cut.as_ref());
    writeln!(
        io::stdout(),
        "{}",
        record::summary(&recorded.recording, recorded.cut.is_none())
    )?;
    Ok(Exit::Done)
}
