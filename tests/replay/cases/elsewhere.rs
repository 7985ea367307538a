// SPDX-License-Identifier: MIT OR Apache-2.0
//! A recording that goes to another host, where nothing of it is.

use std::fs;

use super::super::Outcome;
use super::super::lab::{FILE, GUEST, Lab};

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
    // Where it comes from it can not be replayed any more, and each thing that is missing is named.
    place
        .replay(&["--verify"])
        .expect(3, &["kernel:", "initrd:", "no such file"]);
    fs::remove_file(place.path(FILE)).expect("the guest's file");
    place
        .replay(&["--verify"])
        .expect(4, &["kernel:", "initrd:", "disk vda:", "is not there any more"]);
    Ok(())
}
