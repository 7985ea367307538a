// SPDX-License-Identifier: MIT OR Apache-2.0
//! A run of an emulated guest that nobody records: the same machine, without a log.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::disks::{self, Disks, Wanted};
use super::live::{self, Happened, Live};
use super::{Environment, Error, Keys, Listener, require_memory};
use crate::base::catalogue::Message;
use crate::config::guest::Guest;
use crate::guest::record::Ending;
use crate::qemu::engine::{self, Engine};
use crate::qemu::machine::Mode;
use crate::qemu::process::{Emulator, died};
use crate::qemu::qmp::Event;
use crate::recording::library::manifest::RunExit;
use crate::recording::record::{RESERVE, Space, exit_of};
use crate::recording::{Library, session};

/// So much has to be free again before a guest goes on that waited for room: else it would wait again at once.
const ENOUGH: u64 = 2 * RESERVE;

/// How often a guest that waits for room is looked after.
const WAITING: Duration = Duration::from_secs(2);

/// Runs `guest` until it ends, or until we are asked to end it: then it is asked to shut down first. What it writes to its
/// overlays cannot fill the host's disk: it stands still while there is no room, and goes on when there is.
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
    let room = (!disks.overlays().is_empty())
        .then(|| Room::begin(library))
        .transpose()?;
    let mut room = room.unwrap_or_default();
    let mut live = Live::new(
        Emulator::start(&Engine::Installed, &machine, &Mode::Plain, None, &environment.overlays)?,
        &signals,
        keys,
    );
    listener.ready("running");
    let ending = follow(&mut live, &mut room, guest, library, environment, listener)?;
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
    room: &mut Room,
    guest: &Guest,
    library: &Library,
    environment: &Environment<'_>,
    listener: &mut dyn Listener,
) -> Result<Ending, Error> {
    let mut until: Option<Instant> = None;
    loop {
        let wake = [until, room.again()].into_iter().flatten().min();
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
            Happened::Event(Event::Stopped) if !room.waits && live.emulator.qmp().lacks_room()? => {
                room.wait(guest, environment, listener);
            }
            Happened::Event(Event::Stopped | Event::Resumed) => {}
            Happened::Ended => {
                let status = live.emulator.wait().map_err(Error::Wait)?;
                let why = died(status, live.emulator.complaint());
                return Err(Error::EngineDied { why });
            }
            Happened::Timeout if until.is_none_or(|until| Instant::now() < until) => match room.look(library)? {
                Change::None => {}
                Change::Gone => {
                    live.emulator.qmp().stop()?;
                    room.wait(guest, environment, listener);
                }
                Change::Back => {
                    live.emulator.qmp().go_on()?;
                    room.waits = false;
                    tracing::info!(ttvm_guest = %guest.name, "there is room again: the guest goes on");
                    listener.trouble(None);
                }
            },
            Happened::Signal { at_once: true } => return Ok(Ending::KilledAtOnce),
            Happened::Signal { .. } if room.waits => {
                tracing::warn!(
                    ttvm_guest = %guest.name,
                    "the guest stands still for want of room, so it cannot shut down: it is destroyed"
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

/// The room for a guest's overlays; without, nothing is looked after.
#[derive(Default)]
struct Room {
    space: Option<Space>,
    /// Whether the guest stands still until there is some.
    waits: bool,
    again: Option<Instant>,
}

/// What has become of the room.
enum Change {
    None,
    Gone,
    Back,
}

impl Room {
    fn begin(library: &Library) -> Result<Self, Error> {
        let free = library.free_space()?;
        if free < RESERVE {
            return Err(Error::NoRoomForOverlays {
                directory: library.state_directory().to_owned(),
                free: free >> 20,
                needed: RESERVE >> 20,
            });
        }
        let space = Space::new(library)?;
        Ok(Self {
            again: Some(space.again),
            space: Some(space),
            waits: false,
        })
    }

    fn again(&self) -> Option<Instant> {
        self.again
    }

    /// Looks at what is free.
    fn look(&mut self, library: &Library) -> Result<Change, Error> {
        let Some(space) = &mut self.space else {
            return Ok(Change::None);
        };
        let gone = space.look(library, 0)?;
        if self.waits {
            self.again = Some(Instant::now() + WAITING);
            return Ok(match library.free_space()? >= ENOUGH {
                true => Change::Back,
                false => Change::None,
            });
        }
        self.again = Some(space.again);
        Ok(if gone { Change::Gone } else { Change::None })
    }

    /// The guest stands still from now on.
    fn wait(&mut self, guest: &Guest, environment: &Environment<'_>, listener: &mut dyn Listener) {
        self.waits = true;
        self.again = Some(Instant::now() + WAITING);
        let text = format!(
            "stands still: there is no room in {} for what it writes; it goes on when {} MiB are free",
            environment.overlays.display(),
            ENOUGH >> 20
        );
        tracing::warn!(message_id = Message::NoRoom.id(), ttvm_guest = %guest.name, "the guest {text}");
        listener.trouble(Some(&text));
    }
}
