// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far QEMU was in its log when it saved a machine. It says so in the saved state alone: the section `replay` of its migration
//! format (replay/replay-snapshot.c).

use std::fs;
use std::io;
use std::path::Path;

/// A full section, its number, and its name with the length before it; the number is any.
const FULL: u8 = 4;
const NUMBER: usize = 4;
const NAME: &[u8] = b"\x06replay";

/// What is between the instructions and the log, by the version of the section: how many of the instructions are left until the next
/// event, (since 3) the number of the event, its kind, and whether it is still to be read. 2 is of QEMU 7.2, 3 of 10.0.
const BETWEEN: [(u64, usize); 2] = [(2, 4 + 4 + 4), (3, 4 + 4 + 4 + 1)];

/// How far QEMU was in its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPosition {
    /// The byte of the state's file at which this was found.
    found: usize,
    /// Instructions that the guest had executed.
    pub instructions: u64,
    /// Bytes of the log.
    pub logged: u64,
    /// Requests of disks that had begun.
    pub requests: u64,
}

impl LogPosition {
    /// Those of all machines that are in the qcow2 file `state`, which nobody writes to.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn all(state: &Path) -> io::Result<Vec<Self>> {
        Ok(Self::within(&fs::read(state)?))
    }

    /// Whether it is not one of `others`, read from the same file before.
    pub fn is_new(&self, others: &[Self]) -> bool {
        others.iter().all(|other| other.found != self.found)
    }

    fn within(state: &[u8]) -> Vec<Self> {
        let starts = state.windows(NAME.len()).enumerate().filter(|(_, name)| *name == NAME);
        starts.filter_map(|(start, _)| Self::at(state, start)).collect()
    }

    fn at(state: &[u8], start: usize) -> Option<Self> {
        let kind = state.get(start.checked_sub(NUMBER + 1)?)?;
        let mut fields = state.get(start + NAME.len()..)?;
        let mut take = |bytes: usize| {
            let (field, rest) = fields.split_at_checked(bytes)?;
            fields = rest;
            Some(field)
        };
        let number = |field: &[u8]| field.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let _instance = take(4)?;
        let version = number(take(4)?);
        let (_, between) = BETWEEN.iter().find(|(known, _)| *known == version)?;
        let _clocks = take(2 * 8)?;
        let instructions = number(take(8)?);
        take(*between)?;
        let (logged, requests) = (number(take(8)?), number(take(8)?));
        (*kind == FULL).then_some(Self {
            found: start,
            instructions,
            logged,
            requests,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A section as QEMU 7.2 or 10.0 writes it.
    fn section(version: u8, instructions: u64, logged: u64, requests: u64) -> Vec<u8> {
        let mut section = vec![4, 0, 0, 0, 1];
        section.extend_from_slice(NAME);
        section.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, version]);
        section.extend_from_slice(&[7; 16]);
        section.extend(instructions.to_be_bytes());
        section.extend_from_slice(match version {
            2 => &[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1],
            _ => &[0, 0, 0, 9, 0, 0, 3, 19, 0, 0, 0, 31, 1],
        });
        section.extend(logged.to_be_bytes());
        section.extend(requests.to_be_bytes());
        section.extend(u64::MAX.to_be_bytes());
        section
    }

    #[test]
    fn of_each_machine() {
        for version in [2, 3] {
            let mut state = vec![0; 100];
            state.extend(section(version, 134_217_728, 2477, 1));
            state.extend_from_slice(b"the word \x06replay alone says nothing");
            let before = LogPosition::within(&state);
            state.extend(section(version, 134_217_728, 122, 0));
            let after = LogPosition::within(&state);
            let numbers = |it: &LogPosition| (it.instructions, it.logged, it.requests);
            assert_eq!(before.iter().map(numbers).collect::<Vec<_>>(), [(134_217_728, 2477, 1)]);
            let new: Vec<_> = after.iter().filter(|it| it.is_new(&before)).map(numbers).collect();
            assert_eq!(new, [(134_217_728, 122, 0)]);
        }
        // One that nobody knows yet.
        assert!(LogPosition::within(&section(4, 1, 2, 3)).is_empty());
    }

    #[test]
    fn cut_off_anywhere() {
        let section = section(2, 1, 2, 3);
        for length in 0..section.len() - 8 {
            assert!(LogPosition::within(&section[..length]).is_empty(), "{length}");
        }
    }
}
