// SPDX-License-Identifier: MIT OR Apache-2.0
//! Places where a test can stop the program as a crash or a power cut would.
//!
//! `TTVM_FAIL_POINT=snapshot.removed` kills the process (SIGKILL) when it comes to the point of that name;
//! `snapshot.removed:hang` makes it stand still there, so that the machine under it can be switched off;
//! `snapshot.removed:stop` stops it (SIGSTOP), so that something can be done behind its back before it goes on (SIGCONT);
//! `snapshot.removed:panic` is a mistake in the program there.
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
        #[allow(clippy::panic, reason = "that is what was asked for")]
        Some((name, "panic")) if name == point => panic!("a mistake at {point}"),
        _ => {}
    }
}

/// A fault of the memory that a test has happen in each replay: `TTVM_FLIP=1000000:0x2da0000` turns over the lowest bit of that
/// byte of the guest's memory after so many instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flip {
    /// Instructions.
    pub at: u64,
    /// The byte's place in the memory.
    pub address: u64,
}

impl Flip {
    /// The one that the environment names.
    pub fn wanted() -> Option<Self> {
        Self::parse(&std::env::var("TTVM_FLIP").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (at, address) = text.split_once(":0x")?;
        Some(Self {
            at: at.parse().ok()?,
            address: u64::from_str_radix(address, 16).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip() {
        let flip = Flip {
            at: 10,
            address: 0x1fff,
        };
        assert_eq!(Flip::parse("10:0x1fff"), Some(flip));
        for text in ["", "10", "10:1fff", "x:0x1", "10:0xg"] {
            assert_eq!(Flip::parse(text), None, "{text}");
        }
    }
}
