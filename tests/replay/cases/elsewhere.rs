// SPDX-License-Identifier: MIT OR Apache-2.0
//! A recording that goes to another host, where nothing of it is.

use std::fs::{self, File};
use std::ops::ControlFlow;

use super::super::Outcome;
use super::super::lab::Lab;

pub fn exported_and_imported(lab: &Lab) -> Outcome {
    let (place, other) = (lab.place(), lab.place());
    place.describe("random,disk", "");
    place.record(&[]);
    let path = place.path("exported");
    let mut file = File::create(&path).expect("a file");
    place
        .recording()
        .export(&mut file, &path, true, &mut |_, _| ControlFlow::Continue(()))
        .expect("exported");
    for name in ["base.img", "vmlinuz", "initrd"] {
        fs::rename(place.path(name), place.path(&format!("{name}.away"))).expect(name);
    }
    let mut file = File::open(&path).expect("a file");
    other
        .library()
        .import(&mut file, "exported", None, &mut |_, _| ControlFlow::Continue(()))
        .expect("imported");
    other.give();
    other.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    // Where it comes from it can not be replayed any more, and each thing that is missing is named.
    place
        .replay(&["--verify"])
        .expect(4, &["kernel:", "initrd:", "disk vda:", "is not there any more"]);
    Ok(())
}
