// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the plugin writes.

/// Bytes of a word.
const WORD: usize = 8;

/// The most words that a record has.
const LONGEST: usize = 13;

/// Something that was watched for. `at` is how many instructions the guest had executed before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// A block of instructions was begun.
    Block {
        /// Instructions before it.
        at: u64,
        /// Where it begins.
        address: u64,
        /// Instructions that it has; an exception may leave it earlier.
        length: u16,
    },
    /// A block of instructions was begun for the first time.
    NewBlock {
        /// Instructions before it.
        at: u64,
        /// Where it begins.
        address: u64,
        /// Bytes of its instructions.
        size: u16,
    },
    /// An instruction was begun.
    Instruction {
        /// Instructions before it.
        at: u64,
        /// Where it is.
        address: u64,
    },
    /// An instruction wrote to memory.
    Write {
        /// Instructions before it.
        at: u64,
        /// Where the instruction is.
        address: u64,
        /// Where it wrote.
        to: u64,
        /// How many bytes.
        size: u16,
        /// What was there then: the first eight bytes of it at most. Nothing is known of a device, which may change if it is read.
        value: Option<u64>,
        /// Which address space that is.
        space: u64,
    },
    /// A system call was begun.
    Call(Call),
    /// The program goes on behind a system call.
    Return {
        /// Instructions before it goes on.
        at: u64,
        /// Where it goes on.
        address: u64,
        /// Its address space.
        space: u64,
        /// The stack's address.
        stack: u64,
        /// What the system call came to.
        result: u64,
    },
}

/// A system call, as it was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Instructions before the one that begins it.
    pub at: u64,
    /// Where that is.
    pub address: u64,
    /// Which address space it is made in.
    pub space: u64,
    /// The stack's address.
    pub stack: u64,
    /// Its number.
    pub number: u64,
    /// What tells the program's threads apart: the base of `%fs`.
    pub thread: u64,
    /// What it is given.
    pub arguments: [u64; 6],
}

impl Record {
    /// How many instructions the guest had executed before it.
    pub fn at(&self) -> u64 {
        match *self {
            Self::Block { at, .. }
            | Self::NewBlock { at, .. }
            | Self::Instruction { at, .. }
            | Self::Write { at, .. }
            | Self::Call(Call { at, .. })
            | Self::Return { at, .. } => at,
        }
    }

    /// Appends it to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut put = |words: &[u64]| words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        match *self {
            Self::Block { at, address, length } => put(&[1 | u64::from(length) << 8, at, address]),
            Self::Instruction { at, address } => put(&[2, at, address]),
            Self::NewBlock { at, address, size } => put(&[6 | u64::from(size) << 8, at, address]),
            Self::Write {
                at,
                address,
                to,
                size,
                value,
                space,
            } => {
                let kind = if value.is_some() { 3 } else { 7 };
                put(&[
                    kind | u64::from(size) << 8,
                    at,
                    address,
                    to,
                    value.unwrap_or_default(),
                    space,
                ]);
            }
            Self::Call(Call {
                at,
                address,
                space,
                stack,
                number,
                thread,
                arguments,
            }) => {
                put(&[4, at, address, space, stack, number, thread]);
                put(&arguments);
            }
            Self::Return {
                at,
                address,
                space,
                stack,
                result,
            } => put(&[5, at, address, space, stack, result]),
        }
    }

    /// How many words one of this kind has.
    fn length(kind: u64) -> Option<usize> {
        Some(match kind & 0xff {
            1 | 2 | 6 => 3,
            3 | 5 | 7 => 6,
            4 => LONGEST,
            _ => return None,
        })
    }

    /// The one that `words` are, which are as many as it has.
    fn of(words: &[u64; LONGEST]) -> Option<Self> {
        let [kind, at, address, c, d, e, thread, arguments @ ..] = *words;
        let small = u16::try_from(kind >> 8).ok()?;
        Some(match kind & 0xff {
            1 => Self::Block {
                at,
                address,
                length: small,
            },
            2 => Self::Instruction { at, address },
            6 => Self::NewBlock {
                at,
                address,
                size: small,
            },
            3 | 7 => Self::Write {
                at,
                address,
                to: c,
                size: small,
                value: (kind & 0xff == 3).then_some(d),
                space: e,
            },
            4 => Self::Call(Call {
                at,
                address,
                space: c,
                stack: d,
                number: e,
                thread,
                arguments,
            }),
            5 => Self::Return {
                at,
                address,
                space: c,
                stack: d,
                result: e,
            },
            _ => return None,
        })
    }
}

/// What was read is no record: whoever wrote it was not the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign(
    /// The word that no record begins with.
    pub u64,
);

/// Takes bytes apart, as they come.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of a record whose end has not come yet.
    rest: Vec<u8>,
}

impl Decoder {
    /// Hands on the records that end in `bytes`.
    ///
    /// # Errors
    ///
    /// What `each` returns; and [`Foreign`] if something is no record.
    pub fn feed<E: From<Foreign>>(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Record) -> Result<(), E>,
    ) -> Result<(), E> {
        self.rest.extend_from_slice(bytes);
        let mut taken = 0;
        while let Some((record, length)) = first(&self.rest[taken..])? {
            taken += length;
            each(record)?;
        }
        self.rest.drain(..taken);
        Ok(())
    }
}

/// The record that `bytes` begin with, and how many of them it has; nothing if its end is missing.
fn first(bytes: &[u8]) -> Result<Option<(Record, usize)>, Foreign> {
    let mut words = [0; LONGEST];
    let mut found = bytes.chunks_exact(WORD).map(word);
    let Some(kind) = found.next() else {
        return Ok(None);
    };
    let length = Record::length(kind).ok_or(Foreign(kind))?;
    words[0] = kind;
    for place in &mut words[1..length] {
        match found.next() {
            Some(word) => *place = word,
            None => return Ok(None),
        }
    }
    let record = Record::of(&words).ok_or(Foreign(kind))?;
    Ok(Some((record, length * WORD)))
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_as_they_were_written_however_they_come() {
        let records = [
            Record::Block {
                at: 1,
                address: u64::MAX,
                length: 512,
            },
            Record::Instruction { at: 2, address: 3 },
            Record::NewBlock {
                at: 3,
                address: 4,
                size: u16::MAX,
            },
            Record::Write {
                at: 4,
                address: 5,
                to: 6,
                size: 16,
                value: Some(7),
                space: 8,
            },
            Record::Write {
                at: 4,
                address: 5,
                to: 6,
                size: 4,
                value: None,
                space: 8,
            },
            Record::Call(Call {
                at: 8,
                address: 9,
                space: 10,
                stack: 11,
                number: 12,
                thread: 20,
                arguments: [13, 14, 15, 16, 17, 18],
            }),
            Record::Return {
                at: 19,
                address: 20,
                space: 21,
                stack: 22,
                result: u64::MAX - 1,
            },
        ];
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.write(&mut bytes));
        for piece in [1, 7, 8, 100, bytes.len()] {
            let mut found = Vec::new();
            let mut decoder = Decoder::default();
            for bytes in bytes.chunks(piece) {
                let fed = decoder.feed(bytes, |record| {
                    found.push(record);
                    Ok::<(), Foreign>(())
                });
                assert_eq!(fed, Ok(()));
            }
            assert_eq!(found, records, "{piece} at once");
        }
    }

    #[test]
    fn what_is_no_record_is_said() {
        let feed = |word: u64| Decoder::default().feed(&[word.to_le_bytes(); 3].concat(), |_| Ok::<(), Foreign>(()));
        assert_eq!(feed(9), Err(Foreign(9)));
        assert_eq!(feed(0), Err(Foreign(0)));
        assert_eq!(feed(1 | 1 << 40), Err(Foreign(1 | 1 << 40)));
    }
}
