// SPDX-License-Identifier: MIT OR Apache-2.0
//! `[[disk]]` of a guest's file.

use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;

use super::claims::{Claim, Claims};
use super::file::{Context, text, words};
use super::{Disk, DiskFormat, DiskSource, Origin, Snapshot};
use crate::config::reader::{Located, Source, Table, from_toml_str};
use crate::config::types::{GuestName, LvmName, Size, Target, Volume};

/// `access` of a disk that is a device or file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    ReadOnly,
    ReadWrite,
}

/// `snapshot.store`: who keeps what the guest writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Store {
    Lvm,
    Overlay,
}

words!(Access, "\"ro\" or \"rw\"", "ro" => Self::ReadOnly, "rw" => Self::ReadWrite);
words!(DiskFormat, "\"raw\" or \"qcow2\"", "raw" => Self::Raw, "qcow2" => Self::Qcow2);
words!(Store, "\"lvm\" or \"overlay\"", "lvm" => Self::Lvm, "overlay" => Self::Overlay);

/// The guest's disks. Mistakes are noted in `source`.
pub(super) fn read_disks(name: &GuestName, source: &Source, table: &Table<'_>, context: &Context<'_>) -> Vec<Disk> {
    let mut disks: Vec<Disk> = Vec::new();
    // One guest's own disks can be in each other's way just as two guests' can.
    let mut own = Claims::default();
    for table in table.tables("disk") {
        let target = table.require::<Target>("target");
        if let Some(target) = &target
            && disks.iter().any(|disk| disk.target == target.value)
        {
            table.problem(&target.span, format!("two disks are called {}", target.value));
        }
        let found = read_disk_source(name, &table, target.as_ref().map(|target| &target.value));
        let xm = text(&table, "xm");
        table.finish();
        let (Some(target), Some((span, disk_source))) = (target, found) else {
            continue;
        };
        for claim in Claim::of_disk(&disk_source) {
            context.claims.check(source, &span, &claim);
            own.check(source, &span, &claim);
            own.add(name, claim);
        }
        disks.push(Disk {
            target: target.value,
            source: disk_source,
            xm: xm.map(|parameters| parameters.value),
        });
    }
    disks
}

/// What `snapshot` says.
#[derive(Default)]
struct SnapshotKeys {
    name: Option<Located<LvmName>>,
    size: Option<Located<Size>>,
    store: Option<Located<Store>>,
}

fn read_disk_source(
    name: &GuestName,
    table: &Table<'_>,
    target: Option<&Target>,
) -> Option<(Range<usize>, DiskSource)> {
    let origin = table.get::<Origin>("origin");
    let path = table.get::<PathBuf>("path");
    let snapshot = table.table("snapshot");
    let access = table.get::<Access>("access");
    let format = table.get::<DiskFormat>("format");
    let mut keys = SnapshotKeys::default();
    if let Some(snapshot) = &snapshot {
        keys = SnapshotKeys {
            name: snapshot.get("name"),
            size: snapshot.get("size"),
            store: snapshot.get("store"),
        };
        snapshot.finish();
    }
    match (origin, path) {
        (Some(origin), None) => {
            for (key, span) in [("access", access.map(|a| a.span)), ("format", format.map(|f| f.span))] {
                if let Some(span) = span {
                    table.problem(
                        &span,
                        format!("{key}: a run writes to a snapshot of the origin; {key} is for disks with \"path\""),
                    );
                }
            }
            read_origin(name, table, target, origin, keys)
        }
        (None, Some(path)) => {
            if let Some(snapshot) = snapshot {
                table.problem(snapshot.span(), "snapshot: a disk with \"path\" is given to the guest as it is; snapshots are made of an \"origin\"");
            }
            let source = DiskSource::Path {
                path: path.value,
                format: format.map_or(DiskFormat::Raw, |format| format.value),
                // What the guest may change for good has to be said.
                writable: access.is_some_and(|access| access.value == Access::ReadWrite),
            };
            Some((path.span, source))
        }
        (Some(_), Some(path)) => {
            table.problem(
                &path.span,
                "a disk has an \"origin\" (a fresh snapshot each run) or a \"path\" (used as it is), not both",
            );
            None
        }
        (None, None) => {
            // A key that is there but wrong has been noted already.
            if !table.has("origin") && !table.has("path") {
                table.problem(
                    table.span(),
                    "[[disk]] needs an \"origin\" (a fresh snapshot each run) or a \"path\" (used as it is)",
                );
            }
            None
        }
    }
}

/// A snapshot that LVM makes, or an overlay.
fn read_origin(
    name: &GuestName,
    table: &Table<'_>,
    target: Option<&Target>,
    origin: Located<Origin>,
    keys: SnapshotKeys,
) -> Option<(Range<usize>, DiskSource)> {
    let store = keys.store.map(|store| (store.value, store.span));
    let volume = match (origin.value, &store) {
        (Origin::Volume(volume), None | Some((Store::Lvm, _))) => volume,
        (Origin::File(path), Some((Store::Lvm, span))) => {
            table.problem(
                span,
                format!(
                    "store: LVM makes no snapshot of the file {}: use \"overlay\"",
                    path.display()
                ),
            );
            return None;
        }
        (covered, _) => {
            for (key, span) in [("name", keys.name.map(|n| n.span)), ("size", keys.size.map(|s| s.span))] {
                if let Some(span) = span {
                    table.problem(
                        &span,
                        format!("{key}: an overlay is a file that grows with what the guest writes; {key} is for LVM's snapshots"),
                    );
                }
            }
            return Some((origin.span, DiskSource::Overlay(covered)));
        }
    };
    let (span, lv) = match keys.name {
        Some(lv) => (lv.span, lv.value),
        None => match format!("ttvm-{name}-{}", target?).parse() {
            Ok(lv) => (origin.span, lv),
            Err(why) => {
                table.problem(
                    &origin.span,
                    format!("the snapshot needs a name of its own, snapshot = {{ name = \"…\" }}: {why}"),
                );
                return None;
            }
        },
    };
    let snapshot = Snapshot {
        volume: Volume {
            vg: volume.vg.clone(),
            lv,
        },
        origin: volume,
        size: keys.size.map(|size| size.value),
    };
    Some((span, DiskSource::Snapshot(snapshot)))
}
