// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm recordings show` and `verify`.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::{Error, print_json, state};
use crate::base::clock::duration;
use crate::base::error::one_line;
use crate::base::text::{self, bytes};
use crate::cli::terminal::clock::date_and_time;
use crate::config::types::{GuestName, Size};
use crate::file::digest::Digest;
use crate::recording::library::manifest::{FileDigest, Manifest, RunExit};
use crate::recording::replay::verdict::{Replays, grouped};
use crate::recording::{Entry, Id, Library, State};

/// A recording as JSON.
#[derive(Serialize)]
struct Shown<'a> {
    guest: &'a GuestName,
    id: &'a Id,
    #[serde(flatten)]
    state: &'a State,
    size: u64,
    pinned: bool,
    replays: Option<&'a Replays>,
    directory: &'a Path,
    capsule: Option<Kept>,
    manifest: Option<&'a Manifest>,
}

/// The engine that came with a recording.
#[derive(Serialize)]
struct Kept {
    digest: Digest,
    size: u64,
    trusted: bool,
}

impl Kept {
    /// One that cannot be read does not hide the rest.
    fn of(library: &Library, entry: &Entry) -> Option<Self> {
        let capsule = library.capsule(&entry.directory);
        let capsule = capsule.inspect_err(|error| tracing::warn!("{}", one_line(error)));
        capsule.ok().flatten().map(|capsule| Self {
            digest: capsule.digest(),
            size: capsule.list().size(),
            trusted: library.is_trusted(capsule.digest()),
        })
    }

    fn line(&self) -> String {
        let trusted = if self.trusted { "trusted" } else { "not trusted" };
        format!("{}, {}, {trusted}", self.digest, bytes(self.size))
    }
}

pub(super) fn run(library: &Library, entry: Entry, json: bool) -> Result<(), Error> {
    let capsule = Kept::of(library, &entry);
    if json {
        return print_json(&Shown {
            guest: &entry.guest,
            id: &entry.id,
            state: &entry.state,
            size: entry.size,
            pinned: entry.pinned,
            replays: entry.replays.as_ref(),
            directory: &entry.directory,
            capsule,
            manifest: entry.manifest.as_ref(),
        });
    }
    let why = match &entry.state {
        State::Incomplete(why) | State::Damaged(why) => format!(": {why}"),
        State::Complete | State::Recording => String::new(),
    };
    let mut lines = vec![
        ("guest", entry.guest.to_string()),
        ("recording", entry.id.to_string()),
        ("directory", entry.directory.display().to_string()),
        ("state", format!("{}{why}", state(&entry.state))),
        ("pinned", if entry.pinned { "yes" } else { "no" }.to_owned()),
        ("size on disk", bytes(entry.size)),
    ];
    if let Some(manifest) = &entry.manifest {
        if manifest.guest != entry.guest {
            lines.push(("recorded as", manifest.guest.to_string()));
        }
        describe(manifest, &mut lines);
    }
    lines.extend(capsule.iter().map(|capsule| ("capsule", capsule.line())));
    if let Some(replays) = &entry.replays {
        lines.push((
            "replayed",
            format!("{replays}, the last time {}", date_and_time(replays.when)),
        ));
        lines.push(("last replay", replays.newest.to_string()));
        let explained = if replays.unexplained { "looked for" } else { "explained" };
        lines.extend(replays.explanation.iter().map(|line| (explained, line.clone())));
        lines.extend(replays.engines.iter().map(|engine| ("identical on", engine.clone())));
    }
    let mut out = io::stdout().lock();
    for (key, value) in lines {
        writeln!(out, "{key:>16}: {}", text::line(&value))?;
    }
    Ok(())
}

fn describe(manifest: &Manifest, lines: &mut Vec<(&'static str, String)>) {
    let file = |file: &FileDigest| format!("{}, {} bytes, {}", file.path.display(), file.size, file.digest);
    let (run, engine) = (&manifest.run, &manifest.engine);
    if let Some(parent) = &manifest.parent {
        let at = grouped(parent.instructions);
        lines.push((
            "branch of",
            format!("{} {}, at {at} instructions", parent.guest, parent.id),
        ));
    }
    lines.push(("started", date_and_time(run.started)));
    if let Some(result) = &manifest.result {
        let length = duration(result.ended.saturating_sub(run.started));
        lines.push(("ended", format!("{}, after {length}", date_and_time(result.ended))));
        lines.push(("because", format!("the guest {}", ending(result.exit))));
        lines.extend(result.instructions.map(|count| ("instructions", count.to_string())));
        lines.push(("log", file(&result.log)));
        lines.push(("console", file(&result.console)));
    }
    lines.push(("ttvm", run.ttvm.clone()));
    lines.push(("host's boot", run.boot.clone()));
    lines.push(("network", run.network.clone()));
    lines.push(("engine", format!("{} {}", engine.toolstack.as_str(), engine.version)));
    lines.push(("machine", engine.machine.clone()));
    lines.extend(engine.firmware.iter().map(|firmware| ("firmware", file(firmware))));
    lines.push(("cpu", engine.cpu.clone()));
    lines.push(("icount", engine.icount.clone()));
    lines.push(("memory", Size::from_bytes(engine.memory).to_string()));
    lines.extend(engine.cmdline.iter().map(|cmdline| ("cmdline", cmdline.clone())));
    let reset = if engine.reset_ends { "ends the run" } else { "goes on" };
    lines.push(("a reset", reset.to_owned()));
    lines.push(("configuration", engine.config.to_string()));
    lines.push(("guest's file", file(&manifest.guest_file)));
    lines.extend(manifest.kernel.iter().map(|kernel| ("kernel", file(kernel))));
    lines.extend(manifest.initrd.iter().map(|initrd| ("initrd", file(initrd))));
    for disk in &manifest.disks {
        let sealed = if disk.sealed { ", sealed" } else { "" };
        let end = disk.end.map_or_else(String::new, |end| format!(", at the end {end}"));
        let what = format!(
            "{}: from {}, {} bytes, {}{sealed}{end}",
            disk.target, disk.origin, disk.size, disk.digest
        );
        lines.push(("disk", what));
    }
    lines.extend(manifest.vifs.iter().map(|vif| ("vif", vif.mac.to_string())));
}

/// The rest of "the guest …".
fn ending(exit: RunExit) -> String {
    match exit {
        RunExit::Stopped => "was stopped".to_owned(),
        exit => exit.to_string(),
    }
}
