// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs of programs, and the memory they need.

use std::process::{Command, Stdio};

use nix::libc;

/// Runs a program to its end, without output. Returns the most memory it has had, in bytes.
#[expect(clippy::zombie_processes, reason = "wait4 is what waits")]
pub fn run(command: &mut Command) -> f64 {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both point to what wait4(2) fills, and a rusage of zeros is a valid one.
    let usage = unsafe {
        let waited = libc::wait4(child.id() as i32, &raw mut status, 0, usage.as_mut_ptr());
        assert_eq!(waited, child.id() as i32);
        usage.assume_init()
    };
    assert_eq!(status, 0, "{command:?}");
    usage.ru_maxrss as f64 * 1024.0
}
