// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm trace`: what happened in a part of a recorded run, one thing after the other.

use std::io::{self, BufWriter};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use qemu_watch::Watch;

use super::foreground::{Follower, Foreground};
use super::replay;
use crate::base::error::Exit;
use crate::cli::{Error, answers, guest_name};
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::recording::Recording;
use crate::recording::log::point::Point;
use crate::recording::session::Error as SessionError;
use crate::recording::watch::Watcher;
use crate::recording::watch::ask::Place;
use crate::recording::watch::symbols::Symbols;
use crate::recording::watch::trace::{self, Entry, Form, Logged, Writer};

#[derive(clap::Args)]
#[command(
    override_usage = "ttvm trace [OPTIONS] <GUEST> [RECORDING] <WHAT> [ADDRESS]",
    after_help = "WHAT is one of\n  syscalls        system calls of 64-bit programs, each with its result, in the order in which they are over\n  exec            every block of instructions that is executed\n  exec ADDRESS    the instruction at this address\n  writes ADDRESS  what the processor writes to the byte at this address\n  disk            requests of disks that are done\n  net             packets that come in; ttvm replay --pcap has those that go out as well\n\nADDRESS is a number (0xffffffff81000000), or a name (do_exit, do_exit+0x12) that --symbols FILE knows.\n\nThe first column says how many instructions the guest had executed before: ttvm replay --at goes there. disk and net are in the log; for the others the part between the two points is replayed, and has to be the same run."
)]
pub(in crate::cli) struct Arguments {
    /// The guest
    #[arg(value_parser = guest_name)]
    guest: GuestName,
    /// The recording, or as much of its name as is needed, the newest if none is named; and what of it, see below
    #[arg(required = true, num_args = 1..=3, value_name = "RECORDING|WHAT|ADDRESS")]
    words: Vec<String>,
    /// Begin at this point of the run, such as 123456 (instructions), 12.3s, 'login:' or 40%
    #[arg(long, value_name = "POINT", value_parser = replay::point)]
    from: Option<Point>,
    /// End at this point of the run
    #[arg(long, value_name = "POINT", value_parser = replay::point)]
    to: Option<Point>,
    /// Names of addresses: vmlinux, System.map, or a copy of /proc/kallsyms of the run
    #[arg(long, value_name = "FILE")]
    symbols: Option<PathBuf>,
    /// Print a line of JSON for each
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Print it as another program opens it: Perfetto and Chrome (chrome), or Wireshark and tcpdump (pcap, of net)
    #[arg(long, value_name = "FORMAT", value_enum)]
    format: Option<Format>,
}

/// How it is printed for other programs.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Chrome,
    Pcap,
}

/// What is traced.
enum What {
    Watched(Watch),
    Logged(Logged),
}

pub(in crate::cli) fn run(places: &Places, arguments: &Arguments) -> Result<Exit, Error> {
    let symbols = symbols(arguments.symbols.as_deref())?;
    let (id, what) = arguments.words(&symbols)?;
    let form = arguments.form(&what)?;
    let run = Foreground::new(places, &arguments.guest)?;
    let recording = find(&run, &arguments.guest, id, "trace")?;
    let mut writer = Writer::new(BufWriter::new(io::stdout()), form, symbols, recording.manifest());
    let mut written = Ok(());
    let mut each = |entry: Entry| {
        written = writer.entry(&entry);
        match &written {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    };
    match what {
        What::Logged(logged) => {
            let end = trace::end(&recording)?;
            let during = arguments.during(end, |point| trace::find(&recording, point))?;
            trace::logged(&recording, logged, during, &mut each)?;
        }
        What::Watched(watch) => {
            // A recording that came from another host may be of a guest that has no file here.
            let guest = run.guest_if_any()?;
            let _claim = run.claim()?;
            let environment = run.environment();
            let mut follower = Follower::new(&arguments.guest, false, "Ctrl-C ends it");
            let watcher = Watcher::new(&recording, guest.as_ref(), &environment, &mut follower)?;
            let during = arguments.during(watcher.end(), |point| watcher.find(point))?;
            trace::watched(&watcher, watch, during, &mut each, &mut follower)?;
            follower.end();
        }
    }
    written?;
    writer.end()?;
    Ok(Exit::Done)
}

/// The recording that is asked, if there is a machine of QEMU's to run it.
pub(in crate::cli) fn find(
    run: &Foreground<'_>,
    guest: &GuestName,
    id: Option<&str>,
    command: &str,
) -> Result<Recording, Error> {
    let recording = run.library().find(guest, id)?;
    if !recording.manifest().engine.toolstack.is_emulated() {
        return Err(Error::Usage(format!(
            "{command} is for guests with toolstack = \"qemu\""
        )));
    }
    Ok(recording)
}

/// The names in a file, if one is given.
pub(super) fn symbols(path: Option<&Path>) -> Result<Symbols, Error> {
    let Some(path) = path else {
        return Ok(Symbols::default());
    };
    Symbols::load(path).map_err(|source| {
        let path = path.to_owned();
        SessionError::Symbols { path, source }.into()
    })
}

impl Arguments {
    /// Which recording, and what of it.
    fn words(&self, symbols: &Symbols) -> Result<(Option<&str>, What), Error> {
        let mut words = self.words.iter().map(String::as_str).peekable();
        let is_what = |word: &&str| KINDS.contains(word);
        // A recording is named by the time when it was made.
        let id = words.next_if(|word| !is_what(word));
        let place = |text: &str| -> Result<u64, Error> {
            let place: Place = text.parse().map_err(|error| usage(&error))?;
            Ok(place.address(symbols)?)
        };
        let what = match (words.next(), words.next()) {
            (Some("syscalls"), None) => What::Watched(Watch::Calls),
            (Some("exec"), None) => What::Watched(Watch::Blocks),
            (Some("exec"), Some(text)) => What::Watched(Watch::Instruction(place(text)?)),
            (Some("writes"), Some(text)) => {
                let address = place(text)?;
                What::Watched(Watch::Writes(address..address.saturating_add(1)))
            }
            (Some("writes"), None) => return Err(Error::Usage("writes to which address? `writes ADDRESS`".to_owned())),
            (Some("disk"), None) => What::Logged(Logged::Disk),
            (Some("net"), None) => What::Logged(Logged::Net),
            _ => {
                return Err(Error::Usage(
                    "trace what? One of syscalls, exec, exec ADDRESS, writes ADDRESS, disk, net".to_owned(),
                ));
            }
        };
        match words.next() {
            None => Ok((id, what)),
            Some(word) => Err(Error::Usage(format!("\"{word}\" is one word too many"))),
        }
    }

    fn form(&self, what: &What) -> Result<Form, Error> {
        match (self.format, what) {
            (None, _) if self.json => {
                // Line by line from here on, also where it ends in a failure.
                answers();
                Ok(Form::Json)
            }
            (None, _) => Ok(Form::Text),
            (Some(Format::Chrome), _) => Ok(Form::Chrome),
            (Some(Format::Pcap), What::Logged(Logged::Net)) => Ok(Form::Pcap),
            (Some(Format::Pcap), _) => Err(Error::Usage("--format pcap is for net".to_owned())),
        }
    }

    /// The part of a run of `end` instructions.
    fn during(&self, end: u64, find: impl Fn(&Point) -> Result<u64, SessionError>) -> Result<Range<u64>, Error> {
        let of = |point: &Option<Point>, without: u64| point.as_ref().map_or(Ok(without), &find);
        let during = of(&self.from, 0)?..of(&self.to, end)?;
        match during.is_empty() {
            true => Err(Error::Usage(format!(
                "nothing is between {} and {} instructions: name an earlier point with --from, or a later one with --to",
                during.start, during.end
            ))),
            false => Ok(during),
        }
    }
}

/// What can be traced.
const KINDS: [&str; 5] = ["syscalls", "exec", "writes", "disk", "net"];

pub(super) fn usage(error: &dyn std::error::Error) -> Error {
    Error::Usage(error.to_string())
}
