// SPDX-License-Identifier: MIT OR Apache-2.0
//! What cannot be recorded, and what to do about it.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use super::super::lab::{FILE, GUEST, Lab, STATE};
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
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let place = lab.place();
            place.describe("random", "");
            unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("a private one");
            // No file, so no program.
            mount(Some("/dev/null"), &qemu, none, MsFlags::MS_BIND, none).expect("hidden");
            place.run(&["record", GUEST]).expect(
                1,
                &[
                    "QEMU is not installed (no qemu-system-x86_64)",
                    "qemu-system-x86 and qemu-utils (Debian)",
                    "(Fedora)",
                ],
            );
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    Ok(())
}
