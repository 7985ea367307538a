// SPDX-License-Identifier: MIT OR Apache-2.0
//! Places where a test can stop the program as a crash or a power cut would.
//!
//! `TTVM_FAIL_POINT=snapshot.removed` kills the process (SIGKILL) when it comes to the point of that name;
//! `snapshot.removed:hang` makes it stand still there, so that the machine under it can be switched off;
//! `snapshot.removed:stop` stops it (SIGSTOP), so that something can be done behind its back before it goes on (SIGCONT).
//! The points are in the shipped programs: what is tested is what is used. Only root can set the
//! environment of a unit.

use nix::sys::signal::{Signal, raise};

/// Ends or halts the process if the environment names `point`.
pub fn reach(point: &str) {
    let Ok(wanted) = std::env::var("TTVM_FAIL_POINT") else {
        return;
    };
    match wanted.split_once(':') {
        None if wanted == point => {
            let _ = raise(Signal::SIGKILL);
        }
        Some((name, "hang")) if name == point => loop {
            tracing::warn!("standing still at {point}");
            nix::unistd::pause();
        },
        Some((name, "stop")) if name == point => {
            let _ = raise(Signal::SIGSTOP);
        }
        _ => {}
    }
}
