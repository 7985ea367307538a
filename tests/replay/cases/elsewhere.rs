// SPDX-License-Identifier: MIT OR Apache-2.0
//! A recording that goes to another host, where nothing of it is.

use std::fs;

use super::super::Outcome;
use super::super::lab::{FILE, GUEST, Lab};
use super::describe_tiny;

pub fn exported_and_imported(lab: &Lab) -> Outcome {
    let (place, other) = (lab.place(), lab.place());
    place.describe("random,disk", "");
    place.record(&[]);
    place
        .run(&["recordings", "export", GUEST, "--with-disks", "-o", "demo.ttvm"])
        .expect(0, &[]);
    for name in ["base.img", "vmlinuz", "initrd"] {
        fs::rename(place.path(name), place.path(&format!("{name}.away"))).expect(name);
    }
    let file = place.path("demo.ttvm").display().to_string();
    other.run(&["recordings", "import", &file]).expect(0, &[]);
    other.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    // Where it comes from it cannot be replayed any more, and each thing that is missing is named.
    place
        .replay(&["--verify"])
        .expect(3, &["kernel:", "initrd:", "no such file"]);
    fs::remove_file(place.path(FILE)).expect("the guest's file");
    place
        .replay(&["--verify"])
        .expect(4, &["kernel:", "initrd:", "disk vda:", "is not there any more"]);
    Ok(())
}

/// What is at the places that a foreign manifest names is nobody's business, even if it is what was recorded; it is looked at
/// where the user says so.
pub fn disk_by_its_place(lab: &Lab) -> Outcome {
    let place = lab.place();
    describe_tiny(&place, "");
    place.record(&[]);
    place
        .run(&["recordings", "export", GUEST, "-o", "demo.ttvm"])
        .expect(0, &[]);
    let missing = "disk vda: what it was made from did not come with the recording";
    let import = ["recordings", "import", "demo.ttvm", "--as", "other"];
    place.run(&import).expect(
        0,
        &["imported other ", "note: a replay needs what disk vda was made from"],
    );
    place.run(&["replay", "other", "--verify"]).expect(4, &[missing]);
    // A guest here with another disk says nothing of that one.
    let file = fs::read_to_string(place.path(FILE)).expect("the guest's file");
    fs::remove_file(place.path(FILE)).expect("the guest's file");
    let others = FILE.replace("demo", "other");
    place.write(&others, file.replace("base.img", "tiny").as_bytes());
    let refused = place.run(&["replay", "other", "--verify"]);
    refused.expect(4, &[missing, "disks: it was vda of "]);
    assert!(!refused.err.contains("base.img is not sealed"), "{}", refused.err);
    place.write(&others, file.as_bytes());
    place
        .run(&["replay", "other", "--verify"])
        .expect(0, &["IDENTICAL: other ", "base.img is not sealed"]);
    fs::remove_file(place.path(&others)).expect("the guest's file");
    place
        .run(&[&import[..], &["--disk", "base.img"]].concat())
        .expect(0, &["is already there"]);
    fs::rename(place.path("base.img"), place.path("away.img")).expect("base.img");
    place
        .run(&["replay", "other", "--verify"])
        .expect(0, &["IDENTICAL: other "]);
    Ok(())
}
