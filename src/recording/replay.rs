// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replaying a recording, and the verdict: the same run, or where it was another.

use std::path::PathBuf;

use super::checkpoints::{Checkpoints, Maker};
use super::disks::{Disks, Seals, Wanted};
use super::live;
use super::log::{self, End, Log};
use super::manifest::Manifest;
use super::rerun::{Came, Rerun};
use super::session::{Environment, Error, Listener, different, recorded_machine, require_memory};
use super::trail::{Stops, Trail};
use super::{Divergence, Recording, Verdict, compare, debugger, tt_xen};
use crate::config::guest::{DiskSource, Guest};
use crate::config::types::Size;
use crate::fail_point;
use crate::qemu::engine::{self, Version};
use crate::qemu::memory::Memory;

/// Beside a verdict on next to nothing.
const NOTHING: &str = "nothing was printed in this run, so its end and its disks alone were compared";

/// How to replay.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Serves a debugger.
    pub gdb: Option<debugger::Wanted>,
    /// Makes checkpoints on the way, if there are none.
    pub checkpoints: bool,
    /// Tries it with whatever QEMU and firmware there are.
    pub any_engine: bool,
}

/// Replays `recording`. `guest` is the guest's file as it is now, if there still is one. There is no verdict on what went
/// through a debugger, where the guest does the same things again and again.
pub fn replay(
    recording: &Recording,
    guest: Option<&Guest>,
    environment: &Environment<'_>,
    options: &Options,
    listener: &mut dyn Listener,
) -> Result<Option<Verdict>, Error> {
    let manifest = recording.manifest();
    let _use = recording.use_shared()?;
    let signals = live::signals()?;
    let checked = check(recording, guest, &environment.seals, options.any_engine, listener)?;
    let sources = sources(recording, guest);
    let wanted: Vec<Wanted<'_>> = manifest
        .disks
        .iter()
        .zip(&sources)
        .map(|(disk, (source, base))| Wanted {
            target: disk.target.clone(),
            source,
            base: base.clone(),
            size: disk.size,
        })
        .collect();
    // By the name that is locked: the manifest has the sender's.
    let name = recording.guest();
    let mut disks = Disks::make(name, &wanted, environment)?;
    fail_point::reach("session.disks-made");
    let mut maker = begin_checkpoints(recording, options);
    if options.gdb.is_some() || maker.is_some() {
        disks.cover(name, environment)?;
    }
    let mut machine = recorded_machine(manifest, recording.kernel_path(), recording.initrd_path());
    machine.drives.clone_from(&disks.drives);
    let digest = machine.digest();
    if digest != manifest.engine.config {
        let was = manifest.engine.config;
        let difference = format!("this version of ttvm makes another machine of it: it was {was}, now it is {digest}");
        return Err(different(recording, vec![difference]));
    }
    let result = manifest.result.as_ref().ok_or(Error::Interrupted)?;
    let log = Log::of(recording, checked.end, &environment.overlays)?;
    let end = checked.end;
    if let Some(wanted) = &options.gdb {
        let run = debugger::Run {
            id: recording.id(),
            guest: name,
            log: log.path(),
            last: end.last_stop(),
            end: end.instructions,
            machine: &machine,
        };
        debugger::serve(&run, &environment.overlays, wanted, listener, &signals)?;
        return Ok(None);
    }
    let memory = Memory::new(machine.memory).map_err(Error::Memory)?;
    let mut stops = Stops::new(
        &result.moments,
        Trail::load(recording.directory()),
        !manifest.vifs.is_empty(),
        0,
        end.last_stop(),
    );
    let multiboot = recording
        .kernel_path()
        .is_some_and(|kernel| engine::is_multiboot(&kernel));
    if multiboot {
        stops = stops.without_memory();
    }
    let mut rerun = Rerun {
        recording,
        result,
        log: log.path(),
        end,
        machine: &machine,
        memory: &memory,
        stops,
        start: None,
        maker: maker.take(),
        visit: None,
        listener,
    };
    let came = rerun.run(&environment.overlays, &signals)?;
    maker = rerun.maker.take();
    let (compared, trail) = (rerun.stops.compared(), rerun.stops.into_trail());
    let verdict = match came {
        Came::Left => return Ok(None),
        Came::Differs(at) => Verdict::Diverged { at },
        Came::Same => {
            let contents = disks.contents(listener)?;
            disks_verdict(manifest, &contents).unwrap_or(Verdict::Identical {
                instructions: Some(end.instructions),
                moments: compared,
                memory: !multiboot,
                disks: contents.len(),
            })
        }
    };
    if let Verdict::Identical { .. } = &verdict {
        if let Some(trail) = trail
            && let Err(error) = trail.save(recording.directory())
        {
            tracing::warn!(ttvm_guest = %name, "the moments of this replay cannot be kept: {error}");
        }
        if let Some(maker) = maker
            && let Err(error) = maker.keep(disks.overlays())
        {
            tracing::warn!(ttvm_guest = %name, "the checkpoints of this replay cannot be kept: {}", crate::error::one_line(&error));
        }
    }
    if recording.prints_nothing() {
        tracing::warn!(ttvm_guest = %name, "{NOTHING}");
    }
    recording.note_verdict(&verdict, &checked.version.text);
    Ok(Some(verdict))
}

/// Checkpoints in the making, if they are wanted, and there are none. What prevents them does not prevent the replay.
fn begin_checkpoints(recording: &Recording, options: &Options) -> Option<Maker> {
    let manifest = recording.manifest();
    let is_there = !matches!(Checkpoints::load(recording.directory()), Ok(None));
    if !options.checkpoints || options.gdb.is_some() || is_there || manifest.format == 1 {
        return None;
    }
    Maker::begin(recording.directory(), manifest.engine.memory)
        .inspect_err(|error| tracing::warn!("no checkpoints are made: {}", crate::error::one_line(error)))
        .ok()
}

/// Whether a replay of `recording` would be one: every difference is named.
pub fn check(
    recording: &Recording,
    guest: Option<&Guest>,
    seals: &Seals,
    any_engine: bool,
    listener: &mut dyn Listener,
) -> Result<Checked, Error> {
    let manifest = recording.manifest();
    tt_xen::require_unit(recording.guest(), manifest.engine.toolstack, "replay")?;
    let version = engine::find()?;
    let kernel = recording.kernel_path();
    let mut differences = compare::words(manifest);
    if !any_engine {
        let firmware = engine::firmware(kernel.as_deref())?;
        differences.extend(compare::qemu(manifest, &version, &firmware, listener)?);
    }
    if let Some(guest) = guest {
        differences.extend(compare::guest(manifest, guest, (!any_engine).then_some(&version)));
    }
    differences.extend(compare::files(recording, guest, seals, listener)?);
    if !differences.is_empty() {
        return Err(different(recording, differences));
    }
    require_memory(Size::from_bytes(manifest.engine.memory))?;
    let end = log::check(recording, listener)?;
    Ok(Checked { end, version })
}

/// What is known of a recording that can be replayed.
pub struct Checked {
    end: End,
    version: Version,
}

/// What each disk is made from, and the copy of its base if it came from another host.
fn sources(recording: &Recording, guest: Option<&Guest>) -> Vec<(DiskSource, Option<PathBuf>)> {
    let disks = recording.manifest().disks.iter().map(|disk| {
        let now = guest.and_then(|guest| guest.disks.iter().find(|it| it.target == disk.target));
        let source = now.map_or_else(|| DiskSource::Overlay(disk.origin.clone()), |it| it.source.clone());
        let base = recording
            .base_path(disk, guest)
            .filter(|base| *base != disk.origin.path());
        (source, base)
    });
    disks.collect()
}

pub(super) fn disks_verdict(manifest: &Manifest, contents: &[crate::digest::Digest]) -> Option<Verdict> {
    manifest.disks.iter().zip(contents).find_map(|(disk, found)| {
        let expected = disk.end.filter(|end| end != found)?;
        Some(Verdict::Diverged {
            at: Divergence::Disk {
                target: disk.target.clone(),
                expected,
                found: *found,
            },
        })
    })
}
