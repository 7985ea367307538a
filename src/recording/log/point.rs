// SPDX-License-Identifier: MIT OR Apache-2.0
//! A moment of a recorded run as a person names it, and the instruction that it is.
//!
//! The log of the run knows it: which instruction printed a byte of the console, and what time it was when the clock of the run
//! was read.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::str::FromStr;
use std::time::Duration;

use replay_log::{Devices, Event, Kind, Reader};

use crate::base::error::{Classify, Exit};
use crate::base::text;

/// What is read at once.
const PIECE: usize = 1 << 16;

/// A moment of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Point {
    /// After so many instructions: `123456`, `1_000_000`.
    Instructions(u64),
    /// So long after the run began: `12.3s`, `300ms`, `2min`. Where each instruction takes the same time, that is the time of so
    /// many; else by the clock of the run.
    Time(Duration),
    /// When the guest has just printed this for the first time: `'login:'`, `"login:"`, `=login:`, or what is nothing else.
    Text(Vec<u8>),
    /// The end, or so many instructions before it: `end`, `end-1000`.
    End {
        /// How many.
        before: u64,
    },
    /// After this share of all instructions: `40%`.
    Percent(f64),
}

/// Why a text names no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAPoint {
    /// There is no text to look for.
    #[error(
        "nothing is no moment of a run: name instructions (1_000_000), a time (12.3s), a share (40%), text of the console or \"end\""
    )]
    Empty,
    /// A number of what?
    #[error("{0} of what? Write \"{0}s\", \"{0}min\", \"{0}%\" or, for this text on the console, \"={0}\"")]
    NoUnit(String),
    /// No run is that long.
    #[error("{0} is more than any run has; for this text on the console, write \"={0}\"")]
    TooLarge(String),
}

/// Where a moment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Instructions that the guest has executed by then.
    pub instructions: u64,
    /// Bytes that it has printed by then.
    pub console: u64,
}

/// Why a run does not have a moment.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log of the run cannot be relied on.
    #[error("cannot read the log of the run")]
    Log(#[from] replay_log::Error),
    /// What it printed cannot be read.
    #[error("cannot read the console log of the run")]
    Console(#[source] io::Error),
    /// It is behind the end.
    #[error(
        "{point} is behind the end of the run, which is after {end} instructions: name an earlier moment, or \"end\""
    )]
    Behind {
        /// What was asked for.
        point: Point,
        /// Instructions of the whole run.
        end: u64,
    },
    /// The run was over by then.
    #[error(
        "{point} is behind the end of the run, which is after {end} instructions and {:.3} s: name an earlier moment, or \"end\"", time.as_secs_f64()
    )]
    Later {
        /// What was asked for.
        point: Point,
        /// Instructions of the whole run.
        end: u64,
        /// How long it took.
        time: Duration,
    },
    /// It is before the beginning.
    #[error(
        "{point} is before the beginning of the run: it has {end} instructions, \"end-{end}\" or 0 is where it begins"
    )]
    Before {
        /// What was asked for.
        point: Point,
        /// Instructions of the whole run.
        end: u64,
    },
    /// The guest never printed it.
    #[error(
        "{point} is not on the console: the guest never printed it; `console.log` of the recording has what it did print"
    )]
    NotPrinted {
        /// What was asked for.
        point: Point,
    },
    /// Nobody read the clock.
    #[error(
        "the log does not say which instruction was when: name instructions (1_000_000), a share (40%), text of the console or \"end\" instead of a time"
    )]
    NoClock,
    /// The console log is of another run, or was changed.
    #[error(
        "by its log, the run printed {printed} bytes, and its console log has more: one of them was changed, copy the recording anew"
    )]
    Foreign {
        /// Bytes by the log.
        printed: u64,
    },
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Behind { .. }
            | Self::Later { .. }
            | Self::Before { .. }
            | Self::NotPrinted { .. }
            | Self::NoClock => Exit::Usage,
            Self::Log(_) | Self::Foreign { .. } => Exit::Refused,
            Self::Console(_) => Exit::Failed,
        }
    }
}

impl FromStr for Point {
    type Err = NotAPoint;
    fn from_str(text: &str) -> Result<Self, NotAPoint> {
        if let Some(literal) = text.strip_prefix('=').or_else(|| unquoted(text)) {
            return Self::text(literal);
        }
        if text == "end" {
            return Ok(Self::End { before: 0 });
        }
        let too_large = || NotAPoint::TooLarge(text.to_owned());
        if let Some(number) = text.strip_prefix("end-").and_then(Number::of)
            && number.is_whole()
        {
            let before = number.count().ok_or_else(too_large)?;
            return Ok(Self::End { before });
        }
        let end = text.find(|c: char| !Number::has(c)).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let Some(number) = Number::of(number) else {
            return Self::text(text);
        };
        let time = |seconds: f64| {
            let time = Duration::try_from_secs_f64(number.value() * seconds);
            time.map(Self::Time).map_err(|_| too_large())
        };
        match unit {
            "" if number.is_whole() => number.count().map(Self::Instructions).ok_or_else(too_large),
            "" => Err(NotAPoint::NoUnit(text.to_owned())),
            "%" => Ok(Self::Percent(number.value())),
            "ms" => time(0.001),
            "s" => time(1.0),
            "min" => time(60.0),
            _ => Self::text(text),
        }
    }
}

impl Point {
    fn text(text: &str) -> Result<Self, NotAPoint> {
        match text.is_empty() {
            true => Err(NotAPoint::Empty),
            false => Ok(Self::Text(text.as_bytes().to_vec())),
        }
    }
}

/// As it may be written.
impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instructions(count) => write!(f, "{count}"),
            Self::Time(time) => write!(f, "{}s", time.as_secs_f64()),
            Self::Text(text) => write!(f, "\"{}\"", text::of_bytes(text)),
            Self::End { before: 0 } => f.write_str("end"),
            Self::End { before } => write!(f, "end-{before}"),
            Self::Percent(share) => write!(f, "{share}%"),
        }
    }
}

/// What is between two quotation marks.
fn unquoted(text: &str) -> Option<&str> {
    let between = |mark| text.strip_prefix(mark)?.strip_suffix(mark);
    between('\'').or_else(|| between('"'))
}

/// Digits, perhaps with `_` between them and one point.
struct Number(String);

impl Number {
    fn has(c: char) -> bool {
        c.is_ascii_digit() || c == '_' || c == '.'
    }

    fn of(text: &str) -> Option<Self> {
        let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        let is_one = text.chars().all(Self::has)
            && text.matches('.').count() <= 1
            && is_digit(text.chars().next())
            && is_digit(text.chars().next_back());
        is_one.then(|| Self(text.replace('_', "")))
    }

    fn is_whole(&self) -> bool {
        !self.0.contains('.')
    }

    /// `None` if it is too large.
    fn count(&self) -> Option<u64> {
        self.0.parse().ok()
    }

    fn value(&self) -> f64 {
        // Too many digits are infinity, not an error.
        self.0.parse().unwrap_or(f64::INFINITY)
    }
}

/// Finds `point` in a run that ends after `end` instructions: `log` is its log, of a machine with `devices`, and `console` what it
/// printed.
///
/// A text is found behind its last byte; a time between the two moments at which the run's clock was read before and after it,
/// as if all instructions between them took equally long.
///
/// # Errors
///
/// If the run does not have that moment, its log does not tell it, or something cannot be read.
pub fn resolve(point: &Point, log: impl Read, devices: Devices, console: impl Read, end: u64) -> Result<Found, Error> {
    let behind = || Error::Behind {
        point: point.clone(),
        end,
    };
    let mut events = Reader::new(log, devices)?;
    let instructions = match point {
        Point::Instructions(count) => *count,
        Point::Percent(share) => (end as f64 * share / 100.0).round() as u64,
        Point::End { before } => end.checked_sub(*before).ok_or_else(|| Error::Before {
            point: point.clone(),
            end,
        })?,
        Point::Time(time) => return at_time(&mut events, *time, end),
        Point::Text(text) => {
            let byte = search(console, text).map_err(Error::Console)?;
            let byte = byte.ok_or_else(|| Error::NotPrinted { point: point.clone() })?;
            return Some(behind_byte(&mut events, byte)?)
                .filter(|found| found.instructions <= end)
                .ok_or_else(behind);
        }
    };
    if instructions > end {
        return Err(behind());
    }
    let console = count(&mut events, instructions)?;
    Ok(Found { instructions, console })
}

/// How many bytes of the console were written before the guest had executed `instructions`.
///
/// # Errors
///
/// If the log cannot be read, or is none of a machine with `devices`.
pub fn printed_before(log: impl Read, devices: Devices, instructions: u64) -> Result<u64, replay_log::Error> {
    count(&mut Reader::new(log, devices)?, instructions)
}

/// After how many instructions the byte `wanted` of the console, counted from 0, was written.
///
/// # Errors
///
/// If the log cannot be read, is none of a machine with `devices`, or has no such byte.
pub fn written_at(log: impl Read, devices: Devices, wanted: u64) -> Result<u64, Error> {
    behind_byte(&mut Reader::new(log, devices)?, wanted).map(|found| found.instructions)
}

fn count(events: &mut Reader<impl Read>, instructions: u64) -> Result<u64, replay_log::Error> {
    let mut printed = 0;
    while let Some(event) = events.next()?
        && event.instructions < instructions
    {
        printed += u64::from(is_printed(&event));
    }
    Ok(printed)
}

fn is_printed(event: &Event) -> bool {
    event.kind == Kind::Written(true)
}

/// The moment when the byte `wanted` of the console, counted from 0, has just been printed.
fn behind_byte(events: &mut Reader<impl Read>, wanted: u64) -> Result<Found, Error> {
    let mut printed = 0;
    let mut found = None;
    while let Some(event) = events.next()? {
        if found.is_some_and(|behind| event.instructions >= behind) {
            break;
        }
        if is_printed(&event) {
            if printed == wanted {
                found = Some(event.instructions + 1);
            }
            printed += 1;
        }
    }
    let instructions = found.ok_or(Error::Foreign { printed })?;
    Ok(Found {
        instructions,
        console: printed,
    })
}

/// The moment at `time` after the run began.
fn at_time(events: &mut Reader<impl Read>, time: Duration, end: u64) -> Result<Found, Error> {
    let wanted = nanoseconds(time);
    let later = |ended| Error::Later {
        point: Point::Time(time),
        end,
        time: Duration::from_nanos(ended),
    };
    let mut began = None;
    // The clock's last reading: nanoseconds since it was read first, and instructions.
    let mut last = (0, 0);
    // What was printed before it, and when since.
    let mut console = Printed::default();
    while let Some(event) = events.next()? {
        if is_printed(&event) {
            console.since.push(event.instructions);
        }
        let Kind::RunClock(clock) = event.kind else { continue };
        let began = *began.get_or_insert(clock);
        let read = (clock.saturating_sub(began), event.instructions);
        if read.0 < last.0 {
            // No clock of QEMU's goes back; a log may come from anybody.
            continue;
        }
        if read.0 >= wanted {
            let instructions = between(last, read, wanted);
            if instructions <= end {
                return Ok(console.found(instructions));
            }
        }
        if read.1 > end {
            return Err(later(between(swap(last), swap(read), end)));
        }
        console.pass(read.1);
        last = read;
    }
    if last.0 == 0 || last.1 == 0 {
        return Err(Error::NoClock);
    }
    let instructions = between((0, 0), last, wanted);
    match instructions <= end {
        true => Ok(console.found(instructions)),
        false => Err(later(between((0, 0), swap(last), end))),
    }
}

/// What was printed while a log is read.
#[derive(Default)]
struct Printed {
    /// Bytes before a moment that is passed.
    before: u64,
    /// The instructions of those since.
    since: Vec<u64>,
}

impl Printed {
    /// No earlier moment will be asked for.
    fn pass(&mut self, instructions: u64) {
        let all = self.since.len();
        self.since.retain(|at| *at >= instructions);
        self.before += (all - self.since.len()) as u64;
    }

    fn found(&self, instructions: u64) -> Found {
        let since = self.since.iter().filter(|at| **at < instructions).count();
        Found {
            instructions,
            console: self.before + since as u64,
        }
    }
}

/// On the line through two points, the second coordinate at the first coordinate `x`. The second point is not before the first.
pub(in crate::recording) fn between((x0, y0): (u64, u64), (x1, y1): (u64, u64), x: u64) -> u64 {
    let [x, x0, x1, y0, y1] = [x, x0, x1, y0, y1].map(u128::from);
    let y = match x1 - x0 {
        0 => y0,
        width => y0 + (y1 - y0) * x.saturating_sub(x0) / width,
    };
    u64::try_from(y).unwrap_or(u64::MAX)
}

fn swap((x, y): (u64, u64)) -> (u64, u64) {
    (y, x)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The last byte of the first `text` in `console`, counted from 0 (Knuth, Morris, Pratt: what is read is not kept).
fn search(console: impl Read, text: &[u8]) -> io::Result<Option<u64>> {
    // For each beginning of the text, how long the longest other beginning is that it ends with.
    let mut borders = vec![0; text.len()];
    for end in 1..text.len() {
        borders[end] = longer(text, &borders, borders[end - 1], text[end]);
    }
    let mut console = BufReader::with_capacity(PIECE, console);
    let (mut at, mut matched) = (0, 0);
    loop {
        let piece = console.fill_buf()?;
        let length = piece.len();
        if length == 0 {
            return Ok(None);
        }
        for byte in piece {
            matched = longer(text, &borders, matched, *byte);
            if matched == text.len() {
                return Ok(Some(at));
            }
            at += 1;
        }
        console.consume(length);
    }
}

/// How much of `text` is matched when `matched` of it was and `byte` comes next.
fn longer(text: &[u8], borders: &[usize], mut matched: usize, byte: u8) -> usize {
    while matched > 0 && text[matched] != byte {
        matched = borders[matched - 1];
    }
    matched + usize::from(text[matched] == byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::log::written::Log;

    const DEVICES: Devices = Devices { networks: 0, disks: 0 };

    impl Log {
        fn find(&self, point: &str, console: &str, end: u64) -> Result<Found, Error> {
            let point: Point = point.parse().expect("a point");
            resolve(&point, &self.whole()[..], DEVICES, console.as_bytes(), end)
        }
    }

    fn found(instructions: u64, console: u64) -> Found {
        Found { instructions, console }
    }

    #[test]
    fn how_a_moment_is_written() {
        let text = |text: &str| Ok(Point::Text(text.as_bytes().to_vec()));
        let time = |millis| Ok(Point::Time(Duration::from_millis(millis)));
        let too_large = |text: &str| Err(NotAPoint::TooLarge(text.to_owned()));
        for (written, expected) in [
            ("123456", Ok(Point::Instructions(123_456))),
            ("1_000_000", Ok(Point::Instructions(1_000_000))),
            ("18446744073709551615", Ok(Point::Instructions(u64::MAX))),
            ("18446744073709551616", too_large("18446744073709551616")),
            ("12.3s", time(12_300)),
            ("0s", time(0)),
            ("2min", time(120_000)),
            ("1.5min", time(90_000)),
            ("250ms", time(250)),
            ("99999999999999999999s", too_large("99999999999999999999s")),
            ("40%", Ok(Point::Percent(40.0))),
            ("99.5%", Ok(Point::Percent(99.5))),
            ("end", Ok(Point::End { before: 0 })),
            ("end-1_000", Ok(Point::End { before: 1000 })),
            ("end-18446744073709551616", too_large("end-18446744073709551616")),
            ("1.5", Err(NotAPoint::NoUnit("1.5".to_owned()))),
            ("login:", text("login:")),
            ("'login: '", text("login: ")),
            ("\"123\"", text("123")),
            ("=123", text("123")),
            ("='x'", text("'x'")),
            ("==", text("=")),
            ("it's", text("it's")),
            ("'", text("'")),
            ("größer", text("größer")),
            ("end-user", text("end-user")),
            ("end-1.5", text("end-1.5")),
            ("ending", text("ending")),
            ("-5", text("-5")),
            ("_1", text("_1")),
            ("1_", text("1_")),
            (".5s", text(".5s")),
            ("1.2.3", text("1.2.3")),
            ("5 s", text("5 s")),
            ("3com", text("3com")),
            ("%", text("%")),
            ("", Err(NotAPoint::Empty)),
            ("=", Err(NotAPoint::Empty)),
            ("''", Err(NotAPoint::Empty)),
            ("\"\"", Err(NotAPoint::Empty)),
        ] {
            assert_eq!(written.parse(), expected, "{written}");
            if let Ok(point) = expected {
                assert_eq!(point.to_string().parse(), Ok(point), "{written}");
            }
        }
        assert_eq!(Point::Text(b"a\x1b[2J".to_vec()).to_string(), "\"a\\u{1b}[2J\"");
    }

    #[test]
    fn by_instructions() {
        let log = Log::new().run(10).print(1).lose().run(5).print(2).run(85);
        for (point, expected) in [
            ("0", found(0, 0)),
            ("10", found(10, 0)),
            ("11", found(11, 1)),
            ("15", found(15, 1)),
            ("16", found(16, 3)),
            ("100", found(100, 3)),
            ("end", found(100, 3)),
            ("end-85", found(15, 1)),
            ("end-100", found(0, 0)),
            ("0%", found(0, 0)),
            ("40%", found(40, 3)),
            ("15.4%", found(15, 1)),
            ("100%", found(100, 3)),
        ] {
            assert_eq!(log.find(point, "abc", 100).expect("a moment"), expected, "{point}");
        }
        for point in ["101", "101%", "99999999999999999999999%"] {
            assert!(
                matches!(log.find(point, "abc", 100), Err(Error::Behind { end: 100, .. })),
                "{point}"
            );
        }
        let before = log.find("end-101", "abc", 100).expect_err("none");
        assert!(matches!(before, Error::Before { end: 100, .. }));
        assert_eq!(
            before.to_string(),
            "end-101 is before the beginning of the run: it has 100 instructions, \"end-100\" or 0 is where it begins"
        );
        let log = log.whole();
        let printed = |instructions| printed_before(&log[..], DEVICES, instructions).expect("a log");
        assert_eq!([10, 11, 15, 16, 1000].map(printed), [0, 1, 1, 3, 3]);
    }

    #[test]
    fn by_text() {
        let log = Log::new()
            .run(10)
            .print(3)
            .lose()
            .run(5)
            .print(1)
            .run(5)
            .print(4)
            .run(80);
        let console = "aababaab";
        for (point, expected) in [
            ("a", found(11, 3)),
            ("aab", found(11, 3)),
            ("abab", found(21, 8)),
            ("aaba", found(16, 4)),
            ("aababaab", found(21, 8)),
        ] {
            assert_eq!(log.find(point, console, 100).expect("a moment"), expected, "{point}");
        }
        for point in ["abb", "aababaabx", "x"] {
            let missing = log.find(point, console, 100);
            assert!(matches!(missing, Err(Error::NotPrinted { .. })), "{point}");
        }
        // It was printed when the run was over.
        let behind = log.find("abab", console, 20);
        assert!(matches!(behind, Err(Error::Behind { end: 20, .. })));
        let foreign = log.find("more", "aababaabmore", 100);
        assert!(matches!(foreign, Err(Error::Foreign { printed: 8 })));
    }

    /// Found as by whoever looks at every place, whatever the pieces are.
    #[test]
    fn a_search_of_all_texts() {
        let bytes = |mut bits: u32, length: u32| {
            (0..length)
                .map(|_| {
                    bits >>= 1;
                    b'a' + (bits & 1) as u8
                })
                .collect::<Vec<u8>>()
        };
        for console in (0..1 << 9).map(|bits| bytes(bits << 1, 9)) {
            for text in (1..=4).flat_map(|length| (0..1 << length).map(move |bits| bytes(bits << 1, length))) {
                let mut windows = console.windows(text.len());
                let expected = windows.position(|it| it == text).map(|at| (at + text.len() - 1) as u64);
                let pieces = console[..4].chain(&console[4..]);
                assert_eq!(search(pieces, &text).ok(), Some(expected), "{text:?} in {console:?}");
            }
        }
    }

    #[test]
    fn by_time() {
        let second = 1_000_000_000;
        // The first second takes 100 instructions, the next two 100 together; then nobody looks.
        let log = Log::new()
            .clock(7 * second)
            .run(50)
            .print(1)
            .run(50)
            .print(1)
            .clock(8 * second)
            .run(50)
            .print(1)
            .run(50)
            .clock(10 * second)
            .run(30)
            .print(1)
            .run(70);
        for (point, expected) in [
            ("0s", found(0, 0)),
            ("500ms", found(50, 0)),
            ("510ms", found(51, 1)),
            ("1s", found(100, 1)),
            ("1.02s", found(101, 2)),
            ("2.02s", found(151, 3)),
            ("3s", found(200, 3)),
            // 200 instructions in 3 seconds.
            ("3.3s", found(220, 3)),
            ("3.6s", found(240, 4)),
            ("4.5s", found(300, 4)),
        ] {
            assert_eq!(log.find(point, "", 300).expect("a moment"), expected, "{point}");
        }
        let later = |point, end| match log.find(point, "", end) {
            Err(Error::Later { time, .. }) => time.as_millis(),
            other => panic!("{other:?}"),
        };
        assert_eq!(later("4.6s", 300), 4500);
        assert_eq!(later("1min", 300), 4500);
        assert_eq!(later("2.1s", 150), 2000, "the log goes on behind the end");
        assert_eq!(later("1min", 150), 2000);
        assert_eq!(
            log.find("1min", "", 300).expect_err("none").to_string(),
            "60s is behind the end of the run, which is after 300 instructions and 4.500 s: name an earlier moment, or \"end\""
        );
    }

    #[test]
    fn without_a_clock() {
        for log in [
            Log::new().run(100),
            Log::new().run(50).clock(5).run(50),
            Log::new().clock(5).clock(9).run(100),
            Log::new().run(50).clock(5).run(20).clock(3).run(30),
        ] {
            assert!(matches!(log.find("1s", "", 100), Err(Error::NoClock)));
        }
        // A clock that goes back is passed over.
        let log = Log::new()
            .clock(0)
            .run(10)
            .clock(100)
            .run(10)
            .clock(50)
            .run(20)
            .clock(400)
            .run(60);
        let point = Point::Time(Duration::from_nanos(250));
        let log = log.whole();
        let at = resolve(&point, &log[..], DEVICES, io::empty(), 100).expect("a moment");
        assert_eq!(at, found(25, 0));
    }

    #[test]
    fn a_log_that_is_none() {
        let none = resolve(&Point::End { before: 0 }, &b"Linux"[..], DEVICES, io::empty(), 5);
        assert!(matches!(none, Err(Error::Log(replay_log::Error::Version { .. }))));
    }
}
