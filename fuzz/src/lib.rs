// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the targets have in common: how much a parser may take, and where it may write.

pub mod import;
pub mod initrd;
pub mod memory;
pub mod place;

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

pub use memory::MIB;

/// Memory that a parser may take.
pub const PARSER: usize = 64 * MIB;
/// The same where an image is made.
pub const IMAGE: usize = 128 * MIB;
/// The same where a decoder takes as much for its window as the stream says: up to 128 MiB, which is a limit of our own.
pub const DECODER: usize = PARSER + 128 * MIB;

/// The longest time, for so many bytes or fewer.
const LIMIT: Duration = Duration::from_secs(1);
const BYTES: usize = 100_000;

/// Has `parser` read `input`. More memory than `most`, or a longer time than a second for 100 kB, ends the program, and
/// libFuzzer writes down what the input was.
///
/// # Panics
///
/// When it took too long. The processor's time counts: others may have the machine.
pub fn watch(input: &[u8], most: usize, parser: impl FnOnce()) {
    let begun = processor();
    memory::limit(most, parser);
    let taken = processor().saturating_sub(begun);
    let allowed = LIMIT * u32::try_from(input.len().div_ceil(BYTES).max(1)).unwrap_or(u32::MAX);
    assert!(
        taken <= allowed,
        "a hang: {} ms for {} bytes",
        taken.as_millis(),
        input.len()
    );
}

/// What all threads have had of the processor.
fn processor() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)
        .map(Duration::from)
        .unwrap_or_default()
}
