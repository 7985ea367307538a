// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm logs`: what the units of guests have written to the journal.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use super::lifecycle::{system, unknown};
use crate::base::error::Exit;
use crate::cli::systemd::{self, JOURNALCTL, Unit};
use crate::cli::{Error, guest_name};
use crate::config::guests;
use crate::config::places::{Given, Places};
use crate::config::types::GuestName;
use crate::guest::record::Record;
use crate::run;

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The guests
    #[arg(value_parser = guest_name, required = true)]
    guests: Vec<GuestName>,
    /// Go on with what is written from now on
    #[arg(long, short)]
    follow: bool,
    /// Show the newest N lines
    #[arg(long, short = 'n', value_name = "N")]
    lines: Option<u32>,
    /// Begin there: a time as journalctl takes it, such as today, -1h or "2026-11-30 20:00"
    #[arg(long, short = 'S', value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Explain what there is an explanation for
    #[arg(long, short = 'x')]
    explain: bool,
}

pub(in crate::cli) fn run(given: &Given, arguments: &Arguments) -> Result<Exit, Error> {
    let places = system(given, "logs")?;
    for name in &arguments.guests {
        check(&places, name)?;
    }
    if !systemd::is_here() {
        return Err(Error::NoSystemd("logs"));
    }
    become_it(JOURNALCTL.path(), &command(arguments))
}

/// `Ok` if the guest has a file, or has run.
fn check(places: &Places, name: &GuestName) -> Result<(), Error> {
    match guests::require_file(places, name) {
        Err(error) if Record::load(places.root(), name).is_none() => Err(unknown(error, name)),
        _ => Ok(()),
    }
}

/// What journalctl is asked for.
fn command(arguments: &Arguments) -> Vec<String> {
    let mut words = Vec::new();
    for guest in &arguments.guests {
        let units = Unit::ALL.map(|unit| unit.of(guest)).into_iter();
        // TT Xen's logger is a unit of its own.
        let loggers = ["record", "replay"].map(|run| format!("ttvm-deviced@{run}@{guest}.service"));
        words.extend(units.chain(loggers).map(|unit| format!("--unit={unit}")));
    }
    words.extend(arguments.follow.then(|| "--follow".to_owned()));
    words.extend(arguments.lines.map(|lines| format!("--lines={lines}")));
    words.extend(arguments.since.as_ref().map(|since| format!("--since={since}")));
    words.extend(arguments.explain.then(|| "--catalog".to_owned()));
    words
}

/// Becomes another program that has the terminal, with the caller's own settings of pagers and colours.
pub(super) fn become_it(path: Result<&PathBuf, run::Error>, words: &[String]) -> Result<Exit, Error> {
    let path = path.map_err(Error::Program)?;
    let source = Command::new(path).args(words).exec();
    Err(Error::Program(run::Error::Io {
        command: format!("{} {}", path.display(), words.join(" ")),
        source,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_units_of_all_guests() {
        let arguments = Arguments {
            guests: vec!["a".parse().expect("a name"), "b.c".parse().expect("a name")],
            follow: true,
            lines: Some(20),
            since: Some("-1h".to_owned()),
            explain: false,
        };
        assert_eq!(
            command(&arguments).join(" "),
            "--unit=ttvm@a.service --unit=ttvm-record@a.service --unit=ttvm-replay@a.service \
             --unit=ttvm-deviced@record@a.service --unit=ttvm-deviced@replay@a.service \
             --unit=ttvm@b.c.service --unit=ttvm-record@b.c.service --unit=ttvm-replay@b.c.service \
             --unit=ttvm-deviced@record@b.c.service --unit=ttvm-deviced@replay@b.c.service \
             --follow --lines=20 --since=-1h"
        );
    }
}
