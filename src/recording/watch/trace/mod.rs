// SPDX-License-Identifier: MIT OR Apache-2.0
//! What happened in a part of a recorded run, one thing after the other: what it executed and wrote, its system calls; and what came in
//! from its disks and networks, which its log tells without a replay.

mod calls;
mod form;

use std::ops::{ControlFlow, Range};

use qemu_watch::{Record, Watch};
use replay_log::{Kind, Reader};

pub use calls::{Call, Calls};
pub use form::{Form, Writer, word};

use super::Watcher;
use crate::recording::log::point::Point;
use crate::recording::replay::{self, open_log};
use crate::recording::session::{Error, Listener, devices};
use crate::recording::{Recording, log};

/// One thing that happened. `at` is how many instructions the guest had executed before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A block of instructions was executed.
    Block {
        /// Instructions before it.
        at: u64,
        /// Where it begins.
        address: u64,
        /// How many it has.
        length: u16,
    },
    /// The instruction was executed that is looked for.
    Instruction {
        /// Instructions before it.
        at: u64,
        /// Where it is.
        address: u64,
    },
    /// It wrote to where it is looked at.
    Write(Write),
    /// A system call is over.
    Call(Call),
    /// A request of a disk is done.
    Disk {
        /// Instructions before it.
        at: u64,
        /// Its number, from 0: they are given in the order in which requests begin.
        request: u64,
    },
    /// A packet came in.
    Packet {
        /// Instructions before it.
        at: u64,
        /// At which network interface, from 0.
        network: u8,
        /// The Ethernet frame.
        frame: Vec<u8>,
    },
}

/// Something was written to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// Instructions before the one that wrote.
    pub at: u64,
    /// Where that is.
    pub address: u64,
    /// Where it wrote.
    pub to: u64,
    /// How many bytes.
    pub size: u16,
    /// What was there then, eight bytes at most; `None` of a device.
    pub value: Option<u64>,
    /// Which address space that is: where its tables of pages are.
    pub space: u64,
}

impl Write {
    /// What was seen, if it is one.
    pub fn of(record: &Record) -> Option<Self> {
        match *record {
            Record::Write {
                at,
                address,
                to,
                size,
                value,
                space,
            } => Some(Self {
                at,
                address,
                to,
                size,
                value,
                space: space & !calls::NOT_THE_SPACE,
            }),
            _ => None,
        }
    }
}

/// What a log tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logged {
    /// Requests of disks that are done.
    Disk,
    /// Packets that come in.
    Net,
}

/// Who gets what happened, one after the other; nothing more after `Break`.
pub type Each<'a> = dyn FnMut(Entry) -> ControlFlow<()> + Send + 'a;

/// Hands on what is watched for in a part of a run. System calls are in the order in which they were over.
///
/// # Errors
///
/// If the replay fails, or was another run.
pub fn watched(
    watcher: &Watcher<'_>,
    watch: Watch,
    during: Range<u64>,
    each: &mut Each<'_>,
    listener: &mut dyn Listener,
) -> Result<(), Error> {
    let mut calls = Calls::default();
    let mut ended = ControlFlow::Continue(());
    let mut take = |record: Record| {
        let entry = match record {
            Record::Block { at, address, length } => Entry::Block { at, address, length },
            Record::Instruction { at, address } => Entry::Instruction { at, address },
            Record::NewBlock { .. } => return ControlFlow::Continue(()),
            record => match (Write::of(&record), calls.take(record)) {
                (Some(write), _) => Entry::Write(write),
                (None, Some(call)) => Entry::Call(call),
                (None, None) => return ControlFlow::Continue(()),
            },
        };
        ended = each(entry);
        ended
    };
    watcher.watch(watch, during, &mut take, listener)?;
    for call in calls.rest() {
        if ended.is_break() {
            break;
        }
        ended = each(Entry::Call(call));
    }
    Ok(())
}

/// How many instructions the run of `recording` has.
///
/// # Errors
///
/// If its log cannot be read.
pub fn end(recording: &Recording) -> Result<u64, Error> {
    log::end(recording).map(|end| end.instructions)
}

/// Where a point of the run of `recording` is, in instructions.
///
/// # Errors
///
/// If the run does not have it, or its log or console cannot be read.
pub fn find(recording: &Recording, point: &Point) -> Result<u64, Error> {
    replay::find(recording, point, log::end(recording)?)
}

/// Hands on what the log of `recording` tells of a part of its run.
///
/// # Errors
///
/// If the log cannot be read.
pub fn logged(recording: &Recording, logged: Logged, during: Range<u64>, each: &mut Each<'_>) -> Result<(), Error> {
    let mut events = Reader::new(open_log(recording)?, devices(recording.manifest())).map_err(Error::Unlike)?;
    while let Some(event) = events.next().map_err(Error::Unlike)? {
        let at = event.instructions;
        if at >= during.end {
            break;
        }
        let entry = match (logged, event.kind) {
            (Logged::Disk, Kind::DiskDone(request)) => Entry::Disk { at, request },
            (Logged::Net, Kind::Packet { network, frame }) => Entry::Packet { at, network, frame },
            _ => continue,
        };
        if at >= during.start && each(entry).is_break() {
            break;
        }
    }
    Ok(())
}
