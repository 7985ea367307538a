// SPDX-License-Identifier: MIT OR Apache-2.0
//! A run of an emulated guest that nobody records: the same machine, without a log.

use std::time::Instant;

use serde_json::Value;

use super::disks::{self, Disks, Wanted};
use super::live::{self, Happened, Live};
use super::manifest::RunExit;
use super::record::exit_of;
use super::session::{self, Error, Listener, Surroundings};
use crate::config::guest::Guest;
use crate::guest::record::Ending;
use crate::qemu::engine;
use crate::qemu::machine::Mode;
use crate::qemu::process::Emulator;
use crate::qemu::qmp::Event;

/// Runs `guest` until it ends, or until we are asked to end it: then it is asked to shut down first.
pub fn run(guest: &Guest, around: &Surroundings<'_>, listener: &mut dyn Listener) -> Result<Ending, Error> {
    disks::check_disks(guest)?;
    let version = engine::find()?;
    let signals = live::signals()?;
    let wanted: Vec<Wanted<'_>> = guest
        .disks
        .iter()
        .map(|disk| {
            Ok(Wanted {
                target: disk.target.clone(),
                source: &disk.source,
                base: None,
                size: disks::size_of(&disks::origin_of(&disk.source).path())?,
            })
        })
        .collect::<Result<_, Error>>()?;
    let disks = Disks::make(&guest.name, &wanted, around)?;
    let mut machine = session::machine_of(guest, &version);
    machine.drives.clone_from(&disks.drives);
    let mut live = Live::new(Emulator::start(&machine, &Mode::Plain)?, &signals, None);
    listener.ready("running");
    let mut until: Option<Instant> = None;
    loop {
        match live.next(until)? {
            Happened::Console(text) => listener.console(&text),
            Happened::Event(Event::Shutdown(_)) if until.is_some() => return Ok(Ending::Stopped),
            Happened::Event(Event::Shutdown(reason)) => {
                return Ok(match exit_of(&reason) {
                    RunExit::PoweredOff => Ending::PoweredOff,
                    RunExit::Rebooted => Ending::Rebooted,
                    RunExit::Stopped | RunExit::Panicked | RunExit::Ended => Ending::Destroyed,
                });
            }
            Happened::Event(Event::Stopped) => {}
            Happened::Ended => {
                let why = live.emulator.complaint();
                return Err(Error::EngineDied { why });
            }
            Happened::Signal if until.is_none() => {
                crate::notify::stopping();
                until = Some(Instant::now() + guest.shutdown_timeout);
                live.emulator.qmp().execute("system_powerdown", Value::Null)?;
            }
            // Asked twice, or it takes too long.
            Happened::Signal | Happened::Timeout => return Ok(Ending::Killed),
        }
    }
}
