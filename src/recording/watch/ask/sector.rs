// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who wrote a sector of a disk: the request that did, the instruction that handed it to the disk, and the one that had put the data
//! where the disk took it from.
//!
//! A log knows when a request was done, and not what it was. Right before that it is still in its queue in the guest's memory: a
//! replay that stands still there every time sees all of them.

use std::ops::{ControlFlow, Range};

use qemu_watch::{Record, Watch};
use replay_log::{Kind, Reader};

use crate::config::types::Target;
use crate::qemu::qmp::Queue;
use crate::recording::replay::open_log;
use crate::recording::session::{Error, Listener, devices};
use crate::recording::watch::Watcher;
use crate::recording::watch::trace::Write;
use crate::recording::watch::virtio::Request;

/// Bytes of a sector.
const SECTOR: u64 = 512;

/// The number of requests that have begun is behind the flags of their ring.
const BEGUN: Range<u64> = 2..4;

/// A request that wrote a sector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its first sector.
    pub first: u64,
    /// How many sectors it wrote.
    pub sectors: u64,
    /// Where in the guest's memory the data of the sector was; `None` if it was to become zeros.
    pub data: Option<u64>,
    /// The write with which the guest handed the request to the disk.
    pub begun: Option<Write>,
    /// The last write to the data before that.
    pub filled: Option<Write>,
}

/// A request in its queue.
struct Seen {
    request: Request,
    data: Option<u64>,
    queue: Queue,
    /// Which one it was, in 16 bits.
    number: u16,
    /// It was begun between these, in instructions.
    between: Range<u64>,
}

/// Finds the last request of a run that wrote `sector` of `disk`.
///
/// # Errors
///
/// If the guest has no such disk; if a replay fails, or was another run.
pub fn who_wrote(
    watcher: &Watcher<'_>,
    disk: &Target,
    sector: u64,
    listener: &mut dyn Listener,
) -> Result<Option<Written>, Error> {
    let disks = &watcher.recording().manifest().disks;
    let Some(disk) = disks.iter().position(|it| it.target == *disk) else {
        return Err(Error::NoDisk { disk: disk.clone() });
    };
    let done = done(watcher)?;
    for part in watcher.parts(watcher.end()).into_iter().rev() {
        // Right before each.
        let stops: Vec<u64> = done
            .iter()
            .filter(|at| part.contains(&at.saturating_sub(1)))
            .map(|at| at - 1)
            .collect();
        if stops.is_empty() {
            continue;
        }
        if let Some(seen) = last_of(watcher, disk, sector, part.start, &stops, listener)? {
            return about(watcher, seen, listener).map(Some);
        }
    }
    Ok(None)
}

/// After how many instructions requests of disks were done, each number once.
fn done(watcher: &Watcher<'_>) -> Result<Vec<u64>, Error> {
    let recording = watcher.recording();
    let mut events = Reader::new(open_log(recording)?, devices(recording.manifest())).map_err(Error::Unlike)?;
    let mut done = Vec::new();
    while let Some(event) = events.next().map_err(Error::Unlike)? {
        if matches!(event.kind, Kind::DiskDone(_)) && event.instructions > 0 {
            done.push(event.instructions);
        }
    }
    done.dedup();
    Ok(done)
}

/// The last request of a part of a run that wrote the sector.
fn last_of(
    watcher: &Watcher<'_>,
    disk: usize,
    sector: u64,
    begin: u64,
    stops: &[u64],
    listener: &mut dyn Listener,
) -> Result<Option<Seen>, Error> {
    let mut found = None;
    // Whether one after that could not be read.
    let mut is_unread = false;
    // How many had begun when it stood still before, and when that was.
    let mut before: Option<(u16, u64)> = None;
    watcher.visit(
        begin,
        stops,
        &mut |at, qmp, memory| {
            let queue = qmp.queue(disk)?;
            if let Some((begun, since)) = before {
                // Begun anew by its driver, it counts from 0 again.
                let new = u64::from(queue.begun.wrapping_sub(begun));
                let new = if new <= queue.size { new as u16 } else { queue.begun };
                for number in (1..=new).rev().map(|back| queue.begun.wrapping_sub(back)) {
                    let request = Request::read(memory, &queue, number);
                    is_unread |= request.is_none();
                    let Some(request) = request.filter(|it| it.writes(sector)) else {
                        continue;
                    };
                    is_unread = false;
                    let data = request.data_of(sector);
                    found = Some(Seen {
                        request,
                        data,
                        queue,
                        number,
                        between: since..at,
                    });
                }
            }
            before = Some((queue.begun, at));
            Ok(())
        },
        listener,
    )?;
    match is_unread {
        true => Err(Error::StrangeRequest),
        false => Ok(found),
    }
}

/// What can be said of a request.
fn about(watcher: &Watcher<'_>, seen: Seen, listener: &mut dyn Listener) -> Result<Written, Error> {
    let Seen {
        request,
        data,
        queue,
        number,
        between,
    } = seen;
    let mut begun = None;
    let mut take = |record: Record| {
        let write = Write::of(&record);
        begun = write
            .filter(|it| it.value.is_some_and(|value| value as u16 == number.wrapping_add(1)))
            .or(begun);
        ControlFlow::Continue(())
    };
    let available = watcher.seen_at(queue.available)?;
    let place = available.saturating_add(BEGUN.start)..available.saturating_add(BEGUN.end);
    watcher.watch(Watch::Memory(place), between.clone(), &mut take, listener)?;
    let before = begun.map_or(between.end, |write: Write| write.at);
    let filled = match data {
        Some(data) => {
            let data = watcher.seen_at(data)?;
            let watch = Watch::Memory(data..data.saturating_add(SECTOR));
            super::last(watcher, &watch, before, listener)?
        }
        None => None,
    };
    Ok(Written {
        first: request.sector,
        sectors: request.sectors,
        data,
        begun,
        filled,
    })
}
