// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replaying with TT Xen, and the verdict.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::live::{Bounds, Domain, Ended};
use super::{Error, config_digest, engine};
use crate::config::guest::{Boot, Guest, Toolstack};
use crate::file::digest;
use crate::guest::toolstack::tt_xen::deviced::{self, RunDirectory, require_debugfs};
use crate::guest::toolstack::tt_xen::xm::{Mode, Xm};
use crate::guest::watch::Watch;
use crate::recording::library::manifest::{Outcome, RunExit};
use crate::recording::replay::console::Comparison;
use crate::recording::replay::rerun::divergence;
use crate::recording::replay::{compare, disks_verdict};
use crate::recording::session::disks::{Disks, Seals};
use crate::recording::session::{Environment, Error as SessionError, Listener, different};
use crate::recording::{Divergence, Error as LibraryError, Recording, Verdict, record};

/// Whether a replay of `recording`, on the system in the tree that begins at `root`, would be one: every difference is named.
/// `guest` is the guest's file as it is now.
pub fn check(
    root: &Path,
    recording: &Recording,
    guest: &Guest,
    seals: &Seals,
    listener: &mut dyn Listener,
) -> Result<Xm, SessionError> {
    let manifest = recording.manifest();
    if guest.toolstack != Toolstack::Xm || manifest.engine.toolstack != Toolstack::Xm {
        return Err(different(recording, compare::guest(manifest, guest, None)));
    }
    let (xm, version) = engine(root, &guest.name)?;
    require_debugfs(root).map_err(Error::from)?;
    let mut differences = compare::xen(manifest, &version);
    let of_file = compare::guest(manifest, guest, None);
    if of_file.is_empty() && config_digest(guest) != manifest.engine.config {
        differences.push(
            "the guest's file for xm ([xm], uuid, name, a vif's or a disk's parameters) is not what it was: guest.toml in the recording has the old one".to_owned(),
        );
    }
    differences.extend(of_file);
    differences.extend(compare::files(recording, Some(guest), seals, listener)?);
    match differences.is_empty() {
        true => Ok(xm),
        false => Err(different(recording, differences)),
    }
}

/// Replays `recording`; `guest` is the guest's file as it is now. If it is to begin `paused`, a person lets it go
/// (`xm unpause`).
pub fn replay(
    root: &Path,
    recording: &Recording,
    guest: &Guest,
    environment: &Environment<'_>,
    paused: bool,
    listener: &mut dyn Listener,
) -> Result<Verdict, SessionError> {
    let manifest = recording.manifest();
    let _use = recording.use_shared()?;
    let directory = RunDirectory::new(recording.directory()).map_err(Error::from)?;
    let watch = Watch::begin(root).map_err(Error::from)?;
    let xm = check(root, recording, guest, &environment.seals, listener)?;
    let result = manifest.result.as_ref().ok_or(SessionError::Interrupted)?;
    give_log(recording)?;
    let disks = Disks::make(&guest.name, &record::wanted(guest, manifest), environment)?;
    let guest = as_recorded(recording, guest);
    let domain = Domain {
        root,
        guest: &guest,
        xm,
        mode: Mode::Replay(&directory),
        paused,
        watch,
    };
    let ended = domain.run(&Bounds::default(), &format!("replaying {}", recording.id()), listener)?;
    let verdict = match verdict(recording, result, &ended)? {
        Some(at) => Verdict::Diverged { at },
        None => {
            let contents = disks.contents(listener)?;
            disks_verdict(manifest, &contents).unwrap_or(Verdict::Identical {
                instructions: None,
                from: None,
                moments: 0,
                memory: false,
                disks: contents.len(),
            })
        }
    };
    recording.note_verdict(&verdict, &manifest.engine.version);
    Ok(verdict)
}

/// The guest with the kernel that came with the recording, if one did.
fn as_recorded(recording: &Recording, guest: &Guest) -> Guest {
    let mut guest = guest.clone();
    if let Boot::Kernel { kernel, initrd, .. } = &mut guest.boot {
        if let Some(brought) = recording.kernel_path() {
            *kernel = brought;
        }
        *initrd = recording.initrd_path();
    }
    guest
}

/// Lets ttd-deviced have the log, which was compared, by the name it knows. An imported recording has only the other.
fn give_log(recording: &Recording) -> Result<(), SessionError> {
    let log = recording.directory().join(deviced::LOG);
    let failed = LibraryError::file("make", &log);
    let inode = |path: &Path| fs::symlink_metadata(path).map(|data| (data.dev(), data.ino()));
    let give = || {
        let recorded = inode(&recording.log())?;
        match inode(&log) {
            Ok(there) if there == recorded => return Ok(()),
            Ok(_) => fs::remove_file(&log)?,
            Err(_) => {}
        }
        fs::hard_link(recording.log(), &log)
    };
    give().map_err(failed).map_err(SessionError::from)
}

/// Where the replay was another run, as far as its console and its end tell.
fn verdict(recording: &Recording, result: &Outcome, ended: &Ended) -> Result<Option<Divergence>, SessionError> {
    let guest = recording.guest();
    match (&ended.console, result.console.size) {
        (_, 0) => tracing::warn!(ttvm_guest = %guest, "no console was recorded: it is not compared"),
        (None, _) => tracing::warn!(
            ttvm_guest = %guest,
            "xenconsoled keeps no log of guests (start it with --log=guest): the console is not compared"
        ),
        (Some(text), _) => {
            let path = recording.console();
            let unreadable = |source| SessionError::Read {
                path: path.clone(),
                source: digest::Error::Open {
                    path: path.clone(),
                    source,
                },
            };
            let mut comparison = Comparison::open(&path).map_err(unreadable)?;
            let found = match comparison.feed(text).map_err(unreadable)? {
                None => comparison.finish().map_err(unreadable)?,
                found => found,
            };
            if let Some(found) = found {
                return Ok(Some(divergence(found, None)));
            }
        }
    }
    let same = match (result.exit, ended.exit) {
        // xend's log does not say.
        (RunExit::Ended, _) | (_, RunExit::Ended) => true,
        // It was asked to shut down, and so it does again.
        (RunExit::Stopped, RunExit::PoweredOff) => true,
        (expected, found) => expected == found,
    };
    Ok((!same).then(|| Divergence::Exit {
        expected: result.exit,
        found: ended.exit.to_string(),
    }))
}
