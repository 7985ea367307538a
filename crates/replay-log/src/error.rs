// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a log is none that a machine can have written.

use std::fmt;
use std::io;

use crate::VERSION;

/// Why a log is none that this machine can have written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// Another format, or no log.
    #[error("it is no log of a QEMU from 7.2 to 10.0: it begins with {found:#x}, not with {VERSION:#x}")]
    Version {
        /// What it begins with.
        found: u32,
    },
    /// It ends before its end.
    #[error("it is cut off: it ends at byte {at}, within an event or before the last one")]
    CutOff {
        /// How long it is.
        at: u64,
    },
    /// An event that this machine cannot have written.
    #[error("at byte {at} there is {what}, which the machine that was recorded cannot have written")]
    Foreign {
        /// Where the event begins.
        at: u64,
        /// What it is.
        what: What,
    },
    /// There is nothing to salvage.
    #[error("not one instruction was logged")]
    Nothing,
    /// Whoever waits has called it off.
    #[error("interrupted")]
    Interrupted,
}

/// What does not belong in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A kind of event that there is not, or that only machines with other devices have.
    Kind(u8),
    /// A number of instructions that is none.
    Instructions(u32),
    /// A device that is not there.
    Device {
        /// What kind of device.
        kind: &'static str,
        /// Which.
        id: u8,
    },
    /// A size that this event does not have.
    Size {
        /// Of what.
        kind: &'static str,
        /// Bytes.
        size: u32,
    },
    /// A value that this event does not have.
    Value {
        /// Of what.
        kind: &'static str,
        /// The value.
        value: i64,
    },
    /// A request of a disk that has ended before.
    Again(u64),
    /// It is too early or too late for it.
    Order(&'static str),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => write!(f, "an event of kind {kind}"),
            Self::Instructions(count) => write!(f, "a run of {count} instructions"),
            Self::Device { kind, id } => write!(f, "an event of {kind} {id}"),
            Self::Size { kind, size } => write!(f, "{kind} of {size} bytes"),
            Self::Value { kind, value } => write!(f, "{kind} of {value}"),
            Self::Again(id) => write!(f, "the end of disk request {id}, which had ended"),
            Self::Order(what) => f.write_str(what),
        }
    }
}
