// SPDX-License-Identifier: MIT OR Apache-2.0
//! Logs that tests write by hand.

/// A log that is written by hand: crates/replay-log/src/lib.rs says how.
pub(in crate::recording) struct Log(Vec<u8>);

impl Log {
    pub(in crate::recording) fn new() -> Self {
        let mut log = vec![0x00, 0xe0, 0x20, 0x0c];
        log.extend([0; 8]);
        // The machine is set up.
        log.push(37);
        Self(log)
    }

    pub(in crate::recording) fn run(mut self, instructions: u32) -> Self {
        self.0.push(0);
        self.0.extend(instructions.to_be_bytes());
        self
    }

    pub(in crate::recording) fn print(mut self, bytes: usize) -> Self {
        for _ in 0..bytes {
            self.0.extend([22, 0, 0, 0, 1, 0, 0, 0, 1]);
        }
        self
    }

    /// A byte that nobody took.
    pub(super) fn lose(mut self) -> Self {
        self.0.extend([22, 0, 0, 0, 0, 0, 0, 0, 0]);
        self
    }

    pub(in crate::recording) fn clock(mut self, nanoseconds: u64) -> Self {
        self.0.push(29);
        self.0.extend(nanoseconds.to_be_bytes());
        self
    }

    /// Any other event.
    pub(in crate::recording) fn event(mut self, kind: u8, content: &[u8]) -> Self {
        self.0.push(kind);
        self.0.extend(content);
        self
    }

    /// With its end.
    pub(in crate::recording) fn whole(&self) -> Vec<u8> {
        [self.0.as_slice(), &[39]].concat()
    }
}
