// SPDX-License-Identifier: MIT OR Apache-2.0
//! A log that nobody finished: its writer was killed, or the host lost power.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::error::Error;
use crate::event::{Devices, Kind, Reader, Reason};
use crate::{END, HEADER, VERSION};

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

/// Makes a whole log of one that was not finished: cuts it behind the last instructions that
/// it has whole, has QEMU quit there, and ends it. A
/// log that is whole is left alone.
///
/// What is behind the first byte that makes no sense is lost: a file may end with zeros or with old content after a power cut.
///
/// # Errors
///
/// If there is nothing to save: not one instruction was logged. The log is then as it was.
pub fn salvage(log: &mut File, devices: Devices) -> Result<Salvaged, Error> {
    log.seek(SeekFrom::Start(0))?;
    let size = log.metadata()?.len();
    let found = last(&mut *log, devices)?;
    if found.ended {
        return Ok(found.salvaged(size));
    }
    log.seek(SeekFrom::Start(found.good))?;
    log.set_len(found.good)?;
    match found.shut {
        true => log.write_all(&[END])?,
        false => log.write_all(&[10 + Reason::QUIT.0, END])?,
    }
    // With the version it is a log: everything else is on the disk before.
    log.sync_data()?;
    log.seek(SeekFrom::Start(0))?;
    log.write_all(&VERSION.to_be_bytes())?;
    log.sync_data()?;
    Ok(found.salvaged(size))
}

/// Up to where a log is good.
struct Last {
    good: u64,
    instructions: u64,
    printed: u64,
    ended: bool,
    /// The guest had shut itself down.
    shut: bool,
}

impl Last {
    fn salvaged(&self, size: u64) -> Salvaged {
        Salvaged {
            instructions: self.instructions,
            printed: self.printed,
            kept: self.good,
            lost: size.saturating_sub(self.good),
        }
    }
}

fn last(log: impl Read, devices: Devices) -> Result<Last, Error> {
    let mut reader = Reader::of_any(log, devices)?;
    let mut last = Last {
        good: HEADER,
        instructions: 0,
        printed: 0,
        ended: false,
        shut: false,
    };
    let mut printed = 0;
    loop {
        match reader.next() {
            Ok(Some(event)) => {
                last.ended = event.kind == Kind::End;
                printed += u64::from(event.kind == Kind::Written(true));
                // Behind it the processor waits for what comes next, whatever that is. Within what belongs together (a checkpoint
                // and the clock that is read at it) QEMU would miss the rest, and end.
                last.shut = matches!(event.kind, Kind::Shutdown(_));
                if matches!(event.kind, Kind::Instructions(_)) || last.shut || last.ended {
                    last.good = reader.at();
                    last.instructions = event.instructions;
                    last.printed = printed;
                }
                if last.shut && reader.is_unfinished() {
                    break;
                }
            }
            Ok(None) => break,
            Err(error @ (Error::Read(_) | Error::Interrupted | Error::Version { .. })) => return Err(error),
            Err(Error::CutOff { .. } | Error::Foreign { .. }) => {
                last.ended = false;
                break;
            }
        }
    }
    match last.instructions {
        0 => Err(Error::Read(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "not one instruction was logged",
        ))),
        _ => Ok(last),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::summary::check;
    use crate::written::{DEVICES, good};

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

    #[test]
    fn a_whole_log_is_left_alone() {
        let log = good();
        let mut file = file(&log.bytes);
        let salvaged = salvage(&mut file, DEVICES).expect("salvaged");
        assert_eq!((salvaged.instructions, salvaged.printed, salvaged.lost), (1241, 1, 0));
        assert_eq!(read(&mut file), log.bytes);
    }

    /// Wherever it was cut, and whatever stands behind, what is kept is a whole log that ends in time.
    #[test]
    fn cut_off_anywhere() {
        let log = good();
        let first = log.events[6];
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
                        // Zeros in a number make it smaller, and the run shorter.
                        assert!(salvaged.instructions <= 1241 || junk.starts_with(&[0xff]), "{length}");
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
