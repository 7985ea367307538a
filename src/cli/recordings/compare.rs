// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm recordings compare`.

use std::io::{self, Write};

use super::Error;
use crate::base::error::Exit;
use crate::cli::runs::foreground::{Follower, Foreground};
use crate::cli::runs::replay::show;
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::recording::explain;

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The recording that is as it should be: its guest, or GUEST/ID
    #[arg(value_name = "GUEST[/ID]", value_parser = named)]
    one: Named,
    /// The other one
    #[arg(value_name = "GUEST[/ID]", value_parser = named)]
    other: Named,
}

/// A recording in one word.
#[derive(Debug, Clone)]
struct Named {
    guest: GuestName,
    id: Option<String>,
}

fn named(text: &str) -> Result<Named, String> {
    let (guest, id) = match text.split_once('/') {
        Some((guest, id)) => (guest, Some(id.to_owned())),
        None => (text, None),
    };
    let guest = crate::cli::guest_name(guest)?;
    Ok(Named { guest, id })
}

pub(super) fn run(places: &Places, arguments: &Arguments) -> Result<Exit, Error> {
    let (one, other) = (&arguments.one, &arguments.other);
    let runs = [
        Foreground::new(places, &one.guest)?,
        Foreground::new(places, &other.guest)?,
    ];
    let a = runs[0].library().find(&one.guest, one.id.as_deref())?;
    let b = runs[1].library().find(&other.guest, other.id.as_deref())?;
    for recording in [&a, &b] {
        if !recording.manifest().engine.toolstack.is_emulated() {
            return Err(Error::Usage(
                "recordings are compared if their guests have toolstack = \"qemu\"".to_owned(),
            ));
        }
    }
    let guests = [runs[0].guest_if_any()?, runs[1].guest_if_any()?];
    // Both machines have their files by the name of the first guest.
    let _claim = runs[0].claim()?;
    let mut follower = Follower::new(&one.guest, false, "Ctrl-C ends the search");
    let found = explain::compare(
        [(&a, guests[0].as_ref()), (&b, guests[1].as_ref())],
        &runs[0].environment(),
        &mut follower,
    );
    follower.end();
    let found = found?;
    let same = found.is_same();
    let is = if same {
        "are the same run"
    } else {
        "are not the same run"
    };
    writeln!(
        io::stdout(),
        "{} {} and {} {} {is}",
        one.guest,
        a.id(),
        other.guest,
        b.id()
    )?;
    show(&found)?;
    Ok(if same { Exit::Done } else { Exit::Diverged })
}
