// SPDX-License-Identifier: MIT OR Apache-2.0
//! A run that is to end at an instruction that somebody chose. QEMU cannot stop there while it records; in its log, the run can.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::END;
use crate::error::Error;
use crate::event::{Devices, Kind, Reader, Reason, SHUTDOWN};

/// The event that says how many instructions there are until the next one.
pub(crate) const INSTRUCTIONS: u8 = 0;

/// Where a run ends now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// After so many instructions.
    pub instructions: u64,
    /// Bytes that the guest had printed by then, and somebody took.
    pub printed: u64,
}

/// Where a log is cut.
pub(crate) struct Place {
    /// The byte at which the instructions begin of which only some are left.
    pub(crate) at: u64,
    pub(crate) left: u32,
    pub(crate) stopped: Stopped,
}

/// Has the run in `log` end after `wanted` instructions, as if QEMU had been told to quit there; `None` if it ends before. Where
/// something happens at that very instruction, it ends at the first one behind it at which nothing does.
///
/// # Errors
///
/// If it is no log of a machine with `devices`, or cannot be read or written.
pub fn stop(log: &mut File, devices: Devices, wanted: u64) -> Result<Option<Stopped>, Error> {
    log.seek(SeekFrom::Start(0))?;
    let Some(place) = find(&mut *log, devices, wanted)? else {
        return Ok(None);
    };
    let mut end = vec![INSTRUCTIONS];
    end.extend(place.left.to_be_bytes());
    end.extend([SHUTDOWN + Reason::QUIT.0, END]);
    write(log, place.at, &end)?;
    Ok(Some(place.stopped))
}

fn write(log: &mut File, at: u64, end: &[u8]) -> io::Result<()> {
    log.set_len(at)?;
    log.seek(SeekFrom::Start(at))?;
    log.write_all(end)?;
    log.sync_data()
}

pub(crate) fn find(log: impl Read, devices: Devices, mut wanted: u64) -> Result<Option<Place>, Error> {
    let mut reader = Reader::new(log, devices)?;
    // Before the first one there is no run yet.
    wanted = wanted.max(1);
    let mut printed = 0;
    while let Some(event) = reader.next()? {
        match event.kind {
            Kind::Written(true) => printed += 1,
            Kind::Shutdown(_) => return Ok(None),
            Kind::Instructions(count) => {
                let before = event.instructions - u64::from(count);
                // In the middle of an instruction that prints or reads a clock QEMU would miss the rest.
                wanted += u64::from(event.instructions == wanted);
                if wanted > before && wanted < event.instructions {
                    return Ok(Some(Place {
                        at: event.at,
                        left: u32::try_from(wanted - before).unwrap_or(count),
                        stopped: Stopped {
                            instructions: wanted,
                            printed,
                        },
                    }));
                }
            }
            _ => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;
    use crate::written::{DEVICES, good};

    fn stopped(wanted: u64) -> Option<(Stopped, Vec<u8>)> {
        let path = std::env::temp_dir().join(format!("replay-log-stop-{}-{wanted}", std::process::id()));
        std::fs::write(&path, good().bytes).expect("a log");
        let mut log = File::options().read(true).write(true).open(&path).expect("a log");
        let stopped = stop(&mut log, DEVICES, wanted).expect("a good log");
        let bytes = std::fs::read(&path).expect("a log");
        std::fs::remove_file(&path).expect("the log goes");
        stopped.map(|stopped| (stopped, bytes))
    }

    #[test]
    fn at_the_very_instruction() {
        for (wanted, instructions, printed) in [
            (0, 1, 0),
            (500, 500, 0),
            (999, 999, 0),
            (1000, 1001, 1),
            (1233, 1233, 1),
        ] {
            let (stopped, bytes) = stopped(wanted).expect("it is within the run");
            assert_eq!(stopped, Stopped { instructions, printed }, "{wanted}");
            let summary = check(&bytes[..], DEVICES, &mut |_| true).expect("a whole log");
            let end = summary.end.expect("its end");
            assert_eq!((end.instructions, end.reason), (instructions, Reason::QUIT), "{wanted}");
        }
    }

    #[test]
    fn behind_the_end() {
        for wanted in [1234, 1240, 5000] {
            assert_eq!(stopped(wanted), None, "{wanted}");
        }
    }
}
