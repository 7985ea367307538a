// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU's log of a recorded run (version 0xe0200c of its format: QEMU 7.2 to 10.0), read and checked.
//!
//! QEMU's own reader trusts its log. It takes numbers of devices as indexes, and copies what it reads to where a size of its own
//! is expected. So a log that may come from anybody is compared here with what the machine can have written: the kinds of its
//! events, the devices that it has, the sizes that these deal in, the order, and an end where the file ends.
//!
//! [`Reader`] gives the events of a log one by one, each with the number of instructions that the guest had executed;
//! [`check`] reads all of them and sums up; [`salvage`] finds how much of a log is good that nobody finished; [`begin`] and
//! [`append`] make one log of a run that leaves another on the way.
//!
//! ```text
//! log     = version (4 bytes)  0 (8 bytes)  event…  end
//! event   = kind (1 byte)  content; numbers are big-endian
//!  0        instructions: how many until the next event (4)
//!  1, 2     interrupt, exception
//!  3…9      what came in beside the processor: bottom half (id 8), one-shot (id 8), input, input's end, character (port 1, text),
//!           disk request done (id 8), packet (network 1, flags 4, text)
//!  10…21    shutdown, with its reason
//!  22…24    character written (result 4, bytes taken 4), characters read (text), the same failed (4)
//!  25, 26   sound out, sound in
//!  27       random bytes (result 4, text): this machine's processor has none
//!  28, 29   clock of the host, of the run (8)
//!  30…38    checkpoint
//!  39       end
//! text    = length (4)  bytes
//! ```
//!
//! The version is written last, when QEMU ends in good order: a log whose writer was killed begins with zeros.

#![warn(missing_docs)]

mod branch;
mod error;
mod event;
mod salvage;
mod stop;
mod summary;
#[cfg(test)]
mod written;

pub use branch::{Begun, Fork, append, begin, fork};
pub use error::{Error, What};
pub use event::{Devices, Event, Kind, Reader, Reason};
pub use salvage::{Salvaged, salvage};
pub use stop::{Stopped, stop};
pub use summary::{End, Summary, check, cut};

/// The format that is understood.
const VERSION: u32 = 0x00e0_200c;

/// After the version, QEMU leaves room for a number that nobody reads.
const HEADER: u64 = 12;

/// The event that is the last of a log.
const END: u8 = 39;
