// SPDX-License-Identifier: MIT OR Apache-2.0
//! The judgement on a volume that has a snapshot's name: may it be removed? Pure logic on LVM's report.

use super::error::{Error, Refusal};
use crate::config::guest::Snapshot;
use crate::config::types::{GuestName, LvmName};
use crate::lvm2_cmd::{Group, LogicalVolume, Metadata, Selection};

const GUEST_TAG: &str = "ttvm.guest=";

/// The tags a snapshot is made with. `ttvm` is for people (`lvs @ttvm`); the guest's proves whose it is; the
/// origin's proves what a volume was going to be that an interrupted `lvcreate --snapshot` left without an origin.
pub(super) fn tags(guest: &GuestName, snapshot: &Snapshot) -> [String; 3] {
    ["ttvm".into(), guest_tag(guest), origin_tag(&snapshot.origin.lv)]
}

fn guest_tag(guest: &GuestName) -> String {
    format!("{GUEST_TAG}{guest}")
}

/// The guest whose snapshot this is, by its tags.
pub fn guest_of(volume: &LogicalVolume) -> Option<&str> {
    volume.tags.iter().find_map(|tag| tag.strip_prefix(GUEST_TAG))
}

fn origin_tag(origin: &LvmName) -> String {
    format!("ttvm.origin={origin}")
}

/// All that must hold of a complete snapshot when it is removed.
pub(super) fn complete(uuid: &str, guest: &GuestName, snapshot: &Snapshot) -> Selection {
    Selection::uuid(uuid)
        .tag(&guest_tag(guest))
        .snapshot_of(&snapshot.origin.lv)
}

/// All that must hold of a half-made snapshot when it is removed: `lvcreate --snapshot` commits a plain volume
/// first and gives it its origin in a second step.
fn half_made(uuid: &str, guest: &GuestName, snapshot: &Snapshot) -> Selection {
    Selection::uuid(uuid)
        .tag(&guest_tag(guest))
        .tag(&origin_tag(&snapshot.origin.lv))
        .plain()
}

/// What is in the snapshot's place.
#[derive(Debug)]
pub(super) enum Place {
    /// Nothing.
    Free,
    /// A volume of ours, and what must hold while LVM removes it.
    Ours(Selection),
}

/// Looks for the snapshot's name in the group's report.
pub(super) fn examine(group: &Group, guest: &GuestName, snapshot: &Snapshot) -> Result<Place, Error> {
    look(&group.lock_type, &group.volumes, guest, snapshot)
}

/// Looks for it in what is on the group's disks.
pub(super) fn examine_disks(metadata: &Metadata, guest: &GuestName, snapshot: &Snapshot) -> Result<Place, Error> {
    look(&metadata.lock_type, &metadata.volumes, guest, snapshot)
}

fn look(lock_type: &str, volumes: &[LogicalVolume], guest: &GuestName, snapshot: &Snapshot) -> Result<Place, Error> {
    let name = &snapshot.volume;
    if !lock_type.is_empty() && lock_type != "none" {
        return Err(Error::Shared {
            vg: name.vg.clone(),
            lock_type: lock_type.to_owned(),
        });
    }
    let Some(volume) = volumes.iter().find(|volume| volume.name == name.lv.as_str()) else {
        return Ok(Place::Free);
    };
    match judge(volume, guest, snapshot) {
        Ok(selection) => Ok(Place::Ours(selection)),
        Err(why) => Err(Error::Refused {
            volume: name.clone(),
            why: Box::new(why),
        }),
    }
}

fn judge(volume: &LogicalVolume, guest: &GuestName, snapshot: &Snapshot) -> Result<Selection, Refusal> {
    let wanted = &snapshot.origin.lv;
    let has = |tag: &String| volume.tags.contains(tag);
    let right_origin = volume.is("snapshot") && volume.origin == wanted.as_str();
    if !has(&guest_tag(guest)) {
        return Err(match guest_of(volume) {
            Some(other) => Refusal::OtherGuest(other.to_owned()),
            None if right_origin => Refusal::ForeignSnapshot {
                volume: snapshot.volume.clone(),
                origin: wanted.clone(),
                guest: guest.clone(),
            },
            None => Refusal::ForeignVolume {
                volume: snapshot.volume.clone(),
                kind: volume.segtype.clone(),
            },
        });
    }
    if volume.is("origin") {
        return Err(Refusal::IsOrigin);
    }
    if right_origin {
        return Ok(complete(&volume.uuid, guest, snapshot));
    }
    if !volume.origin.is_empty() {
        return Err(Refusal::OtherOrigin {
            volume: snapshot.volume.clone(),
            found: volume.origin.clone(),
            wanted: wanted.clone(),
        });
    }
    if volume.segtype == "linear" && has(&origin_tag(wanted)) {
        return Ok(half_made(&volume.uuid, guest, snapshot));
    }
    Err(Refusal::NotASnapshot(wanted.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            origin: "vg/base".parse().expect("a volume"),
            volume: "vg/snap".parse().expect("a volume"),
            size: None,
        }
    }

    /// Judges a volume of the snapshot's name with these tags, roles, origin and type.
    fn verdict(tags: &[&str], roles: &[&str], origin: &str, segtype: &str) -> Result<String, Refusal> {
        let volume = LogicalVolume {
            name: "snap".into(),
            uuid: "U".into(),
            size: 0,
            tags: tags.iter().map(ToString::to_string).collect(),
            roles: roles.iter().map(ToString::to_string).collect(),
            origin: origin.into(),
            segtype: segtype.into(),
            permissions: "writeable".into(),
        };
        let guest = "a".parse().expect("a name");
        judge(&volume, &guest, &snapshot()).map(|selection| format!("{selection:?}"))
    }

    const OURS: [&str; 3] = ["ttvm", "ttvm.guest=a", "ttvm.origin=base"];

    #[test]
    fn ours_is_removed_by_uuid() {
        let complete = verdict(&OURS, &["public", "snapshot"], "base", "linear").expect("ours");
        assert!(
            complete.contains("lv_uuid") && complete.contains("ttvm.guest=a") && complete.contains("origin=\\\"base")
        );
        assert!(verdict(&OURS, &["public"], "", "linear").is_ok(), "half-made");
        let handed_over = verdict(&["ttvm.guest=a"], &["public", "snapshot"], "base", "thin");
        assert!(handed_over.is_ok());
    }

    #[test]
    fn everything_else_is_refused() {
        let snapshot = ["public", "snapshot"];
        assert!(matches!(
            verdict(&[], &snapshot, "base", "linear"),
            Err(Refusal::ForeignSnapshot { .. })
        ));
        assert!(matches!(
            verdict(&["ttvm"], &["public"], "", "linear"),
            Err(Refusal::ForeignVolume { .. })
        ));
        assert!(matches!(
            verdict(&["ttvm.guest=ab"], &snapshot, "base", "linear"),
            Err(Refusal::OtherGuest(_))
        ));
        assert!(matches!(
            verdict(&OURS, &snapshot, "other", "linear"),
            Err(Refusal::OtherOrigin { .. })
        ));
        let both = ["public", "snapshot", "origin", "thinorigin"];
        assert_eq!(verdict(&OURS, &both, "base", "thin"), Err(Refusal::IsOrigin));
        assert!(matches!(
            verdict(&OURS, &["public"], "", "raid1"),
            Err(Refusal::NotASnapshot(_))
        ));
        // Tagged for the guest by hand, but no snapshot: a tag alone does not give an ordinary volume away.
        assert!(matches!(
            verdict(&OURS[..2], &["public"], "", "linear"),
            Err(Refusal::NotASnapshot(_))
        ));
    }
}
