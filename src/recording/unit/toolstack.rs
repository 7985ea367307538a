// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who records and replays a guest: QEMU, or TT Xen. It is chosen here, and nowhere else in this room.
//!
//! TT Xen's guests are recorded and replayed by the units of the system alone. A unit knows its `root`, the directory below which
//! the system is; whoever asks without one has no such guest.

use std::path::Path;

use crate::config::guest::{Guest, Toolstack};
use crate::config::types::GuestName;
use crate::recording::record::{self, Options as RecordOptions, Recorded};
use crate::recording::replay::{self, Choice, Options as ReplayOptions};
use crate::recording::session::disks::Seals;
use crate::recording::session::joined::Joined;
use crate::recording::session::{Environment, Error, Keys, Listener};
use crate::recording::{Library, Recording, Verdict, tt_xen};

/// Below which units find the system.
pub(super) const SYSTEM: &str = "/";

/// Whether a run of `guest` can be recorded into `library`, by a unit if there is a `root`.
///
/// # Errors
///
/// What is missing, or what the guest has that cannot be recorded.
pub fn check_record(root: Option<&Path>, guest: &Guest, library: &Library) -> Result<(), Error> {
    match (guest.toolstack, root) {
        (Toolstack::Xm, Some(root)) => tt_xen::record::check(root, guest, library).map(drop),
        _ => record::check(guest).map(drop),
    }
}

/// Records a run of `guest`, whose file has the text `file`, as a unit of the system. `keys` are typed on an emulated one's
/// console.
///
/// # Errors
///
/// Why there is no recording, or an incomplete one.
pub fn record(
    guest: &Guest,
    file: &str,
    library: &Library,
    environment: &Environment<'_>,
    options: &RecordOptions,
    listener: &mut dyn Listener,
    keys: Option<&mut dyn Keys>,
) -> Result<Recorded, Error> {
    match guest.toolstack {
        Toolstack::Xm => {
            tt_xen::record::record(Path::new(SYSTEM), guest, file, library, environment, options, listener)
        }
        Toolstack::Xl | Toolstack::Qemu => record::record(guest, file, library, environment, options, listener, keys),
    }
}

/// The console of an emulated guest, for whoever joins it. Xen has its own.
pub(super) fn joined(guest: &Guest) -> Option<Joined> {
    match guest.toolstack {
        Toolstack::Qemu => Joined::open(&guest.name),
        Toolstack::Xl | Toolstack::Xm => None,
    }
}

/// Whether a replay of `recording` would be one, by a unit if there is a `root`. `guest` is the guest's file as it is now, if there
/// still is one.
///
/// # Errors
///
/// Everything that is not as it was, or missing.
pub fn check_replay(
    root: Option<&Path>,
    recording: &Recording,
    guest: Option<&Guest>,
    seals: &Seals,
    choice: Choice,
    listener: &mut dyn Listener,
) -> Result<Option<replay::Checked>, Error> {
    match (recording.manifest().engine.toolstack, root, guest) {
        (Toolstack::Xm, Some(root), Some(guest)) => {
            tt_xen::replay::check(root, recording, guest, seals, listener).map(|_| None)
        }
        _ => replay::check(recording, guest, seals, choice, listener).map(Some),
    }
}

/// Replays `recording`, as a unit of the system. `guest` is the guest's file as it is now. TT Xen's guest stands still
/// before its first instruction if it is to begin `paused`; of an emulated one the debugger's options say so.
///
/// # Errors
///
/// Why there is no verdict.
pub fn replay(
    recording: &Recording,
    guest: &Guest,
    environment: &Environment<'_>,
    options: &ReplayOptions,
    paused: bool,
    listener: &mut dyn Listener,
) -> Result<Option<Verdict>, Error> {
    match guest.toolstack {
        Toolstack::Xm => {
            if options.gdb.is_some() {
                require_debugger(&guest.name, guest.toolstack)?;
            }
            tt_xen::replay::replay(Path::new(SYSTEM), recording, guest, environment, paused, listener).map(Some)
        }
        Toolstack::Xl | Toolstack::Qemu => replay::replay(recording, Some(guest), environment, options, listener),
    }
}

/// `Ok` if a debugger is served while `guest` is replayed.
///
/// # Errors
///
/// What to do in its place.
pub fn require_debugger(guest: &GuestName, toolstack: Toolstack) -> Result<(), Error> {
    match toolstack {
        Toolstack::Xm => Err(tt_xen::Error::debugger(guest).into()),
        Toolstack::Xl | Toolstack::Qemu => Ok(()),
    }
}
