// SPDX-License-Identifier: MIT OR Apache-2.0
//! A run of an emulated guest that nobody records: the same machine, without a log.

use std::time::Instant;

use serde_json::Value;

use super::disks::{self, Disks, Wanted};
use super::live::{self, Happened, Live};
use super::standstill::{Change, Standstill};
use super::{Environment, Error, Keys, Listener, require_memory};
use crate::base::catalogue::Message;
use crate::config::guest::Guest;
use crate::guest::record::Ending;
use crate::guest::restarts::{self, Reboots, Step};
use crate::qemu::engine::{self, Engine};
use crate::qemu::machine::Mode;
use crate::qemu::process::{Emulator, died};
use crate::qemu::qmp::Event;
use crate::recording::library::manifest::RunExit;
use crate::recording::record::exit_of;
use crate::recording::{Library, session};

/// Runs `guest` until it ends, or until we are asked to end it: then it is asked to shut down first. What it writes to its
/// overlays cannot fill the host's disk: it stands still while there is no room, and goes on when there is ([`Standstill`]).
pub fn run(
    guest: &Guest,
    library: &Library,
    environment: &Environment<'_>,
    listener: &mut dyn Listener,
    keys: Option<&mut dyn Keys>,
) -> Result<Ending, Error> {
    disks::check_disks(guest)?;
    require_memory(guest.memory)?;
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
    let disks = Disks::make(&guest.name, &wanted, environment)?;
    let mut machine = session::machine_of(guest, &version, 0);
    machine.drives.clone_from(&disks.drives);
    let mut standstill = Standstill::begin(&disks, library, &environment.overlays)?;
    let mut live = Live::new(
        Emulator::start(&Engine::Installed, &machine, &Mode::Plain, None, &environment.overlays)?,
        &signals,
        keys,
    );
    listener.ready("running");
    let ending = follow(&mut live, &mut standstill, guest, library, listener)?;
    // What is printed without end has one.
    live.emulator.kill();
    live.rest(|text| {
        listener.console(text);
        Ok(())
    })?;
    Ok(ending)
}

/// Follows a run until it ends, and says how.
fn follow(
    live: &mut Live<'_, '_>,
    standstill: &mut Standstill,
    guest: &Guest,
    library: &Library,
    listener: &mut dyn Listener,
) -> Result<Ending, Error> {
    let mut until: Option<Instant> = None;
    let mut reboots = Reboots::begin(Instant::now());
    // While it waits for being started again.
    let mut paused: Option<Instant> = None;
    loop {
        let wake = paused.or_else(|| [until, standstill.again()].into_iter().flatten().min());
        match live.next(wake)? {
            Happened::Console(text) => listener.console(&text),
            Happened::Event(Event::Shutdown(_)) if until.is_some() => return Ok(Ending::Stopped),
            Happened::Event(Event::Shutdown(reason)) => {
                return Ok(match exit_of(&reason) {
                    RunExit::PoweredOff => Ending::PoweredOff,
                    RunExit::Rebooted => Ending::Rebooted,
                    RunExit::Stopped | RunExit::Panicked | RunExit::Ended | RunExit::Cut => Ending::Destroyed,
                });
            }
            Happened::Event(Event::Stopped) => {
                if let Some(failure) = live.emulator.qmp().failure()?
                    && let Some(text) = standstill.failed(&failure, Instant::now())
                {
                    let message = if failure.no_space {
                        Message::NoRoom
                    } else {
                        Message::DiskFailed
                    };
                    say(guest, message, &text, listener);
                }
            }
            Happened::Event(Event::Resumed) => {}
            // It was asked to shut down.
            Happened::Event(Event::Reset) if until.is_some() => return Ok(Ending::Stopped),
            Happened::Event(Event::Reset) => {
                let at = live.emulator.qmp().instructions()?;
                let Some(next) = reboots.another(at, Instant::now()) else {
                    continue;
                };
                match next {
                    Step::Again(pause) if pause.is_zero() => listener.rebooted(),
                    Step::Again(pause) => {
                        // First, so that it does not come to its next reset while that is written down.
                        live.emulator.qmp().stop()?;
                        listener.rebooted();
                        paused = Some(Instant::now() + pause);
                        let text = restarts::slowed(reboots.times(), pause);
                        tracing::warn!(message_id = Message::Slowed.id(), ttvm_guest = %guest.name, "guest {text}");
                        listener.trouble(Some(&text));
                    }
                    Step::GiveUp => {
                        listener.rebooted();
                        let error = restarts::given_up(&guest.name, reboots.times());
                        return Err(Error::Futile(Box::new(error)));
                    }
                }
            }
            Happened::Signal { at_once: true } => return Ok(Ending::KilledAtOnce),
            Happened::Signal { .. } if paused.is_some() => return Ok(Ending::Stopped),
            Happened::Timeout if paused.is_some() => {
                paused = None;
                reboots.go_on(Instant::now());
                // Else it goes on when its disk does.
                if !standstill.stands() {
                    listener.trouble(None);
                    live.emulator.qmp().go_on()?;
                }
            }
            Happened::Ended => {
                let status = live.emulator.wait().map_err(Error::Wait)?;
                let why = died(status, live.emulator.complaint());
                return Err(Error::EngineDied { why });
            }
            Happened::Timeout if until.is_none_or(|until| Instant::now() < until) => {
                match standstill.look(library, Instant::now())? {
                    Change::None => {}
                    Change::Gone(text) => {
                        live.emulator.qmp().stop()?;
                        say(guest, Message::NoRoom, &text, listener);
                    }
                    Change::Tried => live.emulator.qmp().go_on()?,
                    Change::Back { stands } => {
                        if stands {
                            live.emulator.qmp().go_on()?;
                        }
                        let what = if stands {
                            "there is room"
                        } else {
                            "its disks are all right"
                        };
                        tracing::info!(ttvm_guest = %guest.name, "{what} again: the guest goes on");
                        listener.trouble(None);
                    }
                }
            }
            Happened::Signal { .. } if standstill.stands() => {
                tracing::warn!(
                    ttvm_guest = %guest.name,
                    "the guest stands still for want of room or a disk, so it cannot shut down: it is destroyed"
                );
                return Ok(Ending::Killed);
            }
            Happened::Signal { .. } if until.is_none() => {
                crate::base::notify::stopping();
                until = Some(Instant::now() + guest.shutdown_timeout);
                live.emulator.qmp().execute("system_powerdown", Value::Null)?;
            }
            Happened::Timeout => {
                tracing::warn!(
                    message_id = Message::NotShutDown.id(),
                    ttvm_guest = %guest.name,
                    "the guest did not shut down within {} s: it is destroyed",
                    guest.shutdown_timeout.as_secs()
                );
                return Ok(Ending::Killed);
            }
            // Asked twice.
            Happened::Signal { .. } => return Ok(Ending::Killed),
        }
    }
}

/// That the guest stands still.
fn say(guest: &Guest, message: Message, text: &str, listener: &mut dyn Listener) {
    tracing::warn!(message_id = message.id(), ttvm_guest = %guest.name, "the guest {text}");
    listener.trouble(Some(text));
}
