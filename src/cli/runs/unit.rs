// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs by systemd: `ttvm record` and `ttvm replay` of the system's guests start a unit.

use std::io::{self, Write};

use super::record;
use super::replay::{Arguments, gdb_line, tell};
use crate::base::error::Exit;
use crate::cli::Error;
use crate::cli::systemd::{self, FOR_EVER, SYSTEMCTL, Unit};
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::file::lock::Attempt;
use crate::guest::{claim, soon};
use crate::recording::session::limit::Limit;
use crate::recording::unit::order::{Order, socket};
use crate::recording::{Id, Library};
use crate::run::{self, Command};

pub(in crate::cli) fn record(guest: &GuestName, limit: Option<Limit>) -> Result<Exit, Error> {
    let order = Order::Record { limit };
    let unit = Unit::Record.of(guest);
    start(guest, &order, &unit, limit.is_some())?;
    if limit.is_none() {
        writeln!(
            io::stdout(),
            "{guest} is being recorded until it ends, or until `ttvm stop {guest}`"
        )?;
        return Ok(Exit::Done);
    }
    let recording = Library::open(Places::system("/".as_ref()).state_dir()).find(guest, None)?;
    let was_to_end = limit.is_some_and(|limit| limit.is_reached(recording.manifest()));
    writeln!(io::stdout(), "{}", record::summary(&recording, was_to_end))?;
    Ok(Exit::Done)
}

pub(in crate::cli) fn replay(guest: &GuestName, id: &Id, arguments: &Arguments) -> Result<Exit, Error> {
    let unit = Unit::Replay.of(guest);
    let library = Library::open(Places::system("/".as_ref()).state_dir());
    let recording = library.find(guest, Some(&id.to_string()))?;
    let before = recording.replays();
    let started = start(guest, &arguments.order(id), &unit, arguments.waits());
    if !arguments.waits() {
        started?;
        if arguments.serves_debugger() {
            writeln!(io::stdout(), "{}", gdb_line(&socket(guest)))?;
        } else {
            writeln!(
                io::stdout(),
                "{guest} {id} is being replayed; `ttvm recordings list {guest}` says what came of it"
            )?;
        }
        return Ok(Exit::Done);
    }
    // A replay that was stopped leaves the verdict of the one before it.
    let verdict = recording.replays().filter(|now| Some(now) != before.as_ref());
    match (started, verdict) {
        // The unit fails when the run was another.
        (_, Some(verdict)) if exit_status(&unit)? == Exit::Diverged => tell(guest, id, &verdict.newest),
        (Ok(()), Some(verdict)) => tell(guest, id, &verdict.newest),
        (started, _) => {
            started?;
            Err(Error::NoVerdict(guest.clone()))
        }
    }
}

/// Starts the unit; with `wait`, until it has ended.
fn start(guest: &GuestName, order: &Order, unit: &str, wait: bool) -> Result<(), Error> {
    // The unit's Conflicts= would end the other run.
    let lock = match claim(guest)? {
        Attempt::Taken(lock) => Some(lock),
        Attempt::Busy(waiting) => soon(waiting)?,
    };
    // The unit takes it for itself.
    drop(lock.ok_or_else(|| Error::Running(guest.clone()))?);
    order.give(guest)?;
    let mut command = Command::new(&SYSTEMCTL).arg("start");
    if wait {
        command = command.arg("--wait");
    }
    let started = command.args(["--", unit]).deadline(FOR_EVER).run();
    Order::forget(guest);
    match started {
        Ok(_) => Ok(()),
        Err(run::Error::Failed { .. }) => Err(Error::Unit {
            unit: unit.to_owned(),
            exit: exit_status(unit)?,
            why: property(unit, "StatusText")?,
        }),
        Err(error) => Err(Error::Systemd(error)),
    }
}

/// How the unit's main process ended. One that did not is a failure: something else of the unit went wrong.
fn exit_status(unit: &str) -> Result<Exit, Error> {
    let status = property(unit, "ExecMainStatus")?.parse().ok();
    Ok(status
        .and_then(Exit::of_status)
        .filter(|exit| *exit != Exit::Done)
        .unwrap_or(Exit::Failed))
}

fn property(unit: &str, name: &str) -> Result<String, Error> {
    let shown = systemd::show(&[unit.to_owned()], [name]).map_err(Error::Systemd)?;
    Ok(shown.into_iter().next().map(|[value]| value).unwrap_or_default())
}
