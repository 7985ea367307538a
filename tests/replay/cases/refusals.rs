// SPDX-License-Identifier: MIT OR Apache-2.0
//! What cannot be recorded, and what to do about it.

use std::path::Path;

use nix::unistd::geteuid;

use super::super::lab::{FILE, GUEST, Lab, STATE, put_over, with_own_mounts};
use super::super::{Outcome, Skipped};

pub fn toolstack(lab: &Lab) -> Outcome {
    let place = lab.place();
    let file = format!("toolstack = \"xl\"\nkernel = \"{}\"\n", place.path("vmlinuz").display());
    place.write(FILE, file.as_bytes());
    place
        .run(&["record", GUEST])
        .expect(4, &["has toolstack \"xl\"", "cannot record", "toolstack = \"qemu\""]);
    assert!(!place.path(STATE).join("recordings").exists());
    Ok(())
}

pub fn no_emulator(lab: &Lab) -> Outcome {
    if !geteuid().is_root() {
        return Err(Skipped("hiding a program takes root"));
    }
    let qemu = ttvm::run::find("/".as_ref(), "qemu-system-x86_64").expect("QEMU");
    with_own_mounts(|| {
        let place = lab.place();
        place.describe("random", "");
        // No file, so no program.
        put_over(&qemu, Path::new("/dev/null"));
        place.run(&["record", GUEST]).expect(
            1,
            &[
                "QEMU is not installed (no qemu-system-x86_64)",
                "qemu-system-x86 and qemu-utils (Debian)",
                "(Fedora)",
            ],
        );
    });
    Ok(())
}
