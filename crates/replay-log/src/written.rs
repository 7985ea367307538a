// SPDX-License-Identifier: MIT OR Apache-2.0
//! Logs that tests write by hand.

use crate::{Devices, VERSION};

pub const DEVICES: Devices = Devices { networks: 1, disks: 1 };

/// A log that is written by hand.
#[derive(Clone)]
pub struct Log {
    pub bytes: Vec<u8>,
    /// Where its events begin.
    pub events: Vec<usize>,
}

impl Log {
    pub fn new() -> Self {
        let mut bytes = VERSION.to_be_bytes().to_vec();
        bytes.extend([0; 8]);
        let events = Vec::new();
        Self { bytes, events }
    }

    pub fn event(mut self, kind: u8, content: &[u8]) -> Self {
        self.events.push(self.bytes.len());
        self.bytes.push(kind);
        self.bytes.extend_from_slice(content);
        self
    }

    pub fn instructions(self, count: u32) -> Self {
        self.event(0, &count.to_be_bytes())
    }
}

pub fn text(before: &[u8], text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len()).expect("a short text");
    [before, &length.to_be_bytes(), text].concat()
}

/// With one event of each kind that the machine has, as QEMU orders them.
pub fn good() -> Log {
    let clock = 1_795_974_774_081_165_000u64.to_be_bytes();
    Log::new()
        .event(28, &clock)
        .event(37, &[])
        .event(28, &clock)
        .event(38, &[])
        .event(35, &[])
        .instructions(1000)
        .event(31, &[])
        .event(29, &1000u64.to_be_bytes())
        .event(1, &[])
        .event(2, &[])
        .event(3, &1000u64.to_be_bytes())
        .event(4, &900u64.to_be_bytes())
        .event(22, &[0, 0, 0, 1, 0, 0, 0, 1])
        .event(7, &text(&[0], b"hello\n"))
        .event(8, &1u64.to_be_bytes())
        .event(8, &0u64.to_be_bytes())
        .event(9, &text(&[0, 0, 0, 0, 0], &[0; 64]))
        .event(34, &[])
        .instructions(234)
        .event(16, &[])
        .instructions(7)
        .event(12, &[])
        .event(39, &[])
}
