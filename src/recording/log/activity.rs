// SPDX-License-Identifier: MIT OR Apache-2.0
//! What happened in a recorded run, and after how many instructions: the lines of the console one by one, everything else
//! counted in sections of equal length. A log has millions of events; what is kept of them does not grow with it.

use std::io::{self, BufReader, Read};
use std::ops::ControlFlow;
use std::time::Duration;

use replay_log::{Devices, Kind, Reader};

use super::point::between;
use crate::base::progress::Progress;
use crate::config::guest::Shift;
use crate::file;
use crate::recording::Recording;
use crate::recording::error::Error as LibraryError;
use crate::recording::library::archive::Passing;
use crate::recording::library::draft::{CONSOLE, LOG};
use crate::recording::library::manifest::FileDigest;
use crate::recording::session::{Error, devices};

/// A run is divided into so many sections at the most.
const SECTIONS: u64 = 240;

/// More of a line than this is not kept, in bytes: a guest need not ever break a line.
const LONGEST: usize = 4096;

/// A line of the console.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// Instructions that the guest had executed before the one that printed its first byte: a replay that is stopped there goes
    /// on with this line, whole. `None` where nobody counts them.
    pub instructions: Option<u64>,
    /// Its first bytes, without the line break.
    pub text: Vec<u8>,
    /// All of its bytes.
    pub length: u64,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines of the console that began.
    pub lines: u64,
    /// Bytes that were typed.
    pub typed: u64,
    /// Requests of disks that were done.
    pub disk: u64,
    /// Packets that arrived. What the guest sends is in no log.
    pub packets: u64,
    /// Interrupts that the processor took.
    pub interrupts: u64,
}

impl Counts {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            lines: self.lines + other.lines,
            typed: self.typed + other.typed,
            disk: self.disk + other.disk,
            packets: self.packets + other.packets,
            interrupts: self.interrupts + other.interrupts,
        }
    }
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// Instructions of all of it.
    pub end: u64,
    /// Instructions of a section; the last one may have less.
    pub width: u64,
    /// The sections, in the order of the run.
    pub sections: Vec<Counts>,
    /// What time it is after so many instructions.
    pub clock: Clock,
}

impl Activity {
    /// Of a run of `end` instructions, in which nothing has happened yet.
    fn new(end: u64, shift: Shift) -> Self {
        let width = end.div_ceil(SECTIONS).max(1);
        let count = end.div_ceil(width).max(1);
        Self {
            end,
            width,
            // At most as many as there may be.
            sections: (0..count).map(|_| Counts::default()).collect(),
            clock: match shift {
                Shift::Fixed(shift) => Clock::Fixed(shift),
                Shift::Auto => Clock::Read(Vec::new()),
            },
        }
    }

    /// The section that the moment after so many instructions is in; that of the end is in the last.
    pub fn section(&self, instructions: u64) -> usize {
        let number = usize::try_from(instructions / self.width).unwrap_or(usize::MAX);
        number.min(self.sections.len() - 1)
    }

    /// What was counted in all.
    pub fn total(&self) -> Counts {
        self.sections.iter().fold(Counts::default(), |sum, it| sum.and(*it))
    }
}

/// The time of a run by its instructions, as `ttvm replay --at` takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clock {
    /// Each takes 2 to the power of this, in nanoseconds.
    Fixed(u8),
    /// The clock of the run was read: instructions, and nanoseconds since the first time. Not more often than there are sections.
    Read(Vec<(u64, u64)>),
}

impl Clock {
    /// How long after the beginning of the run it is; `None` if nobody read a clock.
    pub fn at(&self, instructions: u64) -> Option<Duration> {
        let nanoseconds = match self {
            Self::Fixed(shift) => u64::try_from(u128::from(instructions) << shift).unwrap_or(u64::MAX),
            Self::Read(readings) => {
                let behind = readings.partition_point(|(at, _)| *at < instructions);
                let before = behind.checked_sub(1).map_or((0, 0), |before| readings[before]);
                // Behind the last one the time goes on as it did up to there.
                let (from, to) = match readings.get(behind) {
                    Some(reading) => (before, *reading),
                    None => ((0, 0), *readings.last().filter(|(at, _)| *at > 0)?),
                };
                between(from, to, instructions)
            }
        };
        Some(Duration::from_nanos(nanoseconds))
    }

    /// The clock of the run was read. None of QEMU's goes back; a log may come from anybody.
    fn read(&mut self, instructions: u64, nanoseconds: u64, began: u64, width: u64) {
        if let Self::Read(readings) = self {
            let time = nanoseconds.saturating_sub(began);
            let is_next = readings
                .last()
                .is_none_or(|(at, last)| instructions / width > at / width && time >= *last);
            if is_next {
                readings.push((instructions, time));
            }
        }
    }
}

/// The console, cut into lines.
struct Lines<'a> {
    line: Option<Line>,
    on: &'a mut dyn FnMut(Line),
}

impl Lines<'_> {
    /// The next byte. Whether a line begins with it.
    fn push(&mut self, byte: u8, instructions: Option<u64>) -> bool {
        let begins = self.line.is_none();
        let line = self.line.get_or_insert_with(|| Line {
            instructions,
            ..Line::default()
        });
        if byte == b'\n' {
            self.end();
            return begins;
        }
        line.length += 1;
        if line.text.len() < LONGEST {
            line.text.push(byte);
        }
        begins
    }

    fn end(&mut self) {
        if let Some(mut line) = self.line.take() {
            while line.text.last() == Some(&b'\r') {
                line.text.pop();
                line.length -= 1;
            }
            (self.on)(line);
        }
    }
}

/// Reads the log of a run of `end` instructions, of a machine with `devices`, and beside it what it printed.
fn read(
    log: impl Read,
    devices: Devices,
    console: impl Read,
    mut activity: Activity,
    lines: &mut Lines<'_>,
) -> Result<Activity, Failure> {
    let mut console = BufReader::new(console).bytes();
    let mut events = Reader::new(log, devices)?;
    let mut began = None;
    while let Some(event) = events.next()? {
        // In format 1 the log goes on a little behind the end of the run.
        if event.instructions > activity.end {
            continue;
        }
        let section = activity.section(event.instructions);
        let counts = &mut activity.sections[section];
        match event.kind {
            Kind::Written(true) => {
                if let Some(byte) = console.next().transpose().map_err(Failure::Console)? {
                    // The log counts the one that prints, too.
                    let before = event.instructions.saturating_sub(1);
                    counts.lines += u64::from(lines.push(byte, Some(before)));
                }
            }
            Kind::Typed(text) => counts.typed += text.len() as u64,
            Kind::DiskDone(_) => counts.disk += 1,
            Kind::Packet { .. } => counts.packets += 1,
            Kind::Interrupt => counts.interrupts += 1,
            Kind::RunClock(time) => {
                let began = *began.get_or_insert(time);
                activity.clock.read(event.instructions, time, began, activity.width);
            }
            _ => {}
        }
    }
    all(console, lines)?;
    Ok(activity)
}

/// What is printed by nobody knows which instruction.
fn all(console: io::Bytes<impl Read>, lines: &mut Lines<'_>) -> Result<(), Failure> {
    for byte in console {
        lines.push(byte.map_err(Failure::Console)?, None);
    }
    lines.end();
    Ok(())
}

/// What cannot be read.
#[derive(Debug)]
enum Failure {
    Log(replay_log::Error),
    Console(io::Error),
}

impl From<replay_log::Error> for Failure {
    fn from(error: replay_log::Error) -> Self {
        Self::Log(error)
    }
}

impl Recording {
    /// Reads its log and its console, makes sure that both are what was recorded, and gives the lines of the console to `on`.
    /// `None` if it is of TT Xen: nobody reads its log here.
    ///
    /// # Errors
    ///
    /// If one of them cannot be read or is another, or `progress` called it off.
    pub fn activity(&self, on: &mut dyn FnMut(Line), progress: &mut Progress<'_>) -> Result<Option<Activity>, Error> {
        let _in_use = self.use_shared()?;
        let manifest = self.manifest();
        let result = manifest.result.as_ref().ok_or(Error::Interrupted)?;
        let mut lines = Lines { line: None, on };
        let open = |path: &std::path::Path| file::open_content(path).map_err(LibraryError::file("open", path));
        let mut console_file = open(&self.console())?;
        if !manifest.engine.toolstack.is_emulated() {
            let mut console = Passing::new(&mut console_file, 0, result.console.size, progress);
            let read = all(BufReader::new(&mut console).bytes(), &mut lines);
            self.is_whole(CONSOLE, &console, &result.console, read)?;
            return Ok(None);
        }
        let shift = manifest.engine.icount.parse().unwrap_or(Shift::Auto);
        let activity = Activity::new(result.instructions.unwrap_or_default(), shift);
        let mut log_file = open(&self.log())?;
        let mut log = Passing::new(&mut log_file, 0, result.log.size, progress);
        // How far it is, the log says.
        let mut goes_on = |_, _| ControlFlow::Continue(());
        let mut console = Passing::new(&mut console_file, 0, result.console.size, &mut goes_on);
        let read = read(&mut log, devices(manifest), &mut console, activity, &mut lines);
        let activity = self.is_whole(LOG, &log, &result.log, read)?;
        self.is_whole(CONSOLE, &console, &result.console, Ok(()))?;
        Ok(Some(activity))
    }

    /// What was `read` of the file `name`, if that is what was recorded.
    fn is_whole<T>(
        &self,
        name: &str,
        passing: &Passing<'_, '_>,
        recorded: &FileDigest,
        read: Result<T, Failure>,
    ) -> Result<T, Error> {
        let path = self.directory().join(name);
        if passing.interrupted {
            return Err(Error::Interrupted);
        }
        let read = read.map_err(|failure| match failure {
            Failure::Log(replay_log::Error::Read(source)) => LibraryError::file("read", &path)(source).into(),
            Failure::Log(source) => Error::Unlike(source),
            Failure::Console(source) => LibraryError::file("read", &self.console())(source).into(),
        })?;
        match passing.digest() {
            found if found == recorded.digest => Ok(read),
            found => Err(LibraryError::differs(name, &path, recorded.digest, found).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::log::point::written_at;
    use crate::recording::log::written::Log;

    const DEVICES: Devices = Devices { networks: 1, disks: 1 };

    fn activity(log: &[u8], console: &str, end: u64, shift: Shift) -> (Activity, Vec<Line>) {
        let mut found = Vec::new();
        let mut on = |line| found.push(line);
        let mut lines = Lines {
            line: None,
            on: &mut on,
        };
        let activity = Activity::new(end, shift);
        let activity = read(log, DEVICES, console.as_bytes(), activity, &mut lines).expect("a good log");
        (activity, found)
    }

    fn line(instructions: Option<u64>, text: &str) -> Line {
        Line {
            instructions,
            text: text.as_bytes().to_vec(),
            length: text.len() as u64,
        }
    }

    #[test]
    fn what_happens_is_counted_where_it_happens() {
        let packet = [&[0; 5][..], &20u32.to_be_bytes(), &[0; 20]].concat();
        let log = Log::new()
            .run(100)
            .print(2)
            .lose()
            .event(1, &[])
            .run(100)
            .print(3)
            .event(8, &0u64.to_be_bytes())
            .event(9, &packet)
            .event(7, &[&[0, 0, 0, 0, 2][..], b"ls"].concat())
            .run(280)
            .print(2)
            .event(1, &[])
            // Behind the end.
            .run(1)
            .event(1, &[])
            .whole();
        let (activity, lines) = activity(&log, "a\ncd\r\ne\nlost", 480, Shift::Fixed(3));
        let wanted = [
            line(Some(99), "a"),
            line(Some(199), "cd"),
            line(Some(479), "e"),
            line(None, "lost"),
        ];
        assert_eq!(lines, wanted);
        // Where it has just been printed, as `--at TEXT` goes there.
        for (byte, at) in [(0, 99), (2, 199), (5, 479)] {
            assert_eq!(written_at(&log[..], DEVICES, byte).expect("it"), at + 2);
        }
        assert_eq!((activity.width, activity.sections.len()), (2, 240));
        assert_eq!(
            activity.sections[50],
            Counts {
                lines: 1,
                interrupts: 1,
                ..Counts::default()
            }
        );
        assert_eq!(
            activity.sections[100],
            Counts {
                lines: 1,
                typed: 2,
                disk: 1,
                packets: 1,
                ..Counts::default()
            }
        );
        // The end is in the last one.
        assert_eq!(activity.sections[239].interrupts, 1);
        assert_eq!(activity.total().interrupts, 2);
        assert_eq!(activity.clock.at(1000), Some(Duration::from_nanos(8000)));
    }

    #[test]
    fn runs_of_no_length_and_of_any() {
        for end in [0, 1, 239, 240, 241, u64::MAX] {
            let activity = Activity::new(end, Shift::Auto);
            let count = activity.sections.len() as u64;
            assert!((1..=240).contains(&count), "{end}");
            assert_eq!(
                (activity.section(0), activity.section(end)),
                (0, activity.sections.len() - 1)
            );
        }
    }

    #[test]
    fn a_line_that_is_never_broken() {
        let log = Log::new().run(1).print(5000).whole();
        let (_, lines) = activity(&log, &"x".repeat(5000), 2, Shift::Auto);
        assert_eq!((lines.len(), lines[0].text.len(), lines[0].length), (1, LONGEST, 5000));
    }

    #[test]
    fn by_the_clock_of_the_run() {
        let log = Log::new()
            .clock(1000)
            .run(240)
            .clock(1100)
            .run(240)
            // None of QEMU's goes back.
            .clock(900)
            .run(240)
            .clock(2100)
            .whole();
        let (activity, _) = activity(&log, "", 960, Shift::Auto);
        let times = [0, 120, 240, 480, 720, 960].map(|at| activity.clock.at(at).map(|time| time.as_nanos()));
        assert_eq!(times, [0, 50, 100, 600, 1100, 1466].map(Some));
        assert_eq!(Clock::Read(Vec::new()).at(5), None);
        assert_eq!(Clock::Read(vec![(0, 0)]).at(5), None);
    }
}
