// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm-snapshot reset|discard -- GUEST`: what `ttvm@GUEST.service` runs before and after a guest, at moments when no
//! run of it is alive. Both first destroy a domain that an earlier run left behind. People use `ttvm snapshot`.
//!
//! With `--seals`, as the units that record and replay call it, `reset` also asks LVM for the seals of the guest's volumes: the
//! run itself has not the rights to.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use ttvm::base::catalogue::Message;
use ttvm::base::error::{Classify, Exit, chain, one_line};
use ttvm::base::log;
use ttvm::base::notify;
use ttvm::config::guest::{Guest, Origin, Snapshot};
use ttvm::config::host::{self, SnapshotConfig};
use ttvm::config::places::Places;
use ttvm::config::types::{GuestName, Volume};
use ttvm::config::{self, guests};
use ttvm::file::digest::Digest;
use ttvm::guest::preparation::Preparation;
use ttvm::guest::supervisor::reap;
use ttvm::guest::toolstack;
use ttvm::image::seal;
use ttvm::run;
use ttvm::snapshot::{self, Store};

const PROGRAM: &str = "ttvm-snapshot";

type Result<T> = std::result::Result<T, Box<dyn Classify>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (action, failed, guest): (fn(&GuestName) -> Result<&'static str>, _, _) = match words[..] {
        ["reset", "--", guest] => (reset, Message::NoSnapshots, guest),
        ["reset", "--seals", "--", guest] => (reset_and_ask, Message::NoSnapshots, guest),
        ["discard", "--", guest] => (discard, Message::NotTidied, guest),
        _ => {
            eprintln!("usage: {PROGRAM} reset [--seals]|discard -- GUEST");
            return Exit::Usage.into();
        }
    };
    log::init(PROGRAM, Some(&format!("ttvm@{guest}.service")));
    let name = guest.parse().map_err(|error| boxed(config::Error::Name(error)));
    match name.and_then(|name| action(&name)) {
        Ok(done) => {
            let commands = run::spawned();
            tracing::info!(
                ttvm_guest = guest,
                ttvm_commands = commands,
                "{done} ({commands} commands run)"
            );
            Exit::Done.into()
        }
        Err(error) => {
            tracing::error!(message_id = failed.id(), ttvm_guest = guest, "{}", chain(&*error));
            notify::status(&one_line(&*error));
            error.exit().into()
        }
    }
}

fn system() -> Places {
    Places::system(Path::new("/"))
}

fn reset(name: &GuestName) -> Result<&'static str> {
    prepare(name, false)
}

fn reset_and_ask(name: &GuestName) -> Result<&'static str> {
    prepare(name, true)
}

/// The seals of the volumes that the guest's disks are made from.
fn seals(guest: &Guest) -> Result<Vec<(Volume, Option<Digest>)>> {
    let volumes = guest.origins().filter_map(|origin| match origin {
        Origin::Volume(volume) => Some(volume),
        Origin::File(_) => None,
    });
    let asked = volumes.map(|volume| {
        let state = seal::state(&Origin::Volume(volume.clone())).map_err(boxed)?;
        Ok((volume, state.digest()))
    });
    asked.collect()
}

fn prepare(name: &GuestName, ask: bool) -> Result<&'static str> {
    let host = host::load(&system()).map_err(boxed)?;
    let guest = guests::load(&system(), &host, name).map_err(boxed)?;
    let mut preparation = Preparation::of(&guest);
    if let Some(mut left) = Preparation::load(name) {
        // What the guest's file does not name any more.
        let is_old = |snapshot: &&Snapshot| {
            let same = |new: &Snapshot| new.volume == snapshot.volume && new.origin == snapshot.origin;
            !preparation.snapshots().iter().any(same)
        };
        let old = left.snapshots().iter().filter(is_old).cloned().collect();
        let tidied = reap(name, left.uuid(), left.toolstack())
            .map_err(boxed)
            .and_then(|()| change(name, old, &host.snapshot, Store::discard));
        if let Err(error) = tidied {
            left.finish(name, Err(&*error)).map_err(boxed)?;
            return Err(error);
        }
    }
    preparation.save(name).map_err(boxed)?;
    // Not an Assert… of the unit, which would hold for toolstack "qemu" as well.
    let result = toolstack::require_here(&guest)
        .and_then(|()| reap(name, guest.uuid, guest.toolstack))
        .map_err(boxed)
        .and_then(|()| change(name, preparation.snapshots().to_vec(), &host.snapshot, Store::reset))
        .and_then(|()| if ask { seals(&guest).map(Some) } else { Ok(None) });
    let result = result.map(|seals| seals.into_iter().for_each(|seals| preparation.note_seals(seals)));
    let outcome = result.as_ref().copied().map_err(|error| &**error);
    preparation.finish(name, outcome).map_err(boxed)?;
    result.map(|()| "snapshots are fresh")
}

fn discard(name: &GuestName) -> Result<&'static str> {
    let host = host::load(&system());
    let (preparation, config) = match Preparation::load(name) {
        // A mistake in a file does not stand in the way of tidying up.
        Some(preparation) => (preparation, host.unwrap_or_default().snapshot),
        None => {
            let host = host.map_err(boxed)?;
            let guest = guests::load(&system(), &host, name).map_err(boxed)?;
            (Preparation::of(&guest), host.snapshot)
        }
    };
    reap(name, preparation.uuid(), preparation.toolstack()).map_err(boxed)?;
    change(name, preparation.snapshots().to_vec(), &config, Store::discard)?;
    Preparation::forget(name);
    Ok("no snapshot is left")
}

fn change<'a>(
    guest: &GuestName,
    snapshots: Vec<Snapshot>,
    config: &'a SnapshotConfig,
    action: fn(&Store<'a>) -> std::result::Result<(), snapshot::Error>,
) -> Result<()> {
    let count = u32::try_from(snapshots.len()).unwrap_or(u32::MAX);
    if count == 0 {
        return Ok(());
    }
    // As long as the host's settings allow it to wait, and then some for LVM.
    let limit = (config.lock_timeout + config.busy_timeout + Duration::from_secs(180)).saturating_mul(count);
    notify::extend(limit);
    let store = Store::open(guest, snapshots, config).map_err(boxed)?;
    action(&store).map_err(|error| match error.may_pass() {
        true => boxed(Passing(error)),
        false => boxed(error),
    })
}

/// What stands in the way now, and may not a little later: for systemd it is a failure, after which the guest is started again, and
/// not one of those that only a person can put right (RestartPreventExitStatus= in ttvm@.service).
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Passing(snapshot::Error);

impl Classify for Passing {
    fn exit(&self) -> Exit {
        Exit::Failed
    }
}

fn boxed(error: impl Classify + 'static) -> Box<dyn Classify> {
    Box::new(error)
}
