// SPDX-License-Identifier: MIT OR Apache-2.0
//! A log that nobody finished: its writer was killed, or the host lost power.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use crate::error::Error;
use crate::event::{Devices, Event, Kind, Reader, Reason, SHUTDOWN};
use crate::{END, VERSION};

/// What is left of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Salvaged {
    /// Instructions up to its new end.
    pub instructions: u64,
    /// Bytes that the guest printed up to there.
    pub printed: u64,
    /// Bytes of the log that are kept.
    pub kept: u64,
    /// Bytes behind them, which are not.
    pub lost: u64,
}

/// Makes a whole log of one that was not finished: cuts it behind the last instructions that it has whole, has QEMU quit there,
/// and ends it. If it has the end of the run, it is cut there, as [`cut`](crate::cut) does.
///
/// What is behind the first byte that makes no sense is lost: a file may end with zeros or with old content after a power cut.
/// Done again, it changes nothing.
///
/// # Errors
///
/// If there is nothing to save: not one instruction was logged. The log is then as it was.
pub fn salvage(log: &mut File, devices: Devices) -> Result<Salvaged, Error> {
    log.seek(SeekFrom::Start(0))?;
    let size = log.metadata()?.len();
    let last = last(&mut *log, devices)?;
    let salvaged = Salvaged {
        instructions: last.instructions,
        printed: last.printed,
        kept: last.good,
        lost: size.saturating_sub(last.good),
    };
    let end: &[u8] = match last.found {
        Found::Whole => {
            return Ok(Salvaged {
                kept: size,
                lost: 0,
                ..salvaged
            });
        }
        Found::End => &[END],
        Found::Instructions => &[SHUTDOWN + Reason::QUIT.0, END],
    };
    log.set_len(last.good)?;
    log.seek(SeekFrom::Start(last.good))?;
    log.write_all(end)?;
    // With the version it is a log: everything else is on the disk before.
    log.sync_data()?;
    log.seek(SeekFrom::Start(0))?;
    log.write_all(&VERSION.to_be_bytes())?;
    log.sync_data()?;
    Ok(salvaged)
}

/// Up to where a log is good.
#[derive(Clone, Copy)]
struct Last {
    good: u64,
    instructions: u64,
    printed: u64,
    found: Found,
}

/// What is there.
#[derive(Clone, Copy)]
enum Found {
    /// Instructions.
    Instructions,
    /// The end of the run.
    End,
    /// That, and the log ends with it.
    Whole,
}

/// Where the processor waits for what comes next, whatever that is. In the middle of an instruction that prints or reads a clock
/// QEMU would miss the rest, and end: so what follows has to be known.
fn last(log: impl Read, devices: Devices) -> Result<Last, Error> {
    let mut reader = Reader::of_any(log, devices)?;
    let (mut last, mut here) = (None, None);
    let mut printed = 0;
    while let Some(event) = next(&mut reader)? {
        let at = |found| Last {
            good: reader.at(),
            instructions: event.instructions,
            printed,
            found,
        };
        match event.kind {
            Kind::Instructions(_) => here = Some(at(Found::Instructions)),
            Kind::Written(taken) => {
                printed += u64::from(taken);
                here = None;
            }
            Kind::HostClock(_) | Kind::RunClock(_) => here = None,
            Kind::Shutdown(_) => {
                let end = at(Found::End);
                last = Some(match is_whole(&mut reader)? {
                    true => Last {
                        found: Found::Whole,
                        ..end
                    },
                    false => end,
                });
                break;
            }
            _ => last = here.take().or(last),
        }
    }
    last.filter(|last| last.instructions > 0).ok_or(Error::Nothing)
}

/// The next event; `None` behind the last one that makes sense.
fn next(reader: &mut Reader<impl Read>) -> Result<Option<Event>, Error> {
    match reader.next() {
        Err(Error::CutOff { .. } | Error::Foreign { .. }) => Ok(None),
        event => event,
    }
}

/// Whether the log ends with the run, and was finished.
fn is_whole(reader: &mut Reader<impl Read>) -> Result<bool, Error> {
    let ends = next(reader)?.is_some_and(|event| event.kind == Kind::End);
    Ok(ends && !reader.is_unfinished() && matches!(reader.next(), Ok(None)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::summary::check;
    use crate::written::{DEVICES, Log, good};

    /// A file that goes away.
    fn file(bytes: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!("replay-log-{}-{:p}", std::process::id(), bytes));
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .expect("a file");
        std::fs::remove_file(&path).expect("its name goes");
        file.write_all(bytes).expect("its content");
        file
    }

    fn read(file: &mut File) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).expect("the start");
        file.read_to_end(&mut bytes).expect("all of it");
        bytes
    }

    /// What QEMU did behind the end of the run goes; then it is left alone.
    #[test]
    fn a_whole_log_ends_with_the_run() {
        let log = good();
        let mut file = file(&log.bytes);
        let behind = log.events[20];
        for lost in [log.bytes.len() - behind, 0] {
            let salvaged = salvage(&mut file, DEVICES).expect("salvaged");
            assert_eq!((salvaged.instructions, salvaged.printed), (1234, 1));
            assert_eq!(salvaged.lost, lost as u64);
            assert_eq!(read(&mut file), [&log.bytes[..behind], &[END]].concat());
        }
    }

    /// Behind these instructions, the guest prints or reads a clock with the last of them.
    #[test]
    fn not_within_an_instruction() {
        let clock = 1000u64.to_be_bytes();
        for (kind, content) in [(22, &[0, 0, 0, 1, 0, 0, 0, 1][..]), (28, &clock), (29, &clock)] {
            let mut log = Log::new().event(37, &[]).instructions(7).event(1, &[]).instructions(8);
            log = log.event(kind, content).instructions(9);
            log.bytes[..4].fill(0);
            let mut file = file(&log.bytes);
            let salvaged = salvage(&mut file, DEVICES).expect("salvaged");
            assert_eq!((salvaged.instructions, salvaged.printed), (7, 0));
            assert_eq!(salvaged.kept as usize, log.events[2]);
        }
    }

    /// Wherever it was cut, and whatever stands behind, what is kept is a whole log that ends in time.
    #[test]
    fn cut_off_anywhere() {
        let log = good();
        let first = log.events[7];
        for length in 0..log.bytes.len() {
            for junk in [&[][..], &[0; 100], &[0xff; 5]] {
                let mut bytes = log.bytes[..length].to_vec();
                bytes.extend_from_slice(junk);
                // The version is written last.
                let known = bytes.len().min(4);
                bytes[..known].fill(0);
                let mut file = file(&bytes);
                match salvage(&mut file, DEVICES) {
                    Ok(salvaged) => {
                        let bytes = read(&mut file);
                        assert!([1, 2].contains(&(bytes.len() as u64 - salvaged.kept)));
                        let summary = check(&bytes[..], DEVICES, &mut |_| true).expect("a whole log");
                        assert_eq!(
                            summary.end.map(|end| end.instructions),
                            Some(salvaged.instructions),
                            "{length}"
                        );
                        assert_eq!(summary.printed, salvaged.printed);
                        assert_eq!(salvaged.kept + salvaged.lost, (length + junk.len()) as u64);
                        assert!([1000, 1234].contains(&salvaged.instructions), "{length}");
                        let again = salvage(&mut file, DEVICES).expect("salvaged");
                        assert_eq!(
                            (again.instructions, again.printed),
                            (salvaged.instructions, salvaged.printed)
                        );
                        assert_eq!(read(&mut file), bytes, "done again");
                    }
                    Err(_) => {
                        assert!(length < first, "{length}");
                        assert_eq!(read(&mut file), bytes, "left as it was");
                    }
                }
            }
        }
    }
}
