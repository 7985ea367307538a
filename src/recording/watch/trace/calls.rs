// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls of 64-bit programs for Linux: their names, and each with its result.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use qemu_watch::Record;

/// Number, name, how many arguments (Linux' arch/x86/entry/syscalls/syscall_64.tbl).
static TABLE: LazyLock<BTreeMap<u64, (&str, usize)>> = LazyLock::new(|| {
    let lines = include_str!("calls.txt").lines();
    let entries = lines.filter_map(|line| {
        let mut words = line.split(' ');
        let number = words.next()?.parse().ok()?;
        Some((number, (words.next()?, words.next()?.parse().ok()?)))
    });
    entries.collect()
});

/// What the last bits of `%cr3` say beside where the table of pages is; and one more, with which the kernel tells its own table from
/// the program's.
pub(super) const NOT_THE_SPACE: u64 = 0x1fff;

/// The calls that are over twice, in a child with 0: clone, fork, vfork, clone3.
const FORKS: [u64; 4] = [56, 57, 58, 435];

/// Calls that have begun and are not over: no guest has as many threads. One whose kernel goes on elsewhere than its programs were,
/// on purpose, would have us remember all of them.
const MOST: usize = 1 << 16;

/// A system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Instructions before it.
    pub at: u64,
    /// Instructions before the program went on; `None` if it did not.
    pub until: Option<u64>,
    /// Where it is made.
    pub address: u64,
    /// Which address space it is made in: where its tables of pages are.
    pub space: u64,
    /// Its number.
    pub number: u64,
    /// Which thread of its program makes it: where what is the thread's own begins, 0 if there is none.
    pub thread: u64,
    /// What it was given, as far as it takes that.
    pub arguments: Vec<u64>,
    /// What it came to, if it did.
    pub result: Option<u64>,
    stack: u64,
}

impl Call {
    /// Its name; without one, its number.
    pub fn name(&self) -> String {
        TABLE
            .get(&self.number)
            .map_or_else(|| format!("syscall_{}", self.number), |(name, _)| (*name).to_owned())
    }
}

/// As strace writes it, with numbers alone.
impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let arguments: Vec<String> = self.arguments.iter().map(|it| format!("{it:#x}")).collect();
        write!(f, "{}({}) = ", self.name(), arguments.join(", "))?;
        match self.result.map(u64::cast_signed) {
            None => f.write_str("?"),
            // An error has its number, an address its digits.
            Some(small @ -4095..=0xffff) => write!(f, "{small}"),
            Some(large) => write!(f, "{large:#x}"),
        }
    }
}

/// Finds for each system call where its program went on.
#[derive(Debug, Default)]
pub struct Calls {
    /// Those that have begun, by where their programs will go on: the address space, the address and the stack.
    begun: BTreeMap<Place, Call>,
    /// When each began: the oldest is first.
    ages: BTreeSet<(u64, Place)>,
}

/// Where a program goes on.
type Place = (u64, u64, u64);

impl Calls {
    /// Takes in what was seen; returns a call that is over by it.
    pub fn take(&mut self, record: Record) -> Option<Call> {
        match record {
            Record::Call(begun) => {
                let arguments = begun.arguments;
                let takes = TABLE.get(&begun.number).map_or(arguments.len(), |(_, takes)| *takes);
                let call = Call {
                    at: begun.at,
                    until: None,
                    address: begun.address,
                    space: begun.space & !NOT_THE_SPACE,
                    number: begun.number,
                    thread: begun.thread,
                    arguments: arguments.into_iter().take(takes).collect(),
                    result: None,
                    stack: begun.stack,
                };
                // One from there that is not over never will be: its program has ended.
                let another = self.begin(call.place(), call);
                another.or_else(|| {
                    let (_, oldest) = *self.ages.first().filter(|_| self.begun.len() > MOST)?;
                    self.end(oldest)
                })
            }
            Record::Return {
                at,
                address,
                space,
                stack,
                result,
            } => {
                let place = (space & !NOT_THE_SPACE, address, stack);
                let call = self.end(place)?;
                // Until a child has a program of its own, it may be where its parent waits, and is there first.
                if result == 0 && FORKS.contains(&call.number) {
                    self.begin(place, call);
                    return None;
                }
                Some(Call {
                    until: Some(at),
                    result: Some(result),
                    ..call
                })
            }
            _ => None,
        }
    }

    /// One that begins; returns the one that has begun there before.
    fn begin(&mut self, place: Place, call: Call) -> Option<Call> {
        let another = self.end(place);
        self.ages.insert((call.at, place));
        self.begun.insert(place, call);
        another
    }

    /// The one that has begun there.
    fn end(&mut self, place: Place) -> Option<Call> {
        let call = self.begun.remove(&place)?;
        self.ages.remove(&(call.at, place));
        Some(call)
    }

    /// Those that are not over, in the order in which they began.
    pub fn rest(self) -> Vec<Call> {
        let mut rest: Vec<Call> = self.begun.into_values().collect();
        rest.sort_by_key(|call| call.at);
        rest
    }
}

impl Call {
    /// Its instruction has two bytes.
    fn place(&self) -> Place {
        (self.space, self.address.wrapping_add(2), self.stack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(at: u64, number: u64, space: u64) -> Record {
        Record::Call(qemu_watch::Call {
            at,
            address: 0x1000,
            space,
            stack: 0x7000,
            number,
            thread: 0x9000,
            arguments: [1, 2, 3, 4, 5, 6],
        })
    }

    fn back(at: u64, result: u64, space: u64) -> Record {
        Record::Return {
            at,
            address: 0x1002,
            space,
            stack: 0x7000,
            result,
        }
    }

    #[test]
    fn each_with_its_result() {
        let mut calls = Calls::default();
        assert_eq!(calls.take(call(10, 1, 0x10_1000)), None);
        assert_eq!(calls.take(call(11, 60, 0x20_0000)), None);
        assert_eq!(calls.take(back(12, 9, 0x30_0000)), None, "somebody else's");
        // The kernel's own table is beside that of the program.
        let over = calls.take(back(20, 3, 0x10_0000)).expect("it is over");
        assert_eq!(over.to_string(), "write(0x1, 0x2, 0x3) = 3");
        assert_eq!((over.at, over.until, over.space), (10, Some(20), 0x10_0000));
        assert_eq!(calls.take(call(30, 39, 0x10_0000)), None);
        let error = calls.take(back(31, -38_i64 as u64, 0x10_0000)).expect("it is over");
        assert_eq!(error.to_string(), "getpid() = -38");
        // vfork: the child is in the same space, and on the same stack.
        assert_eq!(calls.take(call(32, 58, 0x10_0000)), None);
        assert_eq!(calls.take(back(33, 0, 0x10_0000)), None);
        let parent = calls.take(back(39, 77, 0x10_0000)).expect("it is over");
        assert_eq!(parent.to_string(), "vfork() = 77");
        calls.take(call(40, 9999, 0x10_0000));
        let rest: Vec<String> = calls.rest().iter().map(ToString::to_string).collect();
        assert_eq!(
            rest,
            ["exit(0x1) = ?", "syscall_9999(0x1, 0x2, 0x3, 0x4, 0x5, 0x6) = ?"]
        );
    }

    #[test]
    fn the_table_is_whole() {
        assert_eq!(
            TABLE.len() + 1,
            include_str!("calls.txt").lines().count(),
            "but its licence"
        );
        assert!(TABLE.values().all(|(_, takes)| *takes <= 6));
        assert_eq!(TABLE.get(&231), Some(&("exit_group", 1)));
    }
}
